"""Which label table a case is read with: every voxel keeps its meaning, and doubt is said or refused."""

import json
import re
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tensorflow_datasets as tfds
from nibabel.nifti1 import Nifti1Extension

from datasets import build as command
from datasets import prepared
from datasets.brats import make_dummy_data as dummy
from datasets.brats.labels import CHOICES, from_names, whole_labels
from datasets.build import build
from datasets.errors import DataError

NEW, OLD = "BraTS-GLI-{:05d}-000", "BraTS2021_{:05d}"
REGIONS = {"enhancing_tumor": "ET", "resection_cavity": "RC", "edema": "ED", "surrounding_flair_hyperintensity": "ED"}
REGIONS |= {"necrotic_and_non_enhancing_core": "NCR", "non_enhancing_tumor": "NET", "cystic_component": "CC", "": ""}
REGIONS |= {"gross_tumor_volume": "GTV", "necrosis": "NCR"}


def _write(root, cases, naming="from_2023", comment=None):
    """Writes a patient of each name with the labels given, 1 voxel of label 1, 2 of label 2 and so on."""
    for name, labels in cases.items():
        arrays = dummy.volumes(1, None)
        arrays["seg"] = np.zeros(dummy.SHAPE, np.uint8)
        for label in labels:
            arrays["seg"][8 : 8 + label, 9, 2 + label] = label
        files = dummy.write_patient(root / name, name, arrays, naming)
        if comment is not None:
            image = nib.Nifti1Image(arrays["seg"], dummy.AFFINE)
            image.header.extensions.append(Nifti1Extension(6, json.dumps(comment).encode()))
            nib.save(image, files["seg"])


def _voxels(folder):
    """Returns case -> region -> number of voxels, by the names that the records give their labels."""
    counts = {}
    builder: Any = tfds.builder_from_directory(folder)
    for record in builder.as_data_source("train"):
        here = counts.setdefault(record["patient"].decode(), {})
        values, found = np.unique(record["seg"], return_counts=True)
        for value, count in zip(values, found, strict=True):
            if value:
                name = record["label_names"][value].decode()
                here[REGIONS.get(name, name)] = here.get(REGIONS.get(name, name), 0) + int(count)
                assert record["label_stored_values"][value] in range(1, 256)
    return counts


def _built(tmp_path, **options):
    return build("brats", tmp_path / "in", data_dir=tmp_path / "out", **options)[0]


def _how(folder):
    return [(decided["label_table"], decided["how"]) for decided in prepared.metadata(folder)["labels"]]


NAMED = {
    "2021": (OLD, (1, 2, 4), {"NCR": 1, "ED": 2, "ET": 4}),
    "2021 without ET": (OLD, (1, 2), {"NCR": 1, "ED": 2}),
    "2021 with the numbers of 2023": (OLD, (1, 2, 3), {"NCR": 1, "ED": 2, "ET": 3}),
    "2023": (NEW, (1, 2, 3), {"NCR": 1, "ED": 2, "ET": 3}),
    "2023 with the numbers of 2021": (NEW, (1, 2, 4), {"NCR": 1, "ED": 2, "ET": 4}),
    "2024": ("BraTS-GLI-{:05d}-101", (1, 2, 3, 4), {"NCR": 1, "ED": 2, "ET": 3, "RC": 4}),
    "2024 without ET": ("BraTS-GLI-{:05d}-101", (2, 4), {"ED": 2, "RC": 4}),
    "paediatric": ("BraTS-PED-{:05d}-000", (1, 2, 3, 4), {"ET": 1, "NET": 2, "CC": 3, "ED": 4}),
    "paediatric without CC": ("BraTS-PED-{:05d}-000", (1, 2, 4), {"ET": 1, "NET": 2, "ED": 4}),
    "meningioma": ("BraTS-MEN-{:05d}-000", (1, 2, 3), {"NCR": 1, "ED": 2, "ET": 3}),
    "metastases": ("BraTS-MET-{:05d}-000", (1, 2, 3), {"NCR": 1, "ED": 2, "ET": 3}),
    "Africa": ("BraTS-SSA-{:05d}-000", (1, 2, 3), {"NCR": 1, "ED": 2, "ET": 3}),
    "radiotherapy": ("BraTS-MEN-RT-{:04d}-1", (1,), {"GTV": 1}),
    "anybody's": ("scan{:02d}", (1, 2, 4), {"NCR": 1, "ED": 2, "ET": 4}),
    "anybody's mask": ("scan{:02d}", (1,), {"label_1": 1}),
}


