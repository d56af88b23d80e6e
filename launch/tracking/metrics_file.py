"""The file that a run's rows are appended to: metrics.jsonl, or in a bucket, where nothing can be appended, parts.

The parts are metrics/00000.jsonl, 00001.jsonl ... beside the name metrics.jsonl, which stands for both forms here and
for whoever reads them. A part is written whole, again and again as it grows, until the next one is begun. Where a run
was copied out of a bucket or into one, metrics.jsonl holds the older rows and the parts the newer ones.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from singan import files
from singan.errors import UserError

PART_BYTES = 2**20  # from which on the next part is begun
FLUSH_SECONDS = 30.0  # the oldest row that is not in the bucket yet is at most about this old


class RowFile(Protocol):
    """What lines are appended to; a line ends with a newline. Its methods raise UserError where writing fails."""

    def append(self, line: bytes) -> None: ...

    def sync(self) -> None:
        """Returns when what was appended survives the end of this machine."""

    def keep(self, wanted: Callable[[bytes], bytes | None]) -> list[str]:
        """Replaces each line by what `wanted` returns for it; None drops it.

        Returns what of the lines was damaged since they were written, in a line each.
        """
        ...

    def close(self) -> None: ...


def open_row_file(path: Path) -> RowFile:
    """Returns the file of a run's rows, in the form that its place asks for."""
    return RowParts(path) if files.is_bucket(path) else AppendedFile(path)


def read_lines(path: Path) -> Iterator[bytes]:
    """Yields the lines of a run's rows in either form, oldest first, without their newlines; none where there are none.

    Raises:
      OSError: they cannot be read.
    """
    with contextlib.suppress(FileNotFoundError), files.open_plain(path) as file:
        for line in file:
            yield line.rstrip(b"\n")
    for part in parts(path):
        yield from files.read_bytes(part).splitlines()


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
    """metrics.jsonl in a directory: each row is one write, and in the file at once.

    Beside it, metrics.sum says how long it was at the last `sync` and what the digest of so much is: a row that is
    altered afterwards would otherwise pass for a true one.
    """

    def __init__(self, path: Path):
        self.path, self._sum = path, path.with_suffix(".sum")
        self._hasher, self._length = hashlib.blake2b(digest_size=16), 0
        with files.named_os_errors(path):
            before = files.read_bytes(path) if path.exists() else b""
            if before and path.stat().st_nlink > 1:
                files.write_bytes(path, before)  # a file of its own: a copy of the run by hard links stays as it is
        self._open()
        self._hash(before)

    def _open(self) -> None:
        with files.named_os_errors(self.path):
            # Unbuffered: what a full disk refused must not be written again, or raise again, when the file is closed.
            self._file = files.open_plain(self.path, "ab", buffering=0)

    def append(self, line: bytes) -> None:
        with files.named_os_errors(self.path):
            rest = memoryview(line)
            while rest:
                written = self._file.write(rest)
                self._hash(rest[:written])
                rest = rest[written:]

    def sync(self) -> None:
        with files.named_os_errors(self.path):
            os.fsync(self._file.fileno())
        self._seal()

    def _hash(self, data: bytes | memoryview) -> None:
        self._hasher.update(data)
        self._length += len(data)

    def _seal(self) -> None:
        files.write_json(self._sum, {"bytes": self._length, "digest": self._hasher.hexdigest()})

    def _damage(self, data: bytes) -> list[str]:
        if not self._sum.exists():
            return []  # of an older version, or nothing was synced yet
        try:
            content = files.read_json(self._sum)
            length, digest = int(content["bytes"]), str(content["digest"])
        except (UserError, KeyError, TypeError, ValueError):
            return [f"{self._sum} is damaged: whether {self.path} is whole cannot be told"]
        if len(data) < length:
            return [f"{self.path} is damaged: {length - len(data)} of its {length} bytes are gone, and their rows"]
        if hashlib.blake2b(data[:length], digest_size=16).hexdigest() != digest:
            return [f"{self.path} is damaged: a row of it was altered, and lines that are no rows are left out"]
        return []

    def keep(self, wanted: Callable[[bytes], bytes | None]) -> list[str]:
        self._file.close()
        with files.named_os_errors(self.path):
            # Of the parts of a run that was in a bucket: a stop before they are removed leaves their lines twice.
            copied = parts(self.path)
            lines = dict.fromkeys(read_lines(self.path)) if copied else read_lines(self.path)
            data = b"".join(kept for line in lines if (kept := wanted(line)) is not None)
            before = files.read_bytes(self.path)
            damage = self._damage(before)
            if copied or data != before:
                # Not the old sum beside the new rows, whenever this is ended.
                self._sum.unlink(missing_ok=True)
                files.write_bytes(self.path, data)
            for part in copied:
                part.unlink()
        self._open()
        self._hasher, self._length = hashlib.blake2b(digest_size=16), 0
        self._hash(data)
        self._seal()
        return damage

    def close(self) -> None:
        if self._length and not self._file.closed:
            self.sync()
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
        self._lines = bytearray(files.read_bytes(there[-1]) if there else b"")
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

    def keep(self, wanted: Callable[[bytes], bytes | None]) -> list[str]:
        # From the newest on, each whole: a stop in between leaves what the next start drops just the same.
        with files.named_os_errors(self.path):
            for part in (*reversed(parts(self.path)), *([self.path] if self.path.exists() else [])):
                before = files.read_bytes(part)
                after = b"".join(kept for line in before.splitlines() if (kept := wanted(line)) is not None)
                if not after and part != self.path:
                    part.unlink()
                elif after != before:
                    files.write_bytes(part, after)
            self._begin()
        return []  # a bucket's objects have checksums of their own

    def close(self) -> None:
        self.sync()


def _tail(path: Path, size: int) -> bytes:
    with files.open_plain(path) as file:
        file.seek(max(0, file.seek(0, io.SEEK_END) - size))
        return file.read()
