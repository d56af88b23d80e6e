"""PanNuke builder: patches and instances read back as written, the rules on overlaps and ids, and bad input."""

import importlib.util
import pathlib
import pickle
import shutil
import tempfile
import tracemalloc
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import prepared
from datasets.archives import Source
from datasets.build import build
from datasets.errors import DataError
from datasets.pannuke import make_dummy_data as dummy
from datasets.pannuke.instances import CLASSES, merge_masks
from datasets.pannuke.npy import NpyRows
from datasets.pannuke.pannuke_dataset_builder import Builder


def _read(folder, split="fold1"):
    builder: Any = tfds.builder_from_directory(folder)
    return list(builder.as_data_source(split))


def _build(tmp_path, images, masks, types, **options):
    dummy.write_fold(tmp_path / "in", 1, images, masks, types)
    return build("pannuke", tmp_path / "in", data_dir=tmp_path / "out", **options)[0]


def test_three_folds_are_three_splits_and_bit_exact(tmp_path):
    dummy.write_folds(tmp_path / "in", count=3, size=256)
    folder, _ = build("pannuke", tmp_path / "in", data_dir=tmp_path / "out")
    builder = tfds.builder_from_directory(folder)
    assert list(builder.info.splits) == ["fold1", "fold2", "fold3"]
    for number in (1, 2, 3):
        images, masks, types = dummy.patches(number, 3, 256)
        records = _read(folder, f"fold{number}")
        assert len(records) == 3
        index = prepared.metadata(folder)["index"][f"fold{number}"]
        assert index["id"] == [record["id"].decode() for record in records]
        assert index["num_nuclei"] == [record["num_nuclei"] for record in records]
        for patch, record in enumerate(records):
            assert record["id"].decode() == f"fold{number}_{patch:05d}"
            assert (record["fold"], record["patch_index"]) == (number, patch)
            assert record["image"].dtype == np.uint8
            np.testing.assert_array_equal(record["image"], images[patch])
            assert record["instance_map"].dtype == np.uint16
            assert record["tissue"].decode() == types[patch]
            assert record["stored_image_dtype"] == b"float64"
            _same_nuclei(record, masks[patch])


def _same_nuclei(record, masks):
    """Every instance of the channels is one instance of the map, in the same pixels."""
    assert record["num_nuclei"] == record["instance_map"].max()
    np.testing.assert_array_equal(
        record["class_counts"], [len(np.unique(masks[..., channel])) - 1 for channel in range(5)]
    )
    for instance in range(1, record["num_nuclei"] + 1):
        here = record["instance_map"] == instance
        channel = record["instance_classes"][instance - 1] - 1
        np.testing.assert_array_equal(here, masks[..., channel] == record["instance_source_ids"][instance - 1])
        assert (record["class_map"][here] == channel + 1).all()
    np.testing.assert_array_equal(record["class_map"] > 0, record["instance_map"] > 0)


def test_empty_patch_is_kept(tmp_path):
    record = _read(_build(tmp_path, *dummy.patches(1, 2, 64)))[-1]
    assert record["num_nuclei"] == 0
    assert not record["instance_map"].any()
    assert record["instance_classes"].shape == record["instance_source_ids"].shape == (0,)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, ">f8", np.int32])
def test_other_stored_types(tmp_path, dtype):
    images, masks, types = dummy.patches(1, 2, 64)
    record = _read(_build(tmp_path, images.astype(dtype), masks.astype(dtype), types.astype("S")))[0]
    np.testing.assert_array_equal(record["image"], images[0])
    _same_nuclei(record, masks[0])
    assert record["tissue"] == b"Breast"


def test_the_smaller_instance_stays_on_top():
    masks = np.zeros((8, 8, 6))
    masks[1:7, 1:7, 0] = 9
    masks[2:4, 2:4, 3] = 4
    nuclei = merge_masks(masks)
    assert nuclei.overlap_pixels == 4
    assert nuclei.hidden == 0
    assert (nuclei.instance_map[2:4, 2:4] == 2).all()
    np.testing.assert_array_equal(nuclei.classes, [1, 4])
    np.testing.assert_array_equal(nuclei.source_ids, [9, 4])
    np.testing.assert_array_equal(nuclei.counts(), [1, 0, 0, 1, 0])