@pytest.mark.parametrize(("name", "labels", "expected"), NAMED.values(), ids=NAMED)
def test_each_label_keeps_its_meaning(tmp_path, name, labels, expected):
    new = name.startswith("BraTS-")
    _write(tmp_path / "in", {name.format(7): labels}, "from_2023" if new else "until_2021")
    folder = _built(tmp_path)
    assert _voxels(folder) == {name.format(7): expected}
    assert prepared.metadata(folder)["labels"][0]["cases"] == 1


@pytest.mark.parametrize("key", ["2021 with the numbers of 2023", "2023 with the numbers of 2021", "anybody's mask"])
def test_a_doubt_is_said_with_the_flag_that_decides_otherwise(tmp_path, key):
    name, labels, _ = NAMED[key]
    _write(tmp_path / "in", {name.format(7): labels}, "from_2023" if name is NEW else "until_2021")
    folder = _built(tmp_path)
    ((_, how),) = _how(folder)
    assert "--labels=" in how
    assert how in command.summary(folder)


def test_names_without_a_doubt_raise_none(tmp_path):
    _write(tmp_path / "in", {OLD.format(1): (1, 2, 4), OLD.format(2): (2,)}, "until_2021")
    assert _how(_built(tmp_path)) == [("brats_until_2021", "by their names")]


def test_spellings_that_others_share_with_2023_make_no_doubt(tmp_path):
    arrays = dummy.volumes(1, (1, 2, 4))
    files = dummy.write_patient(tmp_path / "in", "UCSF-PDGM-0004", arrays)
    for kind, ending in (("t1ce", "T1c"), ("t2", "T2w"), ("seg", "tumor_segmentation")):
        files[kind].rename(tmp_path / "in" / f"UCSF-PDGM-0004_{ending}.nii.gz")
    folder = _built(tmp_path)
    assert _how(folder) == [("brats_until_2021", "1 2 4, as in BraTS until 2021")]
    assert _voxels(folder)["UCSF-PDGM-0004"]["ET"] == (arrays["seg"] == 4).sum()


def test_four_beside_three_in_one_case_tells_of_the_others(tmp_path):
    _write(tmp_path / "in", {NEW.format(1): (1, 2, 3, 4), NEW.format(2): (2, 4), NEW.format(3): (2, 3)})
    counts = _voxels(_built(tmp_path))
    assert counts[NEW.format(2)] == {"ED": 2, "RC": 4}
    assert counts[NEW.format(3)] == {"ED": 2, "ET": 3}


def test_what_cannot_be_told_is_refused_and_can_be_asked_for(tmp_path):
    _write(tmp_path / "in", {NEW.format(1): (1, 2, 3), NEW.format(2): (1, 2, 4)})
    with pytest.raises(DataError, match=r"00001-000 holds label 3 and BraTS-GLI-00002-000 label 4 .*--labels=2024"):
        _built(tmp_path)
    assert not (tmp_path / "out").exists()
    assert _voxels(_built(tmp_path, labels="2024"))[NEW.format(2)] == {"NCR": 1, "ED": 2, "RC": 4}


