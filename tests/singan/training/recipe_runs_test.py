"""Runs with what a recipe changes, windows and steps by scale: they resume, and images stay independent."""

import jax
import numpy as np
import pytest

from singan.config import parse
from singan.model.concurrent import make_inputs
from singan.model.generation import pad_border
from singan.model.spec import make_spec, steps_of_scale
from singan.model.step import draw
from singan.model.window import crop, crop_inputs, random_window
from singan.parallel.costs import example
from singan.training.scale_run import Stopped
from tests.singan.model.concurrent_test import CHUNK, SCALES, STEPS, config, pyramid_of, quickly, spec_at
from tests.singan.training.concurrent_runs_test import digests, train

pytestmark = pytest.mark.usefixtures("compiled_quickly_and_once")

WINDOW = 13
KEYS = {
    "schedule": "sequential",
    "critic_updates": 1,
    "generator_updates": 1,
    "patch_weight": 1.0,
    "step_shares": (2.0, 0.5),
    "crop_size": WINDOW,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_quickly_and_once):
    """An uninterrupted training of images a and b."""
    told = train(tmp_path_factory.mktemp("whole"), **KEYS)
    assert told.started == [(scale, 0) for scale in range(SCALES)]
    return told.finished


def test_a_run_stopped_within_a_scale_of_its_own_length_ends_as_an_uninterrupted_one(whole, tmp_path):
    chunks = iter(range(100))
    before = (SCALES - 2) * STEPS // CHUNK
    with pytest.raises(Stopped, match=f"scale {SCALES - 2}, step {STEPS + CHUNK}"):
        train(tmp_path, stop=lambda: next(chunks) == before + STEPS // CHUNK, **KEYS)
    resumed = train(tmp_path, **KEYS)
    assert resumed.started[0] == (SCALES - 2, STEPS + CHUNK)
    assert digests(resumed.finished) == digests(whole)


def test_an_image_alone_is_the_image_in_a_cohort(whole, tmp_path):
    alone = train(tmp_path, "b", **KEYS)
    assert digests(alone.finished) == [{"b": scale.digests["b"]} for scale in whole]


def test_scales_that_are_trained_on_windows_are_of_the_whole_images_size(whole):
    specs = [spec_at(scale, **KEYS) for scale in range(SCALES)]
    assert any(spec.window != spec.size for spec in specs)
    for spec, scale in zip(specs, whole, strict=True):
        assert scale.weights["reconstruction"].shape[2:4] == spec.size


@pytest.mark.parametrize(
    ("shares", "steps"),
    [((), [10, 10, 10]), ((0.5,), [10, 10, 5]), ((2.0, 0.01), [10, 20, 1]), ((9.0, 1.0, 1.5, 2.0), [10, 15, 20])],
)
def test_the_last_share_is_the_finest_scales(shares, steps):
    assert [steps_of_scale(10, shares, scale, 3) for scale in range(3)] == steps


def test_a_window_of_the_generators_inputs_is_cut_out_with_its_surroundings():
    spec = spec_at(SCALES - 1, **KEYS)
    inputs, _ = example(spec)
    rng = np.random.default_rng(0)
    noise, previous = (rng.normal(size=(1, *spec.size, spec.channels)).astype(np.float32) for _ in range(2))
    whole = make_inputs(spec, inputs, (noise,), previous)
    surrounded = np.asarray(pad_border(previous, spec.border, inputs.padding))
    np.testing.assert_array_equal(whole.y, surrounded)
    for row, column in ((0, 0), (spec.size[0] - spec.window[0], 1)):
        cut = crop_inputs(spec, whole, np.array([row, column]))
        height, width = (side + 2 * spec.border for side in spec.window)
        np.testing.assert_array_equal(cut.y, surrounded[:, row : row + height, column : column + width])
        np.testing.assert_array_equal(cut.x, np.asarray(whole.x)[:, row : row + height, column : column + width])
        inner = cut.y[:, spec.border : -spec.border, spec.border : -spec.border]
        np.testing.assert_array_equal(inner, crop(previous, np.array([row, column]), spec.window))


def test_windows_lie_inside_reach_every_pixel_and_do_not_neglect_the_border():
    spec = spec_at(SCALES - 1, **KEYS)
    (height, width), (rows, columns) = spec.size, spec.window
    assert rows < height
    begins = np.asarray(jax.vmap(lambda key: random_window(spec, key))(jax.random.split(jax.random.key(0), 4000)))
    assert begins.min() >= 0
    assert (begins <= [height - rows, width - columns]).all()
    seen = np.zeros(spec.size)
    for row, column in begins:
        seen[row : row + rows, column : column + columns] += 1
    assert seen.min() > 0.2 * seen.max()


def test_windows_differ_from_step_to_step_and_without_cropping_there_are_none():
    spec = spec_at(SCALES - 1, **KEYS)
    inputs, _ = example(spec)
    window = quickly(lambda step: draw(spec, inputs, step).window)
    assert len({tuple(np.asarray(window(step))) for step in range(20)}) > 3
    whole = {name: value for name, value in KEYS.items() if name != "crop_size"}
    for chosen in (config(**whole), config(crop_size=WINDOW)):  # the second is concurrent
        spec = make_spec(chosen, pyramid_of(chosen), 2, "direct", SCALES - 1)
        assert spec.window == spec.size


def test_a_recipe_is_expanded_and_what_is_given_wins():
    fast = parse({"train": {"recipe": "fast", "critic_updates": 2}, "network": {"max_width": 48}})
    assert (fast.train.critic_updates, fast.network.max_width) == (2, 48)
    assert fast.train.step_shares
    full = parse({})
    assert (full.train.recipe, full.train.step_shares, full.train.crop_size) == ("full", (), 0)
