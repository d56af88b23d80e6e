"""The statistics of a reader study against published values, closed forms and counting by hand."""

import itertools
import math

import numpy as np
import pytest

from launch.reader_study import scoring
from launch.reader_study.answers import Answer, Key, KeyItem, Reader
from launch.reader_study.results import csv_text, ratings_of, summarise, table
from launch.reader_study.scoring import Ratings

# Fleiss (1971), table 1: 30 patients, 6 psychiatrists; depression, personality disorder, schizophrenia, neurosis, other
FLEISS_1971 = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_gives_published_intervals(successes, trials, low, high):
    assert scoring.wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_solves_the_score_equation():
    for successes, trials in [(1, 3), (7, 40), (200, 400)]:
        for bound in scoring.wilson(successes, trials):
            z = (successes / trials - bound) / math.sqrt(bound * (1 - bound) / trials)
            assert abs(z) == pytest.approx(1.959963984540054, abs=1e-9)
    assert scoring.wilson(0, 0) == (0, 1)


def test_kappa_gives_the_example_of_fleiss():
    counts = np.array([[int(digit) for digit in row] for row in FLEISS_1971.split()])
    # The margins and the kappa that the paper prints.
    assert counts.sum(0) / 180 == pytest.approx([0.144, 0.144, 0.167, 0.306, 0.239], abs=6e-4)
    assert scoring.fleiss_kappa(counts) == pytest.approx(0.430, abs=5e-4)


def test_kappa_is_one_for_agreement_and_below_zero_for_disagreement():
    assert scoring.fleiss_kappa(np.array([[3, 0], [0, 3], [3, 0]])) == 1
    assert scoring.fleiss_kappa(np.array([[1, 1], [1, 1]])) == -1
    assert math.isnan(scoring.fleiss_kappa(np.array([[3, 0], [3, 0]])))  # chance alone would agree always
    assert math.isnan(scoring.fleiss_kappa(np.array([[1, 0], [0, 1]])))  # one rater
    with pytest.raises(ValueError, match="same number of raters"):
        scoring.fleiss_kappa(np.array([[2, 0], [1, 0]]))


def test_auc_counts_pairs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.choice([-5, -4, -3, -2, -1, 1, 2, 3, 4, 5], size=17).astype(float)
        positive = rng.permutation([True] * 6 + [False] * 11)
        pairs = itertools.product(scores[positive], scores[~positive])
        counted = sum(1.0 if high > low else 0.5 if high == low else 0.0 for high, low in pairs)
        assert scoring.auc(scores, positive) == pytest.approx(counted / (6 * 11), abs=1e-12)
    assert math.isnan(scoring.auc(np.array([1.0, 2.0]), np.array([True, True])))


def test_one_readers_interval_has_the_width_that_is_known_of_the_wilcoxon_statistic():
    """Hanley and McNeil's standard error, which holds for scores without many ties, of a large sample."""
    rng = np.random.default_rng(1)
    n = 400
    positive = np.arange(2 * n) < n
    scores = rng.normal(size=2 * n) + positive * 1.0
    ratings = Ratings(positive, scores[None])
    found = scoring.resample(ratings, seed=3).auc_of_reader[0]
    assert found is not None
    area = scoring.auc(scores, positive)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    error = math.sqrt((area * (1 - area) + (n - 1) * (q1 - area**2 + q2 - area**2)) / n**2)
    assert found[1] - found[0] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found[0] < area < found[1]


def test_readers_who_differ_widen_the_pooled_interval():
    """Items alone would say that readers of 90 % and 10 % are at 50 % for sure."""
    rng = np.random.default_rng(2)
    positive = np.arange(200) % 2 == 0
    truth = np.where(positive, 3.0, -3.0)
    good, bad = (np.where(rng.random(200) < share, truth, -truth) for share in (0.9, 0.1))
    low, high = scoring.resample(Ratings(positive, np.stack([good, bad]))).accuracy or (0, 0)
    assert low < 0.15
    assert high > 0.85
    low, high = scoring.resample(Ratings(positive, np.stack([good, good]))).accuracy or (0, 0)
    assert 0.8 < low < 0.9 < high < 0.99


def test_the_bootstrap_follows_its_seed():
    ratings = Ratings(np.arange(30) < 15, np.random.default_rng(0).choice([-2.0, -1, 1, 2], size=(3, 30)))
    assert scoring.resample(ratings, 5) == scoring.resample(ratings, 5)
    assert scoring.resample(ratings, 5) != scoring.resample(ratings, 6)


