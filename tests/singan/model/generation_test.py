import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singan.model.generation import generator_inputs, pad_border, random_previous, run_trained, upsample_to_next_scale
from singan.model.noise import Purpose, image_key_data, noise_map, scale_key
from singan.model.pyramid import resize_matrix
from singan.storage.finished_scale import image_padding
from singan.value_map import ValueMap, fit

MRI_PADDING = np.float32([-1, -1])


def image(seed, size, channels=2, spread=1.0):
    return np.random.default_rng(seed).normal(0, spread, (1, *size, channels)).astype(np.float32)


def test_surround_puts_each_channels_value_around_the_image():
    x = image(0, (4, 3))
    out = np.asarray(pad_border(x, 2, np.float32([-1, 0.5])))
    assert out.shape == (1, 8, 7, 2)
    np.testing.assert_array_equal(out[:, 2:-2, 2:-2], x)
    ring = np.ones((8, 7), bool)
    ring[2:-2, 2:-2] = False
    np.testing.assert_array_equal(out[0][ring], np.broadcast_to(np.float32([-1, 0.5]), (ring.sum(), 2)))


def test_at_scale_0_only_noise_enters(tiny_spec):
    spec = tiny_spec(0)
    noise = image(1, spec.size)
    x, y = generator_inputs(spec, noise, 0 * noise, jnp.float32(1), MRI_PADDING)
    np.testing.assert_array_equal(x, np.pad(noise, ((0, 0), (5, 5), (5, 5), (0, 0))))
    np.testing.assert_array_equal(y, np.zeros_like(x))


def test_above_it_noise_is_scaled_and_surrounded_by_nothing_and_the_image_before_by_the_background(tiny_spec):
    spec = tiny_spec(1)
    noise, previous = image(2, spec.size), image(3, spec.size)
    x, y = generator_inputs(spec, noise, previous, jnp.float32(0.25), np.float32([-1, 0]))
    wide = [(0, 0), (5, 5), (5, 5)]
    expected = np.stack(
        [np.pad(previous[..., c], wide, constant_values=value) for c, value in enumerate((-1.0, 0.0))], -1
    )
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(x, expected + np.pad(0.25 * noise, [*wide, (0, 0)]), atol=1e-6)


def test_the_background_of_an_mri_slice_is_what_surrounds_it(tiny_config):
    """Black, -1, in the corrected preset; the reference surrounds with 0, which is mid-grey."""
    slice_ = np.zeros((20, 20, 2), np.int16)
    slice_[5:15, 5:15] = np.random.default_rng(0).integers(1, 900, (10, 10, 2))
    value_map = fit(slice_)
    np.testing.assert_array_equal(image_padding(tiny_config(), value_map), MRI_PADDING)
    np.testing.assert_array_equal(image_padding(tiny_config("reference"), value_map), [0, 0])
    photograph = ValueMap((0.0,), (255.0,), (None,), "uint8")
    np.testing.assert_array_equal(image_padding(tiny_config(), photograph), [0])


def test_padding_reaches_the_generator_at_every_scale_above_0(tiny_spec, random_trained):
    for scale, reaches in ((0, False), (1, True)):
        spec = tiny_spec(scale)
        trained, noise, before = random_trained(spec), image(4, spec.size), 0.3 * image(5, spec.size)
        black, grey = (run_trained(spec, trained, noise, before, np.full(2, v, np.float32)) for v in (-1, 0))
        assert (np.abs(black - grey).max() > 0.01) == reaches


@pytest.mark.parametrize("between_scales", ["clip", "uint8"])
def test_hop_resizes_what_is_clipped_or_cut_to_8_bits(tiny_spec, between_scales):
    spec = tiny_spec(1)
    spec = dataclasses.replace(spec, method=dataclasses.replace(spec.method, between_scales=between_scales))
    x = image(6, spec.pyramid.sizes[0])
    assert np.abs(x).max() > 1.5
    source = np.clip(x.astype(np.float64), -1, 1)
    if between_scales == "uint8":
        source = (255 * (source + 1) / 2).astype(np.uint8) / 255 * 2 - 1
    rows, columns = spec.pyramid.upsampling(1)
    expected = np.clip(np.einsum("ph,bhwc,qw->bpqc", rows, source, columns), -1, 1)
    out = upsample_to_next_scale(spec, x)
    assert out.shape == (1, *spec.size, 2)
    np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.parametrize("rule", ["uint8_rescaled", "uint8_rescaled_before_crop"])
def test_the_rescaling_hop_divides_by_the_largest_value_before_or_after_the_crop(tiny_spec, rule):
    spec = next(spec for spec in map(tiny_spec, (1, 2, 3)) if _enlarged(spec) != spec.size)
    spec = dataclasses.replace(spec, method=dataclasses.replace(spec.method, between_scales=rule))
    x = 0.3 * image(6, spec.pyramid.sizes[spec.scale - 1])
    x[:, -1], x[:, :, -1] = 0.9, 0.9  # what overshoots at the end is cut off
    rows, columns = (
        resize_matrix(old, new, spec.pyramid.growth(spec.scale), spec.pyramid.border)
        for old, new in zip(spec.pyramid.sizes[spec.scale - 1], _enlarged(spec), strict=True)
    )
    levels = np.floor((np.clip(x.astype(np.float64), -1, 1) + 1) * 127.5)
    whole = np.einsum("ph,bhwc,qw->bpqc", rows, levels, columns)
    kept = whole[:, : spec.size[0], : spec.size[1]]
    assert whole.max() > 1.001 * kept.max()
    largest = whole.max() if rule == "uint8_rescaled_before_crop" else kept.max()
    np.testing.assert_allclose(upsample_to_next_scale(spec, x), np.clip(2 * kept / largest - 1, -1, 1), atol=2e-6)


def _enlarged(spec):
    """The size of what the reference's resizing makes, before it is cropped."""
    growth = spec.pyramid.growth(spec.scale)
    height, width = (int(np.ceil(side * growth)) for side in spec.pyramid.sizes[spec.scale - 1])
    return height, width


def test_hop_keeps_a_constant_image_and_the_presets_differ_by_less_than_a_grey_level(tiny_spec):
    for value in (-1.0, -0.3001, 0.777, 1.0):
        x = np.full((1, *tiny_spec().pyramid.sizes[1], 1), value, np.float32)
        np.testing.assert_allclose(upsample_to_next_scale(tiny_spec(2), x), value, atol=1e-6)
        cut = float(upsample_to_next_scale(tiny_spec(2, preset="reference"), x)[0, 7, 7, 0])
        assert -1e-6 <= value - cut < 2 / 255


def test_a_random_pass_is_each_scale_in_turn(tiny_spec, random_trained):
    spec = tiny_spec(2)
    trained = tuple(random_trained(spec.at(scale)) for scale in range(2))
    key = scale_key(image_key_data(0, "a"), 2, 0, Purpose.PREVIOUS)
    out = jax.jit(lambda key: random_previous(spec, trained, MRI_PADDING, key))(key)
    by_hand = np.zeros((1, *spec.pyramid.sizes[0], 2), np.float32)
    for scale in range(2):
        here = spec.at(scale)
        by_hand = run_trained(
            here, trained[scale], noise_map(here, jax.random.fold_in(key, scale)), by_hand, MRI_PADDING
        )
        by_hand = upsample_to_next_scale(spec.at(scale + 1), by_hand)
    np.testing.assert_allclose(out, by_hand, atol=1e-4)
    np.testing.assert_array_equal(random_previous(spec.at(0), (), MRI_PADDING, key), np.zeros((1, 13, 11, 2)))
