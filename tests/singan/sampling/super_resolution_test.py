import dataclasses

import jax
import numpy as np
import pytest

from singan.errors import UserError
from singan.model.pyramid import resize_to
from singan.parallel.cohort import image_mesh
from singan.sampling.super_resolution import steps_of, super_resolve, wanted_ratio

pytestmark = pytest.mark.usefixtures("compiled_quickly_and_once")

CPU = image_mesh(jax.devices("cpu")[:1])


def test_steps_follow_the_ratio_that_was_trained():
    assert wanted_ratio(4.0) == pytest.approx(4 ** (-1 / 6))
    assert wanted_ratio(3.0) == pytest.approx(3 ** (-1 / 5))
    assert [steps_of(factor, 2 ** (1 / 3)) for factor in (2.0, 4.0, 8.0)] == [3, 6, 9]
    assert steps_of(4.0, 1.169) == 9
    for factor in (1.9, 8.1):
        with pytest.raises(UserError, match="is not between 2 and 8"):
            wanted_ratio(factor)


def for_factor(run, factor):
    """The run as if its scales had grown by what a step of this factor grows, with the weight for it."""
    pyramid = dataclasses.replace(run.spec.pyramid, ratio=wanted_ratio(factor))
    train = dataclasses.replace(run.config.train, reconstruction_weight=100.0)
    config = dataclasses.replace(run.config, train=train)
    return dataclasses.replace(run, config=config, spec=dataclasses.replace(run.spec, pyramid=pyramid))


def silent(run):
    """A run whose finest generator changes nothing: no noise, and a last convolution of zeros."""
    weights = run.scales[-1].weights
    trained = weights["trained"]
    params = jax.tree.map(np.zeros_like, trained.generator["params"])
    trained = dataclasses.replace(trained, generator={"params": params}, amplitude=np.zeros_like(trained.amplitude))
    last = dataclasses.replace(run.scales[-1], weights={**weights, "trained": trained})
    return dataclasses.replace(run, scales=(*run.scales[:-1], last))


def test_images_become_exactly_the_factor_larger(random_run):
    run = for_factor(random_run(), 2.0)
    images = [run.finest("image0"), run.finest("image1"), run.finest("image1")[:12, :10]]
    made = super_resolve(run, ["image0", "image1", "image1"], images, 2.0, mesh=CPU)
    assert [image.shape for image in made] == [(34, 30, 2), (34, 30, 2), (24, 20, 2)]
    assert all(np.abs(image).max() <= 1 for image in made)
    assert np.abs(made[0] - made[1]).max() > 0.05
    again = super_resolve(run, ["image1"], images[1:2], 2.0, mesh=CPU)
    np.testing.assert_allclose(again[0], made[1], atol=2e-5)


def test_a_generator_that_adds_nothing_leaves_a_smooth_image_enlarged(random_run):
    run = for_factor(silent(random_run(1)), 2.0)
    rows, columns = np.meshgrid(np.linspace(-0.8, 0.8, 17), np.linspace(0.5, -0.5, 15), indexing="ij")
    image = np.stack([rows, columns], -1).astype(np.float32)
    (made,) = super_resolve(run, ["image0"], [image], 2.0, mesh=CPU)
    np.testing.assert_allclose(made[4:-4, 4:-4], resize_to(image, (34, 30))[4:-4, 4:-4], atol=0.02)


def test_a_run_of_another_training_is_told_which_config_to_use(random_run):
    run = random_run(1)
    image = run.finest("image0")
    with pytest.raises(
        UserError, match=r"weight of 10 is not made .*--config=experiments/super_resolution/config\.py:8"
    ):
        super_resolve(run, ["image0"], [image], 8.0)
    large_steps = for_factor(run, 2.0)
    pyramid = dataclasses.replace(large_steps.spec.pyramid, ratio=1 / 1.6)
    large_steps = dataclasses.replace(large_steps, spec=dataclasses.replace(large_steps.spec, pyramid=pyramid))
    with pytest.raises(UserError, match=r"grows 2\.000 a step, this run's scales 1\.600: train one"):
        super_resolve(large_steps, ["image0"], [image], 2.0)
