import dataclasses

import jax
import numpy as np
import pytest

from singan.errors import UserError
from singan.model.generation import upsample_to_next_scale
from singan.model.noise import image_key_data
from singan.parallel.cohort import image_mesh
from singan.sampling import manipulation, masks
from singan.sampling.manipulation import Input
from singan.sampling.palette import nearest_colour, palette
from singan.sampling.samples import sample_from

pytestmark = pytest.mark.usefixtures("compiled_quickly_and_once")

CPU = image_mesh(jax.devices("cpu")[:1])


def given(random_image, image_id="image0", number=7, channels=2, shape=(17, 15)):
    pixels = random_image(number, channels)
    mask = np.zeros((17, 15), bool)
    mask[8:11, 6:9] = True
    return Input(image_id, f"input{number}", pixels[: shape[0], : shape[1]], mask[: shape[0], : shape[1]])


@pytest.mark.parametrize(
    "channels", [3, pytest.param(1, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.slow)]
)
def test_an_image_enters_below_its_start_scale_and_runs_to_the_finest(random_run, random_image, channels):
    run = random_run(channels=channels)
    one = given(random_image, channels=channels)
    made = manipulation.inject(run, [one], 2, num_samples=2, seed=3, mesh=CPU)[0]
    assert made.shape == (2, 17, 15, channels)
    assert made.dtype == np.float32
    trained = jax.tree.map(lambda leaf: leaf[0], run.trained(["image0"]))
    spec = run.spec.at(3)
    previous = upsample_to_next_scale(spec.at(2), spec.pyramid.level(one.pixels, 1)[None])
    key_data, padding = image_key_data(3, "image0"), run.padding(["image0"])[0]
    for number in range(2):
        expected = sample_from(spec, trained, previous, padding, 2, key_data, np.int32(number))
        np.testing.assert_allclose(made[number], expected, atol=2e-5)
    assert np.abs(made[0] - made[1]).max() > 0.01


def test_a_result_does_not_depend_on_its_company(random_run, random_image):
    run = random_run()
    inputs = [given(random_image, f"image{i % 2}", number=i) for i in (3, 4, 5)]
    together = manipulation.inject(run, inputs, 3, 2, mesh=CPU)
    split = manipulation.inject(run, inputs, 3, 2, mesh=CPU, batch=1)
    for one, all_of_it, in_small_batches in zip(inputs, together, split, strict=True):
        alone = manipulation.inject(run, [one], 3, 2, mesh=CPU)[0]
        np.testing.assert_array_equal(alone, all_of_it)
        np.testing.assert_array_equal(alone, in_small_batches)
    own = [jax.tree.map(lambda leaf: leaf[0], run.trained([one.image_id])) for one in inputs]
    for all_of_it, tuned in zip(together, manipulation.inject(run, inputs, 3, 2, mesh=CPU, trained=own), strict=True):
        np.testing.assert_array_equal(all_of_it, tuned)


def test_harmonising_leaves_the_background_its_bits(random_run, random_image):
    run = random_run()
    rule = masks.MaskRule(20.0, 10.0, within=True)
    (result,) = manipulation.harmonize(run, [given(random_image)], 2, rule, mesh=CPU)
    background = run.finest("image0")
    outside = ~masks.dilate(result.input.mask, 20 * 17 / 250)
    assert 0 < outside.mean() < 1
    np.testing.assert_array_equal(result.blended[0][outside], background[outside])
    inside = result.input.mask
    np.testing.assert_allclose(result.blended[0][inside], result.raw[0][inside], atol=0.2)
    assert np.abs(result.blended[0][inside] - background[inside]).max() > 0.1


def test_inputs_of_other_sizes_are_brought_to_the_image_s(random_run, random_image):
    run = random_run(1)
    small = given(random_image, shape=(12, 12))
    (result,) = manipulation.harmonize(run, [small], 2, mesh=CPU)
    assert result.blended is not None
    assert result.blended.shape == (1, 17, 15, 2)
    mask = manipulation.mask_at(small.mask, (24, 24))
    np.testing.assert_array_equal(mask, small.mask.repeat(2, 0).repeat(2, 1))


def test_what_cannot_be_done_is_said(random_run, random_image):
    run = random_run(1)
    one = given(random_image)
    for scale in (0, 4):
        with pytest.raises(UserError, match=rf"injected at a scale of 1 to 3, not at {scale}"):
            manipulation.inject(run, [one], scale, mesh=CPU)
    with pytest.raises(UserError, match="input7 has 3 channels, image0 was trained on 2"):
        manipulation.inject(run, [given(random_image, channels=3)], 1, mesh=CPU)
    with pytest.raises(UserError, match="input7 has no mask"):
        manipulation.harmonize(run, [dataclasses.replace(one, mask=None)], 1, mesh=CPU)


def test_palettes_quantise_what_enters(random_run, random_image):
    run = random_run(1)
    one = given(random_image)
    own = [jax.tree.map(lambda leaf: leaf[0], run.trained(["image0"]))]
    colours = palette(run.finest("image0"), 3)
    made = manipulation.inject(run, [one], 3, mesh=CPU, trained=own, palettes=[colours])[0]
    previous = nearest_colour(upsample_to_next_scale(run.spec.at(3), manipulation.entering(run, one, 3)[None]), colours)
    assert len(np.unique(np.asarray(previous).reshape(-1, 2), axis=0)) <= 3
    expected = sample_from(
        run.spec.at(3), own[0], previous, run.padding(["image0"])[0], 3, image_key_data(0, "image0"), np.int32(0)
    )
    np.testing.assert_allclose(made[0], expected, atol=2e-5)


def test_a_palette_finds_the_colours_that_are_there():
    colours = np.float32([[-1, 0.5, 0], [0.25, 0.25, 1], [1, -1, -1]])
    image = colours[np.random.default_rng(0).integers(0, 3, (8, 8))]
    found = palette(image, 3)
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], colours, atol=1e-6)
    np.testing.assert_allclose(nearest_colour(image + 0.1, found), image, atol=1e-6)
    with pytest.raises(UserError, match="fewer than 4 different colours"):
        palette(image, 4)
