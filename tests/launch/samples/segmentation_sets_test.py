"""Pairs as COCO, as nnU-Net's raw data, as a fold of PanNuke, as png and npy: masks are exact, whatever the format."""

import json

import numpy as np
import pytest
from PIL import Image

from launch.images.conditions import conditioned
from launch.samples import writers
from singan.config import DataConfig
from singan.errors import UserError
from singan.model.layouts import layout_of, permute
from singan.source_image import SourceImage
from singan.storage.run_record import record_of
from singan.value_map import ValueMap, fit

NAMES = ["round", "long"]


@pytest.fixture(scope="module")
def pair():
    """A record of 32 pixels with two classes, three samples of 16 pixels, and their layouts on the source's grid."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
    value_map = fit(pixels)
    ids = np.zeros((32, 32), np.int32)
    ids[3:9, 3:9], ids[20:24, 8:22] = 5, 9
    layout = layout_of(ids, np.where(ids == 9, 2, 1))
    image = SourceImage("a", value_map.apply(pixels), ("red", "green", "blue"), value_map, "a.png")
    record = record_of(conditioned(image, layout, DataConfig(condition=("binary", "class")), NAMES))
    layouts = ((*(permute([layout], np.random.default_rng(n)) for n in range(2)), layout),)
    return record, rng.uniform(-1, 1, (1, 3, 16, 16, 6)).astype(np.float32), layouts


def written(form, folder, pair):
    record, samples, layouts = pair
    writers.check_format(form, [record])
    with writers.open_writer(form, folder, [record], 3, 0) as writer:
        writer.add(["a"], 0, samples[:, :2], tuple(some[:2] for some in layouts))
        writer.add(["a"], 2, samples[:, 2:], tuple(some[2:] for some in layouts))
    return folder


def decoded(segmentation):
    """A mask from COCO's uncompressed runs."""
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool)
    return flat.reshape(width, height).T


def test_coco_holds_every_object(tmp_path, pair):
    content = json.loads((written("coco", tmp_path, pair) / "annotations.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "round"}, {"id": 2, "name": "long"}]
    assert [row["file_name"] for row in content["images"]] == [f"images/a_000{n}.png" for n in range(3)]
    assert len({row["id"] for row in content["annotations"]}) == len(content["annotations"])
    for image, layout in zip(content["images"], pair[2][0], strict=True):
        with Image.open(tmp_path / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == (32, 32)
        rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
        assert {row["object"]: row["category_id"] for row in rows} == layout.class_of_each()
        for row in rows:
            mask = layout.objects == row["object"]
            np.testing.assert_array_equal(decoded(row["segmentation"]), mask)
            left, top, width, height = row["bbox"]
            assert mask[top : top + height, left : left + width].sum() == mask.sum() == row["area"]


def test_nnunet_holds_labels_of_classes(tmp_path, pair):
    written("nnunet", tmp_path, pair)
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "round": 1, "long": 2}
    assert (content["numTraining"], content["file_ending"]) == (3, ".png")
    assert list(content["channel_names"].values()) == ["red", "green", "blue"]
    for number, layout in enumerate(pair[2][0]):
        with Image.open(tmp_path / f"labelsTr/a_000{number}.png") as labels:
            np.testing.assert_array_equal(np.asarray(labels), layout.classes)
        with Image.open(tmp_path / f"imagesTr/a_000{number}_0000.png") as picture:
            assert (picture.mode, picture.size) == ("RGB", (32, 32))


def test_nnunet_slices_with_an_affine_are_nifti(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    value_map = ValueMap((0.0,), (100.0,), (None,), "int16", ("image",))
    pixels = value_map.apply(np.random.default_rng(0).integers(0, 100, (20, 18, 1)))
    details = {"affine": np.diag([1.0, 2.0, 3.0, 1.0]).tolist()}
    image = SourceImage("a", pixels, ("flair",), value_map, "a", details)
    labels = np.zeros((20, 18), np.uint8)
    labels[5:9, 5:9] = 1
    layout = layout_of(labels)
    record = record_of(conditioned(image, layout, DataConfig(condition=("binary",)), ["tumour"]))
    with writers.open_writer("nnunet", tmp_path, [record], 1, 0) as writer:
        writer.add(["a"], 0, np.concatenate([pixels, pixels], -1)[None, None], ((layout,),))
    assert json.loads((tmp_path / "dataset.json").read_text())["file_ending"] == ".nii.gz"
    read = nibabel.load(tmp_path / "labelsTr/a_0000.nii.gz")
    np.testing.assert_array_equal(np.asarray(read.dataobj)[..., 0], labels)
    np.testing.assert_array_equal(read.affine, details["affine"])
    assert (tmp_path / "imagesTr/a_0000_0000.nii.gz").is_file()


def test_pannuke_holds_ids_in_their_class(tmp_path, pair):
    written("pannuke", tmp_path, pair)
    masks = np.load(tmp_path / "Fold 1/masks/fold1/masks.npy")
    for mask, layout in zip(masks, pair[2][0], strict=True):
        for kind in (1, 2):
            np.testing.assert_array_equal(mask[..., kind - 1], np.where(layout.classes == kind, layout.objects, 0))
        np.testing.assert_array_equal(mask[..., 5], layout.objects == 0)


def test_png_and_npy_hold_ids_and_classes_at_the_size_of_the_samples(tmp_path, pair):
    for form in ("png", "npy"):
        (tmp_path / form).mkdir()
        written(form, tmp_path / form, pair)
    objects, classes = np.load(tmp_path / "npy/a_objects.npy"), np.load(tmp_path / "npy/a_classes.npy")
    assert np.load(tmp_path / "npy/a.npy").shape == (3, 16, 16, 3)
    for number, layout in enumerate(pair[2][0]):
        small = layout.resized((16, 16))
        np.testing.assert_array_equal(objects[number], small.objects)
        np.testing.assert_array_equal(classes[number], small.classes)
        with Image.open(tmp_path / f"png/a_000{number}_objects.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), small.objects)


def test_images_without_masks_are_refused(pair):
    value_map = fit(np.zeros((8, 8, 3), np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None])
    plain = record_of(SourceImage("a", np.zeros((8, 8, 3), np.float32), ("red", "green", "blue"), value_map, "a"))
    for form in ("coco", "nnunet"):
        with pytest.raises(UserError, match="needs masks"):
            writers.check_format(form, [plain])
