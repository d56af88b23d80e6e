"""Generators that train together: which they are, what enters them, and what one step moves."""

import dataclasses

import jax
import numpy as np
import pytest

from singan.config import parse
from singan.model.concurrent import co_trained_noise, differentiable_upsample
from singan.model.generation import apply_generator, generator_inputs, upsample_to_next_scale
from singan.model.networks import initial_variables
from singan.model.noise import Purpose, image_key_data, noise_map, scale_key
from singan.model.pyramid import make_pyramid
from singan.model.scale_start import starting_noise, starting_state
from singan.model.spec import make_spec
from singan.model.state import ScaleInputs, hyperparameters
from singan.model.step import draw, train_step

SCALES, STEPS, CHUNK = 3, 4, 2
SIZE = (16, 14)
PADDING = np.float32([-1, 0, 0.5, 0])
QUICKLY_COMPILED = {"xla_backend_optimization_level": 0}


def config(preset="corrected", **train):
    """Pairs of generators train together unless told otherwise: scale i trains last at scale i + 1."""
    schedule = {"schedule": "concurrent", "concurrent_scales": 2, "steps_per_scale": STEPS, "chunk": CHUNK}
    return parse(
        {
            "preset": preset,
            "pyramid": {"num_scales": SCALES, "min_size": 8, "max_size": 16},
            "network": {"width": 4, "num_layers": 2},
            "train": {**schedule, **train},
        }
    )


def pyramid_of(config):
    return make_pyramid(*SIZE, config.pyramid, str(config.method.resize_border))


def spec_at(scale, channels=2, preset="corrected", **train):
    chosen = config(preset, **train)
    return make_spec(chosen, pyramid_of(chosen), channels, "direct", scale)


def picture(number, channels=2):
    coarse = np.random.default_rng(number).uniform(-1, 1, (8, 7, channels))
    return coarse.repeat(2, 0).repeat(2, 1).astype(np.float32)


def quickly(function):
    return jax.jit(function, compiler_options=QUICKLY_COMPILED)


def same(result, expected):
    jax.tree.map(np.testing.assert_array_equal, result, expected)


@pytest.mark.parametrize(
    ("train", "older"),
    [
        ({"concurrent_scales": 3}, [[], [0], [0, 1], [1, 2]]),
        ({"concurrent_scales": 2}, [[], [0], [1], [2]]),
        ({"concurrent_scales": 1}, [[], [], [], []]),
        ({"schedule": "sequential"}, [[], [], [], []]),
    ],
)
def test_the_scales_own_generator_trains_with_those_just_below(train, older):
    assert [list(spec_at(scale, **train).co_trained) for scale in range(4)] == older


@pytest.fixture(scope="module")
def opened(random_trained):
    """Makes (inputs, state) of a scale whose scales below have random weights: opened(spec, **rates)."""

    def make(spec, **rates):
        coarsest = spec.scale - len(spec.co_trained)
        below = [random_trained(spec.at(scale), 1) for scale in range(spec.scale)]
        key_data = image_key_data(0, "a")
        previous = np.random.default_rng(1).uniform(-1, 1, (1, *spec.at(coarsest).size, spec.channels))
        inputs = ScaleInputs(
            spec.pyramid.level(picture(0, spec.channels), spec.scale)[None],
            previous.astype(np.float32) * (coarsest > 0),
            PADDING[: spec.channels],
            np.float32(0.2),
            key_data,
            tuple(below[:coarsest]),
            hyperparameters(config(**rates).train, len(spec.co_trained) + 1, spec.steps),
            co_trained_amplitudes=tuple(one.amplitude for one in below[coarsest:]),
        )
        noise = np.asarray(starting_noise(spec.at(0), key_data)) if coarsest == 0 else None
        nets = tuple(
            initial_variables(net, spec.channels, np.random.default_rng(2)) for net in (spec.generator, spec.critic)
        )
        return inputs, starting_state(spec, 0, "a", noise, nets, tuple(one.generator for one in below[coarsest:]))

    return make


THREE = {"preset": "reference", "channels": 4, "concurrent_scales": 3, "critic_updates": 1, "generator_updates": 1}


@pytest.fixture(scope="module")
def three_generators(opened):
    """One step of one update of three generators, 8 bits between scales, running statistics: spec, before, after."""
    spec = spec_at(2, **THREE)
    inputs, state = opened(spec)
    return spec, inputs, state, *step_program(spec)(inputs, state)


def step_program(spec):
    return quickly(lambda inputs, state: train_step(spec, inputs, state))


