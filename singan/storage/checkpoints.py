"""Checkpoints of one scale as the training writes them, each with digests of every image's arrays and of its files.

Orbax (which this file and stored_checkpoints.py alone import) keeps no checksum of array data: a flipped bit would come
back as if nothing were wrong. So every checkpoint carries digests, checked when it is read; a damaged one is
named and set aside, and the one before it is used.
"""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from singan import files
from singan.errors import UserError
from singan.parallel.cohort import local_rows
from singan.parallel.processes import ImageAssignment, Processes
from singan.shapes import PyTree
from singan.storage.checkpoint_files import is_checkpoint, names, seal
from singan.storage.stored_checkpoints import Expected, check_name, digests, leaves_of, newest_whole, steps

KEPT = 2  # checkpoints of one scale: the newest, and the one before it in case the newest is damaged
SPARE_BYTES = 2**20  # that must be free besides the arrays, which Orbax writes twice before it removes one copy
DISK_FULL = "disk full: free space and start the same command again, which resumes"


def flatten(tree: PyTree) -> dict[str, np.ndarray]:
    """Returns {path: array} with host copies of a tree's arrays (copies: device buffers may be donated meanwhile).

    Of arrays that are spread over several processes, the rows of this one.
    """
    return {path: local_rows(leaf) for path, leaf in leaves_of(tree).items()}


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


class _Newest:
    """Which checkpoints Orbax keeps as it saves one: the newest ones, and whatever is no checkpoint of this project."""

    def __init__(self, directory: files.AnyPath):
        self._directory = directory

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        folders = [self._directory / str(one.step) for one in checkpoints]
        ours = [is_checkpoint(folder) or not folder.exists() for folder in folders]  # the new one has no name yet
        return [not own or sum(ours[place:]) <= KEPT for place, own in enumerate(ours)]


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
        self._saving = 0  # the step that is written
        self._manager = self._guarded(self._open)

    def _open(self) -> ocp.CheckpointManager:
        check_name(self._directory)
        self._processes.run_on_first(lambda: files.make_directory(self._directory))
        options: dict[str, Any] = {
            "create": False,
            "preservation_policy": _Newest(self._directory),
            "async_options": ocp.AsyncOptions(post_finalization_callback=self._seal),
        }
        if self._processes.count > 1:
            # Named processes wait for each other by messages; without, it would be by a program on their devices, sent
            # from the thread that writes, and so in another order on each process than the training's own.
            everyone = ocp.options.MultiprocessingOptions(active_processes=set(range(self._processes.count)))
            options["multiprocessing_options"] = everyone
        try:
            return ocp.CheckpointManager(self._directory, options=ocp.CheckpointManagerOptions(**options))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"{self._directory}: Orbax {ocp.__version__} cannot read what the checkpoints there say of themselves:"
                " use the version that wrote them, which run.json names; nothing was changed"
            ) from error

    def _seal(self) -> None:
        """Called by Orbax, in the first process, when all files are written and before it gives the folder its name."""
        final = self._directory / str(self._saving)  # in gs:// it has its name from the start
        seal(next(self._directory.glob(f"{final.name}.orbax-checkpoint-tmp*"), final))

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
        self._processes.run_on_all(lambda: self._check_place(self._directory / str(step), own))
        parts = self._processes.all_gather(digests(own, ids))
        sums = {name: digest for part in parts for name, digest in part.items()}
        about, arrays = {"images": list(sums), "digests": sums, **extra}, own
        if self._processes.count > 1:  # Orbax writes what lies on the devices, so what only fills the cohort up too
            assignment = ImageAssignment(tuple(tuple(part) for part in parts))
            about, arrays = {**about, "rows": assignment.rows(len(next(iter(rows.values()))))}, leaves_of(tree)
        about = files.plain(about)
        about["sum"] = files.digest(about)
        arguments = ocp.args.Composite(arrays=ocp.args.StandardSave(arrays), about=ocp.args.JsonSave(about))
        self._saving = step
        self._guarded(lambda: self._manager.save(step, args=arguments, force=True))
        return sums

    def _check_place(self, place: files.AnyPath, flat: Mapping[str, np.ndarray]) -> None:
        """Asked first, because Orbax writes over what is there, and answers a disk that fills up while it writes with a
        flood of tracebacks."""
        if place.exists() and not is_checkpoint(place):
            raise UserError(f"{place} is no checkpoint and lies where one is to be written: move it elsewhere")
        wanted = 2 * self._processes.count * sum(leaf.nbytes for leaf in flat.values()) + SPARE_BYTES
        if not files.is_bucket(self._directory) and shutil.disk_usage(self._directory).free < wanted:
            raise UserError(f"{self._directory}: {DISK_FULL}")

    def wait(self) -> None:
        """Returns when the last save is complete on disk."""
        self._guarded(self._manager.wait_until_finished)

    def latest(
        self, own: Sequence[str] | None = None, expected: Expected | None = None
    ) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
        """Returns the newest checkpoint that is whole, as `newest_whole`; damaged ones are renamed to STEP.damaged."""
        return newest_whole(self._directory, self._warn, own, expected, self._processes, self._set_aside)

    def _set_aside(self, step: int) -> str:
        """Renames a damaged checkpoint, so that it is neither counted nor written over; returns its new name.

        The scale's one that was set aside before is removed.
        """
        source, target = self._directory / str(step), self._directory / f"{step}.damaged"

        def move() -> None:
            for before in self._directory.iterdir():
                if re.fullmatch(r"\d+\.damaged", before.name) and is_checkpoint(before):
                    _remove(before)
            if files.is_bucket(source):
                for name in names(source):
                    (target / name).write_bytes((source / name).read_bytes())
                _remove(source)
            else:
                source.rename(target)

        self._processes.run_on_first(lambda: self._guarded(move))
        self._guarded(self._manager.reload)
        return target.name

    def delete(self, step: int) -> None:
        """Removes one checkpoint."""
        self._guarded(lambda: self._manager.delete(step))

    def keep_only(self, step: int) -> None:
        """Removes all checkpoints but one, and what saves that were killed have left; nothing else."""
        for other in self._processes.broadcast(self._processes.run_on_all(lambda: steps(self._directory))):
            if other != step and other in self._manager.all_steps():
                self._manager.delete(other)
        if not files.is_bucket(self._directory) and self._processes.first:
            # What Orbax knows nothing of: its own temporary folders, and steps that were cut off as they were removed.
            for left in self._directory.iterdir():
                named = re.match(r"\d+(\.orbax-checkpoint-tmp.*)?$", left.name) and left.name != str(step)
                if named and is_checkpoint(left) and not left.is_symlink():
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


def _remove(folder: files.AnyPath) -> None:
    if files.is_bucket(folder):
        folder.rmtree()  # pyright: ignore[reportAttributeAccessIssue]
    else:
        shutil.rmtree(folder)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
