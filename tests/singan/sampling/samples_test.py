import dataclasses
import itertools

import jax
import numpy as np
import pytest

from singan.errors import UserError
from singan.model.generation import run_trained, upsample_to_next_scale
from singan.model.noise import image_key_data
from singan.model.scale_start import reconstruct, starting_noise
from singan.parallel.cohort import image_mesh, shard, stack
from singan.sampling import samples as sampling
from singan.sampling.samples import sample_from, sample_program, start_image

PADDING = np.float32([-1, 0])


@pytest.fixture(scope="module")
def spec(tiny_spec):
    return tiny_spec(1, num_layers=3)


@pytest.fixture(scope="module")
def arguments(spec, random_trained):
    """What sample_program takes for images 0, 1 and 2, without the numbers."""
    images = []
    for number in range(3):
        key_data = image_key_data(0, f"image{number}")
        trained = tuple(random_trained(spec.at(scale), number) for scale in range(2))
        images.append((trained, np.asarray(starting_noise(spec.at(0), key_data)), PADDING, key_data))
    return images


def draw(spec, images, numbers, start_scale=0, devices=1, temperature=1.0):
    mesh = image_mesh(jax.devices("cpu")[:devices])
    numbers = np.broadcast_to(np.int32(numbers), (len(images), len(numbers)))
    temperatures = np.full(len(images), temperature, np.float32)
    placed = [shard(tree, mesh) for tree in (*stack(images, len(images)), numbers, temperatures)]
    return np.array(sample_program(spec, mesh, start_scale)(*placed))


# A batch of another size is summed in another order.
ROUNDING = {"rtol": 0, "atol": 2e-5}


def test_a_sample_depends_on_its_number_and_image_alone(spec, arguments):
    start_scale = 1
    together = draw(spec, arguments, [0, 1, 2, 3], start_scale)
    assert together.shape == (3, 4, *spec.size, 2)
    assert together.dtype == np.float32
    again = draw(spec, arguments, [3, 2, 1, 0], start_scale)
    np.testing.assert_allclose(again[:, ::-1], together, **ROUNDING)
    alone = draw(spec, arguments[1:2], [2], start_scale)
    np.testing.assert_allclose(alone[0, 0], together[1, 2], **ROUNDING)
    spread = draw(spec, arguments[1:], [0, 1, 2, 3], start_scale, devices=2)
    np.testing.assert_array_equal(spread, together[1:])
    for image in range(3):
        for one in range(4):
            assert all(np.abs(together[image, one] - together[image, other]).max() > 0.05 for other in range(one))
    assert np.abs(together[0] - together[1]).max() > 0.05


def test_scales_below_the_start_keep_the_reconstruction(spec, arguments):
    trained, rec_noise, padding, key_data = arguments[0]
    zeros = np.zeros((1, *spec.pyramid.sizes[0], 2), np.float32)
    below = upsample_to_next_scale(spec, reconstruct(spec.at(0), trained[0], rec_noise, zeros, padding))
    np.testing.assert_array_equal(start_image(spec, trained, rec_noise, padding, 1), below)
    np.testing.assert_array_equal(start_image(spec, trained, rec_noise, padding, 0), zeros)

    silent = (trained[0], dataclasses.replace(trained[1], amplitude=np.float32(0)))
    expected = np.clip(run_trained(spec, trained[1], 0 * below, below, padding), -1, 1)
    from_1 = draw(spec, [(silent, rec_noise, padding, key_data)], [0, 1], start_scale=1)
    for sample in from_1[0]:
        np.testing.assert_allclose(sample, expected[0], atol=2e-5)
    from_0 = draw(spec, [(silent, rec_noise, padding, key_data)], [0, 1], start_scale=0)
    assert np.abs(from_0[0, 0] - from_0[0, 1]).max() > 0.05
    assert np.abs(from_0[0] - expected).max() > 0.05


