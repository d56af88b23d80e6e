"""Tumours in healthy slices: where they come from, the composites, and the command as a whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest
from scipy import ndimage

from datasets.brats import make_dummy_data as brats
from datasets.build import build
from experiments.tumour_insertion import blending, compositing, config, donors, inserted, outputs, scores
from experiments.tumour_insertion.compositing import Choice, Insertion, Skipped
from experiments.tumour_insertion.placement import NoRoom
from launch.configs import load_config
from launch.images.find import load_images
from singan.config import parse
from singan.errors import UserError
from singan.model.pyramid import make_pyramid, resize_to
from singan.parallel.cohort import image_mesh
from singan.sampling import masks
from singan.storage.finished_scale import image_padding
from singan.storage.run import load_run
from singan.storage.run_record import claim_workdir
from singan.storage.workdir import Workdir
from singan.training import trainer
from singan.training.observer import Repair
from singan.training.scale_run import TrainingImage
from tests.experiments.tumour_placement_test import ellipse

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (40, 36, 24)
BACKGROUND, OTHER = "BraTS2021_00002", "BraTS2021_00000"


class Quiet(Repair):
    """An observer that says nothing and lets no warning pass."""

    def __init__(self): ...

    def warn(self, text):
        raise AssertionError(text)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Two patients, in slices twice as large as those of the dummy data's own layouts; the background's is smooth."""
    root = tmp_path_factory.mktemp("prepared")
    for seed, (name, labels) in enumerate({OTHER: (1, 2, 4), BACKGROUND: (2,)}.items()):
        arrays = brats.volumes(seed, labels, SHAPE)
        for kind in ("t1", "t1ce", "t2", "flair") if name == BACKGROUND else ():
            arrays[kind] = np.where(arrays[kind] == 0, 0, 500 + arrays[kind] // 10)
        brats.write_patient(root / "in" / name, name, arrays)
    build("brats", root / "in", data_dir=root)
    return root


@pytest.fixture(scope="module")
def workdir(data_dir, tmp_path_factory):
    """A run of two scales on two healthy slices of one patient, barely trained."""
    made = parse(
        {
            "data": {
                "source": "tfds:brats/slices",
                "path": str(data_dir),
                "patients": (BACKGROUND,),
                "has_tumour": "no",
                "channels": ("t1", "t1ce", "flair"),
                "first_slice": 6,
                "last_slice": 7,
            },
            "pyramid": {"min_size": 12, "max_size": 16, "ratio": 0.5},
            "network": {"width": 4, "num_layers": 2},
            "train": {"steps_per_scale": 4, "chunk": 2},
        }
    )
    images, mesh = load_images(made.data), image_mesh(jax.devices()[:1])
    path = Workdir(tmp_path_factory.mktemp("run"))
    claim_workdir(path, made, images, mesh)
    cohort = [TrainingImage(image.id, image.pixels, image_padding(made, image.value_map)) for image in images]
    pyramid = make_pyramid(*images[0].pixels.shape[:2], made.pyramid, str(made.method.resize_border))
    trainer.train(made, cohort, pyramid, path, Quiet(), mesh, "direct")
    return path.path


@pytest.fixture
def run(workdir):
    return load_run(workdir)


@pytest.fixture
def candidates(data_dir):
    return donors.find_candidates([str(data_dir)], ("t1", "t1ce", "flair"), 5)


def save_slice(path, channels=("t1c", "Flair"), **more):
    """A slice of another collection: 48 x 40 in [0, 1] with a tumour of labels 1 and 4."""
    rng = np.random.default_rng(7)
    brain = ellipse((48, 40), (24, 20), (18, 15))
    seg = np.zeros((48, 40), np.uint8)
    seg[16:32, 12:26], seg[22:26, 17:20] = 4, 1
    image = np.where(brain, rng.uniform(0.1, 1, (len(channels or "ab"), 48, 40)), 0).astype(np.float32)
    arrays = {"image": image, "channels": channels and np.array(channels), "seg": seg, **more}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_donors_of_a_prepared_folder_have_the_labels_of_their_files(data_dir, candidates):
    assert {one.patient for one in candidates} == {BACKGROUND, OTHER}
    found = set()
    for one in candidates:
        donor, z = one.read(), int(one.id[-3:])
        folder = data_dir / "in" / donor.patient
        seg = np.asarray(nibabel.load(folder / f"{donor.patient}_seg.nii.gz").dataobj)[..., z]
        flair = np.asarray(nibabel.load(folder / f"{donor.patient}_flair.nii.gz").dataobj)[..., z]
        np.testing.assert_array_equal(donor.labels, seg)
        np.testing.assert_array_equal(donor.image[..., donor.channels.index("flair")], np.clip(flair, 0, None))
        assert donor.channels == ("t1", "t1ce", "flair")
        assert donors.spacing_of(donor.details) == (1.5, 1.25)
        found |= set(np.unique(seg))
    assert found == {0, 1, 2, 4}
    fewer = donors.find_candidates([str(data_dir)], ("t1n",), 100)
    assert {one.id for one in fewer} < {one.id for one in candidates}


def test_donors_of_files(tmp_path):
    save_slice(tmp_path / "p1_z063.npz")
    save_slice(tmp_path / "other.npz", ("T2w", "t1n", "t1gd"), patient=np.array("p9"))
    save_slice(tmp_path / "healthy.npz", seg=np.zeros((48, 40), np.uint8))
    found = donors.find_candidates([str(tmp_path), str(tmp_path / "*_z063.npz")], ("t1", "t1ce", "flair"), 30)
    assert [(one.id, one.patient) for one in found] == [("other", "p9"), ("p1_z063", "p1")]
    assert found[0].read().channels == ("t2", "t1", "t1ce")
    donor = found[1].read()
    assert donor.channels == ("t1ce", "flair")
    assert donor.image.shape == (48, 40, 2)
    assert np.bincount(donor.labels.ravel())[[1, 4]].tolist() == [12, 212]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"channels": None}, "does not name its channels"),
        ({"seg": None}, "is no slice with a tumour"),
        ({"seg": np.zeros((3, 3), np.uint8)}, "is no slice with a tumour"),
        ({"seg": np.full((48, 40), 0.5)}, "labels from 0 to 255 as integers"),
        ({"channels": ("pd", "dwi")}, "holds pd, dwi, the run t1, flair: none in common"),
        ({"seg": np.zeros((48, 40), np.uint8)}, "no slice shows a tumour of at least 50 pixels"),
        ({"image": np.zeros((2, 48, 40), np.uint8), "seg": None}, "is no slice with a tumour"),
    ],
)
def test_files_that_are_no_donors_are_named(tmp_path, arrays, message):
    path = save_slice(tmp_path / "a.npz", **({"channels": ("t1", "flair")} | arrays))
    with pytest.raises(UserError, match=message) as error:
        donors.find_candidates([str(path)], ("t1", "flair"), 50)
    assert "\n" not in str(error.value)


