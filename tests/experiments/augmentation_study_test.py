"""The augmentation study: what it reads and refuses, what batches hold, what numbers mean, and the whole command."""

import csv
import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.augmentation_study import inserted, report, splits, statistics, unet
from experiments.augmentation_study.conditions import Condition, Source, conditions, schedule, train_sizes
from experiments.augmentation_study.pairs import FOLD, PATIENT, Pair, brain_to_uint8, cut, load_pairs
from experiments.augmentation_study.patients import Known
from experiments.augmentation_study.scores import METRICS, aggregated_jaccard, by_threshold, score
from experiments.augmentation_study.segmenters import Job, digest_of, finished, write
from experiments.augmentation_study.settings import Study, placeholders, refuse_unknown, study_of
from experiments.augmentation_study.splits import draw_splits
from experiments.augmentation_study.synthetic import Bank, draw, patches_of
from singan.config import DataConfig
from singan.errors import UserError
from singan.model.encodings import encode_instances
from singan.parallel.cohort import image_mesh
from singan.storage.run import load_run
from tests.launch.train.train_test import ROOT, assert_refused

STUDY = Study(train_sizes=(1, 2), seeds=3, patch=16, samples=2, steps=6, batch=4, width=4, lever_size=2)


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
    study = study_of("small", {**given.to_dict(), "lever_size": 3})
    assert (study.train_sizes, study.seeds, study.patch) == ((1, 3), 7, 48)
    assert study_of("", {}) == Study()


def test_an_unknown_setting_is_named_with_the_nearest():
    refuse_unknown(["--study.seeds=3", "-study.patch=16", "--workdir=x"])
    with pytest.raises(UserError, match=r"--study\.sample is not a setting.*did you mean 'samples'"):
        refuse_unknown(["--study.sample=3"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "nucleii"}, "did you mean 'nuclei'"),
        ({"patch": 20}, "multiple of 8"),
        ({"sizes": (0.5,)}, "1 or more"),
        ({"lever_size": 3}, "among --study.train_sizes"),
        ({"train_sizes": "a,b"}, "must be numbers"),
        ({"share": 1.0}, "between 0 and 1"),
        ({"seeds": 1}, "2 or more"),
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
    with pytest.raises(UserError, match="hold no patch of 64"):
        cut(load_pairs(write_tissue(tmp_path / "fine", ["a"]), everyone), dataclasses.replace(STUDY, patch=64))


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


# Who is tested


def test_no_patient_is_on_both_sides_and_larger_sets_hold_the_smaller():
    patches = [pair(number, f"patient{number // 2}") for number in range(8)]
    by_id = {one.id: one.patient for one in patches}
    drawn = draw_splits(patches, [], STUDY)
    assert drawn == draw_splits(patches, [], STUDY)
    assert len({split.test_patients for split in drawn}) > 1
    for split in drawn:
        assert not {by_id[name] for name in split.order} & set(split.test_patients)
        assert {by_id[name] for name in split.test} == set(split.test_patients)
        assert len(split.order) + len(split.test) == 8
    assert set(splits.used(drawn, STUDY)) == {name for split in drawn for name in split.order[:2]}


def test_a_patient_or_an_image_on_both_sides_is_refused():
    train, test = [pair(0, "A"), pair(1, "B")], [pair(2, "B")]
    with pytest.raises(UserError, match="patient B is in training and test"):
        draw_splits(train, test, STUDY)
    with pytest.raises(UserError, match="are one image"):
        draw_splits(train, [dataclasses.replace(pair(1, "C"), id="other")], STUDY)
    with pytest.raises(UserError, match="all images are of A"):
        draw_splits([pair(0, "A"), pair(1, "A")], [], STUDY)
    with pytest.raises(UserError, match="leaves 1 patches to train on"):
        draw_splits([pair(0, "A"), pair(1, "B")], [], STUDY)
    assert draw_splits(train, [pair(2, "C")], STUDY)[0].test == ("p2",)