def test_the_temperature_goes_from_the_reconstruction_to_more_diversity_than_was_trained(spec, arguments):
    trained, rec_noise, padding, key_data = arguments[0]
    image = np.zeros((1, *spec.pyramid.sizes[0], 2), np.float32)
    image = upsample_to_next_scale(spec, reconstruct(spec.at(0), trained[0], rec_noise, image, padding))
    reconstruction = np.clip(reconstruct(spec, trained[1], None, image, padding), -1, 1)[0]
    numbers = range(8)
    for start_scale in (0, 1):
        spread = []
        for temperature in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5):
            samples = draw(spec, arguments[:1], numbers, start_scale, temperature=temperature)[0]
            spread.append(samples.std(axis=0).mean())
            if temperature == 0:
                np.testing.assert_allclose(samples, np.broadcast_to(reconstruction, samples.shape), atol=2e-5)
        assert spread[0] < 1e-6
        assert all(after > 1.02 * before for before, after in itertools.pairwise(spread)), spread
    # At 1 it is the noise alone that enters, to the bit.
    one = (spec, trained, np.zeros((1, *spec.pyramid.sizes[0], 2), np.float32), padding, 0, key_data, np.int32(3))
    np.testing.assert_array_equal(sample_from(*one), sample_from(*one, np.float32(1), rec_noise))


def test_a_temperature_that_means_nothing_is_refused(random_run):
    run = random_run(images=1)
    for temperature in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"give 0 \(the reconstruction\) or more"):
            next(sampling.draw(run, ["image0"], 1, temperature=temperature))
    with pytest.raises(UserError, match="at the image's own size only"):
        next(sampling.draw(run, ["image0"], 1, size=(1.0, 2.0), temperature=0.5))


def test_samples_are_clipped(spec, arguments):
    trained, rec_noise, padding, key_data = arguments[0]
    params = {**trained[1].generator["params"], "bias": np.float32([2, -2])}
    bright = (trained[0], dataclasses.replace(trained[1], generator={"params": params}))
    below = start_image(spec, bright, rec_noise, padding, 1)
    assert np.abs(run_trained(spec, bright[1], 0 * below, below, padding)).max() > 1.1
    samples = draw(spec, [(bright, rec_noise, padding, key_data)], [0, 1], start_scale=1)
    assert (samples.min(), samples.max()) == (-1, 1)


def test_start_scales_and_seeds_draw_other_noise(spec, arguments):
    trained, rec_noise, padding, key_data = arguments[0]
    image = start_image(spec, trained, rec_noise, padding, 1)
    sample = lambda key, number: sample_from(spec, trained, image, padding, 1, key, np.int32(number))  # noqa: E731
    first = sample(key_data, 0)
    np.testing.assert_array_equal(first, sample(key_data, 0))
    assert np.abs(first - sample(image_key_data(1, "image0"), 0)).max() > 0.01


@pytest.mark.parametrize(("form", "sent"), [("direct", [1, 2, 3, 4]), ("shifted", [2, 3, 4, 4])])
def test_a_cpu_is_given_one_batch_at_a_time_and_an_accelerator_the_next_one(form, sent, random_run, monkeypatch):
    run = random_run(images=2)
    run = dataclasses.replace(run, spec=dataclasses.replace(run.spec, conv_impl=form))
    calls, told = [], []

    class Counted:
        def memory(self, *_):
            return None

        def __call__(self, *arguments):
            calls.append(arguments)
            return np.full((1, 3, 17, 15, 2), len(calls), np.float32)

    monkeypatch.setattr(sampling, "sampler", lambda *_: Counted())
    mesh = image_mesh(jax.devices()[:1])
    seen = []
    for batch in sampling.draw(
        run, ["image0", "image1"], 5, batch=3, mesh=mesh, log_memory=lambda images, _: told.append(images)
    ):
        seen.append((batch.ids, batch.first, len(batch.pixels[0]), batch.pixels[0, 0, 0, 0, 0]))
        assert len(calls) == sent[len(seen) - 1]
    assert seen == [(("image0",), 0, 3, 1), (("image0",), 3, 2, 2), (("image1",), 0, 3, 3), (("image1",), 3, 2, 4)]
    assert told == [3]
