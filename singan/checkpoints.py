"""Checkpoints of one scale (the only file that imports Orbax), each with a digest of every image's arrays.

Orbax keeps no checksum of array data: a flipped bit would come back as if nothing were wrong. So every checkpoint
carries one digest per image, checked when it is read; a damaged one is named and the one before it is used.
"""

import asyncio
import contextlib
import gc
import hashlib
import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from singan import files
from singan.cohort import own_rows
from singan.errors import UserError
from singan.processes import Homes, Processes
from singan.shapes import PyTree

KEPT = 2  # checkpoints of one scale: the newest, and the one before it in case the newest is damaged
SPARE_BYTES = 2**20  # that must be free besides the arrays, which Orbax writes twice before it removes one copy
DISK_FULL = "disk full: free space and start the same command again, which resumes"


def flatten(tree: PyTree) -> dict[str, np.ndarray]:
    """Returns {path: array} with host copies of a tree's arrays (copies: device buffers may be donated meanwhile).

    Of arrays that are spread over several processes, the rows of this one.
    """
    return {path: own_rows(leaf) for path, leaf in _leaves(tree).items()}


def _leaves(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def unflatten(template: PyTree, flat: Mapping[str, np.ndarray]) -> PyTree:
    """Returns the template's tree with the arrays of `flatten`.

    Raises:
      ValueError: an array is missing, left over, or of another type than the template's (shapes may differ in the
        leading axis, the images').
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(template)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    if set(names) != set(flat):
        raise ValueError(f"arrays {sorted(set(names) ^ set(flat))} are missing or left over")
    for name, (_, leaf) in zip(names, paths, strict=True):
        if flat[name].dtype != leaf.dtype or flat[name].shape[1:] != leaf.shape:
            raise ValueError(f"{name} is {flat[name].dtype}{flat[name].shape}, wanted {leaf.dtype}[n, {leaf.shape}]")
    return jax.tree_util.tree_unflatten(structure, [flat[name] for name in names])


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


class ScaleCheckpoints:
    """The checkpoints of one scale. A context manager: leaving it waits for the last save to be complete.

    Several processes share one directory. Each writes the rows of its own images and checks them when they are read;
    what is found damaged by one is damaged for all. All processes call the same methods in the same order.
    """

    def __init__(self, directory: files.AnyPath, warn: Callable[[str], None], processes: Processes | None = None):
        """Args: warn: told, in one line, of each damaged checkpoint that is passed over."""
        self._directory = files.absolute(directory)
        self._warn = warn
        self._processes = processes or Processes()
        self._manager = self._guarded(self._open)

    def _open(self) -> ocp.CheckpointManager:
        if self._processes.count == 1:
            options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, create=True)
            return ocp.CheckpointManager(self._directory, options=options)
        self._processes.only_first(lambda: files.make_directory(self._directory))
        # Named processes wait for each other by messages; without, it would be by a program on their devices, sent
        # from the thread that writes, and so in another order on each process than the training's own.
        everyone = ocp.options.MultiprocessingOptions(active_processes=set(range(self._processes.count)))
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, create=False, multiprocessing_options=everyone)
        return ocp.CheckpointManager(self._directory, options=options)

    def __enter__(self) -> "ScaleCheckpoints":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self._guarded(self._manager.close)
            return
        try:
            self._manager.close()
        except Exception as second:
            self._warn(f"{self._directory}: the last checkpoint was not completed ({_first_line(second)})")

    def save(self, step: int, tree: PyTree, ids: tuple[str, ...], extra: Mapping[str, Any]) -> dict[str, str]:
        """Saves a cohort's tree (leading axis: the images `ids` of this process, then any filling up; likewise for
        the other processes).

        Returns the digests of all as soon as the arrays are copied; writing goes on in the background until `wait`,
        the next save or the end of the context.
        """
        rows = flatten(tree)
        own = {path: leaf[: len(ids)] for path, leaf in rows.items()}
        self.wait()
        self._processes.together(lambda: self._check_space(own))
        parts = self._processes.gather(digests(own, ids))
        sums = {name: digest for part in parts for name, digest in part.items()}
        about, arrays = {"images": list(sums), "digests": sums, **extra}, own
        if self._processes.count > 1:  # Orbax writes what lies on the devices, so what only fills the cohort up too
            homes = Homes(tuple(tuple(part) for part in parts))
            about, arrays = {**about, "rows": homes.rows(len(next(iter(rows.values()))))}, _leaves(tree)
        about = files.plain(about)
        about["sum"] = files.digest(about)
        arguments = ocp.args.Composite(arrays=ocp.args.StandardSave(arrays), about=ocp.args.JsonSave(about))
        self._guarded(lambda: self._manager.save(step, args=arguments, force=True))
        return sums

    def _check_space(self, flat: Mapping[str, np.ndarray]) -> None:
        """Asked first, because Orbax answers a disk that fills up while it writes with a flood of tracebacks."""
        wanted = 2 * self._processes.count * sum(leaf.nbytes for leaf in flat.values()) + SPARE_BYTES
        if not files.is_bucket(self._directory) and shutil.disk_usage(self._directory).free < wanted:
            raise UserError(f"{self._directory}: {DISK_FULL}")

    def wait(self) -> None:
        """Returns when the last save is complete on disk."""
        self._guarded(self._manager.wait_until_finished)

    def latest(self, own: Sequence[str] | None = None) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
        """Returns (step, {path: array}, about) of the newest checkpoint that is whole, or None where there is none.

        Damaged ones are named to `warn` and removed, so that they are neither counted nor written over later.

        Args:
          own: the images whose rows are wanted, in their order, and checked; those that the checkpoint does not have
            are left out. None: all, in the order of about["images"].
        """
        for step in self._processes.share(sorted(self._manager.all_steps(), reverse=True)):
            found, error = None, ""
            with _silent_leftovers():
                try:
                    found = self._read(step, own)
                except Exception as raised:  # whatever a damaged file makes of the reader
                    error = _first_line(raised) or "unknown"
                if error:
                    gc.collect()  # after the except: until then the error holds what is to be collected in silence
            errors = list(filter(None, self._processes.gather(error)))
            if found and not errors:
                return step, *found
            self._warn(f"checkpoint {self._directory / str(step)} is damaged and passed over: {errors[0]}")
            self._manager.delete(step)
        return None

    def _read(self, step: int, own: Sequence[str] | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns ({path: array}, about). This process reads by itself: one that fails must not keep the others."""
        folder: Any = self._directory / str(step)
        about: Any = ocp.JsonCheckpointHandler().restore(folder / "about", args=ocp.args.JsonRestore())
        place = dict(zip(about["images"], about.get("rows", range(len(about["images"]))), strict=True))
        names = tuple(place) if own is None else tuple(name for name in own if name in place)
        whole = self._read_arrays(folder / "arrays")
        flat = {path: leaf[[place[name] for name in names]] for path, leaf in whole.items()}
        if digests(flat, names) != {name: about["digests"][name] for name in names}:
            raise ValueError("the digest of its arrays does not hold")
        if about.pop("sum", None) not in (None, files.digest(about)):  # older versions wrote none
            raise ValueError("the digest of what is said about it does not hold")
        return flat, about

    def _read_arrays(self, folder: Any) -> dict[str, np.ndarray]:
        """Returns whole NumPy arrays, whatever number of devices and processes wrote them."""
        index = self._processes.index
        alone = ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        names = handler.metadata(folder).tree
        wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), names)
        restored = handler.restore(folder, args=ocp.args.PyTreeRestore(restore_args=wanted))
        return {path: np.array(leaf) for path, leaf in restored.items()}

    def delete(self, step: int) -> None:
        """Removes one checkpoint."""
        self._guarded(lambda: self._manager.delete(step))

    def keep_only(self, step: int) -> None:
        """Removes all checkpoints but one, and what saves that were killed have left."""
        for other in self._manager.all_steps():
            if other != step:
                self._manager.delete(other)
        if not files.is_bucket(self._directory) and self._processes.first:
            # What Orbax knows nothing of: its own temporary folders, and steps that were cut off as they were removed.
            for left in self._directory.iterdir():
                if re.match(r"\d+(\.orbax-checkpoint-tmp.*)?$", left.name) and left.name != str(step):
                    shutil.rmtree(left, ignore_errors=True)

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:
            text = str(error)
            if (isinstance(error, OSError) and error.errno == 28) or "No space left" in text:
                advice = DISK_FULL
            elif isinstance(error, PermissionError) or "Permission denied" in text or "Read-only" in text:
                advice = "no permission to write"
            else:
                raise
            raise UserError(f"{self._directory}: {advice}") from error


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