# What batches hold


def test_every_condition_has_as_many_steps_and_its_share():
    study = dataclasses.replace(STUDY, share=0.25, batch=8, steps=50)
    chosen = conditions(study, [0, 1], coloured=True)
    assert len({one.name for one in chosen}) == len(chosen)
    ablations = [one for one in chosen if one.is_ablation]
    assert len({one.name.split("_")[0] for one in ablations}) >= 6
    assert {one.against for one in ablations} <= {"real_synthetic", "plain"}
    assert train_sizes(ablations[0], study) == (2,)
    for condition in chosen:
        made = {source.name: [100 + n] for n, source in enumerate(condition.sources)}
        rows = schedule(condition, study, 0, [5, 7], made)
        assert rows.shape == (50, 8)
        synthetic = (rows >= 100).sum(1)
        expected = 0 if not made else 8 if not condition.real else round(8 * condition.share)
        assert set(synthetic) == {expected}
        if made:
            assert set(rows[rows >= 100]) == {100 + n for n in range(len(made))}
        assert set(rows[rows < 100]) <= {5, 7}
        assert np.array_equal(rows, schedule(condition, study, 0, [5, 7], made))


def test_synthetic_pairs_are_cut_and_decoded(tmp_path):
    image, instances = tissue(0)
    one = Pair("p", "A", image[:16, :16], instances[:16, :16], ("red", "green", "blue"))
    drawn = np.concatenate([image, encode_instances(instances)], -1)
    samples = np.stack([drawn, np.roll(drawn, 5, 0)])
    source, study = Source(1, 2.0), STUDY
    images, targets = patches_of(samples, one, source, "instances", study)
    assert (images.shape, targets.shape, set(np.unique(targets))) == ((2, 16, 16, 3), (2, 16, 16), {0, 255})
    # Wherever they were cut, the mask went along: nuclei are dark.
    assert np.array_equal(images[..., 0] < 150, targets > 0)
    soft = patches_of(samples, one, source, "soft", study)[1]
    assert np.array_equal(soft > 127, targets > 0)
    # A sample whose mask shows something else is the one that is left out.
    wrong = samples.copy()
    wrong[1, ..., 3] = np.roll(wrong[1, ..., 3], 8, 1)
    kept = patches_of(wrong, one, source, "agreeing", study)
    assert np.array_equal(kept[0], patches_of(samples[:1], one, source, "instances", study)[0])
    folder = tmp_path / source.name
    folder.mkdir()
    np.save(folder / "p.npy", samples)
    bank = Bank({"p": one}, tmp_path, study)
    rows = bank.real(["p"]) + bank.synthetic(source, ["p"], "instances")
    assert (rows, bank.synthetic(source, ["p"], "instances")) == ([0, 1, 2], [1, 2])
    assert np.array_equal(bank.take(rows)[1][1:], targets)