def test_a_covered_instance_is_dropped_and_counted(tmp_path):
    images, masks, types = dummy.patches(1, 1, 16)
    masks[0, 3:5, 3:5, 0] = 1
    masks[0, 3:5, 3:5, 4] = 1
    folder = _build(tmp_path, images, masks, types)
    (record,) = _read(folder)
    np.testing.assert_array_equal(record["class_counts"], [1, 0, 0, 0, 0])
    assert record["overlap_pixels"] == 4
    assert prepared.metadata(folder)["left_out"] == {"instances hidden under smaller ones": 1}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_merging_never_mixes_classes_or_leaves_gaps(seed, density):
    random = np.random.default_rng(seed)
    masks = random.integers(0, 5, (6, 7, 6)) * (random.random((6, 7, 6)) < density)
    nuclei = merge_masks(masks)
    count = len(nuclei.classes)
    np.testing.assert_array_equal(np.unique(nuclei.instance_map[nuclei.instance_map > 0]), np.arange(1, count + 1))
    np.testing.assert_array_equal(nuclei.instance_map > 0, masks[..., :5].max(-1) > 0)
    rows, columns = np.nonzero(nuclei.instance_map)
    instances = nuclei.instance_map[rows, columns].astype(int) - 1
    np.testing.assert_array_equal(
        masks[rows, columns, nuclei.classes[instances].astype(int) - 1], nuclei.source_ids[instances]
    )
    areas = {}
    for channel in range(5):
        values, counts = np.unique(masks[..., channel], return_counts=True)
        areas |= {(channel + 1, v): c for v, c in zip(values, counts, strict=True) if v}
    assert count + nuclei.hidden == len(areas)
    # Nobody smaller wanted the pixel.
    for row, column, instance in zip(rows, columns, instances, strict=True):
        claims = [areas[c + 1, masks[row, column, c]] for c in range(5) if masks[row, column, c]]
        assert areas[nuclei.classes[instance], nuclei.source_ids[instance]] == min(claims)


# --- copies that keep their masks otherwise


@pytest.mark.parametrize("nuclei", ["all classes", "one class", "one nucleus"])
def test_a_background_that_comes_first_is_put_last(tmp_path, nuclei):
    images, masks, types = dummy.patches(1, 4, 64)
    if nuclei != "all classes":
        masks[..., 1:5] = 0
    if nuclei == "one nucleus":
        masks[..., 0] = masks[..., 0] == 3
    masks[..., 5] = masks[..., :5].max(-1) == 0
    folder = _build(tmp_path, images, np.roll(masks, 1, axis=-1), types)
    for record, expected in zip(_read(folder), masks, strict=True):
        _same_nuclei(record, expected)
    assert any("background" in note for note in prepared.metadata(folder)["notes"])
    plain = _build(tmp_path / "plain", images, masks, types)
    assert prepared.metadata(plain)["notes"] == []
    assert [r["num_nuclei"] for r in _read(plain)] == [r["num_nuclei"] for r in _read(folder)]


def test_a_background_in_the_middle_is_refused(tmp_path):
    images, masks, types = dummy.patches(1, 4, 64)
    with pytest.raises(DataError, match=r"background in channel 3 of 6: bring .* epithelial, background"):
        _build(tmp_path, images, np.roll(masks, 3, axis=-1), types)
    assert not (tmp_path / "out").exists()


