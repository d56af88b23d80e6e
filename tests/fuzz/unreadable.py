"""Files that the system does not let anyone read, checkpoints of other Orbax versions, starts on other machines."""

import errno
import functools
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
from hypothesis import strategies as st

from launch.compare import load
from launch.images.find import load_images
from launch.results.run_facts import read_facts
from singan.errors import UserError
from singan.parallel import processor
from singan.parallel.cohort import image_mesh
from singan.storage.checkpoint_files import hold, seal
from singan.storage.checkpoints import ScaleCheckpoints
from singan.storage.run import load_run
from singan.storage.run_record import claim_workdir
from singan.storage.workdir import Workdir, read_config
from tests.fuzz import strategies
from tests.fuzz.areas import Area
from tests.fuzz.hostile import rewrite
from tests.fuzz.oracle import Fault
from tests.fuzz.workdirs import names, template

ERRORS = (errno.EACCES, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE)
READERS = ("load_run", "compare", "facts", "weights", "claim")

_failing: dict[str, int] = {}  # error number by path


@functools.cache
def _listen() -> None:
    """Has opening one of `_failing` fail as the system would have it: root may open whatever it likes.

    Python asks before it opens anything. TensorStore does not: of its files a folder in their place is what fails.
    """

    def fail(event: str, arguments: tuple) -> None:
        if event == "open" and _failing and (number := _failing.get(os.fsdecode(str(arguments[0])))):
            raise OSError(number, os.strerror(number), arguments[0])

    sys.addaudithook(fail)


unreadable = st.deferred(
    lambda: st.tuples(st.sampled_from(names()), st.sampled_from((*ERRORS, 0)), st.sampled_from(READERS))
)


def use_unreadable(example: tuple[str, int, str], folder: Path) -> None:
    """Lets a file of a run fail to open, or (0) puts a folder in its place: nothing is changed, removed or renamed."""
    name, number, reader = example
    run = folder / "run"
    shutil.copytree(template(), run)
    if not number:
        (run / name).unlink()
        (run / name).mkdir()
    before = snapshot(run)
    _listen()
    _failing.update({str(run / name): number} if number else {})
    try:
        _read(run, reader)
    finally:
        _failing.clear()
        own = ("run.json", "config.json", "images.json") if reader == "claim" else ()  # a training's, which it writes
        after = snapshot(run)
        if changed := [n for n in before if n not in own and after.get(n, "") != before[n]]:
            raise Fault(f"{reader}, {name}, {errno.errorcode.get(number, 'a folder')}: changed {changed[0]}")


def _read(run: Path, reader: str) -> None:
    match reader:
        case "load_run":
            found = load_run(run)
            for image in found.ids:
                found.pixels(image)
        case "compare":
            load.load([str(run), str(template())])
        case "facts":
            read_facts(run)
        case "weights":  # as a training reads them, which may set damage aside
            for scale in range(2):
                with ScaleCheckpoints(Workdir(run).checkpoints(scale), _no_damage) as checkpoints:
                    checkpoints.latest()
        case "claim":
            claim(run)


def _no_damage(text: str) -> None:
    raise Fault(f"taken for damage: {text}")


def claim(run: Path) -> None:
    """Claims a workdir for the training that the template is of."""
    config = read_config(Workdir(template()))
    claim_workdir(Workdir(run), config, images(), image_mesh(jax.devices("cpu")[:1]))


@functools.cache
def images():
    return load_images(read_config(Workdir(template())).data)


def snapshot(run: Path) -> dict[str, bytes | None]:
    """Returns what lies below a folder, by its path in it; None for a folder."""
    found = ((path, path.relative_to(run).as_posix()) for path in run.rglob("*"))
    return {name: path.read_bytes() if path.is_file() else None for path, name in found}


METADATA = ("_CHECKPOINT_METADATA", "arrays/_METADATA", "arrays/manifest.ocdbt")


@st.composite
def other_versions(draw) -> tuple[str, bytes]:
    """A file in which versions of Orbax differ, and what another one may write."""
    step = next(n.rpartition("/")[0] for n in names() if n.endswith("01/checkpoints/2/_CHECKPOINT_METADATA"))
    name = draw(st.sampled_from(METADATA))
    data = (template() / step / name).read_bytes()
    if name.endswith(".ocdbt"):  # TensorStore's own format: magic, length, version
        return name, data[:12] + bytes([draw(st.integers(1, 99))]) + data[13:]
    return name, json.dumps(draw(strategies.damaged_json(json.loads(data)))).encode()


def use_other_version(example: tuple[str, bytes], folder: Path) -> None:
    """Reads a checkpoint, whole by the digests of its files, whose own records are another version's: it stays."""
    name, data = example
    directory = folder / "checkpoints"
    shutil.copytree(Workdir(template()).checkpoints(1), directory)
    (directory / "2" / name).write_bytes(data)
    seal(directory / "2")
    before, told = snapshot(directory), []
    with ScaleCheckpoints(directory, told.append) as checkpoints:
        found = checkpoints.latest()
    if found is None and "the digest of its arrays does not hold" not in "".join(told):
        raise Fault(f"passed over: {told}")
    if found is not None and (snapshot(directory) != before or not hold(directory / "2")):
        raise Fault("changed by reading")


starts = strategies.damaged_json(
    {"devices": "1 x cpu (cpu)", "versions": {"jaxlib": "0.10.0"}, "cpu": {**processor.about(), "threads": 64}}
)


def use_start(example: Any, folder: Path) -> None:
    """Goes on with a run whose last start says anything of its threads, processor and versions."""
    run = folder / "run"
    shutil.copytree(template(), run)
    rewrite(run / "run.json", {"status": "stopped", "starts": [example]})
    claim(run)
    if json.loads((run / "run.json").read_text())["starts"][-1]["cpu"] != processor.about():
        raise Fault("this start was not recorded")
    raise UserError("goes on, and says what differs")


AREAS = [
    Area("unreadable files in a workdir", unreadable, use_unreadable, 40, 400, prepare=template),
    Area("checkpoints of other Orbax versions", other_versions(), use_other_version, 20, 150, prepare=template),
    Area("starts on other machines", starts, use_start, 20, 150, prepare=template),
]
