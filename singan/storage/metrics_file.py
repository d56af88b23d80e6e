"""metrics.jsonl: the rows of a run, appended to in a directory, written whole again and again in a bucket.

Earlier versions wrote numbered parts in a bucket (metrics/00000.jsonl ...): they are read after metrics.jsonl, which a
resumed run makes them part of.
"""

import contextlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from singan import files
from singan.files import AnyPath

Row: TypeAlias = Mapping[str, float | int | str | list | None]
ROW_KEYS = ("global_step", "scale", "scale_step")
FLUSH_SECONDS = 30.0  # the oldest row that is not in the bucket yet is at most about this old


@runtime_checkable
class RowFile(Protocol):
    """What lines are appended to; a line ends with a newline. Its methods raise UserError where writing fails."""

    def append(self, line: bytes) -> None: ...

    def sync(self) -> None:
        """Returns when what was appended survives the end of this machine."""

    def rewrite(self, wanted: Callable[[bytes], bytes | None]) -> None:
        """Replaces each line by what `wanted` returns for it; None drops it."""

    def close(self) -> None: ...


def open_row_file(path: AnyPath) -> RowFile:
    """Returns the file of a run's rows, in the form that its place asks for."""
    return RowObject(path) if files.is_bucket(path) else AppendedFile(path)


def place(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row without its values: global_step, scale, scale_step and time."""
    return {key: row[key] for key in (*ROW_KEYS, "time") if key in row}


def read_lines(path: AnyPath) -> Iterator[bytes]:
    """Yields the lines of a run's rows, oldest first, without their newlines; none where there are none.

    Raises:
      OSError: they cannot be read.
    """
    with contextlib.suppress(FileNotFoundError), files.open_plain(path) as file:
        for line in file:
            yield line.rstrip(b"\n")
    for part in _old_parts(path):
        yield from files.read_bytes(part).splitlines()


def read_rows(path: AnyPath) -> list[dict[str, Any]]:
    """Returns a run's rows; lines that are not whole are left out."""
    return [row for row in map(parse_row, read_lines(path)) if row is not None]


def last_rows(path: AnyPath, size: int) -> list[dict[str, Any]]:
    """Returns the rows at the end of metrics.jsonl, from about the last `size` bytes."""
    data = b""
    for part in (*reversed(_old_parts(path)), path):
        if len(data) >= size:
            break
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), files.open_plain(part) as file:
            file.seek(max(0, file.seek(0, io.SEEK_END) - size + len(data)))
            data = file.read() + data
    return [row for row in map(parse_row, data.splitlines()) if row is not None]


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Returns the row of a line, or None where it is none: cut off, or damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


class AppendedFile:
    """metrics.jsonl in a directory: each row is one write, and in the file at once."""

    def __init__(self, path: AnyPath):
        self.path, self._synced = path, True
        with files.named_os_errors(path):
            if path.exists() and path.stat().st_nlink > 1:
                # A file of its own: a copy of the run by hard links stays as it is.
                files.write_bytes(path, files.read_bytes(path))
        self._open()

    def _open(self) -> None:
        with files.named_os_errors(self.path):
            # Unbuffered: what a full disk refused must not be written again, or raise again, when the file is closed.
            self._file = files.open_plain(self.path, "ab", buffering=0)

    def append(self, line: bytes) -> None:
        with files.named_os_errors(self.path):
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
                self._synced = False

    def sync(self) -> None:
        with files.named_os_errors(self.path):
            os.fsync(self._file.fileno())
        self._synced = True

    def rewrite(self, wanted: Callable[[bytes], bytes | None]) -> None:
        self._file.close()
        with files.named_os_errors(self.path):
            data = _wanted_lines(self.path, wanted)
            if data != files.read_bytes(self.path) or _old_parts(self.path):
                _write_whole(self.path, data)
            self.path.with_suffix(".sum").unlink(missing_ok=True)  # an earlier version's digest
        self._open()

    def close(self) -> None:
        if not self._synced:
            self.sync()
        with files.named_os_errors(self.path):
            self._file.close()


class RowObject:
    """metrics.jsonl in a bucket, where nothing can be appended: one object, kept in memory and written as it grows."""

    def __init__(self, path: AnyPath):
        self.path = path
        with files.named_os_errors(path):
            self._lines = bytearray(_wanted_lines(path, lambda line: line + b"\n"))
        self._flushed, self._flushed_at = len(self._lines), time.monotonic()

    def append(self, line: bytes) -> None:
        if len(self._lines) == self._flushed:
            self._flushed_at = time.monotonic()
        self._lines += line
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.sync()

    def sync(self) -> None:
        if len(self._lines) > self._flushed:
            self._write()

    def rewrite(self, wanted: Callable[[bytes], bytes | None]) -> None:
        lines = (wanted(line) for line in bytes(self._lines).splitlines())
        self._lines = bytearray(b"".join(line for line in lines if line is not None))
        self._write()

    def close(self) -> None:
        self.sync()

    def _write(self) -> None:
        with files.named_os_errors(self.path):
            _write_whole(self.path, bytes(self._lines))
        self._flushed, self._flushed_at = len(self._lines), time.monotonic()


def _old_parts(path: AnyPath) -> list[AnyPath]:
    """Returns the parts that an earlier version wrote beside metrics.jsonl in a bucket, oldest first."""
    folder = path.with_suffix("")
    if not folder.is_dir():
        return []
    return sorted(part for part in folder.iterdir() if re.fullmatch(r"\d{5,}\.jsonl", part.name))


def _wanted_lines(path: AnyPath, wanted: Callable[[bytes], bytes | None]) -> bytes:
    # A stop between writing metrics.jsonl and removing the parts leaves their lines twice.
    lines = dict.fromkeys(read_lines(path)) if _old_parts(path) else read_lines(path)
    return b"".join(line for line in map(wanted, lines) if line is not None)


def _write_whole(path: AnyPath, data: bytes) -> None:
    """Writes metrics.jsonl, then removes the old parts, whose lines `data` has."""
    files.write_bytes(path, data)
    for part in _old_parts(path):
        part.unlink()
