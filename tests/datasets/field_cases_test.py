"""Small files that failed in the field: each is read with every labelled voxel in its place, or told what to do."""

import pathlib
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from datasets import build as command
from datasets import prepared

CASES = pathlib.Path(command.__file__).parents[2] / "shared" / "data" / "field_cases"

# All brain cases show the same patient: a region's voxels, and where the segmentation is numbered otherwise, its names.
EDEMA, ENHANCING = 176, 64
OLD = {"edema": EDEMA, "enhancing_tumor": ENHANCING}
BRATS = {
    "labels_0124_named_2023": (OLD, "4 without 3 in BraTS-GLI-00001-000"),
    "ped_roundtrip": ({"non_enhancing_tumor": ENHANCING, "edema": EDEMA}, "4 edema (brats_ped: by their names)"),
    "upenn": (OLD, "left out: nothing"),
    "nnunet": ({"label_2": EDEMA, "label_3": ENHANCING}, "0 t1, 1 t1ce, 2 t2, 3 flair, by the order of nnU-Net"),
    "zscore_whole_bg_negative": (OLD, "a background other than 0 was found"),
    "no_form_codes": (OLD, "left out: nothing"),
    "gz_not_gzipped": (OLD, "left out: nothing"),
    "seg_stored_LAS": (OLD, "turned to its axes, exactly"),
    "seg_autoscaled_uint8": (OLD, "rounded to whole numbers"),
    "trailing_singleton": (OLD, "left out: nothing"),
    "tar_in_zip_kaggle": (OLD, "left out: nothing"),
    "folder_per_file": (OLD, "left out: nothing"),
    "train_and_validation": (OLD, "train  "),
}
pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def there():
    if not CASES.exists():
        pytest.skip("no field cases beside the repository")


@pytest.mark.parametrize("case", BRATS)
def test_brain_cases(case, tmp_path, capfd):
    expected, said = BRATS[case]
    folder, _ = command.build("brats", CASES / case, data_dir=tmp_path)
    assert said in command.summary(folder)
    builder: Any = tfds.builder_from_directory(folder)
    records = list(builder.as_data_source("train"))
    assert len(records) == 6
    found: dict[str, int] = {}
    for record in records:
        assert record["modality_present"].all()
        assert 0 < record["brain_fraction"] < 0.9
        for value, count in zip(*np.unique(record["seg"], return_counts=True), strict=True):
            if value:
                name = record["label_names"][value].decode()
                found[name] = found.get(name, 0) + int(count)
    assert found == expected
    assert all(line.startswith("brats ") for line in capfd.readouterr().err.splitlines())


def test_codes_that_do_not_say_where_a_volume_lies_are_recorded(tmp_path):
    builder: Any = tfds.builder_from_directory(command.build("brats", CASES / "no_form_codes", data_dir=tmp_path)[0])
    assert builder.as_data_source("train")[0]["form_codes"].tolist() == [0, 0]


@pytest.mark.parametrize("case", ["pannuke_background_first", "pannuke_kaggle_part"])
def test_tissue_cases(case, tmp_path):
    folder, _ = command.build("pannuke", CASES / case, data_dir=tmp_path)
    builder: Any = tfds.builder_from_directory(folder)
    for record in builder.as_data_source("fold1"):
        assert record["class_counts"].tolist() == [1, 1, 1, 0, 1]
        np.testing.assert_array_equal(np.bincount(record["instance_map"].ravel())[1:], [149] * 4)
    notes = prepared.metadata(folder)["notes"]
    assert [("background" in note) for note in notes] == [True] * (case == "pannuke_background_first")
