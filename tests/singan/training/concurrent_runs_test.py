"""Runs of the concurrent schedule: what each scale leaves, and that it all resumes and adds up."""

import contextlib
import dataclasses
import shutil

import jax
import numpy as np
import pytest

from singan.model.generation import run_trained, upsample_to_next_scale
from singan.model.noise import Purpose, image_key_data, noise_map, scale_key
from singan.model.scale_start import reconstruct_through
from singan.model.state import TrainedScale
from singan.parallel.cohort import image_mesh
from singan.parallel.processes import Processes
from singan.sampling import samples
from singan.storage import workdir as records
from singan.storage.checkpoints import ScaleCheckpoints, unflatten
from singan.storage.finished_scale import weights_template
from singan.storage.run import load_run
from singan.storage.workdir import ImageRecord, Workdir
from singan.training import trainer
from singan.training.scale_run import Stopped
from singan.training.scale_setup import TrainingImage
from singan.value_map import ValueMap
from tests.singan.model.concurrent_test import (
    CHUNK,
    PADDING,
    SCALES,
    SIZE,
    STEPS,
    config,
    picture,
    pyramid_of,
    quickly,
    same,
    spec_at,
)

pytestmark = [pytest.mark.usefixtures("compiled_quickly_and_once"), pytest.mark.slow]


class Told:
    """An observer that notes which scales start and end, and may have enough after one."""

    def __init__(self, last=SCALES):
        self.started, self.warnings, self.finished, self.last = [], [], [], last

    def restored(self, global_step): ...

    def scale_started(self, start):
        self.started.append((start.spec.scale, start.step))

    def chunk_done(self, result):
        assert all(np.isfinite(values).all() for values in result.metrics.values())

    def checkpointing(self): ...

    def scale_finished(self, spec, scales, images):
        self.finished = list(scales)
        if spec.scale == self.last:
            raise Enough

    def warn(self, text):
        self.warnings.append(text)


class Enough(Exception): ...


IMAGES = {name: TrainingImage(name, picture(number), PADDING[:2]) for number, name in enumerate("ab")}


def train(path, names="ab", seed=0, stop=lambda: False, last=SCALES, **keys):
    """Returns the observer of a training."""
    chosen, told = dataclasses.replace(config(**keys), seed=seed), Told(last)
    images, mesh = [IMAGES[name] for name in names], image_mesh(jax.devices()[:1])
    with contextlib.suppress(Enough):
        finished = trainer.train(chosen, images, pyramid_of(chosen), Workdir(path), told, mesh, "direct", stop)
        told.finished = list(finished)
    return told


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_quickly_and_once):
    """An uninterrupted training of images a and b that load_run reads: its path and its scales."""
    path = tmp_path_factory.mktemp("whole")
    told = train(path)
    assert told.started == [(scale, 0) for scale in range(SCALES)]
    value_map = ValueMap((-1.0, -1.0), (1.0, 1.0), (-1.0, None), "float32")
    digests = {name: records.pixel_digest(image.pixels) for name, image in IMAGES.items()}
    images = [ImageRecord(n, "", (*SIZE, 2), ("x", "y"), value_map, digest) for n, digest in digests.items()]
    records.write_config(Workdir(path), config())
    records.write_images(Workdir(path), images)
    return path, told.finished


def digests(finished):
    return [scale.digests for scale in finished]


def test_one_generator_at_a_time_gives_the_sequential_schedules_numbers(tmp_path):
    alone = train(tmp_path / "concurrent", "b", last=1, concurrent_scales=1)
    sequential = train(tmp_path / "sequential", "b", last=1, schedule="sequential")
    assert len(alone.finished) == 2
    assert digests(alone.finished) == digests(sequential.finished)


def test_an_image_alone_is_the_image_in_a_cohort(whole, tmp_path):
    alone = train(tmp_path, "b", last=1)
    assert digests(alone.finished) == [{"b": scale.digests["b"]} for scale in whole[1][:2]]


