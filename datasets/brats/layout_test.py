"""Layouts that people have: every file of a patient is read, or counted and named."""

import gzip
import json
import shutil
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tensorflow_datasets as tfds
from nibabel.affines import from_matvec

from datasets import build as command
from datasets import prepared
from datasets.brats import make_dummy_data as dummy
from datasets.brats.names import MODALITIES, SYNONYMS, kind_of, split_name
from datasets.build import build
from datasets.errors import DataError

ARRAYS = dummy.volumes(5, (1, 2, 4))


def _save(file, array, affine=dummy.AFFINE):
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), file)


def _built(tmp_path, **options):
    return build("brats", tmp_path / "in", data_dir=tmp_path / "out", config="volumes", **options)[0]


def _records(folder):
    builder: Any = tfds.builder_from_directory(folder)
    found = {}
    for split in builder.info.splits:
        for record in builder.as_data_source(split):
            found[record["patient"].decode()] = record | {"split": split}
    return found


def _is_whole(record, seg=True):
    """The record holds ARRAYS to the bit."""
    np.testing.assert_array_equal(record["image"], np.stack([ARRAYS[kind] for kind in MODALITIES], -1))
    assert record["has_seg"] == seg
    if seg:
        np.testing.assert_array_equal(record["label_stored_values"][record["seg"]], ARRAYS["seg"])
    np.testing.assert_array_equal(record["affine"], dummy.AFFINE)