def test_gradients_reach_the_older_generators_which_learn_more_slowly(three_generators):
    """Adam's first update moves a weight by the learning rate, however small its gradient."""
    _, _, state, new, metrics = three_generators
    assert all(np.isfinite(values).all() for values in metrics.values())
    assert (new.step, new.diverged_at, len(new.older)) == (1, -1, 2)
    pairs = zip((*state.older, state), (*new.older, new), strict=True)
    for age, (before, after) in zip((2, 1, 0), pairs, strict=True):
        params = before.generator["params"], after.generator["params"]
        moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, params), strict=True)]
        assert 0.9 < max(moved) / (5e-4 * 0.1**age) < 1.1
        assert np.median(moved) > 0.5 * 5e-4 * 0.1**age
    same(new.reconstruction_noise, state.reconstruction_noise)


def test_running_statistics_see_every_pass(three_generators):
    """As PyTorch's modules in training mode: the critic's fake, the generators' fake, the reconstruction."""
    spec, inputs, state, new, _ = three_generators

    @quickly
    def older_generators(inputs, state):
        random = draw(spec, inputs, state.step)
        variables = [one.generator for one in state.older]
        rec_noise = state.reconstruction_noise + 0 * random.older[0]
        fake, star = (random.older, random.previous[0]), ((rec_noise, 0 * random.older[1]), inputs.previous)
        for noises, image in (fake, fake, star):
            for scale in (0, 1):
                here = spec.at(scale)
                image = image if scale == 0 else upsample_to_next_scale(here, image)
                given = generator_inputs(
                    here, noises[scale], image, inputs.co_trained_amplitudes[scale], inputs.padding
                )
                image, variables[scale] = apply_generator(here, variables[scale], *given, frozen=False)
        return variables

    variables = older_generators(inputs, state)
    for mine, by_hand, before in zip(new.older, variables, state.older, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(by_hand["batch_stats"]):
            ours, was = mine.generator["batch_stats"], before.generator["batch_stats"]
            for key in path:
                ours, was = ours[key.key], was[key.key]
            np.testing.assert_allclose(ours, leaf, rtol=1e-4, atol=1e-6)
            assert np.abs(leaf - was).max() > 1e-3


def test_at_a_rate_of_zero_older_generators_keep_their_weights_and_one_that_breaks_ends_it(opened):
    spec = spec_at(2, 1)
    inputs, state = opened(spec, concurrent_learning_rate=0.0)
    program = step_program(spec)
    new, _ = program(inputs, state)
    same(new.older[0].generator, state.older[0].generator)
    assert all((a != b).any() for a, b in zip(*map(jax.tree.leaves, (new.generator, state.generator)), strict=True))

    broken = dataclasses.replace(inputs, co_trained_amplitudes=(np.float32(np.nan),))
    new, _ = program(broken, state)
    assert new.diverged_at == 0
    same(dataclasses.replace(new, step=state.step, diverged_at=state.diverged_at), state)


def test_an_older_generators_noise_goes_on_where_its_own_training_stopped(opened):
    spec = spec_at(2, concurrent_scales=3)
    inputs, _ = opened(spec)
    step = np.int32(3)
    for scale, noise in enumerate(co_trained_noise(spec, inputs, step)):
        own_step = step + (2 - scale) * STEPS
        key = scale_key(inputs.key_data, scale, own_step, Purpose.STEP_NOISE)
        np.testing.assert_array_equal(noise, noise_map(spec.at(scale), key))
    np.testing.assert_array_equal(draw(spec, inputs, step).older[0], co_trained_noise(spec, inputs, step)[0])


def test_eight_bits_between_scales_let_gradients_through():
    spec = spec_at(1, preset="reference")
    image = np.random.default_rng(0).uniform(-0.9, 0.9, (1, *spec.at(0).size, 2)).astype(np.float32)
    np.testing.assert_array_equal(
        *quickly(lambda x: (differentiable_upsample(spec, x), upsample_to_next_scale(spec, x)))(image)
    )
    weights = np.random.default_rng(1).normal(0, 1, (1, *spec.size, 2)).astype(np.float32)
    gradient = lambda f: quickly(jax.grad(lambda x: (weights * f(spec, x)).sum()))(image)  # noqa: E731
    rounded, smooth = gradient(upsample_to_next_scale), gradient(differentiable_upsample)
    assert (rounded == 0).all()
    rows, columns = spec.pyramid.upsampling(1)
    inside = np.abs(np.einsum("ph,bhwc,qw->bpqc", rows, image, columns)) < 1  # elsewhere the clip stops it
    np.testing.assert_allclose(smooth, np.einsum("ph,bpqc,qw->bhwc", rows, weights * inside, columns), atol=1e-5)