def test_a_background_channel_that_is_empty_is_no_matter(tmp_path):
    images, masks, types = dummy.patches(1, 4, 64)
    masks[..., 5] = 0
    folder = _build(tmp_path, images, masks, types)
    for record, expected in zip(_read(folder), masks, strict=True):
        _same_nuclei(record, expected)
    assert prepared.metadata(folder)["notes"] == []


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("shift", [0, 1])
def test_nuclei_without_numbers_are_their_connected_pieces(tmp_path, value, shift):
    images, masks, types = dummy.patches(1, 4, 64)
    binary = np.roll(((masks > 0) * value).astype(np.uint8), shift, axis=-1)
    folder = _build(tmp_path, images, binary, types)
    for record, expected in zip(_read(folder), masks, strict=True):
        # Dummy nuclei do not touch: each is a piece.
        np.testing.assert_array_equal(
            record["class_counts"], [len(np.unique(expected[..., channel])) - 1 for channel in range(5)]
        )
        np.testing.assert_array_equal(record["instance_map"] > 0, expected[..., :5].max(-1) > 0)
    assert any("does not number its nuclei" in note for note in prepared.metadata(folder)["notes"])


@pytest.mark.parametrize("folder", ["Part 1", "Fold 1", "part_1", "pannuke", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_folders_of_other_copies(tmp_path, folder, packed):
    images, masks, types = dummy.patches(1, 3, 32)
    for name, array in (("Images/images", images), ("Images/types", types), ("Masks/masks", masks)):
        file = tmp_path / "in" / folder / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array)
    if packed:
        (tmp_path / "packed").mkdir()
        shutil.make_archive(str(tmp_path / "packed" / "download"), "zip", tmp_path / "in")
    source = tmp_path / ("packed" if packed else "in")
    built, _ = build("pannuke", source, data_dir=tmp_path / "out")
    for record, expected in zip(_read(built), masks, strict=True):
        _same_nuclei(record, expected)


def test_the_folder_given_may_be_the_fold(tmp_path):
    dummy.write_fold(tmp_path / "in", 2, *dummy.patches(1, 3, 32))
    for file in (tmp_path / "in").rglob("*.npy"):
        file.rename(tmp_path / "in" / "Fold 2" / file.name)
    assert len(_read(build("pannuke", tmp_path / "in" / "Fold 2", data_dir=tmp_path / "out")[0], "fold2")) == 3


def _fold(spoil):
    def spoiled():
        images, masks, types = dummy.patches(1, 3, 32)
        return spoil(images, masks, types)

    return spoiled


@pytest.mark.parametrize(
    ("fold", "said"),
    [
        (_fold(lambda i, m, t: (i, m[:-1], t)), "3 images, 2 masks and 3 types"),
        (_fold(lambda i, m, t: (i, m, t[:-1])), "3 images, 3 masks and 2 types"),
        (_fold(lambda i, m, t: (i[..., :2], m, t)), r"expected \(n, height, width, 3\)"),
        (_fold(lambda i, m, t: (i, m[..., :5], t)), r"expected \(n, height, width, 6\)"),
        (_fold(lambda i, m, t: (i, m[:, :-1], t)), "pixels"),
        (_fold(lambda i, m, t: (i, m, np.arange(3))), "one string per patch"),
        (_fold(lambda i, m, t: (i, m, t.astype(object))), "Python objects"),
        (_fold(lambda i, m, t: (np.asfortranarray(i), m, t)), "Fortran order"),
        (_fold(lambda i, m, t: (i.astype(complex), m, t)), "expected numbers"),
    ],
)
def test_a_fold_at_fault_stops_the_build(tmp_path, fold, said):
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=said) as caught:
            _build(tmp_path, *fold(), skip_bad=skip_bad)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


class _Trap:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("pickle_was_loaded"),))


def test_a_pickle_is_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, masks, types = dummy.patches(1, 3, 32)
    trap = np.empty(3, object)
    trap[0] = _Trap()
    with pytest.raises(DataError, match="Python objects"):
        _build(tmp_path, images, masks, trap)
    dummy.write_fold(tmp_path / "in", 1, images, masks, types)
    file = tmp_path / "in" / "Fold 1" / "images" / "fold1" / "images.npy"
    file.write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(DataError, match=r"no readable \.npy file"):
        build("pannuke", tmp_path / "in", data_dir=tmp_path / "out")
    assert not (tmp_path / "pickle_was_loaded").exists()


