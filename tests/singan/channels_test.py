"""Images of 1 to 9 channels, all the way: trained, read back, sampled and harmonised."""

import jax
import numpy as np
import pytest

import singan
from singan.config import parse
from singan.model.pyramid import make_pyramid
from singan.parallel.cohort import image_mesh
from singan.storage import workdir as records
from singan.storage.workdir import ImageRecord, Workdir
from singan.training import trainer
from singan.training.observer import Silent
from singan.training.scale_setup import TrainingImage
from singan.value_map import ValueMap

CONFIG = {
    "pyramid": {"min_size": 11, "max_size": 14, "ratio": 0.7},
    "network": {"width": 4, "num_layers": 2},
    "train": {"steps_per_scale": 2, "chunk": 2},
}


class Unwarned(Silent):
    """An observer for whom a warning is a failure."""

    def warn(self, text):
        raise AssertionError(text)


@pytest.mark.usefixtures("compiled_quickly_and_once")
@pytest.mark.parametrize(
    "channels", [1, pytest.param(4, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.slow)]
)
def test_any_number_of_channels(channels, tmp_path, random_image):
    config, workdir = parse(CONFIG), Workdir(tmp_path / "run")
    value_map = ValueMap((0.0,) * channels, (1000.0,) * channels, (0.0,) * channels, "int16")
    pixels = random_image(1, channels)[:14, :14]
    pixels[:2] = -1
    pixels = value_map.apply(value_map.invert(pixels, as_stored=True))
    names = tuple(f"c{c}" for c in range(channels))
    workdir.path.mkdir()
    records.write_image(workdir, "a", pixels)
    row = ImageRecord("a", "made", pixels.shape, names, value_map, records.pixel_digest(pixels))
    records.write_images(workdir, [row])
    records.write_config(workdir, config)
    images = [TrainingImage("a", pixels, value_map.padding)]
    mesh = image_mesh(jax.devices()[:1])
    trainer.train(config, images, make_pyramid(14, 14, config.pyramid), workdir, Unwarned(), mesh, "direct")

    run = singan.load_run(workdir.path)
    height, width = run.finest("a").shape[:2]
    samples = run.sample(2, start_scale=0)["a"]
    assert samples.shape == (2, height, width, channels)
    assert samples.min() >= 0
    assert samples.max() <= 1000
    assert np.abs(samples[0] - samples[1]).max() > 1

    background = value_map.invert(run.finest("a"))
    mask = np.zeros((height, width))
    mask[7:9, 7:9] = 1
    composite = np.where(mask[..., None] > 0, 500, background)
    rule = singan.api.MaskRule(10.0, 0.0)
    made = run.harmonize("a", [composite], [mask], start_scale=1, rule=rule)[0, 0]
    assert made.shape == (height, width, channels)
    np.testing.assert_array_equal(made[:5], background[:5])
    assert np.abs(made - background)[7:9, 7:9].max() > 1
