"""The files of a checkpoint as bytes: their digests, whether they can be read, and what a failure to read them means.

Nothing here knows Orbax but for the names that it gives its files.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from singan import files
from singan.errors import UserError

FILES = "files.json"  # in a checkpoint: the digest of each of its files
# What Orbax writes once more as it commits a checkpoint. Nothing of it is needed to read the arrays.
_UNSEALED = ("_CHECKPOINT_METADATA", "commit_success.txt", FILES)
_MARKS = ("about", "arrays", "_CHECKPOINT_METADATA")  # at least one of them lies in a checkpoint
_HANDLERS = {"about": "JsonCheckpointHandler", "arrays": "StandardCheckpointHandler"}
# What TensorStore says of a file that it could not read: the system's error number, or the kind of a remote error.
_OS_ERROR = re.compile(r"os_error_code='(\d+)'|OS error (\d+)")
_REMOTE = re.compile(r"(PERMISSION_DENIED|UNAUTHENTICATED|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|ABORTED): ")
_MISSING = (2, 20)  # ENOENT, ENOTDIR: a file that is missing is damage
NOTHING_CHANGED = "nothing was changed: mend that, and start the same command again"


def is_checkpoint(folder: files.AnyPath) -> bool:
    """Returns whether a folder is a checkpoint, damaged or not, or the empty folder that is left of one."""
    try:
        names = {path.name.split(".orbax-checkpoint-tmp")[0] for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not names or not names.isdisjoint(_MARKS)


def read_about(folder: files.AnyPath) -> dict[str, Any]:
    """Returns what a checkpoint says of itself, without its digest.

    Raises:
      ValueError: it is not what was written.
      OSError: the file is missing or cannot be read.
    """
    about = json.loads((folder / "about" / "metadata").read_bytes())
    if not isinstance(about, dict) or about.pop("sum", None) not in (None, files.digest(about)):  # the first had none
        raise ValueError("the digest of what is said about it does not hold")
    return about


def abouts(directory: files.AnyPath) -> list[dict[str, Any]]:
    """Returns what each checkpoint of a scale says of itself.

    Those that are damaged are left out. Raises UserError where one cannot be read.
    """
    read: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError), readable(directory):
        for folder in sorted(directory.iterdir(), key=lambda path: path.name):
            if folder.name.isdecimal():
                with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
                    read.append(read_about(folder))
    return read


def seal(folder: files.AnyPath) -> None:
    """Writes the digest of each file of a checkpoint into it."""
    content = {"files": {name: _file_digest(folder / name) for name in names(folder) if name not in _UNSEALED}}
    files.write_json(folder / FILES, {**content, "digest": files.digest(content)})


def hold(folder: files.AnyPath) -> bool | None:
    """Returns whether the files of a checkpoint are those that were sealed; None where it has no seal.

    Raises UserError where any of its files cannot be read.
    """
    with readable(folder):
        there = {name: _file_digest(folder / name) for name in names(folder)}
        try:
            content = json.loads((folder / FILES).read_bytes())
            if content.pop("digest") != files.digest(content):
                return None
            sealed = dict(content["files"])
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None
        try:  # what is not there as a file may be a folder now, which cannot be read either
            return all((there.get(name) or _file_digest(folder / name)) == digest for name, digest in sealed.items())
        except FileNotFoundError:
            return False


def is_laid_out_as_ours(folder: files.AnyPath) -> bool:
    """Returns whether a checkpoint has the form that Orbax gave all of this project's, as far as it can be told."""
    with readable(folder):
        said, arrays = _json(folder / "_CHECKPOINT_METADATA"), _json(folder / "arrays" / "_METADATA")
        handlers = said.get("item_handlers") if isinstance(said, dict) else None
        if isinstance(handlers, dict) and {k: str(v).rpartition(".")[2] for k, v in handlers.items()} != _HANDLERS:
            return False
        if isinstance(arrays, dict) and ("tree_metadata" not in arrays or arrays.get("use_zarr3")):
            return False
        there = {name.partition("/")[0] for name in names(folder)}
        return isinstance(handlers, dict) or not there or not there.isdisjoint(_HANDLERS)


@contextlib.contextmanager
def readable(place: files.AnyPath) -> Iterator[None]:
    """Context in which an error of reading files becomes a UserError that says what it is; a missing file stays one."""
    try:
        yield
    except (FileNotFoundError, UserError):
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"cannot read {error.filename or place}: {why}; {NOTHING_CHANGED}") from error
    except Exception as error:
        if not files.is_bucket(place):
            raise
        raise UserError(f"cannot read {place}: {files.one_line(error)}; {NOTHING_CHANGED}") from error


def trouble(error: BaseException) -> str:
    """Returns, in one line, that a file could not be read, where that is what a library's error says; else ''."""
    text = str(error)
    numbers = {int(number) for match in _OS_ERROR.finditer(text) for number in match.groups() if number}
    if isinstance(error, OSError) and error.errno is not None:
        numbers.add(error.errno)
    if numbers - set(_MISSING) or _REMOTE.match(text) or isinstance(error, TimeoutError):
        return files.one_line(error)
    inner = error.__cause__ or error.__context__
    return trouble(inner) if inner else ""


def names(folder: files.AnyPath, before: str = "") -> list[str]:
    """Returns the paths of all files below a folder, relative to it, in order."""
    result = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        name = before + path.name
        result += names(path, f"{name}/") if path.is_dir() else [name]
    return result


def _json(path: files.AnyPath) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def _file_digest(path: files.AnyPath) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while part := file.read(2**20):
            hasher.update(part)
    return hasher.hexdigest()
