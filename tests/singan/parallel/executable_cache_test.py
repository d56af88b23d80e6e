"""A program that is kept on disk is the one that would be made again, or it is made again."""

import dataclasses
import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from singan.model.pyramid import plan
from singan.model.step import train_step
from singan.parallel import cohort, executable_cache
from singan.parallel.cohort import image_mesh
from singan.storage.workdir import Workdir
from singan.training import trainer
from singan.training.observer import Silent
from singan.training.scale_setup import TrainingImage


@pytest.fixture
def cache(tmp_path, kept_in):
    """The directory in which compiled programs are kept during a test, by this project alone."""
    with kept_in(tmp_path / "cache", seconds=1e9):
        yield tmp_path / "cache"


class Doubling:
    """A small program of a cohort, which counts how often it is traced: make() compiles it as `name`."""

    def __init__(self, mesh=None):
        self.mesh, self.traces = mesh or image_mesh(jax.devices()[:2]), 0

    def array(self, size=4):
        return cohort.shard(np.arange(size, dtype=np.float32), self.mesh)

    def make(self, name=("double",), size=4, precision="highest"):
        def double(x):
            self.traces += 1
            return 2 * x

        program = cohort.parallel(double, self.mesh, donate=(0,))
        shapes = cohort.abstract(np.float32(0), size, self.mesh)
        return cohort.compile_program(program, shapes, precision=precision, name=name)


def kept(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.program"))


def test_the_second_is_not_traced_and_does_the_same(cache):
    doubling = Doubling()
    first, second = doubling.make(), doubling.make()
    assert doubling.traces == 1
    assert len(kept(cache)) == 1
    for program in (first, second):
        given = doubling.array()
        result = program(given)
        assert np.asarray(result).tolist() == [0, 2, 4, 6]
        assert result.sharding == given.sharding
        assert given.is_deleted()  # its buffers were donated
    assert second.memory_analysis() is not None


@pytest.mark.parametrize(
    "other",
    [{"name": ("double", 1)}, {"size": 6}, {"precision": "bf16"}, {"name": ()}],
    ids=["name", "shape", "precision", "nameless"],
)
def test_another_program_is_compiled(cache, other):
    doubling = Doubling()
    doubling.make()
    doubling.make(**other)
    assert doubling.traces == 2


def test_other_devices_settings_options_and_source_have_programs_of_their_own(cache, monkeypatch):
    doubling = Doubling()
    doubling.make()
    on_others = Doubling(image_mesh(jax.devices()[2:4]))
    assert np.asarray(on_others.make()(on_others.array())).tolist() == [0, 2, 4, 6]
    assert on_others.traces == 1
    with jax.enable_x64(True):
        doubling.make()
    assert doubling.traces == 2
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--other")
    doubling.make()
    assert doubling.traces == 3
    monkeypatch.setitem(cohort._CPU_OPTIONS, "xla_backend_optimization_level", 0)
    doubling.make()
    assert doubling.traces == 4
    monkeypatch.setattr(executable_cache, "source_digest", lambda: "other")
    doubling.make()
    assert doubling.traces == 5
    assert len(kept(cache)) == 6


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:99] + b"?" + data[100:], lambda data: b""]
)
def test_a_damaged_file_is_made_anew(cache, damage):
    doubling = Doubling()
    doubling.make()
    (path,) = kept(cache)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert np.asarray(doubling.make()(doubling.array())).tolist() == [0, 2, 4, 6]
    assert doubling.traces == 2
    doubling.make()
    assert doubling.traces == 2


def test_only_the_user_s_own_files_are_read_from_a_directory_of_their_own(cache, monkeypatch):
    doubling = Doubling()
    doubling.make()
    (path,) = kept(cache)
    assert [parent.stat().st_mode & 0o777 for parent in path.parents[:2]] == [0o700, 0o700]
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    doubling.make()
    assert doubling.traces == 2


def test_what_jax_has_read_from_its_own_cache_is_not_kept(tmp_path, kept_in):
    doubling = Doubling()
    with kept_in(tmp_path):
        for name in (("one",), ("another",), ("another",), ("one",)):  # of the same text
            assert np.asarray(doubling.make(name)(doubling.array())).tolist() == [0, 2, 4, 6]
    assert list(tmp_path.glob("*-cache"))  # JAX kept it too
    assert len(kept(tmp_path)) == 1
    assert doubling.traces == 3


def test_a_backend_that_does_not_tell_the_memory_of_what_is_read_has_it_compiled(cache, monkeypatch):
    doubling = Doubling()
    doubling.make()
    monkeypatch.setattr(jax.stages.Compiled, "memory_analysis", lambda self: None)
    doubling.make()
    assert doubling.traces == 2


def test_where_nothing_can_be_kept_programs_are_compiled(cache, monkeypatch):
    doubling = Doubling()
    cache.mkdir()
    (cache / "programs").write_text("a file where the directory should be")
    assert np.asarray(doubling.make()(doubling.array())).tolist() == [0, 2, 4, 6]
    (cache / "programs").unlink()
    jax.config.update("jax_enable_compilation_cache", False)
    doubling.make()
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", None)
    doubling.make()
    assert doubling.traces == 3
    assert not kept(cache)


def test_programs_of_old_source_are_removed_and_recent_ones_stay(cache):
    for name, days in (("old", 31), ("recent", 29)):
        directory = cache / "programs" / name
        directory.mkdir(parents=True)
        (directory / "a.program").touch()
        then = time.time() - days * 86400
        os.utime(directory, (then, then))
    Doubling().make()
    assert {path.parent.name for path in kept(cache)} == {"recent", executable_cache.source_digest()}


def test_the_source_digest_changes_with_every_file_and_its_name(tmp_path):
    def written(name, text):
        (tmp_path / name).write_text(text)
        executable_cache.source_digest.cache_clear()
        return executable_cache.source_digest(tmp_path)

    (tmp_path / "inner").mkdir()
    digests = [written("a.py", "1"), written("a.py", "2"), written("inner/b.py", ""), written("inner/b.py", "1")]
    (tmp_path / "a.py").rename(tmp_path / "c.py")
    digests.append(written("notes.txt", "no source"))
    assert len({*digests}) == 5
    assert written("notes.txt", "changed") == digests[-1]


def test_a_second_training_traces_no_step_and_gives_the_same_weights(cache, monkeypatch, tiny_config, random_image):
    monkeypatch.setitem(cohort._CPU_OPTIONS, "xla_backend_optimization_level", 0)
    traced = []

    def counted(spec, *arguments):
        traced.append(spec.scale)
        return train_step(spec, *arguments)

    monkeypatch.setattr(cohort, "train_step", counted)
    config = tiny_config(num_layers=2, steps_per_scale=3, chunk=2, critic_updates=1, generator_updates=1)
    pyramid = plan(13, 13, dataclasses.replace(config.pyramid, num_scales=2))
    images = [TrainingImage(name, random_image(i)[:13, :13], np.zeros(2, np.float32)) for i, name in enumerate("abc")]

    def train(name):
        mesh = image_mesh(jax.devices()[:2])
        scales = trainer.train(config, images, pyramid, Workdir(cache / name), Silent(), mesh, "direct", lambda: False)
        return [scale.digests for scale in scales]

    first = train("first")
    assert sorted(traced) == [0, 0, 1, 1]
    assert train("second") == first
    assert len(traced) == 4
