import jax
import numpy as np
import pytest
import scipy.linalg

from singan.errors import UserError
from singan.metrics.frechet import (
    add_features,
    feature_frechet,
    frechet_distance,
    gaussian_frechet,
    map_frechet,
    no_features,
    shortfall,
    single_image_frechet,
)


def by_definition(mean_1, covariance_1, mean_2, covariance_2):
    root = scipy.linalg.sqrtm(covariance_1 @ covariance_2)
    return np.sum((mean_1 - mean_2) ** 2) + np.trace(covariance_1 + covariance_2 - 2 * np.real(root))


def correlated(n, d, seed, spread=1.0, shift=0.0):
    """n vectors of a Gaussian whose axes are neither equal nor along the coordinates."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(99).normal(size=(d, d)) * np.geomspace(1, 0.01, d)
    return spread * rng.normal(size=(n, d)) @ axes + shift


def statistics(*batches):
    found = no_features(batches[0].shape[1])
    for batch in batches:
        found = add_features(found, batch)
    return found


@pytest.mark.parametrize(
    ("mean_1", "covariance_1", "mean_2", "covariance_2", "expected"),
    [
        ([0.0, 0, 0], np.diag([1.0, 4, 9]), [1.0, 2, 2], np.diag([1.0, 4, 9]), 9),  # a shift: its square
        ([0.0, 0, 0], np.diag([1.0, 4, 9]), [0.0, 0, 0], np.diag([4.0, 4, 0]), 1 + 0 + 9),  # (sigma_1 - sigma_2)^2
        ([0.0, 0], [[2.0, 1], [1, 2]], [0.0, 0], [[8.0, 4], [4, 8]], 4),  # C and 4 C: the trace of C
        ([3.0], [[4.0]], [1.0], [[25.0]], 4 + 9),  # one dimension
        ([0.0, 0], [[1.0, 1], [1, 1]], [0.0, 0], [[1.0, -1], [-1, 1]], 4),  # singular and orthogonal to each other
    ],
)
def test_gaussians_of_known_distance(mean_1, covariance_1, mean_2, covariance_2, expected):
    arguments = [np.array(part, float) for part in (mean_1, covariance_1, mean_2, covariance_2)]
    assert gaussian_frechet(*arguments) == pytest.approx(expected, rel=1e-12)
    assert gaussian_frechet(*arguments[2:], *arguments[:2]) == pytest.approx(expected, rel=1e-12)
    assert gaussian_frechet(*arguments[:2], *arguments[:2]) == pytest.approx(0, abs=1e-12)


def test_scipys_matrix_square_root_gives_the_same():
    a, b = correlated(400, 30, 0), correlated(300, 30, 1, spread=1.3, shift=0.2)
    expected = by_definition(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert expected > 1
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(expected, rel=1e-9)
    assert feature_frechet(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(8, 6), (40, 7), (2, 2), (31, 30)])
def test_fewer_vectors_than_dimensions_have_a_distance_too(n, m):
    a, b = correlated(n, 30, 0), correlated(m, 30, 1, shift=0.1)
    slow = frechet_distance(statistics(a), statistics(b))
    # Where C has eigenvalues 0, rounding leaves 1e-16 there, and 1e-8 in its root.
    assert feature_frechet(a, b) == pytest.approx(slow, rel=1e-8)
    assert feature_frechet(a, a) == pytest.approx(0, abs=1e-9)
    nearly = [np.cov(part.T) + 1e-9 * np.eye(30) for part in (a, b)]
    assert slow == pytest.approx(by_definition(a.mean(0), nearly[0], b.mean(0), nearly[1]), rel=1e-3)


def test_few_vectors_are_biased_upwards_and_said_to_be():
    distances = [feature_frechet(correlated(n, 30, 0), correlated(n, 30, 1)) for n in (4, 10, 30, 100, 1000)]
    assert distances == sorted(distances, reverse=True)
    assert shortfall(31, 30) == ""
    assert "30 feature vectors for 30 dimensions" in shortfall(30, 30)
    assert "undefined: 1 of the 2" in shortfall(1, 30)


def test_statistics_do_not_depend_on_the_batches():
    vectors = correlated(57, 6, 0, shift=1e4)  # a mean that squares would drown in
    whole = statistics(vectors)
    np.testing.assert_allclose(whole.mean, vectors.mean(0), rtol=1e-12)
    np.testing.assert_allclose(whole.covariance, np.cov(vectors.T), rtol=1e-9)
    for batches in (np.split(vectors, [1, 2, 30]), np.split(vectors, 57), np.split(vectors, [0, 20])):
        parts = statistics(*batches)
        assert parts.count == 57
        np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
        np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=1e-9)


def test_too_few_vectors_and_broken_ones_are_refused():
    one = np.ones((1, 4))
    with pytest.raises(UserError, match="at least 2 feature vectors, not 1: give more images"):
        frechet_distance(statistics(one), statistics(np.eye(4)))
    with pytest.raises(UserError, match="at least 2 feature vectors, not 0"):
        frechet_distance(no_features(4), statistics(np.eye(4)))
    with pytest.raises(UserError, match="at least 2 feature vectors, not 1"):
        feature_frechet(np.eye(4)[:3], one)
    broken = np.ones((5, 4))
    broken[3, 1] = np.inf
    with pytest.raises(UserError, match="feature vector 3 of 5 is not finite"):
        add_features(no_features(4), broken)
    with pytest.raises(UserError, match=r"at least 2 feature vectors, not 1: use larger images"):
        map_frechet(np.ones((1, 1, 4), np.float32), np.ones((2, 2, 4), np.float32))


@pytest.mark.parametrize(("d", "side"), [(12, 9), (40, 5)])  # more and fewer positions than dimensions
def test_feature_maps_are_compared_as_scipy_does(d, side):
    real = correlated(side * side, d, 0).reshape(side, side, d).astype(np.float32)
    others = [correlated(side * (side + 1), d, 1 + i, spread=1 + i / 4, shift=i / 8) for i in range(3)]
    samples = np.stack([part.reshape(side, side + 1, d) for part in others]).astype(np.float32)
    values = np.asarray(jax.jit(single_image_frechet)(real, samples))
    expected = [feature_frechet(real.reshape(-1, d), sample.reshape(-1, d)) for sample in samples]
    np.testing.assert_allclose(values, expected, rtol=2e-4)


def test_equal_maps_are_at_distance_0_whatever_the_order_of_their_positions():
    real = correlated(100, 64, 0, shift=3.0).astype(np.float32)
    moved = np.random.default_rng(0).permutation(real)
    values = single_image_frechet(real.reshape(10, 10, 64), np.stack([real, moved]).reshape(2, 10, 10, 64))
    assert 0 <= np.max(values) < 1e-5 * real.var(axis=0).sum()
    constant = np.full((3, 3, 64), 0.5, np.float32)
    assert map_frechet(constant, constant) == 0
    assert map_frechet(constant, constant - 1) == pytest.approx(64)


def test_broken_maps_are_seen_in_the_value():
    real = correlated(16, 8, 0).reshape(4, 4, 8).astype(np.float32)
    samples = np.stack([real, real, real])
    samples[1, 2, 2, 3] = np.nan
    samples[2, 0, 0, 0] = np.inf
    assert np.isnan(single_image_frechet(real, samples)).tolist() == [False, True, True]
