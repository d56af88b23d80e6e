"""A program that is kept on disk is the one that would be made again, or it is made again."""

import dataclasses
import os
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from singan.model.pyramid import make_pyramid
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


@pytest.fixture
def reachable(kept_in):
    """The directory of `cache`, but where others get to: pytest's own folders are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        if any(parent.stat().st_mode & 0o077 == 0 for parent in Path(folder).resolve().parents):
            pytest.skip(f"nobody else gets to {tempfile.gettempdir()}")
        with kept_in(Path(folder) / "cache", seconds=1e9):
            yield Path(folder) / "cache"


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


def test_what_is_written_is_open_to_nobody_else(cache):
    before = os.umask(0o002)
    try:
        Doubling().make()
    finally:
        os.umask(before)
    (path,) = kept(cache)
    assert [one.stat().st_mode & 0o777 for one in (path, *path.parents[:2])] == [0o600, 0o700, 0o700]


def symbolic(path):
    path.rename(path.with_suffix(".other"))
    path.symlink_to(path.with_suffix(".other"))


def moved(folder):
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "opened",
    [
        symbolic,
        lambda path: os.link(path, path.with_suffix(".other")),
        fifo,
        lambda path: path.chmod(0o620),
        lambda path: path.parent.chmod(0o750),
        lambda path: path.parents[1].chmod(0o720),
        lambda path: path.parents[2].chmod(0o722),
        lambda path: moved(path.parent),
        lambda path: moved(path.parents[1]),
    ],
    ids=["link", "hard link", "fifo", "file", "folder", "parent", "cache", "folder is a link", "parent is a link"],
)
def test_what_another_may_have_put_there_is_not_read(reachable, monkeypatch, opened):
    reachable.mkdir(mode=0o755)
    doubling = Doubling()
    doubling.make()
    (path,) = kept(reachable)
    opened(path)
    read = []
    monkeypatch.setattr(executable_cache.pickle, "loads", lambda data: read.append(data))
    assert np.asarray(doubling.make()(doubling.array())).tolist() == [0, 2, 4, 6]
    assert doubling.traces == 2
    assert read == []


@pytest.mark.parametrize("whose", ["file", "folder", "parent"])
def test_what_another_user_owns_is_not_read(reachable, monkeypatch, whose):
    doubling = Doubling()
    doubling.make()
    (path,) = kept(reachable)
    theirs = {"file": path, "folder": path.parent, "parent": path.parents[2]}[whose].stat()
    real_fstat, real_lstat = os.fstat, Path.lstat

    def disowned(about):
        if about.st_ino != theirs.st_ino:
            return about
        return os.stat_result((*about[:4], about.st_uid + 12345, *about[5:]))

    monkeypatch.setattr(os, "fstat", lambda number: disowned(real_fstat(number)))
    monkeypatch.setattr(Path, "lstat", lambda self: disowned(real_lstat(self)))
    doubling.make()
    assert doubling.traces == 2


def test_a_folder_that_all_may_write_to_is_no_parent_unless_names_in_it_are_kept(reachable):
    doubling, parent = Doubling(), reachable.parent
    for mode, traces in ((0o755, 1), (0o1777, 1), (0o777, 2), (0o770, 3), (0o700, 3)):
        parent.chmod(mode)
        doubling.make()
        assert doubling.traces == traces
    reachable.chmod(0o777)  # nobody else gets there
    doubling.make()
    assert doubling.traces == 3


def test_another_number_of_threads_has_programs_of_its_own(cache, monkeypatch):
    doubling = Doubling()
    for threads, traces in (("2", 1), ("3", 2), ("2", 2)):
        monkeypatch.setenv("NPROC", threads)
        executable_cache._machine.cache_clear()
        doubling.make()
        assert doubling.traces == traces
    executable_cache._machine.cache_clear()


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
    pyramid = make_pyramid(13, 13, dataclasses.replace(config.pyramid, num_scales=2))
    images = [TrainingImage(name, random_image(i)[:13, :13], np.zeros(2, np.float32)) for i, name in enumerate("abc")]

    def train(name):
        mesh = image_mesh(jax.devices()[:2])
        scales = trainer.train(config, images, pyramid, Workdir(cache / name), Silent(), mesh, "direct", lambda: False)
        return [scale.digests for scale in scales]

    first = train("first")
    assert sorted(traced) == [0, 0, 1, 1]
    assert train("second") == first
    assert len(traced) == 4