def test_sources_that_are_none(tmp_path):
    for given in (tmp_path / "missing", tmp_path, tmp_path / "*.npz"):
        with pytest.raises(UserError, match=r"neither a DATA_DIR of python -m datasets.build brats, nor npz files"):
            donors.find_candidates([str(given)], ("t1",), 5)


def drawn(run, candidates, **choice):
    choice = {"per_background": 3, "margin": 2.0, **choice}
    return list(compositing.draw(run, run.ids[0], candidates, Choice(**choice)))


def inserted_of(found):
    return [one for one in found if isinstance(one, Insertion)]


def test_composites_hold_the_donor_s_matched_values_and_the_background_s_bits(run, candidates):
    found = inserted_of(drawn(run, candidates))
    assert [one.name for one in found] == [f"{run.ids[0]}_tumour0{number}" for number in range(3)]
    background, record = run.pixels(run.ids[0]), run.record(run.ids[0])
    for one in found:
        assert one.donor.patient == OTHER
        assert one.pasted == (0, 1, 2)
        outside = compositing.outside(record, background)
        assert not outside[one.mask].any()
        naive, soft = one.composite("paste"), one.composite("feather")
        np.testing.assert_array_equal(naive[~one.mask], background[~one.mask])
        expected = record.value_map.apply(one.matching.apply(one.placed.image))[one.placed.mask]
        np.testing.assert_array_equal(naive[one.placed.window][one.placed.mask], expected)
        far = ndimage.distance_transform_edt(~one.mask) > 12
        for method in ("feather", "poisson"):
            np.testing.assert_array_equal(one.composite(method)[far | outside], background[far | outside])
        deep = ndimage.distance_transform_edt(one.mask) > one.feather.width * 3 + 1
        np.testing.assert_allclose(soft[deep], naive[deep], atol=0.01)
        assert not one.labels[~one.mask].any()
        assert set(np.unique(one.labels)) <= {0, 1, 2, 4}
        np.testing.assert_array_equal(one.matching.offset, 0)
    again, other = (inserted_of(drawn(run, candidates, seed=seed)) for seed in (0, 1))

    def same(some):
        return all((a.composite("feather") == b.composite("feather")).all() for a, b in zip(found, some, strict=True))

    assert same(again)
    assert not same(other)


