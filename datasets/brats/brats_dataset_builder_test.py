"""BraTS builder: what is read back is what was written, in every layout, and bad input is told."""

import importlib.util
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tensorflow_datasets as tfds

from datasets import prepared
from datasets.brats import make_dummy_data as dummy
from datasets.brats.brats_dataset_builder import Builder
from datasets.brats.labels import AS_STORED, FROM_2023, MSD, PED, TREATED_2024, UNTIL_2021
from datasets.brats.slices import slice_affine, slice_axis
from datasets.build import build
from datasets.errors import DataError

MODALITIES = ("t1", "t1ce", "t2", "flair")


def _read(folder, split="train"):
    builder: Any = tfds.builder_from_directory(folder)
    return list(builder.as_data_source(split))


def _metadata(folder):
    return prepared.metadata(folder)


def _build_patient(tmp_path, arrays, name="BraTS2021_00001", **options):
    dummy.write_patient(tmp_path / "in" / name, name, arrays)
    return build("brats", tmp_path / "in", data_dir=tmp_path / "out", **options)[0]


@pytest.mark.parametrize("layout", dummy.LAYOUTS)
def test_slices_are_bit_exact_in_every_layout(tmp_path, layout):
    patients = dummy.write_layout(tmp_path / "in", layout)
    folder, built = build("brats", tmp_path / "in", data_dir=tmp_path / "out")
    assert built
    slices = {}
    for split in tfds.builder_from_directory(folder).info.splits:
        records = _read(folder, split)
        assert [record["id"].decode() for record in records] == _metadata(folder)["index"][split]["id"]
        slices |= {record["id"].decode(): record for record in records}
    depth = dummy.SHAPE[2]
    # The first and the last slice of a dummy volume are empty, and no other is.
    assert len(slices) == len(patients) * (depth - 2)
    assert _metadata(folder)["left_out"] == {"empty slices": 2 * len(patients)}
    table = TREATED_2024 if layout == "2023" else UNTIL_2021
    for name, arrays in patients.items():
        assert not any(arrays[kind][..., 0].any() for kind in arrays)
        for index in range(1, depth - 1):
            record = slices[f"{name}_z{index:03d}"]
            expected = np.stack([arrays[modality][:, :, index] for modality in MODALITIES], -1)
            assert record["image"].dtype == np.int16
            np.testing.assert_array_equal(record["image"], expected)
            assert record["has_seg"] == ("seg" in arrays)
            if record["has_seg"]:
                np.testing.assert_array_equal(table.to_stored(record["seg"]), arrays["seg"][:, :, index])
                tumour = np.isin(record["seg"], (1, 2, 3)).sum()
                assert record["tumour_voxels"] == tumour
                assert record["has_tumour"] == (tumour > 0)
            else:
                assert (record["tumour_voxels"], record["has_tumour"]) == (-1, False)
                assert not record["seg"].any()
            assert record["patient"].decode() == name
            assert record["slice_index"] == index
            assert record["modality_present"].all()


def test_layouts_give_split_grade_and_notes(tmp_path):
    dummy.write_layout(tmp_path / "2018", "2018")
    records = _read(build("brats", tmp_path / "2018", data_dir=tmp_path / "out18")[0])
    assert {(r["patient"], r["grade"]) for r in records} == {
        (b"Brats18_2013_2_1", b"HGG"),
        (b"Brats18_2013_0_1", b"LGG"),
    }
    dummy.write_layout(tmp_path / "2020", "2020")
    folder, _ = build("brats", tmp_path / "2020", data_dir=tmp_path / "out20")
    assert {r["patient"] for r in _read(folder, "validation")} == {b"BraTS20_Validation_001"}
    assert len(_metadata(folder)["notes"]) == 1
    assert "W39_1998.09.19_Segm.nii" in _metadata(folder)["notes"][0]