def test_a_run_stopped_within_a_scale_ends_as_an_uninterrupted_one(whole, tmp_path):
    chunks = iter(range(100))
    with pytest.raises(Stopped, match=f"scale 2, step {CHUNK}"):
        train(tmp_path, stop=lambda: next(chunks) == 2 * STEPS // CHUNK)
    resumed = train(tmp_path)
    assert resumed.started == [(2, CHUNK)]
    assert digests(resumed.finished) == digests(whole[1])


def test_a_lost_scale_is_trained_again_and_what_it_changes_too(whole, tmp_path, monkeypatch):
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run/scales/01/checkpoints")
    again = train(tmp_path / "run")
    assert [text.split(",")[0] for text in again.warnings] == ["scale 1 has no whole weights"]
    assert again.started == []  # of the scales above it; it was told of before
    assert digests(again.finished) == digests(whole[1])
    shutil.rmtree(tmp_path / "run/scales/01/checkpoints")
    origin = trainer._origin(config(), list(IMAGES.values()), Processes())
    monkeypatch.setattr(trainer, "_origin", lambda *_: origin)
    other = train(tmp_path / "run", seed=1)  # which gives other weights, as the same run may by another version of JAX
    assert other.started == [(2, 0)]
    assert [new == old for new, old in zip(digests(other.finished), digests(whole[1]), strict=True)] == [
        True,
        False,
        False,
    ]


def checkpoint(path, scale):
    """The weights that a scale left, read by themselves."""
    with ScaleCheckpoints(Workdir(path).checkpoints(scale), lambda text: pytest.fail(text)) as checkpoints:
        found = checkpoints.latest()
    assert found is not None
    return unflatten(weights_template(spec_at(scale)), found[1])


@pytest.fixture(scope="module")
def newest(whole):
    """The trained scales by hand: scale i trained last at scale min(i + 1, 2), where it is the first of `older`."""
    left = [checkpoint(whole[0], scale) for scale in range(SCALES)]
    generators = [left[1]["older"][0], left[2]["older"][0], left[2]["trained"].generator]
    amplitudes = [weights["trained"].amplitude for weights in left]
    return tuple(map(TrainedScale, generators, amplitudes))


def test_a_finished_run_has_the_newest_generators_with_their_scales_amplitudes(whole, newest):
    run = load_run(whole[0], "direct")
    same(run.trained("ab"), newest)
    same(run.trained("b"), jax.tree.map(lambda leaf: leaf[1:], newest))
    for mine, own in zip(newest[:-1], whole[1], strict=False):
        assert (mine.generator["params"]["kernel"] != own.weights["trained"].generator["params"]["kernel"]).any()


def test_a_run_in_part_has_the_newest_generators_so_far(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run/scales/02")
    run, last = load_run(tmp_path / "run", "direct"), checkpoint(whole[0], 1)
    assert len(run.scales) == 2
    same([one.generator for one in run.trained("ab")], [*last["older"], last["trained"].generator])


def test_the_newest_generators_reconstruct_what_the_run_says(whole, newest):
    finest, spec = checkpoint(whole[0], 2), spec_at(2)
    noise = whole[1][0].weights["reconstruction_noise"]
    start = np.zeros((1, *spec.at(0).size, 2), np.float32)
    program = quickly(lambda *a: reconstruct_through(spec, *a, start, PADDING[:2]))
    for i in range(2):
        image = program(*jax.tree.map(lambda leaf, i=i: leaf[i], (newest, noise)))
        np.testing.assert_allclose(image, finest["reconstruction"][i], atol=1e-5)


def test_samples_come_from_the_newest_generators(whole, newest):
    run, spec = load_run(whole[0], "direct"), spec_at(2)
    (batch,) = samples.draw(run, ["b"], 2, 0, mesh=image_mesh(jax.devices()[:1]))
    of_image = jax.tree.map(lambda leaf: leaf[1], newest)

    @quickly
    def by_hand(number):
        key = jax.random.fold_in(scale_key(image_key_data(0, "b"), 0, 0, Purpose.SAMPLE), number)
        image = np.zeros((1, *spec.at(0).size, 2), np.float32)
        for scale in range(SCALES):
            here = spec.at(scale)
            image = image if scale == 0 else upsample_to_next_scale(here, image)
            noise = noise_map(here, jax.random.fold_in(key, scale))
            image = run_trained(here, of_image[scale], noise, image, PADDING[:2])
        return image.clip(-1, 1)[0]

    for number in range(2):
        np.testing.assert_allclose(batch.pixels[0, number], by_hand(number), atol=1e-5)
