"""A real training of PyTorch's, read without PyTorch: its reconstructions, and the amplitudes that follow from them."""

import math

import jax
import numpy as np
import pytest

from launch.import_pytorch import read_run
from launch.import_pytorch import replay as pytorch_replay
from singan.config import NetworkConfig
from singan.parallel.cohort import image_mesh
from singan.presets import PRESETS


@pytest.mark.shared
def test_a_real_checkpoint(shared_data):
    found = read_run.read_run(shared_data / "pytorch_checkpoint")
    config = read_run.config_of(found)
    read_run.check_weights(found, config)
    assert (config.pyramid.min_size, config.pyramid.max_size) == (25, 250)
    assert config.network == NetworkConfig(max_width=PRESETS["reference"]["network.max_width"])
    image = read_run.image_of(found, "", (), "auto")
    mesh = image_mesh(jax.devices()[:1])
    config, replays = pytorch_replay.choose_rule(found, config, image, mesh)
    errors = [
        math.sqrt(np.square(replay.reconstruction[0] - real).mean())
        for replay, real in zip(replays, found.reals, strict=False)
    ]
    # z* of scale 0 was redrawn at every step of this training: its reconstruction is none.
    assert config.method.between_scales == "uint8_rescaled_before_crop"
    assert len(errors) >= 7
    assert np.all(np.less(errors, [0.16, *[0.06] * (len(errors) - 1)]))
    stored = [scale.amplitude for scale in found.scales]
    assert [replay.amplitude for replay in replays] == pytest.approx(stored, rel=1e-3)
    assert pytorch_replay.misfit(found, replays)[0] < 1e-3
    assert read_run.is_unit(found, "uint8_rescaled_before_crop")


@pytest.mark.shared
def test_values_of_a_real_checkpoint_are_those_that_it_was_trained_on(shared_data):
    """From 0 to 1, as the authors' array has them: a tenth of the fourth channel is nuclei, the rest 0."""
    found = read_run.read_run(shared_data / "pytorch_checkpoint")
    image = read_run.image_of(found, "", (), "auto", unit=True)
    values = image.value_map.invert(image.pixels)
    assert 0 == values.min() < values.max() <= 1
    source = np.load(shared_data / "medisingan_paper/nuc_neo.npy")
    for channel in range(4):
        assert values[..., channel].mean() == pytest.approx(source[channel].mean(), abs=0.08)
    assert np.mean(values[..., 3] < 0.02) > 0.8
