"""What a run says as it goes, in its workdir: rows in metrics.jsonl, tables/NAME.json, summary.json."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from singan import files
from singan.files import AnyPath
from singan.storage import metrics_file
from singan.storage.metrics_file import ROW_KEYS, Row, place
from singan.text import print_warning


class JsonLines:
    """Appends rows to WORKDIR/metrics.jsonl, one strict JSON object a line (NaN and infinities as null).

    Tables go to WORKDIR/tables/NAME.json, the summary to WORKDIR/summary.json. What cannot be written raises UserError.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = files.as_path(path)
        self._file = metrics_file.open_row_file(self.path)

    def scalars(self, row: Row) -> None:
        self._append(row)

    def pictures(self, row: Row, pictures: Mapping[str, AnyPath]) -> None:
        """Appends the row with 'pictures': {name: path relative to the workdir}."""
        relative = {name: os.path.relpath(path, self.path.parent) for name, path in pictures.items()}
        self._append({**place(row), "pictures": relative})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        files.write_json(files.make_directory(self.path.parent / "tables") / f"{name}.json", rows)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Adds to summary.json, or replaces what it has under these names."""
        path = self.path.parent / "summary.json"
        before = files.read_json(path) if files.exists(path) else {}
        files.write_json(path, {**before, **values})

    def weights(self, scale: int) -> None:
        """Does nothing: the workdir has them."""

    def sync(self) -> None:
        """Makes the rows written so far survive a power cut: call it before the checkpoint that they belong to."""
        self._file.sync()

    def close(self, exit_code: int = 0) -> None:
        self._file.close()

    def rows(self) -> list[dict[str, Any]]:
        """Returns the rows that were written; lines that are not whole are left out."""
        self._file.sync()
        return metrics_file.read_rows(self.path)

    def trim_after(self, global_step: int) -> None:
        """Drops the rows whose global_step is larger, and lines that are not whole.

        Damaged lines are reported, but for the last one, which a kill cuts off.
        """
        damaged: list[bool] = []

        def wanted(line: bytes) -> bytes | None:
            row = metrics_file.parse_row(line)
            damaged.append(row is None)
            step = None if row is None else row.get("global_step", 0)
            return _line(row) if row is not None and isinstance(step, int) and step <= global_step else None

        self._file.rewrite(wanted)
        if count := sum(damaged[:-1]):
            print_warning(f"{self.path} is damaged: {count} line(s) that are not rows were dropped")

    def _append(self, row: Mapping[str, Any]) -> None:
        if missing := [key for key in ROW_KEYS if key not in row]:
            raise ValueError(f"a row needs {', '.join(ROW_KEYS)}; this one lacks {', '.join(missing)}")
        self._file.append(_line({**row, "time": row.get("time", time.time())}))


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(files.plain(row), allow_nan=False).encode() + b"\n"
