"""Reads the checkpoints of a scale, changes nothing on disk, and tells a damaged checkpoint from one it cannot read.

A checkpoint is damaged when all its files can be read but hold other bytes than were written: the digest of a file or
of the arrays does not match. Older checkpoints have no digests of files; they are damaged when Orbax cannot load them.
Two cases are no damage, and raise an error that says what they are: a file without permission or on a failing disk, and
a whole checkpoint in another version of Orbax's format.
"""

import asyncio
import contextlib
import dataclasses
import gc
import hashlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from singan import files
from singan.errors import UserError
from singan.parallel.processes import Processes
from singan.shapes import PyTree
from singan.storage.checkpoint_files import (
    NOTHING_CHANGED,
    hold,
    is_checkpoint,
    is_laid_out_as_ours,
    read_about,
    readable,
    trouble,
)
from singan.storage.origin import Origin

_FILLING = 64  # times the images, and at most so often: the rows of several processes that only fill the cohort up
_LARGER = 4  # times what the run's own arrays take: what declares more is not read to see whether it is damaged

Content = tuple[dict[str, np.ndarray], dict[str, Any]]  # {path: array}, and what is said about it


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is known of a scale's checkpoints before they are read. What says otherwise is refused.

    Attributes:
      origin: the run's; a checkpoint has all of its images or, where some have diverged, the others. Older checkpoints
        do not say what they were trained from.
      templates: by kind of checkpoint, the tree of one image. The arrays of other kinds are not read.
    """

    origin: Origin
    templates: Mapping[str, PyTree]


class Unfit(Exception):
    """A checkpoint has other arrays or images than the run."""


class _DigestFails(Exception):
    """The arrays are not those that were saved."""


def leaves_of(tree: PyTree) -> dict[str, Any]:
    """Returns {path: leaf} of a tree, under the names that a checkpoint has for its arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def digests(flat: Mapping[str, np.ndarray], ids: tuple[str, ...]) -> dict[str, str]:
    """Returns a BLAKE2b digest (32 hex digits) per image of all its arrays: names, types, shapes and bytes."""
    result = {}
    for index, name in enumerate(ids):
        hasher = hashlib.blake2b(digest_size=16)
        for path in sorted(flat):
            row = np.ascontiguousarray(flat[path][index])
            hasher.update(f"{path} {row.dtype} {row.shape}\n".encode())
            hasher.update(row.tobytes())
        result[name] = hasher.hexdigest()
    return result


def check_name(directory: files.AnyPath) -> None:
    """Raises UserError where TensorStore, which knows names in UTF-8 alone, could not open a directory."""
    try:
        str(directory).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{str(directory)!r}: the name of a folder in this path is not UTF-8, and the library that stores the"
            " checkpoints cannot open it; rename the folder"
        ) from None


def steps(directory: files.AnyPath) -> list[int]:
    """Returns the steps of a scale's checkpoints, whole or damaged, in order; other folders are left out.

    Raises:
      UserError: the directory cannot be read.
    """
    check_name(directory)
    with readable(directory):
        if not directory.exists():
            return []
        names = ocp.path.step.standard_name_format().find_all(directory)
        return sorted(one.step for one in names if is_checkpoint(directory / str(one.step)))


def newest_whole(
    directory: files.AnyPath,
    warn: Callable[[str], None],
    own: Sequence[str] | None = None,
    expected: Expected | None = None,
    processes: Processes | None = None,
    set_aside: Callable[[int], str] | None = None,
) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
    """Returns (step, {path: array}, about) of the newest checkpoint that is whole, or None where there is none.

    What one of several processes finds is so for all of them.

    Args:
      warn: told, in one line, of each damaged checkpoint that is passed over.
      own: the images whose rows are wanted, in their order, and checked; those that the checkpoint does not have are
        left out. None: all, in the order of about["images"].
      expected: None: whatever is there.
      set_aside: of the training, which alone may change anything: moves a damaged step away, and returns its new name.

    Raises:
      UserError: a file cannot be read, is of another Orbax's format, or is of another run.
    """
    processes = processes or Processes()
    everything = processes.run_on_all(lambda: sorted(steps(directory), reverse=True))
    for step in processes.broadcast(everything):
        folder: Any = directory / str(step)
        checkpoint, why = processes.run_on_all(lambda f=folder: _read(f, own, expected, processes.index))
        reasons = list(filter(None, processes.all_gather(why)))
        if checkpoint and not reasons:
            return step, *checkpoint
        if set_aside is None and not folder.exists():  # by now a training has gone on: see what it has left
            return newest_whole(directory, warn, own, expected, processes)
        kept = f"; kept as {set_aside(step)}" if set_aside else ""
        warn(f"checkpoint {folder} is damaged and passed over: {reasons[0]}{kept}")
    return None


def _read(
    folder: files.AnyPath, own: Sequence[str] | None, expected: Expected | None, index: int
) -> tuple[Content | None, str]:
    """Returns what a checkpoint holds and '', or None and why it is damaged. Raises UserError where it is not that."""
    content, kind, why, unreadable = None, Exception, "", ""
    with _silent_leftovers():
        try:
            content = _decode(folder, own, expected, index)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # whatever a damaged file makes of the reader
            kind, why, unreadable = type(error), _reason(error), trouble(error)
        if why:
            gc.collect()  # after the except: until then the error holds what is to be collected in silence
    if not why or not folder.exists():
        return content, why
    as_written = hold(folder)  # first of all: the system's own word for a file that cannot be read is the clearest
    if unreadable:
        raise UserError(f"cannot read {folder}: {unreadable}; {NOTHING_CHANGED}")
    if kind is Unfit and as_written is not False:
        raise UserError(
            f"{folder} is not of the run that config.json and images.json describe ({why}): bring back the run's own"
            " files, or choose another --workdir"
        )
    if kind is not _DigestFails and (as_written or (as_written is None and not is_laid_out_as_ours(folder))):
        raise UserError(
            f"{folder} is whole, but Orbax {ocp.__version__} cannot read it ({why}): use the version that wrote it,"
            " which run.json names; nothing was changed"
        )
    return None, why


