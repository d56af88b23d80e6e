import itertools

import jax
import numpy as np
import pytest

from singan.model.noise import Purpose, image_key_data, image_words, noise_map, scale_key, weights_generator
from singan.model.scale_start import starting_noise
from singan.model.step import draw


def bits(seed=0, image="a", scale=1, step=2, purpose=Purpose.STEP_NOISE):
    return tuple(np.asarray(jax.random.key_data(scale_key(image_key_data(seed, image), scale, step, purpose))).tolist())


def test_keys_differ_in_each_of_what_they_depend_on():
    keys = {
        choice: bits(*choice)
        for choice in itertools.product((0, 1), ("a", "b"), (0, 1), (0, 1), (Purpose.STEP_NOISE, Purpose.PREVIOUS))
    }
    assert len(set(keys.values())) == len(keys)
    assert len({bits(purpose=purpose) for purpose in Purpose}) == len(Purpose) == 12


def test_keys_depend_on_nothing_else():
    first = bits()
    bits(seed=9, image="z")
    assert bits() == first


def test_keys_are_part_of_the_run_format():
    """These numbers must never change: a run that is resumed or sampled by a later version would draw others."""
    assert image_words("image0") == (3153609899, 4276769349)
    assert bits(5, "image0", 3, 7, Purpose.INTERPOLATION) == (3811093664, 3128506658)
    assert [int(purpose) for purpose in Purpose] == list(range(12))


def test_a_traced_step_gives_the_same_key():
    data = image_key_data(0, "a")
    traced = jax.jit(lambda step: jax.random.key_data(scale_key(data, 1, step, Purpose.STEP_NOISE)))(np.int32(2))
    assert tuple(np.asarray(traced).tolist()) == bits()


def test_image_ids_are_spread_over_both_words():
    words = np.array([image_words(f"image{i}") for i in range(200)], np.uint64)
    for word in words.T:
        assert len(set(word.tolist())) == 200
        assert 0.4 < (word / 2**32).mean() < 0.6


def test_the_seed_changes_every_images_key():
    assert (image_key_data(0, "a") != image_key_data(1, "a")).any()
    assert image_key_data(0, "a").dtype == np.uint32
    np.testing.assert_array_equal(image_key_data(2**32 - 1, "a"), image_key_data(2**32 - 1, "a"))


@pytest.mark.parametrize("channels", [1, 4])
def test_scale_0_has_one_map_in_all_channels_and_the_others_one_each(tiny_spec, channels):
    key = scale_key(image_key_data(0, "a"), 0, 0, Purpose.STEP_NOISE)
    coarsest = np.asarray(noise_map(tiny_spec(0, channels), key))
    assert coarsest.shape == (1, 13, 11, channels)
    for channel in range(channels):
        np.testing.assert_array_equal(coarsest[..., channel], coarsest[..., 0])
    finer = np.asarray(noise_map(tiny_spec(2, channels), key))
    assert finer.shape == (1, 16, 14, channels)
    correlation = np.corrcoef(finer.reshape(-1, channels), rowvar=False)
    assert np.abs(correlation - np.eye(channels)).max() < 0.25
    assert abs(finer.mean()) < 4 / np.sqrt(finer.size)
    assert abs(finer.std() - 1) < 4 / np.sqrt(2 * finer.size)


def test_the_fixed_reconstruction_noise_is_the_images_own(tiny_spec):
    spec = tiny_spec(0, 3)
    a, again, b = (np.asarray(starting_noise(spec, image_key_data(0, name))) for name in ("a", "a", "b"))
    assert a.shape == (1, 13, 11, 1)
    np.testing.assert_array_equal(a, again)
    assert (a != b).all()


def test_a_step_draws_new_numbers_and_each_update_its_own(tiny_spec, one_image):
    spec = tiny_spec(1)
    inputs, _ = one_image(spec)
    program = jax.jit(lambda step: draw(spec, inputs, step))
    first, again, second = program(np.int32(0)), program(np.int32(0)), program(np.int32(1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert first.previous.shape == (3, 1, *spec.size, 2)
    assert first.epsilon.shape == (3,)
    assert len({*np.asarray(first.epsilon).tolist(), *np.asarray(second.epsilon).tolist()}) == 6
    assert ((np.asarray(first.epsilon) >= 0) & (np.asarray(first.epsilon) < 1)).all()
    assert (np.asarray(first.noise) != np.asarray(second.noise)).all()
    passes = np.concatenate([first.previous, second.previous])
    for one, other in itertools.combinations(range(6), 2):
        assert np.abs(passes[one] - passes[other]).max() > 0.01


def test_weights_are_drawn_from_seed_image_and_scale():
    draw_some = lambda *a: weights_generator(*a).normal(size=4)  # noqa: E731
    np.testing.assert_array_equal(draw_some(0, "a", 2), draw_some(0, "a", 2))
    drawn = [draw_some(*a) for a in ((0, "a", 2), (1, "a", 2), (0, "b", 2), (0, "a", 3))]
    assert len({tuple(values) for values in drawn}) == 4
