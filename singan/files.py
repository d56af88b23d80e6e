"""Files that are whole or absent: atomic writes and strict JSON, in directories and in buckets alike.

The one place through which what this project writes is written. A bucket is an object store (gs://, s3://, az://),
reached by epath, which comes with Orbax: a write there is one whole object, and there are no directories to make.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from singan import npy
from singan.errors import UserError

if TYPE_CHECKING:
    AnyPath: TypeAlias = Path  # pathlib's, or epath's, which has the same methods and is no subclass of it
else:
    AnyPath: TypeAlias = os.PathLike

BUCKETS = ("gs://", "s3://", "az://")


def is_bucket(path: str | os.PathLike) -> bool:
    """Returns whether a path lies in a bucket; no file system but an object store."""
    return os.fspath(path).startswith(BUCKETS)


def as_path(path: str | os.PathLike) -> AnyPath:
    """Returns a pathlib.Path, or for a bucket's URL an epath.Path.

    Raises:
      UserError: the client of that kind of bucket is not installed.
    """
    if not is_bucket(path):
        return Path(path)
    import fsspec.config
    from etils import epath

    scheme = os.fspath(path).split("://")[0]
    try:
        names = fsspec.get_filesystem_class(scheme).protocol
    except ImportError as error:
        raise UserError(f"{os.fspath(path)}: {error}; for gs:// that is pip install -e '.[bucket]'") from error
    for name in (names,) if isinstance(names, str) else names:
        # Checkpoints are written beside this client: what it remembers of a listing may no longer hold.
        fsspec.config.conf.setdefault(name, {}).setdefault("use_listings_cache", False)
    return epath.Path(path)  # pyright: ignore[reportReturnType]


def absolute(path: str | os.PathLike) -> AnyPath:
    """Returns the path from the root on; a bucket's URL is that already."""
    return as_path(path) if is_bucket(path) else Path(path).absolute()


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
    except UserError:
        raise
    except Exception as error:
        if not is_bucket(path):
            raise
        # What a bucket's client raises has no common class.
        raise UserError(f"cannot write {os.fspath(path)}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Returns an error as a line of at most 200 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def make_directory(path: str | os.PathLike) -> AnyPath:
    """Returns `path`, which is a directory afterwards, parents included; in a bucket there is nothing to make.

    Raises:
      UserError: it cannot be made.
    """
    directory = as_path(path)
    if not is_bucket(path):
        with named_os_errors(path):
            directory.mkdir(parents=True, exist_ok=True)
    return directory


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes `data` to `path` so that, whatever happens, `path` holds either all of it or what it held before.

    The directory must exist. On failure nothing new is left behind. In a bucket it is one object, written whole.

    Raises:
      UserError: it cannot be written; the text names the path.
    """
    path = as_path(path)
    if is_bucket(path):
        with named_os_errors(path):
            path.write_bytes(data)
        return
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


def create(path: str | os.PathLike, data: bytes) -> bool:
    """Writes an object of a bucket unless it is there; returns whether it was written. Of two at once one succeeds.

    Raises:
      UserError: it cannot be written.
    """
    assert is_bucket(path)  # in a directory, singan.storage.workdir_lock.lock has what is surer
    import fsspec

    with named_os_errors(path):
        store, name = fsspec.core.url_to_fs(os.fspath(path))
        try:
            store.pipe_file(name, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if getattr(error, "code", None) == 412 or "PreconditionFailed" in str(error):  # as S3 says it
                return False
            raise
    return True


def remove(path: str | os.PathLike) -> None:
    """Removes a file or object; it need not be there. Raises UserError where it cannot be removed."""
    with named_os_errors(path):
        as_path(path).unlink(missing_ok=True)


def remove_leftovers(directories: Iterable[AnyPath]) -> None:
    """Removes the temporary files that writers on this machine, which are gone, have left in directories."""
    for directory in directories:
        for path in directory.glob(".tmp-*") if not is_bucket(directory) else ():
            writer = re.search(r"-(\d+)-[0-9a-f]{8}$", path.name)
            if writer and not _is_alive(int(writer[1])):
                with contextlib.suppress(OSError):
                    path.unlink()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` as UTF-8, atomically; raises as `write_bytes`."""
    write_bytes(path, text.encode())


def write_npy(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes an array as .npy, atomically; raises as `write_bytes`. Equal arrays give equal files."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def open_plain(path: str | os.PathLike, mode: str = "rb", buffering: int = -1) -> Any:
    """Returns a plain file or a bucket's object, opened: no link in its place is followed, and no FIFO waited for.

    Raises:
      OSError: it cannot be opened, or is no plain file.
    """
    if is_bucket(path):
        return as_path(path).open(mode)
    try:
        file = open(path, mode, buffering, opener=_open_itself)  # noqa: SIM115
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link, which is not followed here", os.fspath(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "no plain file", os.fspath(path))
    return file


def _open_itself(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def read_bytes(path: str | os.PathLike) -> bytes:
    """Returns what a plain file or a bucket's object holds; raises as `open_plain`."""
    with open_plain(path) as file:
        return file.read()


def exists(path: str | os.PathLike) -> bool:
    """Returns whether there is a file. Raises UserError where a bucket cannot be asked."""
    place = as_path(path)
    try:
        return place.exists()
    except Exception as error:
        if not is_bucket(path):
            raise
        raise UserError(f"cannot read {os.fspath(path)}: {one_line(error)}") from error


def read_npy(path: str | os.PathLike) -> np.ndarray:
    """Returns the array of an .npy file; a header that claims more than the file has allocates nothing.

    Raises:
      OSError, ValueError, EOFError: it cannot be read, or holds Python objects, which are never loaded.
    """
    data = read_bytes(path)
    return npy.read_npy(io.BytesIO(data), len(data)).copy()


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as strict JSON (see `plain`), keys in their order, atomically; raises as `write_bytes`."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Returns the value that a JSON file holds.

    Raises:
      UserError: the file is missing, cannot be read, or is not JSON; the text names the path.
    """
    try:
        return json.loads(read_bytes(path))
    except FileNotFoundError as error:
        raise UserError(f"{os.fspath(path)} is missing") from error
    except OSError as error:
        raise UserError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{os.fspath(path)} is damaged: {error}") from error
    except RecursionError as error:
        raise UserError(f"{os.fspath(path)} is damaged: it is nested too deeply") from error
    except Exception as error:
        if not is_bucket(path):
            raise
        raise UserError(f"cannot read {os.fspath(path)}: {one_line(error)}") from error


def digest(content: Mapping[str, Any]) -> str:
    """Returns a BLAKE2b digest (32 hex digits) of what JSON keeps of a mapping, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


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


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a directory
            raise
    finally:
        os.close(fd)