def test_inserted_tumours_of_other_slices_or_into_tested_patients_are_not_shown():
    def composite(name, donor, patient):
        shape = (1, 16, 16)
        return inserted.Composite(name, 2, donor, patient, np.zeros((*shape, 1), np.uint8), np.zeros(shape, np.uint8))

    composites = [composite("a", "s1", "H1"), composite("b", "s2", "H1"), composite("c", "s1", "T")]
    split = splits.Split(0, ("s1", "s2"), ("t",), ("T",))
    condition = Condition("real_synthetic", "", True, (Source(2),), share=0.5)
    bank = Bank({}, ROOT, STUDY)
    assert inserted.rows(bank, composites, condition, split, ["s1"]) == {"start_02_size_1": [0]}
    assert inserted.rows(bank, composites, condition, split, ["s1", "s2"]) == {"start_02_size_1": [0, 1]}
    with pytest.raises(UserError, match="no tumour of s3 was inserted"):
        inserted.rows(bank, composites, condition, split, ["s3"])


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
    study = dataclasses.replace(STUDY, task="tumour", inserted=str(tmp_path), start_scales=(2,))
    like = Pair("s1", "D", np.zeros((40, 40, 1), np.uint8), labels.astype(np.int32), ("flair",))
    data = tmp_path / "data"
    data.mkdir()
    known = Known(DataConfig(path=str(data)), "(.)", [str(data)], {"h"})
    with pytest.raises(UserError, match=r"holds no insertions\.json"):
        inserted.load(study, like, known)
    (tmp_path / "insertions.json").write_text(json.dumps({"insertions": [row]}))
    (found,) = inserted.load(study, like, known)
    assert (found.donor, found.patient, found.images.shape) == ("s1", "h", (1, 16, 16, 1))  # not H, by another rule
    assert (found.targets > 0).sum() == 64
    assert np.array_equal(found.images[0], brain_to_uint8(image)[24:40, :16])
    (smaller,) = inserted.load(dataclasses.replace(study, reduce=2), like, known)
    assert (smaller.targets > 0).sum() == 16
    assert smaller.images[0, 15, 0, 0] == pytest.approx(brain_to_uint8(image)[38:, :2].mean(), abs=0.51)
    with pytest.raises(UserError, match="at start scales 1"):
        inserted.load(dataclasses.replace(study, start_scales=(1,)), like, known)
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
    patches = [pair(0, "A"), pair(1, "A"), pair(2, "B")]
    truth = [one.instances > 0 for one in patches]
    perfect = score(truth, patches, instances=True)
    assert {tuple(row.values()) for row in perfect.values()} == {(1, 1, 1, 1)}
    found = score([truth[0], np.zeros_like(truth[1]), truth[2]], patches, instances=False)
    areas = [mask.sum() for mask in truth]
    assert found["A"]["dice"] == pytest.approx(2 * areas[0] / (2 * areas[0] + areas[1]))
    assert found["A"]["iou"] == pytest.approx(areas[0] / (areas[0] + areas[1]))
    assert found["B"]["dice"] == 1
    assert score([by_threshold(patches[0])], patches[:1], False)["A"]["dice"] > 0.9


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
    with pytest.raises(AssertionError):
        statistics.difference(base, values((0.1, 0.2)), "x")


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


def test_the_headline_says_what_went_up_down_and_neither():
    def compared(first, second, size, low, high):
        found = statistics.Estimate((low + high) / 2, low, high, 5, 3)
        return statistics.Comparison(first, second, size, "dice", found)

    text = statistics.headline(
        [
            compared("real_synthetic", "real", 1, 0.01, 0.03),
            compared("real_synthetic", "real", 2, -0.01, 0.03),
            compared("all", "real_augmented", 1, -0.03, -0.01),
        ],
        "dice",
        FOLD,
    )
    assert text.startswith("Dice on folds that were not trained on: ")
    assert "raised it at n = 1" in text
    assert "no difference that can be told from chance at n = 2" in text
    assert "on top of the usual augmentation, synthetic pairs lowered it at n = 1" in text


CONDITIONS = ("real", "real_augmented", "synthetic", "real_synthetic", "all")