KEY = Key(
    "abc",
    "single",
    {
        "r1": KeyItem("real", "t1", None),
        "r2": KeyItem("real", "t2", None),
        "g1": KeyItem("generated", "t1", 0),
        "g2": KeyItem("generated", "t2", 10),
        "g3": KeyItem("generated", "t1", 9),
        "r3": KeyItem("real", "t1", None),
    },
)


def reader(name: str, **answers: tuple[str, int]) -> Reader:
    return Reader(name, {item: Answer(*given, seconds=2.0 * n) for n, (item, given) in enumerate(answers.items(), 1)})


ANNA = reader("anna", r1=("real", 5), r2=("generated", 2), g1=("generated", 4), g2=("real", 1), r3=("real", 3))
BEN = reader("ben", r1=("real", 1), g1=("generated", 1), g3=("real", 5))


def test_answers_become_signed_scores():
    ratings = ratings_of(KEY, [ANNA, BEN])
    assert ratings.positive.tolist() == [False, False, True, True, True, False]
    assert np.array_equal(ratings.scores[0], [-5, 2, 4, -1, np.nan, -3], equal_nan=True)
    assert np.array_equal(ratings.scores[1], [-1, np.nan, 1, np.nan, -5, np.nan], equal_nan=True)
    assert ratings.correct.sum(1).tolist() == [3, 2]


def test_a_summary_counts_what_was_answered():
    scores = summarise(KEY, [ANNA, BEN])
    anna, ben = scores["readers"]
    assert (anna["answered"], anna["correct"], anna["accuracy"], anna["finished"]) == (5, 3, 0.6, False)
    assert anna["seconds"] == (4.0, 6.0, 8.0)
    assert anna["auc"] == pytest.approx(5 / 6)  # 4 is above -5, 2, -3; -1 above -5, -3
    assert ben["auc"] == 0.5  # 1 is above -1, -5 is not
    pooled = scores["pooled"]
    assert (pooled["answered"], pooled["correct"]) == (8, 5)
    assert pooled["wilson"] == scoring.wilson(5, 8)
    assert pooled["auc"] == pytest.approx((5 / 6 + 0.5) / 2)
    # r1 and g1 were answered by both, alike.
    assert (scores["fleiss_kappa"], scores["fleiss_kappa_items"]) == (1.0, 2)
    rows = {(r["part"], r["group"], r["truth"]): (r["called_real"], r["called_generated"]) for r in scores["by_truth"]}
    assert rows == {("truth", "all real", "real"): (3, 1), ("truth", "all generated", "generated"): (2, 2)}
    assert [(r["group"], r["answered"], r["correct"]) for r in scores["by_start_scale"]] == [
        ("0", 2, 2),
        ("9", 1, 0),
        ("10", 1, 0),
    ]
    assert [(r["group"], r["truth"], r["answered"], r["correct"]) for r in scores["by_modality"]] == [
        ("t1", "real", 3, 3),
        ("t1", "generated", 3, 2),
        ("t2", "real", 1, 0),
        ("t2", "generated", 1, 0),
    ]


def test_all_rows_are_in_the_csv_and_the_table():
    scores = summarise(KEY, [ANNA, BEN])
    lines = csv_text(scores).splitlines()
    assert len(lines) == 1 + 2 + 1 + 2 + 3 + 4
    anna = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert (anna["part"], anna["group"], anna["accuracy"], anna["seconds_median"]) == ("reader", "anna", "0.6", "6")
    text = table(scores)
    assert "anna" in text
    assert "kappa 1.00 over the 2 items" in text
    assert "synthetic, start scale 10" in text


def test_pairs_are_scored_by_side():
    key = Key("abc", "pairs", {f"p{i}": KeyItem(("left", "right")[i % 2], "rgb", i % 3) for i in range(12)})
    answers = {item: Answer(truth.answer, 5, 1.0) for item, truth in key.items.items()}
    scores = summarise(key, [Reader("anna", answers)])
    assert (scores["pooled"]["accuracy"], scores["pooled"]["auc"]) == (1.0, 1.0)
    assert scores["pooled"]["accuracy_bootstrap"] == (1.0, 1.0)
    assert scores["fleiss_kappa"] is None
    assert "more often than by chance" in scores["conclusion"]
    assert [(r["truth"], r["answered"]) for r in scores["by_start_scale"]] == [("pair", 4)] * 3
    assert "called real" not in table(scores)
