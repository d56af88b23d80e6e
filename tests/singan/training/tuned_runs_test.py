"""Runs with what the preset `tuned` adds: they resume, images stay independent, and each part does what it says."""

import dataclasses

import jax
import numpy as np
import pytest

from singan.model.state import final_generator
from singan.parallel.cohort import chunk_of_one
from singan.parallel.costs import example
from singan.training.scale_run import Stopped
from tests.singan.model.concurrent_test import CHUNK, SCALES, STEPS, quickly, same, spec_at
from tests.singan.training.concurrent_runs_test import digests, train

pytestmark = pytest.mark.usefixtures("compiled_quickly_and_once")

KEYS = {
    "schedule": "sequential",
    "generator_updates": 1,
    "patch_weight": 1.0,
    "average_decay": 0.9,
    "min_noise_amplitude": 0.4,
    "min_noise_decay": 0.5,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_quickly_and_once):
    """An uninterrupted training of images a and b."""
    told = train(tmp_path_factory.mktemp("whole"), **KEYS)
    assert told.started == [(scale, 0) for scale in range(SCALES)]
    return told.finished


def test_a_run_stopped_within_a_scale_ends_as_an_uninterrupted_one(whole, tmp_path):
    chunks = iter(range(100))
    with pytest.raises(Stopped, match=f"scale 1, step {CHUNK}"):
        train(tmp_path, stop=lambda: next(chunks) == STEPS // CHUNK, **KEYS)
    resumed = train(tmp_path, **KEYS)
    assert resumed.started[0] == (1, CHUNK)
    assert digests(resumed.finished) == digests(whole)


def test_an_image_alone_is_the_image_in_a_cohort(whole, tmp_path):
    alone = train(tmp_path, "b", last=1, **KEYS)
    assert digests(alone.finished) == [{"b": scale.digests["b"]} for scale in whole[:2]]


def test_no_scale_above_the_first_has_less_noise_than_asked_for(whole):
    amplitudes = [scale.weights["trained"].amplitude for scale in whole]
    np.testing.assert_array_equal(amplitudes[0], 1)
    for scale in range(1, SCALES):
        least = np.float32(0.4 * 0.5 ** (scale - 1))
        assert (amplitudes[scale] >= least).all()
        assert (amplitudes[scale] == least).any()


def test_a_scale_leaves_the_average_of_its_generators_weights():
    spec = spec_at(0, **KEYS)
    inputs, state = example(spec)
    decay = np.float32(0.5)
    numbers = dataclasses.replace(inputs.hyperparameters, average_decay=decay, learning_rate_decay=np.float32(1))
    inputs = dataclasses.replace(inputs, hyperparameters=numbers)
    inputs = dataclasses.replace(inputs, real=np.random.default_rng(0).uniform(-1, 1, inputs.real.shape).astype("f4"))
    one_step = quickly(lambda state: chunk_of_one(spec, 1, False, inputs, state)[0])
    expected = np.asarray(state.generator["params"]["block_0"]["kernel"])
    for step in range(12):
        state = one_step(state)
        share = min(0.5, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * np.asarray(state.generator["params"]["block_0"]["kernel"])
    kept = final_generator(state)["params"]["block_0"]["kernel"]
    np.testing.assert_allclose(kept, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(kept - state.generator["params"]["block_0"]["kernel"]).max() > 1e-4


def test_the_patch_term_weighs_as_asked_and_changes_the_generator_alone():
    spec = spec_at(0, **KEYS)
    inputs, state = example(spec)
    real = np.random.default_rng(1).uniform(-1, 1, inputs.real.shape).astype(np.float32)
    one_step = quickly(lambda inputs: chunk_of_one(spec, 1, False, inputs, state))
    after, terms = {}, {}
    for weight in (0.0, 1.0, 2.0):
        numbers = dataclasses.replace(inputs.hyperparameters, patch_weight=np.float32(weight))
        after[weight], metrics = one_step(dataclasses.replace(inputs, real=real, hyperparameters=numbers))
        terms[weight] = float(metrics["generator/patches"])
    assert terms[0.0] == 0
    assert terms[2.0] == pytest.approx(2 * terms[1.0], rel=1e-5)
    assert terms[1.0] > 0.01
    same(after[1.0].critic["params"], after[0.0].critic["params"])
    kernels = [after[weight].generator["params"]["block_0"]["kernel"] for weight in (0.0, 1.0)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-5


def test_without_the_keys_a_state_has_no_average_and_no_patch_term():
    spec = spec_at(0, schedule="sequential")
    inputs, state = example(spec)
    assert state.average is None
    assert final_generator(state) is state.generator
    shapes = jax.eval_shape(lambda state: chunk_of_one(spec, 1, False, inputs, state), state)
    assert "generator/patches" not in shapes[1]
