"""Patches, their nearest neighbours against brute force in float64, completeness, and putting patches together."""

import functools

import jax
import numpy as np
import pytest

from experiments.baselines.patch_matching import aggregate, extract_patches, nearest, replace_patches
from singan.errors import UserError

SIZE = 5


def image_of(seed: int, height: int, width: int, channels: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(-1, 1, (height, width, channels))
    return ((coarse + np.roll(coarse, 1, 0) + np.roll(coarse, 1, 1)) / 3).astype(np.float32)


def brute_patches(image: np.ndarray, size: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))  # [p, q, c, s, s]
    return windows.transpose(0, 1, 3, 4, 2).reshape(windows.shape[0] * windows.shape[1], -1)


def brute_distances(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    return np.stack([np.mean((keys.astype(np.float64) - query) ** 2, axis=1) for query in queries.astype(np.float64)])


@pytest.mark.parametrize("channels", [1, 3, 4, 9])
def test_patches_are_all_windows_row_by_row(channels):
    image = image_of(0, 9, 11, channels)
    assert np.array_equal(extract_patches(image, SIZE), brute_patches(image, SIZE))


def test_an_image_smaller_than_a_patch_is_refused():
    with pytest.raises(UserError, match="4x9 pixels is smaller than a patch of 5x5"):
        extract_patches(np.zeros((4, 9, 1), np.float32), 5)


@pytest.mark.parametrize("channels", [1, 3, 4, 9])
@pytest.mark.parametrize("alpha", [None, 0.01])
def test_nearest_is_what_brute_force_finds(channels, alpha):
    queries, keys = (
        brute_patches(image_of(1, 15, 14, channels), SIZE),
        brute_patches(image_of(2, 12, 17, channels), SIZE),
    )
    distances = brute_distances(queries, keys)
    score = distances if alpha is None else distances / (alpha + distances.min(axis=0))
    whole = nearest(queries, keys, alpha)
    assert np.array_equal(whole[0], score.argmin(axis=1))
    np.testing.assert_allclose(whole[1], distances[np.arange(len(queries)), score.argmin(axis=1)], rtol=1e-5, atol=1e-7)
    # 110 queries of 104 keys in 8 blocks of 14, the last one not full.
    blocks = nearest(queries, keys, alpha, max_distances=14 * len(keys))
    assert np.array_equal(blocks[0], whole[0])


def test_of_equal_keys_the_first_is_taken_and_a_copy_is_no_distance_away():
    keys = np.repeat(brute_patches(image_of(3, 8, 8, 2), SIZE), 2, axis=0)
    index, distance = nearest(keys[::2], keys)
    assert np.array_equal(index, np.arange(len(keys))[::2])
    assert np.asarray(distance).max() < 1e-6


def test_far_from_zero_little_is_lost():
    """Values around 1 that differ by 0.001: the binomial formula without centring would see noise."""
    keys = 1 + 0.001 * brute_patches(image_of(4, 14, 14, 1), SIZE)
    queries = keys + 0.0001 * np.random.default_rng(0).normal(size=keys.shape).astype(np.float32)
    assert np.array_equal(nearest(queries, keys)[0], np.arange(len(keys)))


def test_a_small_alpha_uses_more_of_the_keys_and_a_large_one_is_the_plain_search():
    queries = brute_patches(image_of(5, 20, 20, 3) * 0.3, SIZE)  # of low contrast: few keys are near to them
    keys = brute_patches(image_of(6, 20, 20, 3), SIZE)
    used = [len(np.unique(nearest(queries, keys, alpha)[0])) for alpha in (1e-4, 1e-2, 1e3, None)]
    assert used[0] > used[1] > used[2] == used[3]
    assert np.array_equal(nearest(queries, keys, 1e4)[0], nearest(queries, keys)[0])


@pytest.mark.parametrize("channels", [1, 3, 4, 9])
def test_patches_in_their_own_places_make_the_image(channels):
    image = image_of(7, 12, 9, channels)
    index = np.arange(8 * 5, dtype=np.int32).reshape(8, 5)
    np.testing.assert_allclose(aggregate(image, index, SIZE), image, atol=1e-6)


def test_overlapping_patches_are_averaged():
    values, index = image_of(8, 10, 13, 2), np.random.default_rng(0).integers(0, 6 * 9, (4, 7)).astype(np.int32)
    total, count = np.zeros((8, 11, 2)), np.zeros((8, 11, 1))
    for y in range(4):
        for x in range(7):
            top, left = divmod(int(index[y, x]), 9)
            total[y : y + SIZE, x : x + SIZE] += values[top : top + SIZE, left : left + SIZE]
            count[y : y + SIZE, x : x + SIZE] += 1
    np.testing.assert_allclose(aggregate(values, index, SIZE), total / count, atol=1e-6)


@pytest.mark.parametrize("alpha", [None, 0.02])
def test_the_real_image_is_a_fixed_point_and_plain_areas_stay_to_the_bit(alpha):
    real = image_of(9, 24, 20, 3)
    real[:, :9] = -1
    result = np.asarray(jax.jit(functools.partial(replace_patches, size=SIZE, alpha=alpha))(real, real, real))
    np.testing.assert_allclose(result, real, atol=1e-5)
    assert (result[:, : 9 - SIZE] == -1).all()


def test_it_maps_over_samples_and_repeats_itself():
    real = image_of(10, 16, 16, 1)
    noisy = real + 0.5 * np.random.default_rng(0).normal(size=(3, 16, 16, 1)).astype(np.float32)
    step = functools.partial(replace_patches, keys=real, values=real, size=SIZE, alpha=0.02)
    batched = jax.jit(jax.vmap(step))
    assert np.array_equal(batched(noisy), batched(noisy))
    np.testing.assert_allclose(batched(noisy)[1], step(noisy[1]), atol=1e-6)