def test_channels_that_a_donor_lacks_keep_the_background(run, tmp_path):
    save_slice(tmp_path / "p1_z063.npz")
    found = donors.find_candidates([str(tmp_path)], run.images[0].channels, 30)
    background = run.pixels(run.ids[0])
    one = inserted_of(drawn(run, found, scales=(0.7, 0.7)))[0]
    assert one.pasted == (1, 2)
    for method in blending.METHODS:
        np.testing.assert_array_equal(one.composite(method)[..., 0], background[..., 0])
    assert (one.composite("paste") != background)[one.mask][:, 1:].mean() > 0.9
    assert outputs.describe(one)["channels_of_background"] == ["t1"]


def test_a_patient_s_own_tumours_are_refused(run, candidates):
    own = [one for one in candidates if one.patient == BACKGROUND]
    (refused,) = drawn(run, own)
    assert refused == Skipped(run.ids[0], "", refused.reason)
    assert "--allow_same_patient" in refused.reason
    assert BACKGROUND in refused.reason
    allowed = drawn(run, own, allow_same_patient=True)
    assert {one.donor.patient for one in allowed} == {BACKGROUND}


def test_tumours_without_room_are_skipped_with_their_reason(run, candidates):
    found = drawn(run, candidates, scales=(9.0, 9.0), margin=12.0)
    assert all(isinstance(one, Skipped) for one in found)
    assert len(found) == 3 * compositing.ATTEMPTS
    (nowhere,) = drawn(run, candidates, margin=20.0)
    assert nowhere == Skipped(run.ids[0], "", "it shows no brain more than 20 pixels from its border: lower --margin")
    assert all("of it are left" in one.reason or "fit nowhere" in one.reason for one in found)


def test_backgrounds_must_be_healthy_scans(run, data_dir):
    record, pixels = run.record(run.ids[0]), run.pixels(run.ids[0])
    ill = type(record)(**{**vars(record), "details": {**record.details, "has_tumour": True}})
    with pytest.raises(NoRoom, match="a tumour of its own"):
        compositing.outside(ill, pixels)
    unknown = type(record.value_map)(**{**vars(record.value_map), "background": (None,) * 3})
    with pytest.raises(NoRoom, match=r"config.data.background=0"):
        compositing.outside(type(record)(**{**vars(record), "value_map": unknown}), pixels)
    masked = type(record)(**{**vars(record), "details": {"masks": {"seg": {}}}})
    with pytest.raises(UserError, match="train on modalities alone"):
        compositing.check_run(type(run)(**{**vars(run), "images": (masked,)}))


# --- scores