def test_the_report_tells_conditions_and_levers_from_the_kept_results(tmp_path):
    patches = [pair(number, f"patient{number // 2}") for number in range(8)]
    (tmp_path / "results").mkdir()
    chosen = conditions(STUDY, [0, 1], coloured=True)
    jobs = [
        Job(condition, size, split)
        for condition in chosen
        for size in train_sizes(condition, STUDY)
        for split in draw_splits(patches, [], STUDY)
    ]
    worth = {
        "real": 0.5,
        "real_augmented": 0.7,
        "synthetic": 0.4,
        "real_synthetic": 0.6,
        "all": 0.65,
        "share_0.75": 0.5,
    }
    for job in jobs:
        shift = 0.01 * job.split.seed  # common to all conditions of a seed: pairing takes it out
        row = dict.fromkeys(METRICS, worth.get(job.condition.name, 0.6) + shift)
        patients = dict.fromkeys(job.split.test_patients, row)
        write(tmp_path / "results", job, patients, digest_of(job, STUDY, "world"))
    text = report.write(tmp_path, jobs, STUDY, "world", "command", ["a fact"], PATIENT)
    assert "without other augmentation, synthetic pairs raised it at n = 1, 2" in text
    assert "on top of the usual augmentation, synthetic pairs lowered it at n = 1, 2" in text
    page = (tmp_path / "study.md").read_text()
    assert "## Ablations, at n = 2" in page
    assert "-0.100 [-0.100, -0.100]" in next(line for line in page.splitlines() if "75% of a batch" in line)
    compared = list(csv.DictReader((tmp_path / "comparisons.csv").read_text().splitlines()))
    found = next(row for row in compared if (row["first"], row["n"]) == ("all", "2"))
    assert (float(found["difference"]), found["verdict"]) == (pytest.approx(-0.05), "lower")
    with Image.open(tmp_path / "study.png") as picture:
        assert picture.width > 1500
    assert "paired by seed and patient." in page
    picture = (tmp_path / "study.png").read_bytes()
    report.write(tmp_path, jobs, STUDY, "world", "command", ["a fact"], PATIENT)
    assert (tmp_path / "study.png").read_bytes() == picture
    text = report.write(tmp_path, jobs, STUDY, "world", "command", ["a fact"], FOLD)
    tables = [(tmp_path / name).read_text() for name in ("study.md", "comparisons.csv", "study.json")]
    assert not any("patient" in written for written in (text, *tables))
    assert (
        (tmp_path / "comparisons.csv").read_text().startswith("first,second,n,metric,difference,low,high,seeds,folds,")
    )
    assert (tmp_path / "study.csv").read_text().startswith("condition,n,metric,seed,fold,")
    gone = digest_of(jobs[0], STUDY, "another world")
    assert finished(tmp_path / "results", jobs[0].name, gone) is None  # made from other patches: trained anew


# The network


@pytest.mark.slow
def test_many_trainings_at_once_are_the_same_as_one_after_another_and_learn():
    patches = [pair(number, "A") for number in range(8)]
    study = dataclasses.replace(STUDY, steps=120, learning_rate=1e-2)
    images = np.stack([one.pixels for one in patches])
    targets = np.stack([(one.instances > 0) * np.uint8(255) for one in patches])
    rows = np.random.default_rng(0).integers(0, 4, (2, 120, 4)).astype(np.int32)
    runs = unet.Runs(rows, np.array([[4, 5, 6, 7]] * 2, np.int32), np.array([False, True]), np.zeros(2, np.uint32))
    one_by_one = np.asarray(unet.training_program(study, vectorised=False)(images, targets, images, runs))
    together = np.asarray(unet.training_program(study, vectorised=True)(images, targets, images, runs))
    assert one_by_one.shape == (2, 4, 16, 16)
    assert np.abs(one_by_one.astype(int) - together).max() <= 3
    assert not np.array_equal(one_by_one[0], one_by_one[1])  # the second saw changed images
    dice = score(list(one_by_one[0] > 127), patches[4:], False)["A"]["dice"]
    assert dice > 0.8


def test_augmentation_turns_image_and_mask_alike():
    image, instances = tissue(3)
    shown, target = jnp.asarray(image / 255.0), jnp.asarray(instances > 0, jnp.float32)
    changed = set()
    for number in range(12):
        turned, mask = unet.augment(jax.random.key(number), shown, target)
        assert float(mask.sum()) == float(target.sum())
        dark, light = turned[mask > 0].mean(), turned[mask == 0].mean()
        assert dark < light - 0.2
        changed.add(np.asarray(mask).tobytes())
    assert len(changed) > 4


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
    "--study.patch=16",
    "--study.train_sizes=1,2",
    "--study.seeds=2",
    "--study.samples=2",
    "--study.steps=4",
    "--study.start_scales=0,5",
    "--study.sizes=1",
    "--study.lever_size=0",
]