SPELLINGS = [
    ("BraTS2021_00001", ("_t1", "_t1ce", "_t2", "_flair", "_seg")),
    ("UPENN-GBM-00002_11", ("_T1", "_T1GD", "_T2", "_FLAIR", "_segm")),
    ("UCSF-PDGM-0004", ("_T1", "_T1c", "_T2", "_T2FLAIR", "_tumor_segmentation")),
    ("BraTS-SSA-00002-000", ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")),
    ("sub-01_ses-1", ("_T1w", "_ce-gd_T1w", "_T2w", "_FLAIR", "_label")),
    ("case.7", (".t1w", ".t1_gd", ".t2w", ".t2-flair", ".segmentation")),
]


@pytest.mark.parametrize(("name", "endings"), SPELLINGS)
@pytest.mark.parametrize("apart", [False, True])
def test_spellings_of_cohorts_and_segmentations_in_a_folder_of_their_own(tmp_path, name, endings, apart):
    for kind, ending in zip((*MODALITIES, "seg"), endings, strict=True):
        folder = tmp_path / "in" / ("segmentations" if apart and kind == "seg" else f"images/{name}")
        _save(folder / f"{name}{ending}.nii.gz", ARRAYS[kind])
    folder = _built(tmp_path)
    found = _records(folder)
    assert list(found) == [name]
    _is_whole(found[name])
    assert prepared.metadata(folder)["unused"] == []


def test_every_spelling_is_known_in_any_case():
    for kind, spellings in SYNONYMS.items():
        for spelling in spellings:
            assert split_name(f"Case_1_{spelling.upper()}.nii.gz") == ("Case_1", "_", spelling)
            assert split_name(f"{spelling}.nii") == ("", "", spelling)
            assert kind_of(spelling.upper().replace("_", " ")) == kind
    assert split_name("Case_adc.nii.gz") is None
    assert split_name("Case_t1.png") is None


def test_a_radiotherapy_case_has_one_modality_and_its_target(tmp_path):
    _save(tmp_path / "in" / "x" / "BraTS-MEN-RT-0001-1_t1c.nii.gz", ARRAYS["t1ce"])
    _save(tmp_path / "in" / "x" / "BraTS-MEN-RT-0001-1_gtv.nii.gz", (ARRAYS["seg"] > 0).astype(np.uint8))
    (record,) = _records(_built(tmp_path)).values()
    assert record["modality_present"].tolist() == [False, True, False, False]
    assert record["tumour_voxels"] == (ARRAYS["seg"] > 0).sum()
    assert record["label_names"][1] == b"gross_tumor_volume"


def test_files_without_a_case_in_their_names_are_called_after_their_folders(tmp_path):
    for folder in ("site_a/patient_1", "site_b/patient_1", "site_b/patient_2"):
        for kind, array in ARRAYS.items():
            _save(tmp_path / "in" / folder / f"{kind}.nii.gz", array)
    found = _records(_built(tmp_path))
    assert sorted(found) == ["site_a_patient_1", "site_b_patient_1", "site_b_patient_2"]
    for record in found.values():
        _is_whole(record)


def test_one_folder_of_such_files_is_a_patient(tmp_path):
    for kind, array in ARRAYS.items():
        _save(tmp_path / "in" / f"{kind}.nii.gz", array)
    _is_whole(_records(_built(tmp_path))["in"])


@pytest.mark.parametrize("inner", ["00000057_brain_{}.nii", "image.nii", "{}.nii", "BraTS2021_00001_{}.nii"])
def test_folders_that_are_called_as_files(tmp_path, inner):
    for kind, array in ARRAYS.items():
        folder = tmp_path / "in" / "BraTS2021_00001" / f"BraTS2021_00001_{kind}.nii"
        _save(folder / inner.format(kind), array)
    found = _records(_built(tmp_path))
    assert list(found) == ["BraTS2021_00001"]
    _is_whole(found["BraTS2021_00001"])


def test_what_is_not_read_is_counted_and_named(tmp_path, capsys):
    files = dummy.write_patient(tmp_path / "in" / "UCSF-PDGM-0004", "UCSF-PDGM-0004", ARRAYS)
    for extra in ("adc", "T1_bias", "brain_segmentation", "brain_parenchyma_segmentation", "T1w"):
        shutil.copy(files["t1"], tmp_path / "in" / "UCSF-PDGM-0004" / f"UCSF-PDGM-0004_{extra}.nii.gz")
    _save(tmp_path / "in" / "elsewhere" / "atlas.nii", ARRAYS["t1"])
    (tmp_path / "in" / "readme.txt").write_text("x")
    folder = _built(tmp_path)
    _is_whole(_records(folder)["UCSF-PDGM-0004"])
    assert len(prepared.metadata(folder)["unused"]) == 6
    text = command.summary(folder)
    assert "left out: 6 NIfTI files (UCSF-PDGM-0004/UCSF-PDGM-0004_T1_bias.nii.gz, " in text
    assert "_brain_segmentation.nii.gz" in text
    assert " and 1 more)" in text


def test_a_brain_mask_is_never_taken_as_the_tumour(tmp_path):
    files = dummy.write_patient(tmp_path / "in" / "X", "UCSF-PDGM-0004", dummy.volumes(1, None))
    shutil.copy(files["t1"], tmp_path / "in" / "X" / "UCSF-PDGM-0004_brain_segmentation.nii.gz")
    folder = _built(tmp_path)
    assert not _records(folder)["UCSF-PDGM-0004"]["has_seg"]
    assert prepared.metadata(folder)["unused"] == ["X/UCSF-PDGM-0004_brain_segmentation.nii.gz"]


# --- MSD and nnU-Net


def _nnunet(root, channels=MODALITIES, seg=ARRAYS["seg"], case="glioma_07"):
    for number, kind in enumerate(channels):
        _save(root / "imagesTr" / f"{case}_{number:04d}.nii.gz", ARRAYS.get(kind, ARRAYS["t1"]))
    _save(root / "labelsTr" / f"{case}.nii.gz", seg)


def _json(root, channels, labels, old=False):
    names = {"modality" if old else "channel_names": {str(n): name for n, name in enumerate(channels)}}
    (root / "dataset.json").write_text(json.dumps({**names, "labels": labels, "numTraining": 1}))


# Each of them: 1 is the oedema, 2 the core, 4 the enhancing tumour.
LABELS = [
    {"background": 0, "edema": 1, "core": 2, "enhancing tumor": 4},
    {"0": "background", "1": "edema", "2": "core", "4": "enhancing tumor"},
    {"background": 0, "whole tumor": [1, 2, 4], "tumor core": [2, 4], "enhancing tumor": [4], "ignore": 5},
]


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("old", [False, True])
def test_nnunet_channels_and_labels_are_those_of_its_description(tmp_path, labels, old):
    channels = ("FLAIR", "T1w", "ADC", "t1gd", "T2w")
    _nnunet(tmp_path / "in" / "Dataset001", ("flair", "t1", "ADC", "t1ce", "t2"))
    _json(tmp_path / "in" / "Dataset001", channels, labels, old)
    folder = _built(tmp_path)
    record = _records(folder)["glioma_07"]
    _is_whole(record)
    names = dict(zip(record["label_stored_values"].tolist(), record["label_names"], strict=True))
    assert (names[1], names[4]) == (b"edema", b"enhancing_tumor")
    assert b"core" in names[2]
    assert prepared.metadata(folder)["unused"] == ["Dataset001/imagesTr/glioma_07_0002.nii.gz"]


def test_nnunet_without_a_description_is_read_by_order_and_its_labels_have_no_names(tmp_path):
    _nnunet(tmp_path / "in")
    _save(tmp_path / "in" / "imagesTs" / "glioma_08_0000.nii.gz", ARRAYS["t1"])
    folder = _built(tmp_path)
    found = _records(folder)
    assert {name: record["split"] for name, record in found.items()} == {"glioma_07": "train", "glioma_08": "test"}
    assert found["glioma_08"]["modality_present"].tolist() == [True, False, False, False]
    _is_whole(found["glioma_07"])
    assert found["glioma_07"]["label_names"][1] == b"label_1"
    text = command.summary(folder)
    assert "imagesTr: channels 0 t1, 1 t1ce, 2 t2, 3 flair, by the order of nnU-Net" in text
    assert "--labels=MSD" in text


@pytest.mark.parametrize("described", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_msd_keeps_the_modalities_in_one_file(tmp_path, described, packed):
    root = tmp_path / "in" / "Task01_BrainTumour"
    order = ("flair", "t1", "t1ce", "t2")
    _save(root / "imagesTr" / "BRATS_001.nii.gz", np.stack([ARRAYS[kind] for kind in order], -1))
    _save(root / "imagesTr" / "._BRATS_001.nii.gz", ARRAYS["t1"])
    _save(root / "labelsTr" / "BRATS_001.nii.gz", ARRAYS["seg"])
    if described:
        _json(root, ("FLAIR", "T1w", "t1gd", "T2w"), LABELS[1], old=True)
    if packed:
        (tmp_path / "packed").mkdir()
        shutil.make_archive(str(tmp_path / "packed" / "Task01_BrainTumour"), "tar", tmp_path / "in")
        shutil.rmtree(tmp_path / "in")
        (tmp_path / "packed").rename(tmp_path / "in")
    folder = _built(tmp_path)
    record = _records(folder)["BRATS_001"]
    _is_whole(record)
    assert record["label_names"][1] == (b"edema" if described else b"label_1")
    assert prepared.metadata(folder)["unused"] == []


def test_msd_without_one_of_its_volumes(tmp_path):
    _save(tmp_path / "in" / "imagesTr" / "BRATS_001.nii.gz", np.stack([ARRAYS["t1"]] * 3, -1))
    with pytest.raises(DataError, match="there is no volume 3 along the fourth axis"):
        _built(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "has no channel_names"),
        ('{"channel_names": {"0": "CT"}, "labels": {"x": 1}}', "names the channels CT: of a brain tumour"),
        ('{"channel_names": {"0": "T1", "1": "T1w"}, "labels": {"x": 1}}', "each once"),
        ('{"channel_names": {"0": "T1"}}', "has no labels that can be used"),
        ('{"channel_names": {"0": "T1"}, "labels": {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}}', "5 labels"),
        ('{"channel_names": {"0": "T1"}, "labels": {"a": "b"}}', "has no labels that can be used"),
    ],
)
def test_a_description_that_cannot_be_used(tmp_path, content, said):
    _nnunet(tmp_path / "in")
    (tmp_path / "in" / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=rf"^dataset\.json .*{said}") as caught:
        _built(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_more_channels_than_the_order_tells(tmp_path):
    _nnunet(tmp_path / "in", (*MODALITIES, "adc"))
    with pytest.raises(DataError, match=r"_0004\.nii\.gz is a fifth channel, and no dataset\.json"):
        _built(tmp_path)


# --- splits


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("cross-validation split 1/BraTS2021_Training_Data", "train"),
        ("cross-validation split 1", "train"),
        ("my validation", "train"),
        ("BraTS cross-validation", "train"),
        ("train_and_validation", "train"),
        ("MICCAI_BraTS2020_ValidationData", "validation"),
        ("ASNR-MICCAI-BraTS2023-GLI-Challenge-ValidationData", "validation"),
        ("MICCAI_BraTS_2018_Data_Validation", "validation"),
        ("BraTS2024/validation_data", "validation"),
        ("BraTS2021_ValidationData/fold 1", "validation"),
    ],
)
def test_only_the_names_of_brats_make_a_split(tmp_path, folder, split):
    dummy.write_patient(tmp_path / "in" / folder / "BraTS2021_00001", "BraTS2021_00001", ARRAYS)
    assert _records(_built(tmp_path))["BraTS2021_00001"]["split"] == split


