import numpy as np
import pytest

from singan.errors import UserError
from singan.metrics.kernel_distance import kernel_distance, squared_mmd


def by_definition(x, y):
    """The unbiased estimate, pair by pair."""

    def kernel(a, b):
        return (np.dot(a, b) / len(a) + 1) ** 3

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(part) for j, b in enumerate(part) if i != j]) for part in (x, y)
    ]
    return sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def draws(n, d, seed, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (n, d)).astype(np.float32)


def test_it_is_the_mean_over_pairs():
    x, y = draws(9, 5, 0), draws(7, 5, 1, shift=0.5)
    expected = by_definition(x.astype(float), y.astype(float))
    assert squared_mmd(x, y) == pytest.approx(expected, rel=1e-5)
    result = kernel_distance(x, x[:9] + 1)
    assert result.value == pytest.approx(by_definition(x.astype(float), x.astype(float) + 1), rel=1e-5)
    assert (result.deviation, result.subset_size, result.subsets) == (None, 9, 1)


def test_points_of_known_distance():
    # Both sets hold one point only, again and again: E k(x, x) = (|a|^2 + 1)^3 and so on, in one dimension.
    x, y = np.full((4, 1), 2, np.float32), np.full((3, 1), -1, np.float32)
    assert squared_mmd(x, y) == pytest.approx(5**3 + 2**3 - 2 * (-1) ** 3)
    assert squared_mmd(x, x) == pytest.approx(0, abs=1e-4)


def test_it_is_unbiased_and_a_copy_lies_below_0():
    same = [float(squared_mmd(draws(20, 8, i), draws(20, 8, 1000 + i))) for i in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(300)
    assert min(same) < 0
    x = draws(20, 8, 0)
    assert -1 < float(squared_mmd(x, x)) < 0


def test_it_grows_with_a_shift_and_keeps_its_digits_at_a_large_mean():
    x = draws(200, 16, 0)
    values = [kernel_distance(x, draws(200, 16, 1, shift)).value for shift in (0.0, 0.2, 0.4, 0.8)]
    assert values == sorted(values)
    y = draws(60, 16, 1, 3.0)
    assert kernel_distance(x[:60] + 3, y).value == pytest.approx(
        by_definition(x[:60].astype(float) + 3, y.astype(float)), abs=2e-3
    )


def test_subsets_are_drawn_from_the_seed_alone():
    x, y = draws(60, 8, 0), draws(40, 8, 1, 0.3)
    first = kernel_distance(x, y, subset_size=20, subsets=50)
    assert first == kernel_distance(x, y, subset_size=20, subsets=50)
    assert first != kernel_distance(x, y, subset_size=20, subsets=50, seed=1)
    assert first.subset_size == 20
    assert first.deviation > 0
    whole = float(squared_mmd(x, y))
    assert first.value == pytest.approx(whole, abs=4 * first.deviation / np.sqrt(50))
    assert kernel_distance(x, y).subset_size == 40  # as many as the smaller set has


def test_what_has_no_kernel_distance_is_refused():
    x = draws(5, 3, 0)
    with pytest.raises(UserError, match="at least 2 generated images, not 1"):
        kernel_distance(x, x[:1])
    with pytest.raises(UserError, match="the features of real image 4 are not finite"):
        kernel_distance(np.where(np.arange(5)[:, None] == 4, np.nan, x), x)
    with pytest.raises(UserError, match="subsets of 2 or more"):
        kernel_distance(x, x, subset_size=1)