def test_the_background_s_own_pixels_have_no_seam_and_no_tumour(run, candidates):
    one = inserted_of(drawn(run, candidates))[0]
    behind, naive = one.background[one.placed.window], one.windows["paste"]
    rows = [scores.score(one, image) for image in (behind, naive, (behind + naive) / 2, one.own)]
    np.testing.assert_allclose([row["seam_removed"] for row in rows[:2]], [1, 0], atol=1e-6)
    assert 0 < rows[2]["seam_removed"] < 1
    assert rows[0]["seam"] == rows[0]["seam_background"] < rows[1]["seam"] == rows[1]["seam_composite"]
    np.testing.assert_allclose([row["contrast_kept"] for row in rows[:3]], [0, 1, 0.5], atol=1e-5)
    assert rows[3]["step_ratio"] == 1
    assert rows[1]["step"] == pytest.approx(rows[1]["step_ratio"] * rows[3]["step"])
    text = scores.table({"own": rows[3:], "paste": rows[1:2]})
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["own", "paste"]
    assert text.splitlines()[2].endswith("1 of 1")


def rows_of(contrast, ratio, texture, count=4):
    rest = {"seam_removed": 0.5, "step": 0.1}
    return [{**rest, "contrast_kept": contrast, "step_ratio": ratio, "texture": texture}] * count


def test_a_start_scale_is_used_only_where_it_beats_the_feather_and_lost_tumours_are_told():
    feather = rows_of(0.92, 1.0, 0.2)
    made = {"own": rows_of(1, 1, 0.1), "paste": rows_of(1, 1, 0.01), "feather": feather}
    assert scores.best({**made, "start_01": rows_of(0.6, 1, 0.1), "start_05": rows_of(0.9, 1.3, 0.1)}, "feather") == (
        "feather"
    )
    better = {**made, "start_05": rows_of(0.9, 1.05, 0.15), "start_07": rows_of(0.9, 1.05, 0.12)}
    assert scores.best(better, "feather") == "start_07"
    (line,) = scores.warnings({**made, "start_01": rows_of(0.6, 1, 0.1)})
    assert line.startswith("start_01 keeps 60% of the tumours' contrast, 4 of 4 less than 80%")
    gone = rows_of(None, None, None)
    assert scores.means(gone)["contrast_kept"] is None
    assert scores.as_sharp(gone) == 0


def test_the_pyramid_changes_a_ring_or_the_whole_and_no_detail_that_it_does_not_know(run, candidates):
    one = inserted_of(drawn(run, candidates))[0]
    composite = one.composite("feather")
    size = run.spec.at(1).size
    rule = masks.MaskRule(within=True)
    for region in inserted.REGIONS:
        how = inserted.Harmonisation((1,), "feather", rule, region)
        same = inserted.on_source_grid(one, resize_to(composite, size), how)
        np.testing.assert_allclose(same, composite, atol=1e-6)
        darker = np.abs(inserted.on_source_grid(one, resize_to(composite, size) - 0.2, how) - composite).max(-1)
        beyond = ~masks.dilate(one.mask, rule.dilation * max(SHAPE[:2]) / masks.REFERENCE_SIZE)
        assert not darker[beyond].any()
        assert darker[one.mask].max() > 0.1
        deep = ndimage.distance_transform_edt(one.mask) > 6.5
        assert region == "whole" or not darker[deep].any()


# --- the command


