"""Compiling the next scale while one trains changes no weight, holds nobody up, and hides no error."""

import collections
import dataclasses
import shutil
import threading

import jax
import numpy as np
import pytest

from singan.model.pyramid import make_pyramid
from singan.model.spec import make_spec
from singan.model.step import train_step
from singan.parallel import cohort, executable_cache
from singan.parallel.cohort import image_mesh
from singan.parallel.processes import Processes, make_process_group
from singan.storage.workdir import Workdir
from singan.training import ahead, trainer
from singan.training.observer import Silent
from singan.training.scale_programs import ScalePrograms
from singan.training.scale_run import Stopped
from singan.training.scale_setup import TrainingImage


class Told(Silent):
    def __init__(self):
        self.starts, self.chunks, self.finished = [], [], []

    def scale_started(self, start):
        self.starts.append(start)

    def chunk_done(self, result):
        self.chunks.append((result.spec.scale, result.step))

    def scale_finished(self, spec, scales, images):
        self.finished.append(spec.scale)


def digests(scales):
    return [scale.digests for scale in scales]


class Traces:
    """Stands for train_step: counts on which threads each scale is traced, and does something then."""

    def __init__(self):
        self.on_main, self.ahead = collections.Counter(), collections.Counter()
        self.at = {}  # scale -> what is done when it is traced ahead

    def __call__(self, spec, *arguments):
        if threading.current_thread() is threading.main_thread():
            self.on_main[spec.scale] += 1
        else:
            self.ahead[spec.scale] += 1
            self.at.get(spec.scale, lambda: None)()
        return train_step(spec, *arguments)


@pytest.fixture
def traces(monkeypatch, compiled_quickly_and_once):
    traces = Traces()
    monkeypatch.setattr(executable_cache, "current", lambda: None)  # what is kept is not traced
    monkeypatch.setattr(cohort, "train_step", traces)
    return traces


@pytest.fixture
def train(tiny_config, random_image):
    """Trains two scales of images a and b: train(path, compile_ahead, steps, stop, broken)."""

    def make(path, compile_ahead="on", steps=3, stop=lambda: False, broken=False, observer=None):
        config = tiny_config(
            num_layers=2, steps_per_scale=steps, chunk=2, critic_updates=1, compile_ahead=compile_ahead
        )
        images = [
            TrainingImage(name, random_image(i)[:13, :13], np.zeros(2, np.float32)) for i, name in enumerate("ab")
        ]
        if broken:
            images[0].pixels[:] = np.nan
        pyramid = make_pyramid(13, 13, dataclasses.replace(config.pyramid, num_scales=2))
        mesh, told = image_mesh(jax.devices()[:1]), observer or Told()
        return trainer.train(config, images, pyramid, Workdir(path), told, mesh, "direct", stop), told

    return make


@pytest.mark.slow
def test_the_weights_are_the_same_to_the_bit_and_each_chunk_length_is_traced_once(traces, train, tmp_path):
    expected, told = train(tmp_path / "off", "off")
    assert traces.on_main == {0: 2, 1: 2}
    assert not traces.ahead
    assert [start.ahead_seconds for start in told.starts] == [0, 0]
    traces.on_main.clear()
    scales, told = train(tmp_path / "on", "on")
    assert digests(scales) == digests(expected)
    assert traces.on_main[1] <= 1  # the rest may be asked for before the thread comes to it
    assert traces.on_main + traces.ahead == {0: 2, 1: 2}
    assert told.starts[1].ahead_seconds > 0


def test_an_error_is_raised_when_its_scale_starts(traces, train, tmp_path):
    def fail():
        raise RuntimeError("the step of scale 1 is broken")

    traces.at[1], told = fail, Told()
    with pytest.raises(RuntimeError, match="scale 1 is broken"):
        train(tmp_path, observer=told)
    assert told.finished == [0]
    assert len(told.starts) == 1
    assert traces.on_main[1] == 0


@pytest.mark.parametrize("scale", [0, 1])
def test_a_stop_waits_for_no_compilation(traces, train, tmp_path, scale):
    compiling, go_on, told = threading.Event(), threading.Event(), Told()

    def hang():
        compiling.set()
        assert go_on.wait(60)

    traces.at[1] = hang
    stop, steps = (compiling.is_set, 1000) if scale == 0 else (lambda: told.finished == [0], 3)
    try:
        with pytest.raises(Stopped, match=f"scale {scale}, step"):
            train(tmp_path, steps=steps, stop=stop, observer=told)
        assert ahead.at_work()
    finally:
        go_on.set()
    assert told.finished == [0][:scale]


@pytest.mark.slow
def test_what_was_compiled_for_another_number_of_images_is_dropped(traces, train, tmp_path):
    scales, told = train(tmp_path, broken=True)
    assert [start.ids for start in told.starts] == [("a", "b"), ("b",)]
    assert traces.on_main[1] >= 1  # traced for one image when scale 1 starts
    assert told.starts[1].ahead_seconds == 0
    assert [scale.surviving for scale in scales] == [("b",), ("b",)]


@pytest.mark.slow
def test_a_scale_that_is_whole_on_disk_is_not_compiled(traces, train, tmp_path):
    train(tmp_path)
    shutil.rmtree(tmp_path / "scales/00")
    traces.on_main.clear()
    traces.ahead.clear()
    train(tmp_path)
    assert traces.on_main + traces.ahead == {0: 2}


class Gpu:
    """What planning asks of a device."""

    platform = "gpu"

    def memory_stats(self):
        return {"bytes_limit": 2**30}


@pytest.mark.slow
def test_a_gpu_that_another_scale_fills_is_not_taken_for_too_small(traces, tiny_config, monkeypatch):
    config = tiny_config(num_layers=2, steps_per_scale=2, chunk=2, critic_updates=1)
    spec = make_spec(config, make_pyramid(13, 13, config.pyramid), 2, "direct")
    mesh = image_mesh(jax.devices()[:1])
    programs = ScalePrograms(spec, make_process_group(Processes(), mesh, [["a", "b"]]))
    monkeypatch.setattr(ScalePrograms, "_device", Gpu())

    def no_memory():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no memory to try kernels out in")

    traces.at[0] = no_memory
    with ahead.AheadThread() as thread:
        programs.fit_ahead(thread)
    assert traces.ahead == {0: 1}  # no smaller group was tried
    assert programs.fit(lambda: None).group == 2
    assert traces.on_main == {0: 1}
