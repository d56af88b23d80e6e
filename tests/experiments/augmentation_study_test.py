"""The augmentation study: what it reads and refuses, what batches hold, what numbers mean, and the whole command."""

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.augmentation_study import inserted, pieces, power, report, statistics
from experiments.augmentation_study.augmentation import crop, stack_of
from experiments.augmentation_study.conditions import PRIMARY, Condition, comparisons, conditions, train_sizes
from experiments.augmentation_study.decoding import Decoding, by_threshold, decode, tune, tune_threshold
from experiments.augmentation_study.generators import Mixing
from experiments.augmentation_study.material import gather
from experiments.augmentation_study.pairs import FOLD, PATIENT, Pair, brain_to_uint8, cut, load_pairs
from experiments.augmentation_study.patients import Known
from experiments.augmentation_study.pieces import Results, jobs_of
from experiments.augmentation_study.scores import METRICS, aggregated_jaccard, score
from experiments.augmentation_study.settings import Study, placeholders, refuse_unknown, study_of
from experiments.augmentation_study.splits import Split, draw_splits
from experiments.augmentation_study.training import Batches, Pools, Trainer
from singan.config import DataConfig
from singan.errors import UserError
from tests.launch.train.train_test import ROOT, assert_refused

STUDY = Study(
    train_sizes=(1, 2),
    seeds=3,
    folds=2,
    validation=1,
    reduce=1,
    tile=16,
    crop=16,
    samples=2,
    steps=6,
    width=4,
    share_size=2,
)