def test_geometry_and_intensities_are_kept(tmp_path):
    arrays = dummy.volumes(3, (1, 2, 4))
    record = next(r for r in _read(_build_patient(tmp_path, arrays)) if r["slice_index"] == 5)
    np.testing.assert_array_equal(record["volume_affine"], dummy.AFFINE)
    np.testing.assert_array_equal(record["volume_shape"], dummy.SHAPE)
    assert record["affine"].dtype == np.float64
    # The same voxel is at the same place in the slice as in the volume.
    np.testing.assert_allclose(record["affine"] @ [3, 7, 0, 1], dummy.AFFINE @ [3, 7, 5, 1], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(record["spacing"], np.array([1.5, 1.25, 2.0], np.float32))
    assert record["orientation"] == b"LPS"
    assert list(record["modalities"]) == [m.encode() for m in MODALITIES]
    brain = np.any([arrays[m] != 0 for m in MODALITIES], axis=0)
    assert record["brain_fraction"] == pytest.approx(brain[:, :, 5].mean(), rel=1e-6)
    for channel, modality in enumerate(MODALITIES):
        volume = arrays[modality]
        assert record["intensity_min"][channel] == volume.min()
        assert record["intensity_max"][channel] == volume.max()
        low, high = np.percentile(volume[brain], (0.5, 99.5))
        assert record["percentile_0_5"][channel] == np.float32(low)
        assert record["percentile_99_5"][channel] == np.float32(high)
    assert list(record["label_stored_values"]) == [0, 1, 2, 4, -1]
    assert record["label_names"][3] == b"enhancing_tumor"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_axial_wherever_the_axis_is(axis):
    order = [other for other in range(3) if other != axis]
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[0, order[0]], affine[1, order[1]], affine[2, axis] = -2.0, 3.0, 4.0
    affine[:3, 3] = 5, 6, 7
    assert slice_axis(affine) == axis
    voxel = np.zeros(3)
    voxel[order], voxel[axis] = (8, 9), 10
    np.testing.assert_allclose(slice_affine(affine, axis, 10) @ [8, 9, 0, 1], affine @ [*voxel, 1])


def test_volumes_config_keeps_the_whole_volume(tmp_path):
    arrays = dummy.volumes(3, (1, 2, 4))
    folder = _build_patient(tmp_path, arrays, config="volumes")
    assert folder.parts[-3:] == ("brats", "volumes", "1.0.0")
    (record,) = _read(folder)
    np.testing.assert_array_equal(record["image"], np.stack([arrays[m] for m in MODALITIES], -1))
    np.testing.assert_array_equal(UNTIL_2021.to_stored(record["seg"]), arrays["seg"])
    np.testing.assert_array_equal(record["affine"], dummy.AFFINE)
    assert record["id"] == b"BraTS2021_00001"


@pytest.mark.parametrize("stored", [np.float32, np.float64, np.uint16, np.int32])
def test_values_beyond_int16_are_float32_for_the_whole_cohort(tmp_path, stored):
    arrays = dummy.volumes(3, None)
    arrays["t2"] = (
        np.abs(arrays["t2"].astype(np.float64)) * 40 + (0.5 if stored in (np.float32, np.float64) else 0)
    ).astype(stored)
    dummy.write_patient(tmp_path / "in" / "BraTS2021_00000", "BraTS2021_00000", dummy.volumes(4, None))
    record = next(r for r in _read(_build_patient(tmp_path, arrays)) if r["id"] == b"BraTS2021_00001_z004")
    assert record["image"].dtype == np.float32
    np.testing.assert_array_equal(record["image"][..., 2], arrays["t2"][:, :, 4])
    np.testing.assert_array_equal(record["image"][..., 0], arrays["t1"][:, :, 4])
    assert list(record["stored_dtypes"]) == [b"int16", b"int16", np.dtype(stored).name.encode(), b"int16"]


def test_a_prepared_float_dataset_keeps_its_features_in_the_builder(tmp_path):
    folder = _build_patient(tmp_path, dummy.volumes(3, None, dtype=np.float32))
    features = Builder(data_dir=folder.parents[2], config="slices").features()
    assert features["image"].np_dtype == np.float32


def test_missing_modality_and_segmentation_are_flagged(tmp_path):
    arrays = dummy.volumes(3, None)
    del arrays["t1ce"]
    for record in _read(_build_patient(tmp_path, arrays)):
        assert list(record["modality_present"]) == [True, False, True, True]
        assert not record["image"][..., 1].any()
        assert record["stored_dtypes"][1] == b""
        assert not record["has_seg"]


@pytest.mark.parametrize("table", [UNTIL_2021, FROM_2023, TREATED_2024, PED, MSD, AS_STORED])
def test_label_tables_can_be_undone(table):
    stored = np.array(table.known(), np.uint8).repeat(3).reshape(-1, 3)
    labels = table.from_stored(stored)
    assert labels.max() == len(table.known()) - 1
    np.testing.assert_array_equal(table.to_stored(labels), stored)


def test_resection_cavity_is_no_tumour(tmp_path):
    dummy.write_layout(tmp_path / "in", "2023")
    records = _read(build("brats", tmp_path / "in", data_dir=tmp_path / "out")[0])
    with_cavity = [r for r in records if (r["seg"] == 4).any()]
    assert with_cavity
    for record in with_cavity:
        assert record["tumour_voxels"] == (record["seg"] > 0).sum() - (record["seg"] == 4).sum()
        assert record["label_names"][4] == b"resection_cavity"


def _truncate(files, arrays):
    content = files["t2"].read_bytes()
    files["t2"].write_bytes(content[: len(content) // 2])


def _flip_a_byte(files, arrays):
    content = bytearray(files["t2"].read_bytes())
    content[len(content) // 2] ^= 0xFF
    files["t2"].write_bytes(bytes(content))


def _other_shape(files, arrays):
    nib.save(nib.Nifti1Image(arrays["t2"][:-1], dummy.AFFINE), files["t2"])


def _other_affine(files, arrays):
    nib.save(nib.Nifti1Image(arrays["t2"], dummy.AFFINE + np.diag([0.5, 0, 0, 0])), files["t2"])


def _unknown_label(files, arrays):
    nib.save(nib.Nifti1Image(arrays["seg"] * 3, dummy.AFFINE), files["seg"])


def _not_finite(files, arrays):
    values = arrays["t2"].astype(np.float32)
    values[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(values, dummy.AFFINE), files["t2"])


def _twice(files, arrays):
    nib.save(nib.Nifti1Image(arrays["t2"], dummy.AFFINE), files["t2"].with_suffix(""))


def _only_seg(files, arrays):
    for modality in MODALITIES:
        files[modality].unlink()


def _four_axes(files, arrays):
    nib.save(nib.Nifti1Image(np.stack([arrays["t2"]] * 2, -1), dummy.AFFINE), files["t2"])


def _no_nifti(files, arrays):
    files["t2"].write_bytes(b"<html>please log in</html>")


def _empty_file(files, arrays):
    files["t2"].write_bytes(b"")


def _all_zero(files, arrays):
    for modality in MODALITIES:
        nib.save(nib.Nifti1Image(arrays[modality] * 0, dummy.AFFINE), files[modality])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_truncate, "_t2.nii.gz cannot be read"),
        (_flip_a_byte, "_t2.nii.gz cannot be read"),
        (_other_shape, "_t2.nii.gz has shape"),
        (_other_affine, "resample it onto that grid"),
        (_unknown_label, "is not among 0, 1, 2, 4"),
        (_not_finite, "not finite"),
        (_twice, "both hold t2"),
        (_only_seg, "none of t1"),
        (_four_axes, "not that of a volume"),
        (_no_nifti, "_t2.nii.gz cannot be read"),
        (_empty_file, "_t2.nii.gz cannot be read"),
        (_all_zero, "is 0"),
    ],
)
def test_a_patient_at_fault_stops_the_build_or_is_skipped(tmp_path, spoil, said):
    good, bad = dummy.volumes(1, (1, 2, 4)), dummy.volumes(2, (1, 2, 4))
    dummy.write_patient(tmp_path / "in" / "BraTS2021_00000", "BraTS2021_00000", good)
    files = dummy.write_patient(tmp_path / "in" / "BraTS2021_00001", "BraTS2021_00001", bad)
    spoil(files, bad)
    with pytest.raises(DataError, match="--skip_bad") as caught:
        build("brats", tmp_path / "in", data_dir=tmp_path / "out")
    assert said in str(caught.value)
    assert "BraTS2021_00001" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    folder, _ = build("brats", tmp_path / "in", data_dir=tmp_path / "out", skip_bad=True)
    assert {r["patient"] for r in _read(folder)} == {b"BraTS2021_00000"}
    ((where, reason),) = _metadata(folder)["skipped"]
    assert where == "BraTS2021_00001"
    assert said in reason


def test_duplicate_patient(tmp_path):
    for copy in ("a", "b"):
        dummy.write_patient(tmp_path / "in" / copy / "BraTS2021_00001", "BraTS2021_00001", dummy.volumes(1, (1, 2, 4)))
    with pytest.raises(DataError, match="found twice, in a/BraTS2021_00001 and in b/BraTS2021_00001"):
        build("brats", tmp_path / "in", data_dir=tmp_path / "out")
    folder, _ = build("brats", tmp_path / "in", data_dir=tmp_path / "out", skip_bad=True)
    assert len(_read(folder)) == dummy.SHAPE[2] - 2


def test_everything_skipped_is_an_error(tmp_path):
    files = dummy.write_patient(tmp_path / "in", "BraTS2021_00001", dummy.volumes(1, None))
    files["t1"].write_bytes(b"")
    with pytest.raises(DataError, match="no example is left"):
        build("brats", tmp_path / "in", data_dir=tmp_path / "out", skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_wrong_folder_says_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"BraTS2021_00000_flair.nii.gz.*found 1 file \(holiday.jpg\)"):
        build("brats", tmp_path / "in", data_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.processes
def test_reading_needs_neither_the_builders_nor_tensorflow(tmp_path):
    folder = _build_patient(tmp_path, dummy.volumes(3, (1, 2, 4)))
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        f"record = tfds.builder_from_directory({str(folder)!r}).as_data_source('train')[0]\n"
        "print(record['image'].shape, 'datasets' in sys.modules, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(20, 18, 4) False False"


if importlib.util.find_spec("tensorflow") and importlib.util.find_spec("dill"):

    class BratsTest(tfds.testing.DatasetBuilderTestCase):
        """TFDS's own checks, where TensorFlow is installed: registration, tags, keys, metadata."""

        DATASET_CLASS = Builder
        SPLITS = {"train": 2 * (dummy.SHAPE[2] - 2)}  # noqa: RUF012
        BUILDER_CONFIG_NAMES_TO_TEST = ["slices"]  # noqa: RUF012
        MOCK_OUT_FORBIDDEN_OS_FUNCTIONS = False  # data lies on a local disk

        @classmethod
        def setUpClass(cls):
            cls._made = tempfile.TemporaryDirectory()
            cls.EXAMPLE_DIR = cls._made.name
            dummy.write_layout(pathlib.Path(cls.EXAMPLE_DIR), "2021")
            super().setUpClass()

        @classmethod
        def tearDownClass(cls):
            super().tearDownClass()
            cls._made.cleanup()

        def _assertAsDataset(self, builder):
            for split, count in self.SPLITS.items():
                self.assertLen(list(builder.as_data_source(split)), count)
