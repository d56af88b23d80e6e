"""Matching the style of the real image: it comes nearer, and what must not change stays to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singan.errors import UserError
from singan.metrics.sliced_wasserstein import patch_distribution
from singan.sampling import style
from singan.sampling.style import match_style

pytestmark = pytest.mark.usefixtures("compiled_quickly_and_once")

KEY = jax.random.key(0)
FEW = {"steps": 20, "projections": 8, "levels": 2, "patch_size": 3}


def texture(seed: int, channels: int, side: int = 20) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(-0.9, 0.9, (side, side, channels))
    return ((noise + np.roll(noise, 1, 0)) / 2).astype(np.float32)


def blurred(image: np.ndarray) -> np.ndarray:
    return sum(np.roll(image, shift, (0, 1)) for shift in [(0, 0), (0, 1), (1, 0), (1, 1)]) / 4


@pytest.fixture(scope="module")
def blurred_samples() -> np.ndarray:
    return np.stack([blurred(texture(seed, 3)) for seed in (1, 2, 3)])


def swd(samples, real) -> np.ndarray:
    """The metric of the reports, whose projections are not those that are matched."""
    return np.array([row["swd"] for row in patch_distribution(samples, real)])


@pytest.mark.slow
def test_samples_come_nearer_in_patches_that_were_not_asked_for(blurred_samples):
    real = texture(0, 3)
    results = {
        strength: np.asarray(match_style(blurred_samples, real, KEY, strength=strength, **FEW))
        for strength in (0.0, 0.5, 1.0)
    }
    assert np.array_equal(results[0], blurred_samples)
    before, half, after = (swd(results[strength], real) for strength in (0, 0.5, 1))
    assert (after < 0.5 * before).all()
    assert (after < half).all()
    assert (half < before).all()
    assert np.abs(results[1]).max() <= 1
    np.testing.assert_allclose(results[0.5], (results[0] + results[1]) / 2, atol=1e-6)
    # Samples stay different ones: they keep their own structure.
    correlation = [
        np.corrcoef(results[1][i].ravel(), blurred_samples[j].ravel())[0, 1] for i in range(3) for j in range(3)
    ]
    assert np.argmax(np.reshape(correlation, (3, 3)), axis=1).tolist() == [0, 1, 2]


def test_a_sample_depends_on_the_key_alone_and_not_on_its_neighbours(blurred_samples):
    real = texture(0, 3)
    all_of_them = np.asarray(match_style(blurred_samples, real, KEY, **FEW))
    assert np.array_equal(match_style(blurred_samples, real, KEY, **FEW), all_of_them)
    assert np.array_equal(match_style(blurred_samples[::-1].copy(), real, KEY, **FEW)[::-1], all_of_them)
    assert not np.array_equal(match_style(blurred_samples, real, jax.random.key(1), **FEW), all_of_them)
    together = match_style(blurred_samples, real, KEY, batch=3, **FEW)
    np.testing.assert_allclose(together, all_of_them, atol=1e-4)


@pytest.mark.parametrize(("channels", "chosen"), [(1, None), (4, (0, 1, 2)), (9, (0, 2, 4, 6))])
@pytest.mark.slow
def test_channels_that_are_not_named_stay_to_the_bit(channels, chosen):
    real, sample = texture(0, channels), blurred(texture(1, channels))[None]
    few = {**FEW, "steps": 3, "levels": 1}
    result = np.asarray(match_style(sample, real, KEY, channels=chosen, **few))
    moved = chosen or range(channels)
    for channel in range(channels):
        assert np.array_equal(result[..., channel], sample[..., channel]) != (channel in moved)


def test_the_background_stays_to_the_bit_and_what_lies_in_it_is_brought_nearer():
    real, sample = texture(0, 2, 24), blurred(texture(1, 2, 24))[None]
    real[:, :8], sample[:, :, :14] = -1, -1  # the sample has more of it
    sample[0, 0, 0] = -1 + 0.5 / 127.5  # less than a grey level off
    settings = {**FEW, "background": (-1.0, -1.0)}
    result = np.asarray(match_style(sample, real, KEY, **settings))
    assert np.array_equal(result[:, :, :14], sample[:, :, :14])
    assert swd(result[:, :, 14:], real[:, 8:]) < 0.6 * swd(sample[:, :, 14:], real[:, 8:])
    # Where a matched channel knows no background, nothing is one.
    unknown = np.asarray(match_style(sample, real, KEY, **{**settings, "background": (-1.0, None)}))
    assert not np.array_equal(unknown[:, :, :14], sample[:, :, :14])


@pytest.mark.slow
def test_all_background_and_the_real_image_itself_stay_as_they_are():
    real = texture(0, 2)
    plain = np.full((1, *real.shape), -1, np.float32)
    assert np.array_equal(match_style(plain, real, KEY, background=(-1.0, -1.0), **FEW), plain)
    assert np.array_equal(match_style(plain, plain[0], KEY, background=(-1.0, -1.0), **FEW), plain)
    result = np.asarray(match_style(real[None], real, KEY, **FEW))
    assert np.array_equal(result[0], real)  # the distance is 0 and has no slope


@pytest.mark.slow
def test_sizes_may_differ():
    real, sample = texture(0, 1, 26), blurred(texture(1, 1, 17))[None]
    result = match_style(sample, real, KEY, **FEW)
    assert swd(result, real) < 0.5 * swd(sample, real)


def test_aims_are_optimal_transport_in_one_dimension():
    rng = np.random.default_rng(0)
    values, target = rng.normal(size=(3, 50)).astype(np.float32), np.sort(rng.normal(size=(3, 50)).astype(np.float32))
    aims = np.asarray(style._aims(values, np.ones(50, bool), target, np.int32(50)))
    expected = np.take_along_axis(target, values.argsort(axis=1).argsort(axis=1), axis=1)
    np.testing.assert_allclose(aims, expected, atol=1e-5)  # float32 of the interpolation's place
    # With some that do not count, the others are spread over all of the target's quantiles.
    counted = np.arange(50) % 2 == 0
    partial = np.asarray(style._aims(values, counted, target, np.int32(50)))[:, counted]
    quantiles = [np.quantile(row, (np.arange(25) + 0.5) / 25, method="hazen") for row in target]
    np.testing.assert_allclose(np.sort(partial), quantiles, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"channels": (0, 3)}, r"channels=\[0, 3\] must be different numbers from 0 to 1"),
        ({"channels": ()}, "at least one"),
        ({"strength": 1.5}, "strength=1.5 must be from 0 to 1"),
        ({"steps": 0}, "steps=0 at least 1"),
        ({"patch_size": 21}, "larger than a patch of 21"),
        ({"levels": 0}, "at least 1"),
        ({"background": (-1.0,)}, "for each of 2 channels"),
    ],
)
def test_what_cannot_be_matched_is_said(change, text):
    with pytest.raises(UserError, match=text):
        match_style(texture(0, 2)[None], texture(1, 2), KEY, **{**FEW, **change})
    with pytest.raises(UserError, match="samples have 2 channels and the real image has 3"):
        match_style(texture(0, 2)[None], jnp.asarray(texture(1, 3)), KEY)
