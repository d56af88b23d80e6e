"""A scale's step is traced once, however many chunks the scale has."""

import collections

import jax
import numpy as np
import pytest

from singan.model.pyramid import make_pyramid
from singan.model.step import train_step
from singan.parallel import cohort
from singan.parallel.cohort import image_mesh
from singan.storage.workdir import Workdir
from singan.training import trainer
from singan.training.observer import Silent
from singan.training.trainer import TrainingImage

pytestmark = pytest.mark.slow


@pytest.fixture
def traces(monkeypatch, compiled_quickly):
    """Counts by scale how often Python runs through a training step, which it does to trace it."""
    counts = collections.Counter()

    def counted(spec, *arguments):
        counts[spec.scale] += 1
        return train_step(spec, *arguments)

    monkeypatch.setattr(cohort, "train_step", counted)
    return counts


@pytest.mark.parametrize(("steps", "expected"), [(6, 1), (7, 2)])
def test_a_scale_is_traced_once_and_its_shorter_last_chunk_once_more(
    traces, tiny_config, random_image, tmp_path, steps, expected
):
    config = tiny_config(num_layers=2, steps_per_scale=steps, chunk=2, critic_updates=1, generator_updates=1)
    pixels = random_image()[:13, :13]
    pyramid = make_pyramid(13, 13, config.pyramid)
    image = TrainingImage("a", pixels, np.zeros(2, np.float32))
    mesh = image_mesh(jax.devices()[:1])
    trainer.train(config, [image], pyramid, Workdir(tmp_path), Silent(), mesh, "direct")
    assert traces == dict.fromkeys(range(len(pyramid)), expected)


def test_a_sweep_over_learning_rates_and_loss_weights_compiles_each_scale_once(
    tiny_config, random_image, tmp_path, kept_in, monkeypatch, compiled_quickly
):
    compiled, one = [], cohort._compile

    def counted(program, *arguments):
        compiled.append(program)
        return one(program, *arguments)

    monkeypatch.setattr(cohort, "_compile", counted)
    rest = {"num_layers": 2, "steps_per_scale": 4, "chunk": 2, "critic_updates": 1, "generator_updates": 1}
    runs = [
        {},
        {"critic_learning_rate": 1e-3, "generator_learning_rate": 2e-3, "learning_rate_decay": 0.5, "decay_at": 0.5},
        {"gradient_penalty_weight": 1.0, "reconstruction_weight": 3.0, "noise_weight": 0.3},
    ]
    image = TrainingImage("a", random_image()[:13, :13], np.zeros(2, np.float32))
    weights = set()
    with kept_in(tmp_path / "compiled"):
        for number, train in enumerate(runs):
            config = tiny_config(**rest, **train)
            pyramid = make_pyramid(13, 13, config.pyramid)
            workdir, mesh = Workdir(tmp_path / f"run{number}"), image_mesh(jax.devices()[:1])
            trainer.train(config, [image], pyramid, workdir, Silent(), mesh, "direct")
            weights.add((workdir.path / "scales/00/DONE").read_text())
            if number == 0:
                first = len(compiled)
    assert len(compiled) == first > 0
    assert len(weights) == 3