# --- files


@pytest.mark.parametrize(("suffix", "packed"), [(".nii.gz", False), (".nii", True)])
def test_compression_is_told_by_content(tmp_path, capfd, suffix, packed):
    for kind, array in ARRAYS.items():
        data = nib.Nifti1Image(array, dummy.AFFINE).to_bytes()
        file = tmp_path / "in" / f"BraTS2021_00001_{kind}{suffix}"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(gzip.compress(data) if packed else data)
    _is_whole(_records(_built(tmp_path))["BraTS2021_00001"])
    assert all(line.startswith("brats ") for line in capfd.readouterr().err.splitlines())


def test_what_nibabel_tells_of_a_header_stays_away(tmp_path, capfd, caplog):
    files = dummy.write_patient(tmp_path / "in", "BraTS2021_00001", ARRAYS, suffix=".nii")
    content = bytearray(files["t2"].read_bytes())
    content[80:84] = np.float32(-1.5).tobytes()  # a voxel size below 0: nibabel mends it and says so
    files["t2"].write_bytes(bytes(content))
    caplog.set_level(0, "nibabel.global")
    nib.load(files["t2"])
    assert "pixdim" in caplog.text  # it does where nobody keeps it from doing so
    caplog.clear()
    _built(tmp_path)
    assert caplog.text == ""
    assert all(line.startswith("brats ") for line in capfd.readouterr().err.splitlines())


