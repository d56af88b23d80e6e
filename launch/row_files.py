"""The file that a run's rows are appended to: metrics.jsonl, or in a bucket, where nothing can be appended, parts.

The parts are metrics/00000.jsonl, 00001.jsonl ... beside the name metrics.jsonl, which stands for both forms here and
for whoever reads them. A part is written whole, again and again as it grows, until the next one is begun. Where a run
was copied out of a bucket or into one, metrics.jsonl holds the older rows and the parts the newer ones.
"""

import contextlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from singan import files

PART_BYTES = 2**20  # from which on the next part is begun
FLUSH_SECONDS = 30.0  # the oldest row that is not in the bucket yet is at most about this old


class RowFile(Protocol):
    """What lines are appended to; a line ends with a newline. Its methods raise UserError where writing fails."""

    def append(self, line: bytes) -> None: ...

    def sync(self) -> None:
        """Returns when what was appended survives the end of this machine."""

    def keep(self, wanted: Callable[[bytes], bytes | None]) -> None:
        """Replaces each line by what `wanted` returns for it; None drops it."""

    def close(self) -> None: ...


def open_row_file(path: Path) -> RowFile:
    """Returns the file of a run's rows, in the form that its place asks for."""
    return RowParts(path) if files.is_bucket(path) else AppendedFile(path)


def read_lines(path: Path) -> Iterator[bytes]:
    """Yields the lines of a run's rows in either form, oldest first, without their newlines; none where there are none.

    Raises:
      OSError: they cannot be read.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            yield line.rstrip(b"\n")
    for part in parts(path):
        yield from part.read_bytes().splitlines()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns a run's rows in either form; lines that are not whole are left out."""
    return [row for row in map(parse_row, read_lines(path)) if row is not None]


def last_rows(path: Path, size: int) -> list[dict[str, Any]]:
    """Returns the rows at the end of either form, from about the last `size` bytes."""
    data = b""
    for part in (*reversed(parts(path)), path):
        if len(data) >= size:
            break
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            data = _tail(part, size - len(data)) + data
    return [row for row in map(parse_row, data.splitlines()) if row is not None]


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Returns the row of a line, or None where it is none: cut off, or damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def parts(path: Path) -> list[Path]:
    """Returns the parts that belong to a metrics.jsonl, oldest first."""
    folder = path.with_suffix("")
    if not folder.is_dir():
        return []
    return sorted(part for part in folder.iterdir() if re.fullmatch(r"\d{5,}\.jsonl", part.name))


class AppendedFile:
    """metrics.jsonl in a directory: each row is one write, and in the file at once."""

    def __init__(self, path: Path):
        self.path = path
        self._open()

    def _open(self) -> None:
        with files.named_os_errors(self.path):
            # Unbuffered: what a full disk refused must not be written again, or raise again, when the file is closed.
            self._file = self.path.open("ab", buffering=0)

    def append(self, line: bytes) -> None:
        with files.named_os_errors(self.path):
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]

    def sync(self) -> None:
        with files.named_os_errors(self.path):
            os.fsync(self._file.fileno())

    def keep(self, wanted: Callable[[bytes], bytes | None]) -> None:
        self._file.close()
        with files.named_os_errors(self.path):
            # Of the parts of a run that was in a bucket: a stop before they are removed leaves their lines twice.
            copied = parts(self.path)
            lines = dict.fromkeys(read_lines(self.path)) if copied else read_lines(self.path)
            data = b"".join(kept for line in lines if (kept := wanted(line)) is not None)
            if copied or data != self.path.read_bytes():
                files.write_bytes(self.path, data)
            for part in copied:
                part.unlink()
        self._open()

    def close(self) -> None:
        with files.named_os_errors(self.path):
            self._file.close()


class RowParts:
    """The parts of metrics.jsonl in a bucket."""

    def __init__(self, path: Path):
        self.path = path
        with files.named_os_errors(path):
            self._begin()

    def _begin(self) -> None:
        """Goes on with the last part, or begins the next one where it is large enough."""
        there = parts(self.path)
        self._number = int(there[-1].stem) if there else 0
        self._lines = bytearray(there[-1].read_bytes() if there else b"")
        self._flushed, self._flushed_at = len(self._lines), time.monotonic()
        self._turn()

    def _turn(self) -> None:
        if len(self._lines) >= PART_BYTES:
            self._number, self._lines, self._flushed = self._number + 1, bytearray(), 0

    def append(self, line: bytes) -> None:
        if len(self._lines) == self._flushed:
            self._flushed_at = time.monotonic()
        self._lines += line
        if len(self._lines) >= PART_BYTES or time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.sync()

    def sync(self) -> None:
        if len(self._lines) > self._flushed:
            files.write_bytes(self.path.with_suffix("") / f"{self._number:05d}.jsonl", bytes(self._lines))
            self._flushed, self._flushed_at = len(self._lines), time.monotonic()
            self._turn()

    def keep(self, wanted: Callable[[bytes], bytes | None]) -> None:
        # From the newest on, each whole: a stop in between leaves what the next start drops just the same.
        with files.named_os_errors(self.path):
            for part in (*reversed(parts(self.path)), *([self.path] if self.path.exists() else [])):
                before = part.read_bytes()
                after = b"".join(kept for line in before.splitlines() if (kept := wanted(line)) is not None)
                if not after and part != self.path:
                    part.unlink()
                elif after != before:
                    files.write_bytes(part, after)
            self._begin()

    def close(self) -> None:
        self.sync()


def _tail(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, io.SEEK_END) - size))
        return file.read()
