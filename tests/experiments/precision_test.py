"""The study of train.precision: its statistics and verdicts, what its table says, and what it refuses."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from experiments.precision import plot
from experiments.precision.comparison import in_short, read_runs, table_of
from experiments.precision.pieces import PIECES, SIDE, pieces
from experiments.precision.shifts import Shift, shift
from experiments.precision.sweep import get_sweep
from singan.errors import UserError


def values(**seeds):
    """image=[one for each seed]"""
    return {(name, seed): value for name, some in seeds.items() for seed, value in enumerate(some)}


def test_a_shift_is_paired_by_image_and_seed_and_weighs_images_alike():
    base = values(a=[1.0, 2.0, 3.0], b=[10.0, 10.0, 13.0])
    found = shift(values(a=[1.1, 2.3, 3.2], b=[9.9, 9.9, 12.9]), base)
    assert found is not None
    assert found.pairs == 6
    assert found.base == pytest.approx((2 + 11) / 2)
    assert found.difference == pytest.approx((0.2 - 0.1) / 2)
    assert found.spread == pytest.approx(math.sqrt((1 + 3) / 2))
    # b's differences do not vary, so that a's alone count: deviation 0.1, 3 seeds, t(2, 97.5 %) = 4.3027.
    half = 4.3027 * 0.1 / math.sqrt(3) / 2
    assert (found.low, found.high) == pytest.approx((0.05 - half, 0.05 + half), rel=1e-4)
    assert found.in_spreads()[0] == pytest.approx(0.05 / math.sqrt(2))


def test_only_what_both_have_is_compared():
    base = values(a=[1.0, 2.0, 3.0], b=[5.0], c=[1.0, 2.0])
    found = shift(values(a=[2.0, 3.0], b=[7.0], d=[0.0, 0.0]), base)
    assert found is not None
    assert (found.pairs, found.base, found.difference) == (2, 1.5, 1.0)
    assert shift(values(a=[1.0]), base) is None


def test_equal_values_are_within_a_spread_of_nothing():
    found = shift(values(a=[1.0, 1.0]), values(a=[1.0, 1.0]))
    assert found == Shift(1.0, 0.0, 0.0, 0.0, 0.0, 2)
    assert found.verdict == "within"
    assert found.in_spreads() == (0, 0, 0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.9, 0.9, "within"),
        (0.1, 0.9, "within"),
        (-0.1, 1.1, "not shown"),
        (0.5, 3, "not shown"),
        (-3, -1.1, "beyond"),
    ],
)
def test_the_whole_interval_decides(low, high, verdict):
    assert Shift(5.0, (low + high) / 2, low, high, 1.0, 15).verdict == verdict


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of three images of unequal spread, five seeds and a shift that is known."""
    rng, held, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        noise = rng.normal(0, 1, (2, 3, 5)) * np.array([0.3, 1, 2])[:, None]
        base, moved = ({(i, s): of[i, s] for i in "012" for s in range(5)} for of in map(_Table, noise))
        found = shift({key: value + 0.5 for key, value in moved.items()}, base)
        assert found is not None
        held += found.low <= 0.5 <= found.high
    assert 0.92 <= held / trials <= 0.98


class _Table:
    def __init__(self, array):
        self.array = array

    def __getitem__(self, key):
        return float(self.array[int(key[0]), key[1]])


ROWS = [
    ("SWD", {"tf32": Shift(0.05, 0.001, -0.002, 0.004, 0.01, 15), "bf16": Shift(0.05, 0.03, 0.02, 0.04, 0.01, 15)}),
    ("copied", {"tf32": Shift(0.0, 0.0, 0.0, 0.0, 0.0, 15), "bf16": None}),
]


def test_table_and_sentence_say_what_the_intervals_say():
    head, first, second = table_of(ROWS)
    assert head == ["metric", "highest", "seeds' spread", "tf32 less highest", "is", "bf16 less highest", "is"]
    assert first[3:] == ["+0.00100 [−0.00200, +0.00400]", "within", "+0.0300 [+0.0200, +0.0400]", "beyond"]
    assert second[3:] == ["0 [0, 0]", "within", "–", "not shown"]
    assert "tf32, of 2 metrics" in in_short(ROWS, "tf32")
    assert "1 beyond, 1 not shown; the interval leaves out 0 in 1." in in_short(ROWS, "bf16")


def test_the_picture_is_made_where_a_spread_is_nothing_too():
    picture = plot.draw(ROWS, "title")
    assert picture == plot.draw(ROWS, "title")
    assert Image.open(io.BytesIO(picture)).size[0] > 500


def test_every_precision_has_the_same_five_seeds():
    seeds = {}
    for run in get_sweep():
        seeds.setdefault(run["train.precision"], []).append(run["seed"])
    assert seeds == {name: [0, 1, 2, 3, 4] for name in ("highest", "tf32", "bf16")}


def test_the_images_are_of_one_shape_and_differ():
    found = pieces()
    assert list(found) == list(PIECES)
    assert {image.shape for image in found.values()} == {(SIDE, SIDE, 3)}
    assert all(image.std() > 10 for image in found.values())


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"needs two seeds at highest and at another precision"):
        read_runs(tmp_path)
