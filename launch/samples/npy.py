"""An .npy file that is written in parts, in any order, and appears when it is whole."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from singan import files
from singan.model.layouts import Layout
from singan.storage.workdir import ImageRecord


class NpyRows:
    """A context: `write` rows of the first axis, then `finish`; left without that, nothing of it stays."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any):
        self._path, self._shape, self._dtype = path, shape, np.dtype(dtype).newbyteorder("<")
        self._in_bucket = files.is_bucket(path)
        parent = Path(tempfile.gettempdir()) if self._in_bucket else path.parent
        self._temporary = parent / f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}"
        self._file: Any = None

    def __enter__(self) -> "NpyRows":
        with files.named_os_errors(self._path):
            self._file = open(self._temporary, "wb")
            header = {"descr": self._dtype.str, "fortran_order": False, "shape": self._shape}
            np.lib.format.write_array_header_1_0(self._file, header)
            self._start = self._file.tell()
        return self

    def write(self, first: int, rows: np.ndarray) -> None:
        """Writes rows first, first + 1, ... of the first axis."""
        assert rows.shape[1:] == self._shape[1:]
        content = np.ascontiguousarray(rows, self._dtype)
        with files.named_os_errors(self._path):
            self._file.seek(self._start + first * (content.nbytes // len(content)))
            self._file.write(content.tobytes())

    def finish(self) -> None:
        """Gives the file its name."""
        with files.named_os_errors(self._path):
            self._file.close()
            if self._in_bucket:
                files.write_bytes(self._path, self._temporary.read_bytes())
            else:
                os.replace(self._temporary, self._path)

    def __exit__(self, *error: Any) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class NpyWriter:
    """FOLDER/<id>.npy, float32 [num_samples, H, W, C] in the source's values, filled row by row.

    Of a conditional run also <id>_objects.npy, int32 [num_samples, H, W], the ids of what it was given, and
    <id>_classes.npy, uint8.
    """

    def __init__(self, folder: Path, records: Sequence[ImageRecord], num_samples: int):
        self._folder, self._records, self._count = folder, {record.id: record for record in records}, num_samples
        self._open: dict[str, NpyRows] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "NpyWriter":
        self._stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray, layouts: Sequence[Sequence[Layout]] = ()) -> None:
        for place, (name, drawn) in enumerate(zip(ids, pixels, strict=True)):
            record = self._records[name]
            values = record.value_map.invert(drawn)[..., : record.generated]
            self._write(name, first, values)
            if layouts:
                given = [one.resized(drawn.shape[1:3]) for one in layouts[place]]
                self._write(f"{name}_objects", first, np.stack([one.objects for one in given]))
                self._write(f"{name}_classes", first, np.stack([one.classes for one in given]))

    def _write(self, name: str, first: int, values: np.ndarray) -> None:
        if name not in self._open:
            rows = NpyRows(self._folder / f"{name}.npy", (self._count, *values.shape[1:]), values.dtype)
            self._open[name] = self._stack.enter_context(rows)
        self._open[name].write(first, values)
        if first + len(values) == self._count:
            self._open.pop(name).finish()
