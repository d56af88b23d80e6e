"""The loss that compares patches, against a plain computation, and as a generator would use it."""

import jax
import numpy as np
import optax
import pytest

from singan.model.patch_distance import MAX_POSITIONS, PATCH, grid_offset, patch_distance, random_directions


def plain(image, real, directions, offset, stride):
    """The same, patch by patch."""
    vectors = np.asarray(directions).reshape(-1, directions.shape[-1])
    sets = []
    for one in (image[0], real[0]):
        rows = range(offset[0], one.shape[0] - PATCH + 1 - (stride - 1) + offset[0], stride)
        columns = range(offset[1], one.shape[1] - PATCH + 1 - (stride - 1) + offset[1], stride)
        patches = [one[i : i + PATCH, j : j + PATCH].reshape(-1) for i in rows for j in columns]
        sets.append(np.sort(np.float64(patches) @ vectors, axis=0))
    return np.abs(sets[0] - sets[1]).mean()


@pytest.mark.parametrize(("size", "stride"), [((19, 23), 1), ((75, 130), 2)])
def test_it_is_the_mean_distance_of_sorted_projections(size, stride):
    rng = np.random.default_rng(0)
    image, real = (rng.normal(size=(1, *size, 2)).astype(np.float32) for _ in range(2))
    key = jax.random.key(3)
    directions, offset = random_directions(key, 2), grid_offset(key, size)
    np.testing.assert_allclose(np.sqrt(np.sum(np.square(directions), axis=(0, 1))), 1, rtol=1e-5)
    rows, columns = (max(1, -(-(side - PATCH + 1) // MAX_POSITIONS)) for side in size)
    assert max(rows, columns) == stride + (size[1] == 130 and columns > 2)
    if rows == columns:
        expected = plain(image, real, directions, np.asarray(offset), stride)
        np.testing.assert_allclose(patch_distance(image, real, directions, offset), expected, rtol=1e-4)


def test_moved_patches_are_no_distance_and_other_patches_are_one():
    real = np.full((1, 32, 32, 1), -1, np.float32)
    real[:, 8:14, 9:15] = np.random.default_rng(1).normal(size=(1, 6, 6, 1))  # away from the border, also when moved
    directions, offset = random_directions(jax.random.key(0), 1), np.zeros(2, np.int32)
    moved = np.roll(real, (5, 4), (1, 2))
    assert np.abs(moved - real).max() > 1
    np.testing.assert_allclose(patch_distance(moved, real, directions, offset), 0, atol=1e-6)
    assert patch_distance(0.8 * real, real, directions, offset) > 0.05


def test_descending_it_brings_the_patches_of_noise_to_the_image_s():
    rng = np.random.default_rng(2)
    rows = np.sign(np.sin(np.arange(24) * np.pi / 4 + 0.3))[:, None, None]
    real = np.broadcast_to(rows, (1, 24, 24, 1)).astype(np.float32)  # stripes
    image = rng.normal(scale=0.5, size=real.shape).astype(np.float32)
    adam = optax.adam(0.03, 0.5)

    @jax.jit
    def descend(image, state, key):
        directions = random_directions(key, 1)
        value, gradient = jax.value_and_grad(patch_distance)(image, real, directions, np.zeros(2, np.int32))
        change, state = adam.update(gradient, state)
        return image + change, state, value

    state, values = adam.init(image), []
    for step in range(400):
        image, state, value = descend(image, state, jax.random.key(step))
        values.append(float(value))
    # Fresh directions at every step leave defects where stripes of different phase meet, and little else.
    assert np.mean(values[-20:]) < 0.5 * np.mean(values[:5])
    assert (np.abs(np.abs(image) - 1) < 0.3).mean() > 0.5