def command(*given):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    line = [sys.executable, "-m", "experiments.tumour_insertion.insert", *map(str, given)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.processes
@pytest.mark.slow
def test_insert_writes_slices_with_their_segmentation_and_leaves_the_rest_its_bits(data_dir, workdir, tmp_path):
    run = load_run(workdir)
    given = [f"--workdir={workdir}", f"--tumours={data_dir}", f"--out={tmp_path}", "--format=nifti", "--margin=2"]
    rule = masks.MaskRule(within=True)
    result = command(*given, "--per_background=2")
    assert result.returncode == 0, result.stderr
    assert "scales [2, 3, 5, 7, 9] are left out" in result.stderr
    assert "4 tumours in 2 background(s)" in result.stdout
    index = json.loads((tmp_path / "insertions.json").read_text())
    assert len(index["insertions"]) == 4
    assert index["use"] in ("feather", "start_01")
    assert f"train on {index['use']}/" in result.stdout
    for row in index["insertions"]:
        name, background = row["name"], row["background"]["id"]
        assert (row["background"]["patient"], row["donor"]["patient"]) == (BACKGROUND, OTHER)
        for letter in "ab":
            assert (tmp_path / "figures" / f"{name}_2{letter}.png").is_file()
        methods = [result["method"] for result in row["results"]]
        assert methods == ["paste", "feather", "poisson", "start_01"]
        assert row["results"][-1]["start_scale"] == 1
        assert row["own"]["step_ratio"] == 1
        assert row["over_fluid"] <= 0.03 + 0.5 / row["pixels"]
        folder = tmp_path / "start_01" / name
        seg = nibabel.load(folder / f"{name}_seg.nii.gz")
        labels = np.asarray(seg.dataobj)[..., 0]
        values, counts = np.unique(labels[labels > 0], return_counts=True)
        assert row["label_pixels"] == dict(zip(map(str, values), counts, strict=True))
        np.testing.assert_array_equal(seg.affine, run.record(background).details["affine"])
        mask = np.asarray(ndimage.binary_fill_holes(labels > 0))
        reach = row["feather"]["edge"] + 3.1 * row["feather"]["width"] + 0.5  # the contour runs between pixels
        far = ~masks.dilate(mask, max(reach, rule.dilation * max(SHAPE) / masks.REFERENCE_SIZE))
        assert far.any()
        for channel in ("t1", "t1ce", "flair"):
            source = nibabel.load(data_dir / "in" / BACKGROUND / f"{BACKGROUND}_{channel}.nii.gz")
            plane = np.clip(np.asarray(source.dataobj)[..., int(background[-3:])], 0, None)
            image = nibabel.load(folder / f"{name}_{channel}.nii.gz")
            assert image.get_data_dtype() == source.get_data_dtype()
            written = np.asarray(image.dataobj)[..., 0]
            np.testing.assert_array_equal(written[far], plane[far])
            assert (written != plane)[mask].mean() > 0.5
            naive = np.asarray(nibabel.load(tmp_path / "paste" / name / f"{name}_{channel}.nii.gz").dataobj)
            np.testing.assert_array_equal(naive[..., 0][~mask], plane[~mask])
    # Ready to train on: the results are read back as patients of their own.
    folder, _ = build("brats", tmp_path / "start_01", data_dir=tmp_path / "again")
    assert folder.is_dir()
    (image, *_) = load_images(
        parse({"data": {"source": "tfds:brats/slices", "path": str(tmp_path / "again"), "channels": ("flair", "seg"),
                        "has_tumour": "yes"}}).data
    )  # fmt: skip
    assert image.details["tumour_voxels"] == index["insertions"][0]["pixels"]


@pytest.mark.processes
def test_one_line_says_what_to_do(data_dir, workdir, tmp_path):
    result = command(f"--workdir={workdir}", f"--out={tmp_path / 'out'}", f"--tumours={data_dir}", "--margin=20")
    assert result.returncode == 2
    expected = "error: no tumour could be put into any background; no tumour is put into BraTS2021_00002_z006: it shows"
    assert result.stderr.splitlines()[-1].startswith(expected)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [["2", "1"], ["1"], ["0", "1"], ["a", "b"], ["1", "inf"], ["nan", "1"]])
def test_sizes_are_two_numbers(given):
    with pytest.raises(UserError, match=f"--scale={','.join(given)} must be two sizes"):
        compositing.sizes(given)
    assert compositing.sizes(["0.5", "2"]) == (0.5, 2.0)


def test_the_configs_are_valid():
    sizes = {}
    for variant in ("", "small"):
        made = load_config(config.get_config(variant))
        assert (made.data.has_tumour, made.data.source) == ("no", "tfds:brats/slices")
        sizes[variant] = len(make_pyramid(240, 240, made.pyramid, str(made.method.resize_border)))
    assert sizes == {"": 10, "small": 6}
    with pytest.raises(ValueError, match=r"config\.py:small"):
        config.get_config("smal")
