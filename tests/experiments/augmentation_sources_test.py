"""The augmentation study on prepared folders: PanNuke by its folds, BraTS by its patients."""

import dataclasses

import numpy as np
import pytest

from datasets.brats import make_dummy_data as brats
from datasets.build import build
from datasets.pannuke import make_dummy_data as pannuke
from experiments.augmentation_study.material import gather
from experiments.augmentation_study.pairs import FOLD, PATIENT, cut, kept_apart, load_pairs
from experiments.augmentation_study.patients import Known
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.splits import draw_splits
from launch.images.tfds_records import choose, open_prepared
from singan.config import DataConfig
from singan.errors import UserError

NUCLEI = Study(tile=16, crop=16, reduce=1, train_sizes=(1,), share_size=0, seeds=3, validation=1, folds=3)
TUMOUR = dataclasses.replace(NUCLEI, task="tumour")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    brats.write_layout(root / "in" / "brats", "2021")
    pannuke.write_folds(root / "in" / "pannuke", count=4, size=48)
    build("brats", root / "in" / "brats", data_dir=root)
    build("pannuke", root / "in" / "pannuke", data_dir=root)
    return root


def test_folds_of_pannuke_are_kept_apart(data_dir):
    found = load_pairs(DataConfig(source="tfds:pannuke", path=str(data_dir)), NUCLEI)
    assert {pair.patient for pair in found} == {"fold1", "fold2", "fold3"}
    assert found[0].pixels.shape == (48, 48, 3)
    assert found[0].pixels.dtype == np.uint8
    assert max(pair.instances.max() for pair in found) > 1
    patches, _ = cut(found, NUCLEI)
    by_id = {pair.id: pair.patient for pair in patches}
    for split in draw_splits(patches, [], NUCLEI):
        assert not {by_id[name] for name in split.order} & {by_id[name] for name in split.test}
    material = gather(DataConfig(source="tfds:pannuke", path=str(data_dir)), NUCLEI, print)
    assert material.kept_apart == FOLD
    facts = " ".join(material.facts(NUCLEI))
    assert "of 3 folds (PanNuke names no patients)" in facts
    assert "3 folds test each once" in facts


def test_slices_of_brats_bring_their_patients_and_tumours(data_dir):
    data = DataConfig(source="tfds:brats/slices", path=str(data_dir), channels=("flair",))
    found = load_pairs(data, TUMOUR)
    assert len({pair.patient for pair in found}) == 2
    for pair in found:
        assert pair.channels == ("flair",)
        assert pair.pixels.shape[-1] == 1
        assert set(np.unique(pair.instances)) == {0, 1}
    with pytest.raises(UserError, match="has label 77"):
        load_pairs(data, dataclasses.replace(TUMOUR, label=77))
    with pytest.raises(UserError, match="does not go with"):
        load_pairs(data, NUCLEI)
    assert kept_apart(data, TUMOUR) == PATIENT
    assert kept_apart(DataConfig(path="folder"), NUCLEI) == PATIENT
    # A healthy slice is of whom its record says, and one that is no record's of nobody that is known.
    patients = {pair.patient for pair in found}
    known = Known(data, "", [str(data_dir)], patients)
    every = choose(open_prepared(data), DataConfig(source=data.source))
    assert len(every) > len(found)
    assert {known.patient_of(record.id) for record in every} >= patients
    with pytest.raises(UserError, match=r"whose slice is .*_z999.*the study's own data"):
        known.patient_of(f"{min(patients)}_z999")