def run(root, workdir, *flags):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.augmentation_study.run",
            f"--config.data.path={root}",
            f"--workdir={workdir}",
            *FLAGS,
            *flags,
        ],
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.processes
@pytest.mark.slow
def test_the_command_goes_from_images_to_the_table_and_keeps_what_is_done(tmp_path):
    root, workdir = tmp_path / "data", tmp_path / "study"
    write_tissue(root, ["a_1", "b_1"])
    refused = run(root, workdir, "--study.train_sizes=1,2,9")
    assert_refused(refused, "leaves 4 patches to train on", "asks for 9")
    result = run(root, workdir)
    assert result.returncode == 0, result.stderr
    assert "Dice on patients that were not trained on" in result.stdout
    page = (workdir / "study.md").read_text()
    assert "e: real + synthetic, all augmented" in page
    assert "Ablations" not in page
    rows = list(csv.DictReader((workdir / "study.csv").read_text().splitlines()))
    assert {row["condition"] for row in rows} == {*CONDITIONS, "threshold"}
    assert all(0 <= float(row["value"]) <= 1 for row in rows)
    assert "start scale (0) and size" in page  # of 0 and 5, which was asked for and is not there
    card = json.loads((workdir / "synthetic/start_00_size_1/data_card.json").read_text())
    assert card["settings"]["start_scale"] == 0
    assert any("masks are generated" in text for text in card["limits"])
    kept = {path: path.stat().st_mtime_ns for path in (workdir / "results").iterdir()}
    gone = workdir / "results/real_n1_seed0.json"
    before = gone.read_bytes()
    gone.unlink()
    again = run(root, workdir)
    assert again.returncode == 0, again.stderr
    assert "segmenters, 1 to train" in again.stderr
    assert gone.read_bytes() == before
    assert {path for path, time in kept.items() if path.stat().st_mtime_ns != time} == {gone}
    assert (workdir / "study.md").read_text() == page
    assert "pairs of each of" not in again.stderr
    drawn_again_where_drawn_otherwise(workdir)


def drawn_again_where_drawn_otherwise(workdir):
    """Draws from the SinGANs of a study that is done; a study for this alone would train them once more."""
    source, told = Source(0), []
    folder = workdir / "synthetic" / source.name
    trained, mesh = load_run(workdir / "singan"), image_mesh(jax.devices()[:1])
    ids = sorted(path.stem for path in folder.glob("*.npy"))
    study = study_of("small", {"samples": 2})

    def drawn(study, source=source):
        told.clear()
        draw(trained, source, ids[:2], study, workdir / "synthetic" / source.name, mesh, told.append)
        return np.load(workdir / "synthetic" / source.name / f"{ids[0]}.npy")

    first = drawn(study)
    assert (len(first), told) == (2, [])
    (folder / "made_from.json").unlink()  # a whole folder's data card tells it too
    assert np.array_equal(drawn(study), first)
    assert told == []
    more = drawn(dataclasses.replace(study, samples=3))
    assert (len(more), len(told)) == (3, 1)
    assert {path.stem for path in folder.glob("*.npy")} == {*ids[:2]}  # what else there was had two
    assert json.loads((folder / "data_card.json").read_text())["settings"]["samples_of_each"] == 3
    styled = Source(0, styled=True)
    whole = drawn(study, styled)
    assert len(told) == 1
    half = drawn(dataclasses.replace(study, style=0.5), styled)
    assert len(told) == 1
    assert not np.array_equal(whole, half)
    # Stopped before its data card was written, and other weights since.
    (folder / "data_card.json").unlink()
    made = json.loads((folder / "made_from.json").read_text())
    made["settings"]["weights_digest"] = "others"
    (folder / "made_from.json").write_text(json.dumps(made))
    assert len(drawn(dataclasses.replace(study, samples=3))) == 3
    assert told == [f"{source.name}: 3 pairs of each of 2 patches"]