@pytest.mark.parametrize("trailing", [1, 2])
def test_trailing_axes_of_length_1(tmp_path, trailing):
    longer = {kind: array.reshape(array.shape + (1,) * trailing) for kind, array in ARRAYS.items()}
    dummy.write_patient(tmp_path / "in", "BraTS2021_00001", longer)
    _is_whole(_records(_built(tmp_path))["BraTS2021_00001"])


@pytest.mark.parametrize("codes", ["LAS", "RAS", "PSR", "SAL", "AIR", "IRP"])
@pytest.mark.parametrize("kind", ["seg", "flair"])
def test_the_same_voxels_in_other_axes_are_turned_exactly(tmp_path, codes, kind):
    files = dummy.write_patient(tmp_path / "in", "BraTS2021_00001", ARRAYS)
    image = nib.Nifti1Image(ARRAYS[kind], dummy.AFFINE)
    start = nib.orientations.io_orientation(dummy.AFFINE)
    turn: Any = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    assert nib.aff2axcodes(turned.affine) == tuple(codes)
    nib.save(turned, files[kind])
    folder = _built(tmp_path)
    _is_whole(_records(folder)["BraTS2021_00001"])
    assert any("turned to its axes" in note for note in prepared.metadata(folder)["notes"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (np.diag([1, 1, 1.1, 1]), r"lies elsewhere than BraTS2021_00001_t1\.nii\.gz, by up to [\d.]+ mm"),
        (from_matvec(np.eye(3), [0, 0, 1]), r"lies elsewhere than .*by up to 2 mm.*copy the header"),
    ],
)
def test_another_grid_is_refused_with_advice_that_helps(tmp_path, change, said):
    files = dummy.write_patient(tmp_path / "in", "BraTS2021_00001", ARRAYS)
    nib.save(nib.Nifti1Image(ARRAYS["seg"], dummy.AFFINE @ change), files["seg"])
    with pytest.raises(DataError, match=said):
        _built(tmp_path)


