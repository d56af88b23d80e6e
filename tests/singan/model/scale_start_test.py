import dataclasses

import jax
import numpy as np
import pytest

from singan.model.generation import run_trained, upsample_to_next_scale
from singan.model.networks import initial_variables
from singan.model.scale_start import open_scale, reconstruct, starting_state

PADDING = np.float32([-1, 0])


def image(seed, size, channels=2):
    return np.random.default_rng(seed).uniform(-1, 1, (1, *size, channels)).astype(np.float32)


def test_the_noise_amplitude_is_a_tenth_of_the_reconstructions_error(tiny_spec):
    for preset in ("corrected", "reference"):
        spec = tiny_spec(1, preset=preset)
        real, reconstruction = image(0, spec.size), image(1, spec.pyramid.sizes[0])
        previous, amplitude = open_scale(spec, reconstruction, real, 0.1)
        np.testing.assert_array_equal(previous, upsample_to_next_scale(spec, reconstruction))
        error = np.sqrt(np.mean((np.asarray(previous, np.float64) - real) ** 2))
        np.testing.assert_allclose(amplitude, 0.1 * error, rtol=1e-5)
    _, doubled = open_scale(spec, reconstruction, real, 0.2)
    np.testing.assert_allclose(doubled, 2 * amplitude, rtol=1e-6)


def test_a_perfect_reconstruction_leaves_no_noise(tiny_spec):
    spec = tiny_spec(1)
    reconstruction = image(1, spec.pyramid.sizes[0])
    assert open_scale(spec, reconstruction, np.asarray(upsample_to_next_scale(spec, reconstruction)), 0.1)[1] == 0


def test_reconstruction_is_of_z_star_at_scale_0_and_of_no_noise_above(tiny_spec, random_trained):
    coarsest = tiny_spec(0)
    rec_noise = image(2, coarsest.size, 1)
    trained = random_trained(coarsest)
    zeros = np.zeros((1, *coarsest.size, 2), np.float32)
    out = reconstruct(coarsest, trained, rec_noise, zeros, PADDING)
    expected = run_trained(coarsest, trained, np.concatenate([rec_noise, rec_noise], -1), zeros, PADDING)
    np.testing.assert_array_equal(out, expected)

    spec = tiny_spec(1)
    previous, trained = image(3, spec.size), random_trained(spec)
    out = reconstruct(spec, trained, None, previous, PADDING)
    np.testing.assert_array_equal(out, run_trained(spec, trained, 0 * previous, previous, PADDING))
    loud = dataclasses.replace(trained, amplitude=np.float32(9))
    np.testing.assert_array_equal(out, reconstruct(spec, loud, None, previous, PADDING))


def default_width_spec(tiny_spec, scale):
    spec = tiny_spec(0)
    return dataclasses.replace(spec, scale=scale, network=dataclasses.replace(spec.network, width=32))


def test_weights_are_inherited_where_the_widths_agree(tiny_spec):
    specs = [default_width_spec(tiny_spec, scale) for scale in range(14)]
    assert [spec.width for spec in specs] == [32] * 4 + [64] * 4 + [128] * 6
    assert [scale for scale in range(14) if not specs[scale].continues_previous_scale] == [0, 4, 8]


def below(spec):
    rng = np.random.default_rng(7)
    return initial_variables(spec.generator, 2, rng), initial_variables(spec.critic, 2, rng)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_inherited_weights_are_the_scale_belows_own_with_a_fresh_adam(tiny_spec, scale):
    spec = default_width_spec(tiny_spec, scale)
    weights = below(spec)
    state = starting_state(spec, 0, "a", None, weights)
    jax.tree.map(np.testing.assert_array_equal, (state.generator, state.critic), weights)
    moments = jax.tree.leaves((state.generator_adam, state.critic_adam))
    assert all((leaf == 0).all() for leaf in moments)
    assert len(moments) == 2 * len(jax.tree.leaves(weights)) + 2
    assert state.reconstruction_noise is None
    assert (state.step, state.diverged_at) == (0, -1)


@pytest.mark.parametrize("scale", [0, 4])
def test_fresh_weights_are_the_images_and_the_scales_own(tiny_spec, scale):
    spec = default_width_spec(tiny_spec, scale)
    weights = below(spec)
    make = lambda *a: starting_state(spec, *a, None, weights)  # noqa: E731
    first, again = make(0, "a"), make(0, "a")
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernels = [
        state.generator["params"]["block_1"]["kernel"]
        for state in (first, make(1, "a"), make(0, "b"), starting_state(spec.at(8), 0, "a", None, None))
    ]
    assert len({float(kernel.ravel()[0]) for kernel in kernels}) == 4
    assert (kernels[0] != weights[0]["params"]["block_1"]["kernel"]).any() or scale == 4
    assert first.generator["params"]["block_1"]["kernel"].shape == (3, 3, spec.width, spec.width)
    assert (first.generator["params"]["block_1"]["kernel"] != first.critic["params"]["block_1"]["kernel"]).all()