def tissue(number: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A light image [size, size, 3] with dark discs, and their instances."""
    rng = np.random.default_rng(number)
    rows, columns = np.indices((size, size))
    instances = np.zeros((size, size), np.int32)
    for label, (y, x) in enumerate(((6, 6), (7, 24), (25, 7), (22, 24)), start=1):
        y, x = y + rng.integers(-2, 3), x + rng.integers(-2, 3)
        instances[(rows - y) ** 2 + (columns - x) ** 2 <= 16] = label
    image = np.where(instances[..., None] > 0, (90, 60, 140), (230, 190, 220)) + rng.integers(-12, 13, (size, size, 1))
    return image.clip(0, 255).astype(np.uint8), instances


def pair(number: int, patient: str) -> Pair:
    image, instances = tissue(number, 32)
    return Pair(f"p{number}", patient, image[:16, :16], instances[:16, :16], ("red", "green", "blue"))


def write_tissue(root, names, size=32):
    for folder in ("images", "instances"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        image, instances = tissue(number, size)
        Image.fromarray(image).save(root / "images" / f"{name}.png")
        Image.fromarray(instances.astype(np.uint16)).save(root / "instances" / f"{name}.png")
    return DataConfig(path=str(root))


# Settings


def test_settings_take_numbers_as_flags_write_them():
    given = placeholders()
    given.train_sizes, given.seeds = "1,3", 7
    study = study_of("small", given.to_dict())
    assert (study.train_sizes, study.seeds, study.tile) == ((1, 3), 7, 64)
    assert study_of("", {}) == Study()


def test_an_unknown_setting_is_named_with_the_nearest():
    refuse_unknown(["--study.seeds=3", "-study.tile=16", "--workdir=x"])
    with pytest.raises(UserError, match=r"--study\.sample is not a setting.*did you mean 'samples'"):
        refuse_unknown(["--study.sample=3"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "nucleii"}, "did you mean 'nuclei'"),
        ({"tile": 20}, "multiple of 16"),
        ({"crop": 256}, "must fit into --study.tile=128"),
        ({"share_size": 3}, "among --study.train_sizes"),
        ({"train_sizes": "a,b"}, "must be numbers"),
        ({"share": 1.0}, "between 0 and 1"),
        ({"seeds": 1}, "2 or more"),
        ({"folds": 1}, "2 or more"),
        ({"inserted": "x"}, "--study.task=tumour"),
    ],
)
def test_bad_settings_are_named(given, words):
    with pytest.raises(UserError, match=words):
        study_of("", given)


# Images, masks, patients


def test_a_folder_is_cut_into_patches_with_masks_and_patients(tmp_path):
    data = write_tissue(tmp_path, ["TCGA-AA-0001-x", "TCGA-AA-0001-y", "TCGA-BB-0002-x"])
    found = load_pairs(data, STUDY)
    assert [one.patient for one in found] == ["TCGA-AA-0001", "TCGA-AA-0001", "TCGA-BB-0002"]
    patches, empty = cut(found, STUDY)
    assert (len(patches), empty) == (12, 0)
    first = patches[0]
    assert (first.pixels.shape, first.instances.max()) == ((16, 16, 3), 1)
    assert np.array_equal(first.pixels, found[0].pixels[:16, :16])
    (whole, *_), _ = cut(found, dataclasses.replace(STUDY, reduce=2))
    assert whole.instances.max() == 4
    assert whole.pixels[0, 0] == pytest.approx(found[0].pixels[:2, :2].mean((0, 1)), abs=0.51)


def test_patients_are_listed_or_asked_for(tmp_path):
    data = write_tissue(tmp_path, ["a", "b"])
    with pytest.raises(UserError, match=r"whose image is a\.png.*patients\.csv"):
        load_pairs(data, STUDY)
    (tmp_path / "patients.csv").write_text("a.png,P1\nb.png,P2\n")
    assert [one.patient for one in load_pairs(data, STUDY)] == ["P1", "P2"]
    by_name = dataclasses.replace(STUDY, patient="(.)$")
    (tmp_path / "patients.csv").unlink()
    assert [one.patient for one in load_pairs(data, by_name)] == ["a", "b"]


def test_what_cannot_be_studied_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="needs images with masks"):
        load_pairs(DataConfig(), STUDY)
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="holds no masks"):
        load_pairs(DataConfig(path=str(tmp_path / "bare")), STUDY)
    everyone = dataclasses.replace(STUDY, patient="(.*)")
    data = write_tissue(tmp_path / "lacking", ["a", "b"])
    (tmp_path / "lacking/instances/b.png").unlink()
    with pytest.raises(UserError, match=r"b\.png has no mask"):
        load_pairs(data, everyone)
    data = write_tissue(tmp_path / "unequal", ["a"])
    write_tissue(tmp_path / "unequal", ["b"], 40)
    with pytest.raises(UserError, match=r"differ in size.*32x32.*40x40"):
        load_pairs(data, everyone)
    data = write_tissue(tmp_path / "empty", ["a"])
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(tmp_path / "empty/instances/a.png")
    with pytest.raises(UserError, match="nothing to segment"):
        load_pairs(data, everyone)
    with pytest.raises(UserError, match="hold no tile of 64"):
        cut(load_pairs(write_tissue(tmp_path / "fine", ["a"]), everyone), dataclasses.replace(STUDY, tile=64, crop=64))


def write_slice(root, name, tumour=3, **more):
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(len(name))
    image = rng.uniform(0.2, 1, (2, 32, 32)).astype(np.float32)
    image[:, :4] = 0
    labels = np.zeros((32, 32), np.uint8)
    labels[10:20, 12:22] = tumour
    np.savez(root / f"{name}.npz", image=image, channels=np.array(["t1", "flair"]), seg=labels, **more)


def test_slices_of_the_tumour_task(tmp_path):
    write_slice(tmp_path, "A_z050")
    write_slice(tmp_path, "B_z061", patient="Q")
    write_slice(tmp_path, "B_z062", tumour=0)
    study = dataclasses.replace(STUDY, task="tumour")
    data = DataConfig(path=str(tmp_path), channels=("flair",))
    found = load_pairs(data, study)
    assert [(one.id, one.patient) for one in found] == [("A_z050", "A"), ("B_z061", "Q")]
    assert found[0].channels == ("flair",)
    assert found[0].pixels.shape == (32, 32, 1)
    assert (found[0].pixels[:4].max(), found[0].pixels.max()) == (0, 255)
    assert found[0].instances.sum() == 100
    with pytest.raises(UserError, match="none of the 3 slices has label 2"):
        load_pairs(data, dataclasses.replace(study, label=2))
    with pytest.raises(UserError, match="not 't2'"):
        load_pairs(DataConfig(path=str(tmp_path), channels=("t2",)), study)


@pytest.mark.parametrize("name", ["carvemix", "tumor_cp"])
def test_lesions_are_copied_between_the_slices_that_are_trained_on(tmp_path, name):
    write_slice(tmp_path, "A_z050")
    write_slice(tmp_path, "B_z061")
    slices = load_pairs(DataConfig(path=str(tmp_path), channels=("flair",)), dataclasses.replace(STUDY, task="tumour"))
    nobody = Split(0, 0, (), (), ())
    made, again = (Mixing(name).pairs(slices, 8, 1, nobody) for _ in range(2))
    assert {image.shape for image, _ in made} == {(32, 32, 1)}
    assert any((image != slices[0].pixels).any() and (image != slices[1].pixels).any() for image, _ in made)
    assert max(instances.astype(bool).sum() for _, instances in made) > 100  # more than the one lesion of either
    for (image, instances), (same, same_instances) in zip(made, again, strict=True):
        np.testing.assert_array_equal(image, same)
        np.testing.assert_array_equal(instances, same_instances)


# Who is tested


def test_every_patient_is_tested_once_by_each_seed_and_nobody_is_on_two_sides():
    tiles = [pair(number, f"patient{number // 2}") for number in range(12)]
    patient = {one.id: one.patient for one in tiles}
    drawn = draw_splits(tiles, [], STUDY)
    assert drawn == draw_splits(tiles, [], STUDY)
    assert len(drawn) == 6
    for seed in range(3):
        assert sorted(name for split in drawn if split.seed == seed for name in split.test) == sorted(patient)
    for split in drawn:
        sides = [{patient[name] for name in ids} for ids in (split.order, split.validation, split.test)]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 6
        assert len(sides[1]) == STUDY.validation
        first = [patient[name] for name in split.train(len(sides[0]))]
        assert len(set(first)) == len(first)  # one tile of each patient before a second
        assert split.train(0) == split.order
        assert split.train(2) == split.train(3)[:2]


def test_a_patient_or_an_image_on_both_sides_is_refused():
    train, test = [pair(0, "A"), pair(1, "B"), pair(4, "D")], [pair(2, "B")]
    with pytest.raises(UserError, match="patient B is in training and test"):
        draw_splits(train, test, STUDY)
    with pytest.raises(UserError, match="are one image"):
        draw_splits(train, [dataclasses.replace(pair(1, "C"), id="other")], STUDY)
    with pytest.raises(UserError, match=r"2 patient\(s\) are too few"):
        draw_splits([pair(0, "A"), pair(1, "B")], [], STUDY)
    with pytest.raises(UserError, match="leaves 1 tiles to train on"):
        draw_splits([pair(0, "A"), pair(1, "B"), pair(2, "C"), pair(3, "D")], [], STUDY)
    (split, *others) = draw_splits(train, [pair(2, "C")], STUDY)
    assert split.test == ("p2",)
    assert len(others) == 2  # one for each seed


def test_a_further_folder_brings_only_patients_that_are_new(tmp_path):
    data = write_tissue(tmp_path / "one", [f"TCGA-AA-000{n}-x" for n in range(3)], 16)
    write_tissue(tmp_path / "two", ["TCGA-AA-0001-y", "TCGA-BB-0001-y", "TCGA-BB-0002-y"], 16)
    notes = []
    study = dataclasses.replace(STUDY, also=str(tmp_path / "two"), train_sizes=(1,), share_size=0)
    material = gather(data, study, notes.append)
    assert sorted({one.patient for one in material.pairs.values()}) == [
        *(f"TCGA-AA-000{n}" for n in range(3)),
        "TCGA-BB-0001",
        "TCGA-BB-0002",
    ]
    assert "TCGA-AA-0001-y" not in " ".join(material.pairs)
    assert "1 of 3 images" in notes[0]
    assert set(material.trained) == {name for split in material.splits for name in split.train(1)}
    assert "2 folds test each once" in " ".join(material.facts(STUDY))


# What batches hold


def test_crops_turn_image_and_mask_alike():
    image, instances = tissue(3, 32)
    stack = stack_of(Pair("p", "A", image, instances, ("red", "green", "blue")), STUDY)
    assert stack.shape == (32, 32, 5)
    assert (stack[..., 4] > 0).sum() == (instances > 0).sum()
    assert stack[..., 4].max() == 1
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(12):
        plain = crop(stack, 16, False, rng)
        assert any(np.array_equal(plain, stack[y : y + 16, x : x + 16]) for y in range(17) for x in range(17))
        turned = crop(stack, 32, True, rng)
        inside = turned[..., 3] > 0.5
        assert turned[inside][:, 0].mean() < turned[~inside][:, 0].mean() - 0.2
        assert turned[..., :3].min() >= 0
        assert turned[..., :3].max() <= 1
        seen.add(turned.tobytes())
    assert len(seen) == 12


class Marked:
    """Makes pairs that are black, so that crops tell that they are made, each asked for with its seed."""

    def __init__(self):
        self.asked = []

    def prepare(self, seconds):
        return True

    def fingerprint(self):
        return "marked"

    def pairs(self, tiles, n, seed, split):
        self.asked.append(([tile.id for tile in tiles], n, seed))
        return [(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.int32))] * n


def test_a_batch_holds_its_share_of_made_pairs_from_its_own_tiles(tmp_path):
    tiles = [pair(number, f"P{number}") for number in range(2)]
    split = Split(0, 0, ("p0", "p1"), ("v",), ("t",))
    study = dataclasses.replace(STUDY, batch=8, refresh=4)
    for share, expected in ((0.25, 2), (0.5, 4), (0.01, 1), (0.99, 7)):
        made = Marked()
        pools = Pools(tmp_path, study, {"x": made})
        fresh = Condition("c", "", False, "x", True, share)
        batches = Batches(fresh, tiles, split, study, {"x": made}, pools)
        for number in range(8):
            black = (batches.next(number)[..., :3] == 0).all((1, 2, 3))
            assert black.sum() == expected
        assert len(made.asked) == 2  # anew after four steps
        assert made.asked[0][2] != made.asked[1][2]
        assert made.asked[0][:2] == (["p0", "p1"], 4 * expected)
        pooled = Batches(dataclasses.replace(fresh, fresh=False), tiles, split, study, {"x": made}, pools)
        for number in range(8):
            pooled.next(number)
    # A pool is drawn once for each tile, whoever asks.
    assert pools.count("x") == 2
    assert [ids for ids, n, _ in made.asked if n == study.samples] == []
    real = Batches(Condition("real", "", False), tiles, split, study, {}, pools)
    assert not (real.next(0)[..., :3] == 0).all((1, 2, 3)).any()
    mixed = Mixing("copy_paste").pairs(tiles, 3, 5, split)
    again = Mixing("copy_paste").pairs(tiles, 3, 5, split)
    assert all(
        np.array_equal(a, b) for one, two in zip(mixed, again, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_all_is_compared_with_augmentation_and_the_primary_question_is_among_it():
    chosen = conditions(Study(), ["copy_paste", "cutmix", "stacked", "conditional", "gpnn", "near_copies"])
    assert len({one.name for one in chosen}) == len(chosen)
    assert {one.share for one in chosen if one.generator} == {0.25, 0.5, 0.75}
    shares = [one for one in chosen if one.is_share]
    assert {one.name for one in shares} == {
        f"{base}_share_{s}" for base in ("stacked", "conditional") for s in (0.25, 0.75)
    }
    assert {train_sizes(one, Study()) for one in shares} == {(2,)}
    assert train_sizes(chosen[0], Study()) == (1, 2, 5, 10, 0)
    compared = comparisons(chosen)
    assert PRIMARY[:2] in compared
    assert ("augmented", "threshold_tuned") in compared
    assert ("cutmix", "copy_paste") not in compared
    assert {one.name for one in chosen if one.generator and not one.is_share} <= {
        a for a, b in compared if b == "augmented"
    }


def test_inserted_tumours_of_other_slices_or_into_tested_patients_are_not_shown():
    def composite(name, donor, patient, value):
        image = np.full((16, 16, 1), value, np.uint8)
        return inserted.Composite(name, donor, patient, image, np.zeros((16, 16), np.int32))

    composites = [composite("a", "s1", "H1", 1), composite("b", "s2", "H1", 2), composite("c", "s1", "T", 3)]
    tiles = {name: Pair(name, name.upper(), *([np.zeros(1)] * 2), ("flair",)) for name in ("s1", "s2", "s3", "t", "v")}
    made = inserted.Inserted(composites, tiles)
    split = Split(0, 0, ("s1", "s2"), ("v",), ("t",))
    values = {int(image.max()) for image, _ in made.pairs([tiles["s1"]], 50, 0, split)}
    assert values == {1}
    assert {int(image.max()) for image, _ in made.pairs([tiles["s1"], tiles["s2"]], 50, 0, split)} == {1, 2}
    with pytest.raises(UserError, match="no tumour of s3 was inserted"):
        made.pairs([tiles["s3"]], 1, 0, split)


def test_what_tumour_insertion_wrote_is_read_around_the_tumour(tmp_path):
    (tmp_path / "start_02").mkdir()
    image = np.random.default_rng(0).uniform(1, 100, (40, 40, 1)).astype(np.float32)
    labels = np.zeros((40, 40), np.uint8)
    labels[30:38, 2:10] = 4
    np.save(tmp_path / "start_02/x.npy", image)
    np.save(tmp_path / "start_02/x_seg.npy", labels)
    row = {
        "name": "x",
        "donor": {"id": "s1", "patient": "D"},
        "background": {"id": "h", "patient": "H"},
        "results": [{"start_scale": 2, "files": ["start_02/x.npy", "start_02/x_seg.npy"]}],
    }
    study = dataclasses.replace(STUDY, task="tumour", inserted=str(tmp_path))
    like = Pair("s1", "D", np.zeros((40, 40, 1), np.uint8), labels.astype(np.int32), ("flair",))
    data = tmp_path / "data"
    data.mkdir()
    known = Known(DataConfig(path=str(data)), "(.)", [str(data)], {"h"})
    with pytest.raises(UserError, match=r"holds no insertions\.json"):
        inserted.load(study, like, known)
    (tmp_path / "insertions.json").write_text(json.dumps({"insertions": [row]}))
    (found,) = inserted.load(study, like, known)
    assert (found.donor, found.patient, found.image.shape) == ("s1", "h", (16, 16, 1))  # not H, by another rule
    assert found.instances.sum() == 64
    assert np.array_equal(found.image, brain_to_uint8(image)[24:40, :16])
    (smaller,) = inserted.load(dataclasses.replace(study, reduce=2), like, known)
    assert smaller.instances.sum() == 16
    assert smaller.image[15, 0, 0] == pytest.approx(brain_to_uint8(image)[38:, :2].mean(), abs=0.51)
    unknown = Known(DataConfig(path=str(data)), "", [str(data)], {"A"})
    with pytest.raises(UserError, match=r"whose slice is h, .*patients\.csv"):
        inserted.load(study, like, unknown)


def test_backgrounds_are_of_whom_the_study_says_its_own_slices_are(tmp_path):
    root, tests = tmp_path / "train", tmp_path / "test"
    write_slice(root, "A_z050")
    write_slice(root, "B_z050", patient="P2")
    write_slice(root, "C_z001", tumour=0, patient="P2")  # healthy: no slice of the study, but a background of P2's
    write_slice(tests, "T_z050")
    (root / "patients.csv").write_text("A_z050.npz,P1\nB_z070,P2\n")
    (tests / "patients.csv").write_text("A_z050,P9\n")
    study, data = dataclasses.replace(STUDY, task="tumour"), DataConfig(path=str(root))
    patients = {one.patient for one in [*load_pairs(data, study), *load_pairs(data, study, str(tests))]}
    assert patients == {"P1", "P2", "T"}
    alone = Known(data, "", [str(root)], patients)
    found = {name: alone.patient_of(name) for name in ("A_z050", "B_z050", "B_z070", "C_z001", "T_z080")}
    assert found == {"A_z050": "P1", "B_z050": "P2", "B_z070": "P2", "C_z001": "P2", "T_z080": "T"}
    for name in ("A_z051", "B_z051", "X_z080", "nobody"):  # by name A, who would be tested as P1
        with pytest.raises(UserError, match=f"whose slice is {name}"):
            alone.patient_of(name)
    both = Known(data, "", [str(root), str(tests)], patients)
    assert both.patient_of("T_z050") == "T"
    with pytest.raises(UserError, match="A_z050 is of P1 and of P9"):
        both.patient_of("A_z050")


# Scores


def test_aggregated_jaccard_of_known_cases():
    truth = np.zeros((8, 8), np.int32)
    truth[:2, :4], truth[4:6, :4] = 1, 2
    assert aggregated_jaccard(truth, truth) == 1
    assert aggregated_jaccard(np.zeros_like(truth), truth) == 0
    assert aggregated_jaccard(np.zeros_like(truth), np.zeros_like(truth)) == 1
    half = truth.copy()
    half[4:6] = 0  # one of two equal nuclei was found
    assert aggregated_jaccard(half, truth) == 0.5
    extra = truth.copy()
    extra[7, :] = 3  # and 8 pixels that belong to none
    assert aggregated_jaccard(extra, truth) == 16 / 24
    merged = (truth > 0).astype(np.int32)  # both as one: each true one is taken with it, 8 / 16 twice
    assert aggregated_jaccard(merged, truth) == 16 / 32


def test_scores_are_pooled_by_patient():
    tiles = [pair(0, "A"), pair(1, "A"), pair(2, "B")]
    truth = [one.instances for one in tiles]
    perfect = score(truth, tiles, instances=True)
    assert {tuple(row.values()) for row in perfect.values()} == {(1, 1, 1, 1)}
    partly = score([truth[0], np.zeros_like(truth[1]), truth[2]], tiles, instances=False)
    areas = [(mask > 0).sum() for mask in truth]
    assert partly["A"]["dice"] == pytest.approx(2 * areas[0] / (2 * areas[0] + areas[1]))
    assert partly["A"]["iou"] == pytest.approx(areas[0] / (areas[0] + areas[1]))
    assert partly["B"]["dice"] == 1


def test_touching_nuclei_are_cut_along_the_valley_of_their_distance():
    truth = np.zeros((32, 32), np.int32)
    rows, columns = np.indices(truth.shape)
    truth[(rows - 12) ** 2 + (columns - 10) ** 2 <= 36] = 1
    truth[((rows - 12) ** 2 + (columns - 21) ** 2 <= 36) & (truth == 0)] = 2
    tile = Pair("p", "A", np.zeros((32, 32, 3), np.uint8), truth, ("red", "green", "blue"))
    prediction = stack_of(tile, STUDY)[..., 3:]
    assert aggregated_jaccard(decode(prediction, Decoding(), True), truth) > 0.9
    assert decode(prediction, Decoding(), False).max() == 1
    flat = np.stack([prediction[..., 0], np.ones((32, 32))], -1)  # without distances they are one
    assert decode(flat, Decoding(), True).max() == 1
    hollow = prediction.copy()
    hollow[11:14, 9:12, 0] = 0
    assert (decode(hollow, Decoding(), True) > 0)[truth > 0].all()
    specks = prediction.copy()
    specks[28:30, 28:30] = 1
    assert decode(specks, Decoding(), True).max() == 2
    assert decode(specks, Decoding(least=1), True).max() == 3
    assert decode(np.zeros((8, 8, 2)), Decoding(), True).max() == 0


def test_tuning_takes_what_is_best_on_the_tiles_that_it_is_given():
    image, instances = tissue(0, 32)
    tile = Pair("p", "A", image, instances, ("red", "green", "blue"))
    prediction = stack_of(tile, STUDY)[..., 3:] * 0.45  # too shy: only the lowest threshold sees it
    prediction[..., 1] *= 2
    assert tune([prediction], [tile], True).inside == 0.4
    assert score([by_threshold(tile)], [tile], False)["A"]["dice"] > 0.9
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 60, image.shape), 0, 255).astype(np.uint8)
    assert tune_threshold([dataclasses.replace(tile, pixels=noisy)]) > 0


# Numbers and sentences


def values(*rows):
    return {seed: {f"P{place}": value for place, value in enumerate(row)} for seed, row in enumerate(rows)}


def test_intervals_hold_the_mean_and_pairing_takes_out_what_is_common():
    base = values((0.2, 0.8), (0.3, 0.7), (0.4, 0.6), (0.1, 0.9), (0.5, 0.5))
    better = {seed: {name: value + 0.05 for name, value in row.items()} for seed, row in base.items()}
    alone = statistics.estimate(base, "x")
    assert alone.mean == pytest.approx(0.5)
    assert alone.low < 0.5 < alone.high
    assert alone == statistics.estimate(base, "x")
    found = statistics.difference(better, base, "x")
    assert (found.mean, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))
    assert (found.seeds, found.patients, found.verdict) == (5, 2, "higher")
    noise = values((0.1, -0.1), (-0.2, 0.2), (0.1, 0.0), (0.0, -0.1), (0.05, 0.05))
    assert statistics.estimate(noise, "x").verdict == "not told apart"
    partly = statistics.difference(better, {0: {"P0": 0.1}}, "x")  # over what both have
    assert (partly.mean, partly.seeds, partly.patients) == (pytest.approx(0.15), 1, 1)
    assert statistics.difference(better, {9: {"P0": 0.1}}, "x") is None


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        seeds = rng.normal(0, 0.1, 12)
        found = statistics.estimate(values(*(seed + rng.normal(0, 0.05, 3) for seed in seeds)), "x")
        covered += found.low <= 0 <= found.high
    assert covered >= 51  # at 95 % 57 are expected; bootstrap intervals of 12 are somewhat too narrow


@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_an_interval_covers_the_truth_where_the_same_patients_come_back(noise):
    # Drawing patients anew for each seed, as if they were others, covers 72 and 80 %.
    rng = np.random.default_rng(0)
    covered, count = 0, 200
    for _ in range(count):
        effects = rng.normal(0, 0.05, 6)
        cells = {
            seed: {f"P{p}": effects[p] + rng.normal(0, noise) for p in rng.permutation(6)[:3]} for seed in range(5)
        }
        found = statistics.estimate(cells, "x")
        covered += found.low <= 0 <= found.high
    assert covered >= 0.87 * count


@pytest.mark.parametrize("seeds", [1, 5, 50])
def test_more_seeds_tell_nothing_more_of_patients_that_they_all_test(seeds):
    # A resample's mean is the share of ones among ten draws: its 2.5 and 97.5 percentiles are those of a binomial.
    found = statistics.estimate(values(*[[0, 1] * 5] * seeds), "x")
    assert (found.mean, found.low, found.high) == (0.5, 0.2, 0.8)


def test_intervals_of_what_is_there_once_or_never_together():
    found = statistics.estimate({0: {"A": 0.25}}, "x")
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)
    apart = statistics.estimate({0: {"A": 0.0}, 1: {"B": 1.0}}, "x")  # half of the resamples draw no value at all
    assert (apart.mean, apart.low, apart.high, apart.patients) == (0.5, 0, 1, 2)
    uneven = statistics.estimate({0: {"A": 0.0, "B": 0.0}, 1: {"B": 1.0}}, "x")
    assert uneven.mean == pytest.approx(1 / 3)


def test_holms_correction_of_a_known_case():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_p_values_are_small_where_the_interval_is_far_from_0_and_even_where_there_is_nothing():
    rng = np.random.default_rng(0)
    drawn = [statistics.estimate(values(*rng.normal(0, 1, (5, 12))), "x").p for _ in range(200)]
    assert 0.3 < np.mean(drawn) < 0.6
    assert np.mean(np.array(drawn) < 0.05) < 0.15
    assert statistics.estimate(values(*rng.normal(3, 1, (5, 12))), "x").p < 0.001


def test_spreads_are_those_that_differences_were_drawn_with():
    rng = np.random.default_rng(0)
    table = 0.1 + 0.3 * rng.normal(size=(1, 60)) + 0.1 * rng.normal(size=(40, 1)) + 0.2 * rng.normal(size=(40, 60))
    assert power.spreads_of(values(*table)) == pytest.approx((0.3, 0.1, 0.2), rel=0.3)
    assert power.spreads_of(values((1.0, 2.0), (1.0, 2.0))) == pytest.approx((0.5**0.5, 0, 0))


def test_more_patients_and_larger_differences_are_seen_more_often():
    spreads = power.Spreads(0.04, 0.0, 0.03)
    few, many = (power.power(0.02, patients, 3, spreads, 60) for patients in (6, 60))
    assert few < many
    assert many > 0.8
    assert power.power(-0.1, 12, 3, spreads, 20) > 0.9
    assert power.power(1e-6, 40, 3, spreads, 60) < 0.15  # nothing to see


def test_differences_are_read_from_a_study(tmp_path):
    lines = ["condition,n,metric,seed,patient,value"]
    for condition, value in (("a", 0.5), ("b", 0.3)):
        lines += [f"{condition},2,dice,{seed},{p},{value + seed / 10}" for seed in range(2) for p in ("P", "Q")]
    (tmp_path / "study.csv").write_text("\n".join(lines))
    read = power.read_difference(tmp_path / "study.csv", "a", "b", 2, "dice")
    assert [read[seed][p] for seed in (0, 1) for p in ("P", "Q")] == pytest.approx([0.2] * 4)
    with pytest.raises(UserError, match="does not hold a and b at n = 5"):
        power.read_difference(tmp_path / "study.csv", "a", "b", 5, "dice")


# Pieces and the report


def world(tmp_path, study=STUDY):
    tiles = [pair(number, f"patient{number // 2}") for number in range(12)]
    splits = draw_splits(tiles, [], study)
    chosen = conditions(study, ["copy_paste", "conditional"])
    jobs = jobs_of(study, chosen, splits, stained=True)
    results = Results(tmp_path / "results", lambda job: pieces.digest_of(job, study, "tiles", lambda name: "made"))
    return {one.id: one for one in tiles}, jobs, results


def keep(results, job, tiles, value):
    row = dict.fromkeys(METRICS, value)
    patients = {tiles[name].patient: row for name in job.split.test}
    results.write(job, {"patients": patients, "decoding": {}, "cpu_seconds": {"pairs": 1.0, "training": 2.0}})


def test_pieces_come_seed_by_seed_and_a_result_made_otherwise_is_made_anew(tmp_path):
    tiles, jobs, results = world(tmp_path)
    assert len({job.name for job in jobs}) == len(jobs)
    seeds = [job.split.seed for job in jobs]
    assert seeds == sorted(seeds)
    job = jobs[-1]
    assert results.read(job) is None
    keep(results, job, tiles, 0.5)
    assert results.read(job)["patients"]
    for changed in ({"steps": 7}, {"learning_rate": 0.1}):
        study = dataclasses.replace(STUDY, **changed)
        other = Results(tmp_path / "results", lambda job, study=study: pieces.digest_of(job, study, "tiles", str))
        assert other.read(job) is None
    more = dataclasses.replace(STUDY, seeds=9, share_size=0)
    same = Results(tmp_path / "results", lambda job: pieces.digest_of(job, more, "tiles", lambda name: "made"))
    assert same.read(job) is not None


def test_the_plan_goes_by_what_segmenters_took_here():
    study = Study(steps=1000)
    guess = pieces.cost_of(study, 10.0, 3, [])
    assert guess.pyramids == pytest.approx(10 * pieces.CPU_SECONDS_A_PYRAMID_STEP)
    assert guess.segmenter == pytest.approx(1000 * pieces.CPU_SECONDS_A_STEP)
    done = [{"trained_on": ["a"], "cpu_seconds": {"pairs": 5.0, "training": 15.0}}]
    assert pieces.cost_of(study, 0, 0, done).segmenter == 20
    assert pieces.hours(7200 * 2) == 2


def test_the_report_answers_the_primary_question_and_corrects_the_others(tmp_path):
    tiles, jobs, results = world(tmp_path)
    worth = {"real": 0.5, "augmented": 0.7, "copy_paste": 0.72, "conditional": 0.75, "threshold": 0.6}
    arguments = (STUDY, "command", ["a fact"], {"pyramids": 7200.0, "gpnn": 0.0})
    for job in jobs[: len(jobs) // 3]:
        keep(results, job, tiles, worth.get(job.condition.name, 0.65))
    text = report.write(tmp_path, jobs, results, *arguments, PATIENT)  # of one seed: what is there
    for job in jobs:
        keep(results, job, tiles, worth.get(job.condition.name, 0.65) + 0.01 * job.split.seed)
    text = report.write(tmp_path, jobs, results, *arguments, PATIENT)
    assert (
        "At n = 2, dice with '+ conditional pairs, made while training' is higher than that with '+ copy-paste'" in text
    )
    assert "+0.030 [+0.030, +0.030] over 3 seeds and 6 patients" in text
    assert "pyramids: 1.00 hours of two cores, once" in text
    rows = list(csv.DictReader((tmp_path / "comparisons.csv").read_text().splitlines()))
    assert rows[0]["primary"] == "True"
    assert [row["primary"] for row in rows].count("True") == 1
    against = next(row for row in rows if (row["first"], row["second"]) == ("augmented", "threshold"))
    assert float(against["difference"]) == pytest.approx(0.1)
    assert all(float(row["p_holm"]) >= float(row["p"]) for row in rows)
    table = (tmp_path / "study.md").read_text()
    assert re.search(r"\| - \| Otsu's threshold .*0\.610.*\| 0% \| 3 \|", table)
    picture = (tmp_path / "study.png").read_bytes()
    report.write(tmp_path, jobs, results, *arguments, PATIENT)
    assert (tmp_path / "study.png").read_bytes() == picture
    report.write(tmp_path, jobs, results, *arguments, FOLD)
    assert (tmp_path / "study.csv").read_text().startswith("condition,n,metric,seed,fold,")
    assert "patient" not in (tmp_path / "comparisons.csv").read_text()


def test_the_primary_question_stays_open_where_there_are_no_conditional_pairs(tmp_path):
    tiles, jobs, results = world(tmp_path)
    for job in jobs:
        if job.condition.generator != "conditional":
            keep(results, job, tiles, 0.7)
    text = report.write(tmp_path, jobs, results, STUDY, "command", [], {}, PATIENT)
    assert "Open: dice of conditional against copy_paste at n = 2" in text


# The segmenter


@pytest.mark.slow
def test_a_segmenter_learns_the_same_from_the_same_and_stops_when_asked(tmp_path):
    study = dataclasses.replace(STUDY, steps=120, learning_rate=1e-2, width=8, crop=16, tile=32)
    tiles = {}
    for number in range(6):
        image, instances = tissue(number)
        tiles[f"p{number}"] = Pair(f"p{number}", f"P{number}", image, instances, ("red", "green", "blue"))
    split = Split(0, 0, ("p0", "p1", "p2"), ("p3",), ("p4", "p5"))
    trainer = Trainer(study, tiles, {}, Pools(tmp_path, study, {}))
    augmented = Condition("augmented", "")
    result = trainer.train(augmented, 0, split, lambda: False)
    assert set(result["patients"]) == {"P4", "P5"}
    assert min(row["dice"] for row in result["patients"].values()) > 0.85
    assert min(row["aji"] for row in result["patients"].values()) > 0.7
    assert trainer.train(augmented, 0, split, lambda: False)["patients"] == result["patients"]
    assert trainer.train(augmented, 1, split, lambda: True) is None


# The whole command

FLAGS = [
    "--config.pyramid.min_size=11",
    "--config.pyramid.max_size=16",
    "--config.network.width=4",
    "--config.network.num_layers=3",
    "--config.train.steps_per_scale=2",
    "--config.train.chunk=2",
    "--config.train.checkpoint_every=2",
    "--study.patient=(.*)_",
    "--study.reduce=1",
    "--study.tile=16",
    "--study.crop=16",
    "--study.train_sizes=1",
    "--study.seeds=2",
    "--study.validation=1",
    "--study.folds=2",
    "--study.samples=2",
    "--study.steps=4",
    "--study.width=4",
    "--study.share_size=0",
]


def run(root, workdir, *flags):
    command = [sys.executable, "-m", "experiments.augmentation_study.run", f"--config.data.path={root}"]
    return subprocess.run(
        [*command, f"--workdir={workdir}", *FLAGS, *flags],
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.processes
@pytest.mark.slow
def test_the_command_goes_from_images_to_the_table_in_shares_and_keeps_what_is_done(tmp_path):
    root, workdir = tmp_path / "data", tmp_path / "study"
    write_tissue(root, ["a_1", "b_1", "c_1", "d_1"])
    assert_refused(run(root, workdir, "--study.train_sizes=1,99"), "asks for 99")
    plan = run(root, workdir, "--plan")
    assert plan.returncode == 0, plan.stderr
    assert "stays open" not in plan.stdout
    assert "left: 44 of 44 pieces" in plan.stdout
    assert not workdir.exists()
    first = run(root, workdir, "--minutes=0.01")
    assert first.returncode == 75, first.stderr
    assert "time is up" in first.stderr
    done = {path: path.stat().st_mtime_ns for path in (workdir / "results").iterdir()}
    assert 1 <= len(done) < 44
    result = run(root, workdir)
    assert result.returncode == 0, result.stderr
    assert {path: path.stat().st_mtime_ns for path in done} == done
    rows = list(csv.DictReader((workdir / "study.csv").read_text().splitlines()))
    assert {row["condition"] for row in rows} == {
        *(
            "threshold",
            "threshold_tuned",
            "real",
            "augmented",
            "copy_paste",
            "cutmix",
            "stacked",
            "conditional",
            "conditional_pool",
            "gpnn",
            "near_copies",
        ),
    }
    assert all(0 <= float(row["value"]) <= 1 for row in rows)
    page = (workdir / "study.md").read_text()
    assert "pyramids: " in page
    held_back = tmp_path / "others"
    write_tissue(held_back, ["e_2", "f_2"], 48)
    others = run(root, workdir, f"--study.test_path={held_back}", "--minutes=0.01")
    assert others.returncode == 75, others.stderr
    assert "2 held-back patients test every seed" in (workdir / "study.md").read_text()


@pytest.mark.processes
@pytest.mark.slow
def test_agreement_is_measured_both_ways_and_kept(tmp_path):
    root, workdir = tmp_path / "data", tmp_path / "agreement"
    write_tissue(root, ["a_1", "b_1", "c_1", "d_1"])
    result = run(root, workdir, "--agreement=4", "--study.steps=40")
    assert result.returncode == 0, result.stderr
    done = sorted((workdir / "agreement").iterdir())
    assert len(done) == 2 * 4  # folds, pieces
    on = json.loads(done[-1].read_text())["scores"]
    assert set(on) == {"real", "conditional", "conditional_copied", "stacked", "stacked_copied"}
    masks = sorted((workdir / "conditional_tiles/masks").iterdir())
    assert [path.stem for path in masks] == [path.stem for path in sorted((workdir / "tiles").iterdir())]
    text = (workdir / "agreement.md").read_text()
    assert "conditional divided by real" in text
    assert "that the SinGANs know" in text
    again = run(root, workdir, "--agreement=4", "--study.steps=40")
    assert (again.returncode, again.stdout) == (0, text)
    assert "is done" not in again.stderr