def _decode(folder: Any, own: Sequence[str] | None, expected: Expected | None, index: int) -> Content:
    """Returns ({path: array}, about). This process reads by itself: one that fails must not keep the others."""
    about = read_about(folder)
    ids = about["images"]
    place = dict(zip(ids, about.get("rows", range(len(ids))), strict=True))
    template = None
    if expected:
        if (said := about.get("trained_from", "")) and not expected.origin.is_said_by(said):
            raise UserError(
                f"{folder} was trained with another configuration or on other images than config.json and images.json"
                " say: bring back the run's own files, or choose another --workdir"
            )
        if other := sorted(set(ids) - set(expected.origin.ids)):
            raise Unfit(f"it was trained on other images: {', '.join(other[:3])}")
        if about["kind"] not in expected.templates:
            return {}, about
        template = leaves_of(expected.templates[about["kind"]])
    names = tuple(place) if own is None else tuple(name for name in own if name in place)
    most = _FILLING * max(len(ids), 4) if "rows" in about else len(ids)
    whole, unfit = _read_arrays(folder / "arrays", template, most, index)
    flat = {path: leaf[[place[name] for name in names]] for path, leaf in whole.items()}
    if digests(flat, names) != {name: about["digests"][name] for name in names}:
        raise _DigestFails("the digest of its arrays does not hold")
    if unfit:
        raise Unfit(unfit)
    return flat, about


def _read_arrays(
    folder: Any, template: Mapping[str, Any] | None, most: int, index: int
) -> tuple[dict[str, np.ndarray], str]:
    """Returns whole NumPy arrays, whatever number of devices and processes wrote them, and what is not as expected.

    Args:
      template: one image's arrays. What declares much more than these is not read at all.
      most: images that the arrays may have, the filling included.
    """
    alone = ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    declared, unfit = handler.metadata(folder).tree, ""
    if template is not None and (unfit := _unfit(declared, template, most)):
        own_size = most * sum(np.asarray(leaf).nbytes for leaf in template.values())
        if sum(map(_size, declared.values())) > _LARGER * own_size:
            raise Unfit(unfit)
    wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), declared)
    restored = handler.restore(folder, args=ocp.args.PyTreeRestore(restore_args=wanted))
    return {path: np.array(leaf) for path, leaf in restored.items()}, unfit


def _unfit(declared: Mapping[str, Any], template: Mapping[str, Any], most: int) -> str:
    """Returns what of the declared arrays is not as the template has it, or ''."""
    if set(declared) != set(template):
        return f"the array {min(set(declared) ^ set(template))} is missing or left over"
    rows = {tuple(leaf.shape[:1]) for leaf in declared.values()}
    if len(rows) != 1 or () in rows or max(rows)[0] > most:
        return f"its arrays are of {sorted(rows)} images"
    for name, leaf in declared.items():
        own = np.asarray(template[name])
        if (leaf.dtype, tuple(leaf.shape[1:])) != (own.dtype, own.shape):
            return f"{name} is {leaf.dtype}{tuple(leaf.shape[1:])}, the run's {own.dtype}{own.shape}"
        if _size(leaf) > max(leaf.shape[0], 1) * max(own.nbytes, own.itemsize):
            return f"{name} is stored in parts that are larger than it"
    return ""


def _size(leaf: Any) -> int:
    """Returns the bytes that reading an array takes: of itself or of one of the parts that it is stored in."""
    part = getattr(leaf.storage, "chunk_shape", None) or ()
    return max(int(np.prod(shape, dtype=object)) for shape in (leaf.shape, part)) * np.dtype(leaf.dtype).itemsize


@contextlib.contextmanager
def _silent_leftovers() -> Iterator[None]:
    """Context for reading what may be damaged: Orbax leaves at the first array that fails, with others being read. Its
    coroutines and tasks are never closed, and Python would print a traceback for each of them when it collects it."""
    hook, logger, policy = sys.unraisablehook, logging.getLogger("asyncio"), asyncio.get_event_loop_policy()
    disabled = logger.disabled
    sys.unraisablehook, logger.disabled = lambda _: None, True
    asyncio.set_event_loop_policy(_PatientPolicy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(policy)
        sys.unraisablehook, logger.disabled = hook, disabled


class _PatientLoop(asyncio.SelectorEventLoop):
    """A loop that TensorStore's threads may still report to when it is closed: else each of them, whenever its read
    ends, prints a traceback that nothing in Python can catch."""

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        try:
            return super().call_soon_threadsafe(callback, *args, context=context)
        except RuntimeError:
            if not self.is_closed():
                raise


class _PatientPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _PatientLoop()


def _reason(error: Exception) -> str:
    """Returns in one line why nothing can be made of a checkpoint; Python's own jargon says nothing to its reader."""
    if isinstance(error, AttributeError | LookupError | TypeError):
        return "what it says of its arrays has another form"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
