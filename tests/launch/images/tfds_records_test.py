import itertools
import json
import shutil
import sys
from typing import Any

import nibabel
import numpy as np
import pytest
import tensorflow_datasets as tfds

from datasets.brats import make_dummy_data as brats
from datasets.build import build
from datasets.pannuke import make_dummy_data as pannuke
from launch.images import mask_channels, tfds_records
from launch.images.find import load_images
from launch.images.record_images import _volume_map
from singan.config import DataConfig, parse
from singan.errors import UserError
from singan.storage import workdir as records
from singan.storage.run_record import record_of
from singan.storage.workdir import Workdir

BRATS, PANNUKE = "tfds:brats/slices", "tfds:pannuke"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Two patients of BraTS with 10 slices each, and three small folds of PanNuke, prepared."""
    root = tmp_path_factory.mktemp("prepared")
    brats.write_layout(root / "in" / "brats", "2021")
    pannuke.write_folds(root / "in" / "pannuke", count=4, size=48)
    build("brats", root / "in" / "brats", data_dir=root)
    build("pannuke", root / "in" / "pannuke", data_dir=root)
    return root


@pytest.fixture
def load(data_dir):
    return lambda source=BRATS, **data: load_images(DataConfig(source=source, path=str(data_dir), **data))


@pytest.fixture
def chosen(data_dir):
    """Returns the ids that keys choose, without reading a record."""

    def choose(source=BRATS, **keys: Any):
        data = DataConfig(source=source, path=str(data_dir), **keys)
        return [record.id for record in tfds_records.choose(tfds_records.open_prepared(data), data)]

    return choose


@pytest.fixture
def refusal(data_dir):
    def refuse(source=BRATS, path=data_dir, **data: Any):
        with pytest.raises(UserError) as error:
            load_images(DataConfig(source=source, path=str(path), **data))
        assert "\n" not in str(error.value)
        return str(error.value)

    return refuse


def stored(data_dir, name, split):
    folder = next((data_dir / name).glob("1.*"))
    source = tfds.builder_from_directory(folder).as_data_source(split)
    return {example["id"].decode(): example for example in source}


# --- which records


def test_all_records_sorted_by_id_are_the_default(chosen):
    ids = [f"BraTS2021_0000{patient}_z{z:03d}" for patient in (0, 2) for z in range(1, 11)]
    assert chosen() == ids
    assert chosen("tfds:brats") == ids
    assert chosen(PANNUKE) == [f"fold{fold}_0000{patch}" for fold in (1, 2, 3) for patch in range(4)]


def test_selection_of_slices(chosen):
    assert chosen(patients=("BraTS2021_00002",), first_slice=4, last_slice=5) == [
        "BraTS2021_00002_z004",
        "BraTS2021_00002_z005",
    ]
    tumour, none = chosen(has_tumour="yes"), chosen(has_tumour="no")
    assert tumour
    assert none
    assert sorted(tumour + none) == chosen()
    assert chosen(ids=("BraTS2021_00000_z003",)) == ["BraTS2021_00000_z003"]
    assert 0 < len(chosen(min_brain=0.4)) < 20
    assert chosen(split="train") == chosen()


def test_selection_of_patches(chosen):
    assert chosen(PANNUKE, split="fold2") == [f"fold2_0000{patch}" for patch in range(4)]
    assert chosen(PANNUKE, split="fold3+fold1") == chosen(PANNUKE, split="fold1 + fold3")
    assert chosen(PANNUKE, tissues=("Colon",)) == ["fold1_00001", "fold2_00001", "fold3_00001"]
    assert [image_id for image_id in chosen(PANNUKE) if image_id.endswith("3")] == [
        image_id for image_id in chosen(PANNUKE) if image_id not in chosen(PANNUKE, min_nuclei=1)
    ]


def test_every_kth_then_the_first_or_drawn_ones(chosen):
    everything = chosen()
    assert chosen(every=3) == everything[::3]
    assert chosen(every=3, max_images=2) == everything[:4:3]
    drawn = [chosen(max_images=5, shuffle_seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] == sorted(drawn[0])
    assert len(set(drawn[0])) == 5
    assert drawn[0] != drawn[2]
    assert chosen(shuffle_seed=3) == everything


def test_only_the_chosen_records_are_read(data_dir, monkeypatch):
    data = DataConfig(source=BRATS, path=str(data_dir), every=5)
    prepared = tfds_records.open_prepared(data)
    read = []
    as_data_source = prepared.builder.as_data_source

    class Spy:
        def __init__(self, split):
            self._source = as_data_source(split)

        def __getitem__(self, position):
            read.append(position)
            return self._source[position]

    monkeypatch.setattr(prepared.builder, "as_data_source", Spy)
    wanted = tfds_records.choose(prepared, data)
    assert not read
    images = tfds_records.read(prepared, wanted[1:3], data)
    assert [image.id for image in images] == [record.id for record in wanted[1:3]]
    assert read == [5, 10]


# --- what becomes of a record


def test_modalities_keep_every_value_from_zero_on(data_dir, load):
    images = load(channels=("flair", "t1", "t2"))
    examples = stored(data_dir, "brats/slices", "train")
    assert len(images) == len(examples)
    for image in images:
        slices = examples[image.id]["image"][..., [3, 0, 2]]
        assert image.channels == ("flair", "t1", "t2")
        assert image.pixels.dtype == np.float32
        np.testing.assert_array_equal(image.value_map.invert(image.pixels, as_stored=True), np.clip(slices, 0, None))
        assert (image.pixels[slices == 0] == -1).all()
        np.testing.assert_array_equal(image.value_map.padding, [-1, -1, -1])
        assert image.value_map.rules == ("volume",) * 3
        assert image.details["clipped_pixels"]["t1"] == {"below": int((slices[..., 1] < 0).sum()), "above": 0}


def test_the_slices_of_a_patient_share_one_map(load):
    maps = {image.id[:15]: set() for image in load()}
    for image in load():
        maps[image.id[:15]].add(image.value_map)
    assert [len(found) for found in maps.values()] == [1, 1]


def test_percentile_and_fixed_ranges_clip_and_say_so(data_dir, load):
    example = stored(data_dir, "brats/slices", "train")["BraTS2021_00000_z005"]
    (image,) = load(ids=("BraTS2021_00000_z005",), channels=("t1",), value_range="percentile")
    high = float(example["percentile_99_5"][0])
    assert image.value_map.low == (0,)
    assert image.value_map.high == (high,)
    assert image.details["clipped_pixels"]["t1"]["above"] == (example["image"][..., 0] > high).sum() > 0
    (image,) = load(ids=("BraTS2021_00000_z005",), channels=("t1", "seg"), value_range=(100.0, 400.0))
    assert image.value_map.low == (100, 0, 0, 0)
    assert image.value_map.high == (400, 1, 1, 1)
    assert image.value_map.rules == ("fixed", "mask", "mask", "mask")


def test_a_background_of_one_s_own(load):
    (image,) = load(ids=("BraTS2021_00000_z005",), channels=("t1", "t2"), background="none")
    np.testing.assert_array_equal(image.value_map.padding, [0, 0])
    (image,) = load(ids=("BraTS2021_00000_z005",), channels=("t1", "t2"), background=(0.0, 50.0))
    assert image.value_map.background == (0, 50)


def test_labels_become_one_hot_channels_and_come_back(data_dir, load):
    examples = stored(data_dir, "brats/slices", "train")
    for image in load(channels=("t1", "seg"), has_tumour="yes"):
        assert image.channels == ("t1", "seg_1", "seg_2", "seg_3")
        seg = image.details["masks"]["seg"]
        assert (seg["channels"], seg["stored_values"]) == ([1, 2, 3], [0, 1, 2, 4])
        labels = mask_channels.decode_one_hot(image.pixels[..., seg["channels"]])
        np.testing.assert_array_equal(labels, examples[image.id]["seg"])


def test_a_slice_says_where_it_was(data_dir, load):
    example = stored(data_dir, "brats/slices", "train")["BraTS2021_00002_z004"]
    (image,) = load(ids=("BraTS2021_00002_z004",))
    assert image.channels == ("t1", "t1ce", "t2", "flair")
    assert image.source == "tfds:brats/slices/1.0.0/train/BraTS2021_00002_z004"
    details = image.details
    np.testing.assert_array_equal(details["affine"], example["affine"])
    assert (details["patient"], details["slice_index"], details["orientation"]) == ("BraTS2021_00002", 4, "LPS")
    assert details["spacing"] == [1.5, 1.25, 2]
    assert details["upright"] == {"transpose": True, "flip": [False, False]}


def test_patches_and_their_masks_are_kept_to_the_bit(data_dir, load):
    examples = stored(data_dir, "pannuke", "fold2")
    for image in load(PANNUKE, channels=("rgb", "binary", "class", "instance"), split="fold2"):
        example = examples[image.id]
        assert image.channels[:4] == ("red", "green", "blue", "binary")
        assert image.channels[4:] == (*(f"class_{name.decode()}" for name in example["class_names"]), "instance")
        back = image.value_map.invert(image.pixels, as_stored=True)
        np.testing.assert_array_equal(back[..., :3], example["image"])
        np.testing.assert_array_equal(image.value_map.apply(back), image.pixels)
        nuclei, classes = mask_channels.decode_nuclei(image.pixels, image.details["masks"])
        np.testing.assert_array_equal(nuclei > 0, example["instance_map"] > 0)
        np.testing.assert_array_equal(np.bincount(classes, minlength=6)[1:], example["class_counts"])
        assert image.details["tissue"] == example["tissue"].decode()
        np.testing.assert_array_equal(image.value_map.padding[3:], -np.ones(7))


def test_what_is_kept_survives_images_json(load, tmp_path):
    kept = [record_of(image) for image in itertools.chain(load(channels=("t1", "seg")), load(PANNUKE))]
    records.write_images(Workdir(tmp_path), kept)
    assert records.read_images(Workdir(tmp_path)) == kept
    assert "rules" in json.loads((tmp_path / "images.json").read_text())["images"][0]["value_map"]


def test_standardised_volumes_keep_what_is_below_zero(tmp_path):
    arrays = brats.volumes(0, None)
    for name in arrays:
        values = arrays[name].astype(np.float32)
        arrays[name] = np.where(values == 0, 0, (values - 740) / 400).astype(np.float32)
    brats.write_patient(tmp_path / "in" / "BraTS2021_00000", "BraTS2021_00000", arrays)
    build("brats", tmp_path / "in", data_dir=tmp_path)
    for image in load_images(DataConfig(source=BRATS, path=str(tmp_path), channels=("t1",))):
        z = int(image.id[-3:])
        assert image.value_map.low[0] < -1
        np.testing.assert_allclose(image.value_map.invert(image.pixels)[..., 0], arrays["t1"][:, :, z], atol=1e-6)
        np.testing.assert_allclose(image.value_map.apply(np.zeros(1)), image.value_map.padding)


@pytest.mark.parametrize("value_range", ["auto", "percentile"])
def test_a_background_far_below_the_brain_comes_back_as_it_was(tmp_path, value_range):
    arrays = brats.volumes(0, None)
    for name in arrays:
        arrays[name] = np.where(arrays[name] == 0, -2, 0.25 + np.abs(arrays[name]) / 2000).astype(np.float32)
    brats.write_patient(tmp_path / "in" / "BraTS2021_00000", "BraTS2021_00000", arrays)
    build("brats", tmp_path / "in", data_dir=tmp_path)
    data = DataConfig(source=BRATS, path=str(tmp_path), channels=("t1",), value_range=value_range)
    for image in load_images(data):
        outside = arrays["t1"][:, :, int(image.id[-3:])] == -2
        np.testing.assert_array_equal(image.pixels[outside], -1)
        np.testing.assert_array_equal(image.value_map.invert(image.pixels)[outside], -2)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (1, 1)])
def test_what_a_header_says_of_its_place_is_kept_with_the_slice(tmp_path, codes):
    for kind, file in brats.write_patient(tmp_path / "in", "BraTS2021_00000", brats.volumes(0, None)).items():
        image = nibabel.Nifti1Image(brats.volumes(0, None)[kind], brats.AFFINE)
        image.set_qform(brats.AFFINE, codes[0])
        image.set_sform(brats.AFFINE, codes[1])
        nibabel.save(image, file)
    build("brats", tmp_path / "in", data_dir=tmp_path)
    details = load_images(DataConfig(source=BRATS, path=str(tmp_path)))[0].details
    told = {form: code for form, code in zip(("qform", "sform"), codes, strict=True) if code}
    assert {form: found["code"] for form, found in details["forms"].items()} == told
    for found in details["forms"].values():
        np.testing.assert_array_equal(found["affine"], details["affine"])


@pytest.mark.parametrize("value_range", ["auto", "percentile"])
@pytest.mark.parametrize("outside", ["standardised", -1.0, 24.0])
def test_the_background_is_what_the_border_holds(tmp_path, outside, value_range):
    arrays = brats.volumes(0, None)
    for name in arrays:
        values = arrays[name].astype(np.float32)
        if outside == "standardised":
            arrays[name] = (values - values.mean()) / values.std()
        elif outside == -1:
            arrays[name] = 2 * values / values.max() - 1
        else:
            arrays[name] = values + 24
    brats.write_patient(tmp_path / "in" / "BraTS2021_00000", "BraTS2021_00000", arrays)
    build("brats", tmp_path / "in", data_dir=tmp_path)
    config = DataConfig(BRATS, str(tmp_path), channels=("t1",), value_range=value_range, first_slice=4, last_slice=6)
    for image in load_images(config):
        assert image.value_map.background[0] != 0
        assert image.value_map.padding == image.pixels[0, 0]
        assert image.value_map.padding != 0


def test_a_standardised_slice_whose_surroundings_nobody_knows_is_refused():
    pixels = np.random.default_rng(0).normal(0, 1, (9, 9, 4)).astype(np.float32)
    example = {"image": pixels, "background": np.zeros(4, np.float32)}
    for key, value in {"intensity_min": -3, "percentile_0_5": -2, "percentile_99_5": 2, "intensity_max": 3}.items():
        example[key] = np.full(4, value, np.float32)
    with pytest.raises(
        UserError, match=r"^t1ce holds values below 0, and no one value at its border: say what surround"
    ):
        _volume_map(example, 1, DataConfig())
    assert _volume_map(example, 1, DataConfig(background=-3.0)).low == (-3,)
    pixels[:2] = 0  # outside of a brain that was standardised by itself
    assert _volume_map(example, 1, DataConfig()).background == (0,)


def test_records_without_a_wanted_channel_are_left_out_with_a_note(tmp_path, capsys):
    brats.write_layout(tmp_path / "in", "2020")
    build("brats", tmp_path / "in", data_dir=tmp_path)
    path = {"source": BRATS, "path": str(tmp_path)}
    assert len(load_images(DataConfig(**path))) == 30
    assert len(load_images(DataConfig(**path, channels=("t1", "seg")))) == 20
    assert "note: 10 of 30 chosen records lack one of t1, seg and are left out" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"none of the 10 records .* or none has the channels t1, seg"):
        load_images(DataConfig(**path, channels=("t1", "seg"), split="validation"))


# --- bad input


def test_a_data_set_that_is_not_there(refusal, tmp_path):
    text = refusal(path=tmp_path)
    assert f"no prepared data set in {tmp_path}/brats/slices/VERSION (there is none): build it with" in text
    assert f"python -m datasets.build brats --manual_dir=DOWNLOAD --data_dir={tmp_path}" in text
    assert "(it holds 1.0.0)" in refusal("tfds:pannuke:2.0.0")
    assert "did you mean 'tfds:pannuke'?" in refusal("tfds:panuke")
    assert "is not one of tfds:brats/slices, tfds:pannuke" in refusal("tfds:brats/volumes")


def test_of_several_versions_the_newest_is_read(data_dir, tmp_path):
    for version in ("1.0.0", "1.2.0", "1.10.0"):
        shutil.copytree(data_dir / "pannuke" / "1.0.0", tmp_path / "pannuke" / version)
    folder = lambda source: tfds_records.open_prepared(DataConfig(source=source, path=str(tmp_path))).folder  # noqa: E731
    assert folder(PANNUKE).name == "1.10.0"
    assert folder("tfds:pannuke:1.2.0").name == "1.2.0"


def test_the_default_place_is_that_of_tfds(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert len(load_images(DataConfig(source=PANNUKE, max_images=2))) == 2


@pytest.mark.parametrize(
    ("source", "keys", "message"),
    [
        (BRATS, {"patients": ("BraTS2021_00003",)}, "'BraTS2021_00003' is not in brats/slices/1.0.0 (did you mean"),
        (BRATS, {"ids": ("x",)}, "config.data.ids: 'x' is not in"),
        (BRATS, {"split": "trian"}, "'trian' is not a split of brats/slices/1.0.0 (did you mean 'train'?)"),
        (BRATS, {"tissues": ("Colon",)}, "config.data.tissues does not apply to brats, only to pannuke"),
        (PANNUKE, {"first_slice": 3}, "config.data.first_slice does not apply to pannuke, only to brats"),
        (PANNUKE, {"tissues": ("colon",)}, "did you mean 'Colon'?"),
        (BRATS, {"channels": ("t1c",)}, "brats has t1, t1ce, t2, flair, seg, not 't1c'"),
        (PANNUKE, {"channels": ("rgb", "mask")}, "pannuke has rgb, instance, class, binary, not 'mask'"),
        (PANNUKE, {"channels": ("rgb", "rgb")}, "must be different names"),
        (
            BRATS,
            {"first_slice": 11},
            "none of the 20 records of brats/slices/1.0.0 is wanted (config.data.first_slice=11)",
        ),
        (BRATS, {"value_range": (5.0, 1.0)}, "BraTS2021_00000_z001: config.data.value_range=(5.0, 1.0) must be"),
        (PANNUKE, {"value_range": "volume"}, "is known of prepared volumes only"),
        (
            PANNUKE,
            {"channels": ("binary",), "ids": ("fold1_00003",)},
            "fold1_00003: holds the same value at every pixel",
        ),
    ],
)
def test_keys_that_name_what_is_not_there(refusal, source, keys, message):
    assert message in refusal(source, **keys)


def test_a_damaged_data_set_is_named(data_dir, refusal, tmp_path):
    shutil.copytree(data_dir / "pannuke", tmp_path / "pannuke")
    folder = tmp_path / "pannuke" / "1.0.0"
    (records_file,) = folder.glob("*fold1*")
    content = np.frombuffer(records_file.read_bytes(), np.uint8)
    records_file.write_bytes((content ^ (np.arange(len(content)) % 97 == 50)).tobytes())  # a bit here and there
    text = refusal(PANNUKE, path=tmp_path, split="fold1")
    assert "of pannuke/1.0.0 cannot be read" in text
    assert "--overwrite" in text
    (folder / "metadata.json").write_text("{}")
    assert "was not written whole by this repository's builder (KeyError" in refusal(PANNUKE, path=tmp_path)


def test_the_command_line_s_types_are_checked():
    for keys in ({"every": 0}, {"first_slice": -1}, {"last_slice": -2}, {"min_brain": 1.5}, {"has_tumour": "maybe"}):
        (key,) = keys
        with pytest.raises(UserError, match=f"config.data.{key}"):
            parse({"data": keys})


def test_no_tensorflow(load):
    load(max_images=1)
    assert "tensorflow" not in sys.modules