def test_three_beside_four_is_of_no_year_until_2021(tmp_path):
    _write(tmp_path / "in", {OLD.format(1): (1, 2, 3, 4)}, "until_2021")
    with pytest.raises(DataError, match="holds both labels 3 and 4"):
        _built(tmp_path)
    assert _voxels(_built(tmp_path, labels="2015"))[OLD.format(1)] == {"NCR": 1, "ED": 2, "NET": 3, "ET": 4}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("2024", {"NCR": 1, "ED": 2, "ET": 3, "RC": 4}),
        ("ped", {"ET": 1, "NET": 2, "CC": 3, "ED": 4}),
        ("as_stored", {"label_1": 1, "label_2": 2, "label_3": 3, "label_4": 4}),
    ],
)
def test_the_numbering_can_be_asked_for(tmp_path, asked, expected):
    _write(tmp_path / "in", {OLD.format(1): (1, 2, 3, 4)}, "until_2021")
    folder = _built(tmp_path, labels=asked)
    assert _voxels(folder) == {OLD.format(1): expected}
    assert _how(folder)[0][1] == f"as --labels={asked} says"
    with pytest.raises(DataError, match=f"was built with --labels={asked}"):
        _built(tmp_path)
    assert _voxels(_built(tmp_path, labels=asked)) == {OLD.format(1): expected}  # found built already


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["brats", "--labels=1999"], "--labels=1999 is no numbering of labels: give 2020 .*, PED"),
        (["pannuke", "--labels=2023"], "leave it out for pannuke"),
    ],
)
def test_a_numbering_that_there_is_not(tmp_path, capsys, arguments, said):
    assert command.main([*arguments, f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'out'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)


def test_the_table_that_a_file_brings_along_overrules_its_name(tmp_path):
    brought = {"label_table": "brats_ped", "labels": {str(v): n for v, n in CHOICES["ped"].meaning().items()}}
    _write(tmp_path / "in", {f"{OLD.format(1)}_0003": (1, 2, 3, 4)}, "until_2021", brought)
    folder = _built(tmp_path)
    assert _voxels(folder) == {f"{OLD.format(1)}_0003": {"ET": 1, "NET": 2, "CC": 3, "ED": 4}}
    assert _how(folder) == [("brats_ped", "as the files themselves say")]


def test_a_table_of_somebody_s_own(tmp_path):
    brought = {"label_table": "mine", "labels": {"1": "Solid part", "5": "resection cavity"}}
    _write(tmp_path / "in", {NEW.format(1): (1, 5)}, comment=brought)
    folder = _built(tmp_path)
    assert _voxels(folder) == {NEW.format(1): {"solid_part": 1, "RC": 5}}
    builder: Any = tfds.builder_from_directory(folder)
    records = list(builder.as_data_source("train"))
    assert sum(record["tumour_voxels"] for record in records) == 1  # the cavity is none
    assert list(records[0]["label_stored_values"]) == [0, 1, 5, -1, -1]


@pytest.mark.parametrize("labels", [{"1": "a", "2": "b", "3": "c", "4": "d", "5": "e"}, {"-1": "a"}, {}, {"x": "a"}])
def test_a_table_that_cannot_be_used_is_told(tmp_path, labels):
    _write(tmp_path / "in", {NEW.format(1): (1,)}, comment={"label_table": "mine", "labels": labels})
    with pytest.raises(DataError, match=r"-seg\.nii\.gz says in its header .*give --labels"):
        _built(tmp_path)
    assert _voxels(_built(tmp_path, labels="2023")) == {NEW.format(1): {"NCR": 1}}


@pytest.mark.parametrize("comment", ["text", ["x"], {"labels": 3}, {"label_table": "x", "labels": [1]}])
def test_comments_of_others_are_passed_over(tmp_path, comment):
    _write(tmp_path / "in", {NEW.format(1): (1, 3)}, comment=comment)
    assert _voxels(_built(tmp_path)) == {NEW.format(1): {"NCR": 1, "ET": 3}}


def test_a_table_known_by_name_is_that_table():
    for table in CHOICES.values():
        assert from_names(table.name, table.meaning()) == table
    other = from_names("brats_ped", {1: "edema"})
    assert other.meaning() == {1: "edema"}


@pytest.mark.parametrize(("scale", "off"), [(4 / 255, True), (1.0, False)])
def test_labels_are_whole_up_to_rounding(tmp_path, scale, off):
    arrays = dummy.volumes(1, (1, 2, 4))
    files = dummy.write_patient(tmp_path / "in", OLD.format(1), arrays)
    image = nib.Nifti1Image(np.rint(arrays["seg"] / scale).astype(np.uint8), dummy.AFFINE)
    image.header.set_slope_inter(scale, 0)
    nib.save(image, files["seg"])
    folder = _built(tmp_path)
    counts = {"NCR": (arrays["seg"] == 1).sum(), "ED": (arrays["seg"] == 2).sum(), "ET": (arrays["seg"] == 4).sum()}
    assert _voxels(folder) == {OLD.format(1): counts}
    assert any("rounded" in note for note in prepared.metadata(folder)["notes"]) == off


def test_labels_between_numbers_are_refused(tmp_path):
    arrays = dummy.volumes(1, (1, 2, 4))
    files = dummy.write_patient(tmp_path / "in", OLD.format(1), arrays)
    nib.save(nib.Nifti1Image((arrays["seg"] * 0.75).astype(np.float32), dummy.AFFINE), files["seg"])
    with pytest.raises(DataError, match=r"_seg\.nii\.gz: label [\d.]+ is not whole: .* nearest neighbour"):
        _built(tmp_path)


def test_rounding_keeps_whole_numbers_as_they_are():
    assert whole_labels(np.array([0, 4], np.int16))[1] == ""
    assert whole_labels(np.array([0.0, 4.0]))[1] == ""
    for values in (np.array([np.nan, 1.0]), np.array([1 + 1j])):
        with pytest.raises(ValueError, match="no labels"):
            whole_labels(values)
