"""Files that are whole or absent: atomic writes and strict JSON."""

import contextlib
import errno
import io
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from singan.errors import UserError


@contextlib.contextmanager
def named_os_errors(path: str | os.PathLike) -> Iterator[None]:
    """Context in which an OSError becomes a UserError of one line that names `path` and says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "disk full: free space and run the same command again; it resumes"
        elif error.errno in (errno.EACCES, errno.EPERM):
            why = "no permission to write here: choose another place or change the permissions"
        elif error.errno == errno.EROFS:
            why = "the file system is read-only: choose another place"
        else:
            why = error.strerror or str(error)
        raise UserError(f"cannot write {os.fspath(path)}: {why}") from error


def make_directory(path: str | os.PathLike) -> Path:
    """Returns `path`, which is a directory afterwards, parents included.

    Raises:
      UserError: it cannot be made.
    """
    with named_os_errors(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes `data` to `path` so that, whatever happens, `path` holds either all of it or what it held before.

    The directory must exist. On failure nothing new is left behind.

    Raises:
      UserError: it cannot be written; the text names the path.
    """
    path = Path(path)
    temporary = path.parent / f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}"
    with named_os_errors(path):
        try:
            # Not tempfile: that would leave the file readable by its owner alone.
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_directory(path.parent)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` as UTF-8, atomically; raises as `write_bytes`."""
    write_bytes(path, text.encode())


def write_npy(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes an array as .npy, atomically; raises as `write_bytes`. Equal arrays give equal files."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as strict JSON (see `plain`), keys in their order, atomically; raises as `write_bytes`."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Returns the value that a JSON file holds.

    Raises:
      UserError: the file is missing, cannot be read, or is not JSON; the text names the path.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{os.fspath(path)} is missing") from error
    except OSError as error:
        raise UserError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{os.fspath(path)} is damaged: {error}") from error


def plain(value: Any) -> Any:
    """Returns `value` in JSON's own types: arrays and tuples as lists, paths as text, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy and JAX scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a directory
            raise
    finally:
        os.close(fd)