@pytest.mark.parametrize("flag", [b"+False", b"\xffFalse", b" F:lse"])
def test_a_damaged_header_is_told_in_words(tmp_path, flag):
    dummy.write_fold(tmp_path / "in", 1, *dummy.patches(1, 3, 32))
    file = tmp_path / "in" / "Fold 1" / "images" / "fold1" / "images.npy"
    file.write_bytes(file.read_bytes().replace(b" False", flag, 1))
    with pytest.raises(DataError, match=r"images\.npy is no readable \.npy file \(a damaged header\): "):
        build("pannuke", tmp_path / "in", data_dir=tmp_path / "out")


@pytest.mark.parametrize("keep", [3, 70, 500, -1])
def test_truncated_file(tmp_path, keep):
    dummy.write_fold(tmp_path / "in", 1, *dummy.patches(1, 3, 32))
    file = tmp_path / "in" / "Fold 1" / "images" / "fold1" / "images.npy"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"images\.npy .*download it again"):
        build("pannuke", tmp_path / "in", data_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("array", "value"),
    [("images", 0.5), ("images", 300), ("images", np.nan), ("masks", -1), ("masks", 0.5), ("masks", np.inf)],
)
def test_a_patch_at_fault_stops_the_build_or_is_skipped(tmp_path, array, value):
    images, masks, types = dummy.patches(1, 3, 32)
    {"images": images, "masks": masks}[array][1, 5, 5, 0] = value
    with pytest.raises(DataError, match=f"fold1 patch 1: {array[:-1]} values must be .*--skip_bad"):
        _build(tmp_path, images, masks, types)
    assert not (tmp_path / "out").exists()
    records = _read(_build(tmp_path, images, masks, types, skip_bad=True))
    assert [record["patch_index"] for record in records] == [0, 2]
    np.testing.assert_array_equal(records[1]["image"], images[2])
    _same_nuclei(records[1], masks[2])


def test_missing_array_and_wrong_folder(tmp_path):
    dummy.write_fold(tmp_path / "in", 1, *dummy.patches(1, 3, 32))
    (tmp_path / "in" / "Fold 1" / "masks" / "fold1" / "masks.npy").unlink()
    with pytest.raises(DataError, match=r"fold 1 has no masks\.npy, only Fold 1/images/fold1/images.npy"):
        build("pannuke", tmp_path / "in", data_dir=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"looked for Fold 1/images/fold1/images\.npy.*found nothing"):
        build("pannuke", tmp_path / "empty", data_dir=tmp_path / "out")


def test_rows_are_read_one_at_a_time(tmp_path):
    # 300 MB of zeros that take no room on disk.
    file = tmp_path / "images.npy"
    with open(file, "wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": (200, 256, 256, 3)})
        out.truncate(out.tell() + 200 * 256 * 256 * 3 * 8)
    with Source(tmp_path, lambda path: True) as source:
        rows = NpyRows(source.members[0])
        tracemalloc.start()
        assert sum(row.shape == (256, 256, 3) for row in rows) == 200
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10e6


def test_classes_are_in_the_order_of_the_channels():
    assert CLASSES == ("neoplastic", "inflammatory", "connective", "dead", "epithelial")


if importlib.util.find_spec("tensorflow") and importlib.util.find_spec("dill"):

    class PannukeTest(tfds.testing.DatasetBuilderTestCase):
        """TFDS's own checks, where TensorFlow is installed: registration, tags, keys, metadata."""

        DATASET_CLASS = Builder
        SPLITS = {"fold1": 2, "fold2": 2, "fold3": 2}  # noqa: RUF012
        MOCK_OUT_FORBIDDEN_OS_FUNCTIONS = False  # data lies on a local disk

        @classmethod
        def setUpClass(cls):
            cls._made = tempfile.TemporaryDirectory()
            cls.EXAMPLE_DIR = cls._made.name
            dummy.write_folds(pathlib.Path(cls.EXAMPLE_DIR), count=2, size=64)
            super().setUpClass()

        @classmethod
        def tearDownClass(cls):
            super().tearDownClass()
            cls._made.cleanup()

        def _assertAsDataset(self, builder):
            for split, count in self.SPLITS.items():
                self.assertLen(list(builder.as_data_source(split)), count)