def test_a_segmentation_that_does_not_say_where_it_lies_is_taken_voxel_by_voxel(tmp_path):
    files = dummy.write_patient(tmp_path / "in", "BraTS2021_00001", ARRAYS)
    image = nib.Nifti1Image(ARRAYS["seg"], None)
    image.header.set_zooms((1.5, 1.25, 2))
    nib.save(image, files["seg"])
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 0)
    folder = _built(tmp_path)
    record = _records(folder)["BraTS2021_00001"]
    _is_whole(record)
    assert any("form codes 0" in note for note in prepared.metadata(folder)["notes"])


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (1, 1)])
def test_form_codes_are_recorded(tmp_path, codes):
    for kind, file in dummy.write_patient(tmp_path / "in", "BraTS2021_00001", ARRAYS).items():
        image = nib.Nifti1Image(ARRAYS[kind], dummy.AFFINE)
        image.set_qform(dummy.AFFINE, codes[0])
        image.set_sform(dummy.AFFINE, codes[1])
        nib.save(image, file)
    assert tuple(_records(_built(tmp_path))["BraTS2021_00001"]["form_codes"]) == codes


@pytest.mark.parametrize("background", [-1.0, -0.75, 7.0])
def test_a_background_other_than_0_is_no_brain(tmp_path, background):
    arrays = dict(ARRAYS)
    for kind in MODALITIES:
        arrays[kind] = np.where(ARRAYS[kind] == 0, background, ARRAYS[kind] / 1000.0).astype(np.float32)
    dummy.write_patient(tmp_path / "in", "BraTS2021_00001", arrays)
    record = _records(_built(tmp_path))["BraTS2021_00001"]
    brain = np.any([ARRAYS[kind] != 0 for kind in MODALITIES], axis=0)
    assert record["brain_fraction"] == pytest.approx(brain.mean(), rel=1e-6)
    np.testing.assert_array_equal(record["background"], np.float32(background))
    low = np.percentile(arrays["t1"][brain], 0.5)
    assert record["percentile_0_5"][0] == pytest.approx(low, rel=1e-6)


def test_a_file_that_may_not_be_read_is_told_as_that(tmp_path, monkeypatch):
    dummy.write_patient(tmp_path / "in", "BraTS2021_00001", ARRAYS)
    real = open

    def refuse(file, *args, **kwargs):
        if str(file).endswith("_t2.nii.gz"):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match=r"_t2\.nii\.gz cannot be read \(Permission denied\); mend it"):
        _built(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("IM0001.dcm", "dcm2niix"),
        ("VSD.Brain.XX.O.MR_T1.36.mha", "SimpleITK"),
        ("orig.mgz", "mri_convert"),
        ("photo.jpg", "README.md lists"),
    ],
)
def test_other_formats_name_what_converts_them(tmp_path, name, said):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=said):
        _built(tmp_path)


def test_a_data_set_of_an_earlier_version_is_not_taken_for_one_of_today(tmp_path):
    dummy.write_patient(tmp_path / "in", "BraTS2021_00001", ARRAYS)
    folder = _built(tmp_path)
    metadata = json.loads((folder / "metadata.json").read_text())
    del metadata["reading"]
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(DataError, match=r"built by an earlier version, .*--overwrite"):
        _built(tmp_path)
    _is_whole(_records(_built(tmp_path, overwrite=True))["BraTS2021_00001"])
