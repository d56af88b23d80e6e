"""The folders of prepared data sets: one build at a time, whole or not there, never the wrong one by accident.

TFDS writes into a folder `incomplete.XXXXXX_VERSION` and renames it when all is written, so that a folder with a
version's name is always whole. A build that was killed leaves such a folder behind; the next build removes it.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from datasets.archives import Source, fingerprint
from datasets.errors import DataError

_LOCK = ".build.lock"
_PREVIOUS = ".previous_"

# Raised where the same files are read otherwise than before, so that a data set is not taken for one built today.
READING = 2


@contextlib.contextmanager
def only_builder(data_dir: pathlib.Path, name: str) -> Iterator[None]:
    """Holds the right to build `name` below `data_dir`, against builds in other processes.

    What killed builds left is removed first. Where the body raises and the folder of `name` did not exist before, it
    is removed again. The system frees the right of a killed process.

    Raises:
      DataError: Another build holds it.
    """
    folder = data_dir / name
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another build of {name} is at work in {data_dir}: wait until it ends") from None
        for pattern in ("incomplete.*", "*/incomplete.*", ".unpacked_*"):
            for leftover in folder.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
        try:
            yield
        except BaseException:
            if folder in made:
                shutil.rmtree(folder, ignore_errors=True)
                for parent in made[1:]:
                    with contextlib.suppress(OSError):  # no longer empty: somebody else uses it
                        parent.rmdir()
            raise


def recover(folder: pathlib.Path) -> None:
    """Finishes a replacement that was killed: the old data set comes back where the new one was not whole."""
    old = folder.with_name(_PREVIOUS + folder.name)
    if old.exists():
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)


@contextlib.contextmanager
def replacing(folder: pathlib.Path) -> Iterator[None]:
    """Moves a prepared data set aside while the body writes a new one in its place; puts it back if the body raises."""
    old = folder.with_name(_PREVIOUS + folder.name)
    if folder.exists():
        folder.rename(old)
    try:
        yield
    finally:
        recover(folder)


def metadata(folder: pathlib.Path) -> dict[str, Any]:
    """Returns what `streaming.StreamingBuilder` wrote beside the records: index, source, skipped, left_out, ..."""
    return json.loads((folder / "metadata.json").read_text())


def check_same_source(folder: pathlib.Path, source: Source, labels_asked: str = "") -> None:
    """Raises a DataError where a prepared data set was built from other files than those of `source`, or otherwise."""
    try:
        written = metadata(folder)
        then = written["source"]
    except (OSError, ValueError, KeyError):
        raise DataError(
            f"{folder} exists but was not written by this builder: give another --data_dir, or --overwrite"
        ) from None
    now = fingerprint(source.members)
    if now != then:
        raise DataError(
            f"{os.fspath(folder)} was built from other files ({then['files']} files, {then['bytes']} bytes; "
            f"{source.path} has {now['files']} files, {now['bytes']} bytes): "
            "give another --data_dir, or --overwrite to replace it"
        )
    if written.get("labels_asked", "") != labels_asked:
        asked = f"--labels={written['labels_asked']}" if written.get("labels_asked") else "no --labels"
        raise DataError(f"{folder} was built with {asked}: give another --data_dir, or --overwrite to replace it")
    if written.get("reading") != READING:
        raise DataError(
            f"{folder} was built by an earlier version, which read labels and names of files otherwise: give another "
            "--data_dir, or --overwrite to build it again; it can still be trained on as it is"
        )
