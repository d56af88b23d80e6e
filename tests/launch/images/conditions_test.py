"""What a conditional run is given of an image: from label maps beside the images, and from prepared data sets."""

import numpy as np
import pytest
from PIL import Image

from datasets.brats import make_dummy_data as brats
from datasets.build import build
from datasets.pannuke import make_dummy_data as pannuke
from launch.images.conditions import brain_region
from launch.images.find import load_images
from singan.config import DataConfig
from singan.errors import UserError
from singan.model.encodings import encode
from singan.source_image import SourceImage
from singan.storage.run_record import record_of
from singan.value_map import ValueMap


@pytest.fixture
def folders(tmp_path):
    """Two pictures and their instance maps of 16 bits, of two nuclei each."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        ids = np.zeros((24, 20), np.uint16)
        ids[2:8, 3:9], ids[12:20, 8:15] = 300, 7
        Image.fromarray(rng.integers(0, 255, (24, 20, 3)).astype(np.uint8)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(ids).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def data(folders, **keys):
    given = {"condition": ("binary", "boundary"), "masks": str(folders / "masks"), **keys}
    return DataConfig(source="", path=str(folders / "images"), **given)


def test_label_maps_become_given_channels_behind_the_colours(folders):
    first, _ = load_images(data(folders))
    assert first.layout is not None
    assert first.channels == ("red", "green", "blue", "binary", "boundary")
    record = record_of(first)
    assert (record.generated, record.given, record.condition_classes) == (3, 2, 1)
    assert sorted(first.layout.class_of_each()) == [7, 300]  # ids stay as they are
    np.testing.assert_allclose(
        first.pixels[..., 3:], encode(first.layout, ("binary", "boundary"), 1) / 127.5 - 1, atol=1e-6
    )
    values = first.value_map.invert(first.pixels, as_stored=True)
    np.testing.assert_array_equal(values[..., 3], first.layout.objects > 0)
    assert record.details["masks"]["binary"]["channels"] == [3]


def test_classes_need_names_and_come_as_a_second_channel(folders):
    with pytest.raises(UserError, match=r"name them, one a line, in .*classes.txt"):
        load_images(data(folders, condition=("class",)))
    (folders / "masks" / "classes.txt").write_text("round\nlong\n")
    for name in ("a", "b"):
        path = folders / "masks" / f"{name}.png"
        ids = np.asarray(Image.open(path))
        path.unlink()
        np.save(folders / "masks" / f"{name}.npy", np.stack([ids, np.where(ids == 7, 2, ids > 0)], axis=-1))
    first, _ = load_images(data(folders, condition=("instance", "class")))
    assert first.layout is not None
    assert first.channels[3:] == ("instance", "class_round", "class_long")
    assert first.layout.class_of_each() == {7: 2, 300: 1}


@pytest.mark.parametrize(
    ("change", "words"),
    {
        "masks": (lambda folders: data(folders, masks=""), "--config.data.masks=FOLDER"),
        "missing": (lambda folders: (folders / "masks/b.png").unlink() or data(folders), "b.png: .* no label map"),
        "size": (
            lambda folders: Image.fromarray(np.ones((9, 9), np.uint8)).save(folders / "masks/b.png") or data(folders),
            "9x9 pixels",
        ),
        "colour": (
            lambda folders: (
                Image.fromarray(np.ones((24, 20, 3), np.uint8)).save(folders / "masks/b.png") or data(folders)
            ),
            "no label map: give one channel",
        ),
        "empty": (
            lambda folders: (
                Image.fromarray(np.zeros((24, 20), np.uint8)).save(folders / "masks/b.png") or data(folders)
            ),
            "holds no object",
        ),
        "example": (lambda folders: DataConfig(condition=("binary",)), "needs annotated images"),
    }.values(),
)
def test_what_cannot_be_given_is_told(folders, change, words):
    with pytest.raises(UserError, match=words):
        load_images(change(folders))


def test_pannuke_gives_its_own_masks(tmp_path):
    pannuke.write_fold(tmp_path / "in", 1, *pannuke.patches(0, 2, 64))
    build("pannuke", tmp_path / "in", data_dir=tmp_path)
    asked = DataConfig("tfds:pannuke", str(tmp_path), condition=("instance", "class"), min_nuclei=1)
    first = load_images(asked)[0]
    assert first.layout is not None
    assert first.channels[:4] == ("red", "green", "blue", "instance")
    assert record_of(first).given == 6
    assert first.layout.count == first.details["num_nuclei"]
    with pytest.raises(UserError, match="both generated and given"):
        load_images(DataConfig("tfds:pannuke", str(tmp_path), channels=("rgb", "instance"), condition=("instance",)))
    with pytest.raises(UserError, match="not seg"):
        load_images(DataConfig("tfds:pannuke", str(tmp_path), condition=("seg",)))


def test_brats_gives_its_labels_inside_the_brain(tmp_path):
    brats.write_layout(tmp_path / "in", "2021")
    build("brats", tmp_path / "in", data_dir=tmp_path)
    asked = DataConfig(
        "tfds:brats/slices", str(tmp_path), channels=("t1", "flair"), condition=("seg", "region"), has_tumour="yes"
    )
    image = load_images(asked)[0]
    assert image.layout is not None
    assert image.channels[:2] == ("t1", "flair")
    assert image.channels[-1] == "region"
    assert image.layout.objects.any()
    assert image.layout.region is not None
    assert image.layout.region[image.layout.objects > 0].all()


def test_a_tumour_keeps_off_the_rim_and_off_fluid():
    rows, columns = np.mgrid[:60, :60]
    brain = (rows - 30) ** 2 + (columns - 30) ** 2 < 25**2
    fluid = (rows - 30) ** 2 + (columns - 20) ** 2 < 5**2
    flair = np.where(brain, np.where(fluid, 20.0, 100.0), 0.0)[..., None]
    value_map = ValueMap((0.0,), (200.0,), (0.0,), "float32", ("image",))
    image = SourceImage("a", value_map.apply(flair), ("flair",), value_map, "a")
    tumour = (rows - 30) ** 2 + (columns - 42) ** 2 < 4**2
    region = brain_region(image, tumour)
    assert region is not None
    assert not region[fluid & ((rows - 30) ** 2 + (columns - 20) ** 2 < 4**2)].any()
    assert not region[(rows - 30) ** 2 + (columns - 30) ** 2 > 24**2].any()
    assert region.mean() > 0.6 * brain.mean()
    plain = SourceImage("a", image.pixels, ("flair",), ValueMap((0.0,), (200.0,), (None,), "float32"), "a")
    assert brain_region(plain, tumour) is None
