"""Where a run's numbers and pictures go: metrics.jsonl always, wandb when asked (launch/tracking/wandb_run.py).

metrics.jsonl (launch/tracking/metrics_file.py) is the truth. On resume it is cut back to the
restored step, and what is left of it is played into the new wandb run.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from launch.tracking import metrics_file
from launch.tracking.metrics_file import ROW_KEYS, Row, place
from launch.tracking.wandb_run import Wandb, one_line, open_wandb, print_warning
from singan import files
from singan.config import TrackingConfig


class Writer(Protocol):
    """Takes what a run has to say. A row has global_step, scale and scale_step (time is filled in) and the values.

    A value may be a list, one entry per image. Pictures are paths of PNG files that are written already; of their row
    only the step counts, as its values have been told by `scalars`.
    """

    def scalars(self, row: Row) -> None: ...

    def pictures(self, row: Row, pictures: Mapping[str, Path]) -> None: ...

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def summary(self, values: Mapping[str, Any]) -> None: ...

    def sync(self) -> None: ...

    def close(self, exit_code: int) -> None: ...


class JsonLines:
    """Appends rows to WORKDIR/metrics.jsonl, one strict JSON object a line (NaN and infinities as null).

    Tables go to WORKDIR/tables/NAME.json, the summary to WORKDIR/summary.json. What cannot be written raises UserError.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = files.as_path(path)
        self._summary: dict[str, Any] = {}
        self._file = metrics_file.open_row_file(self.path)

    def scalars(self, row: Row) -> None:
        self._append(row)

    def pictures(self, row: Row, pictures: Mapping[str, Path]) -> None:
        """Appends the row with 'pictures': {name: path relative to the workdir}."""
        relative = {name: os.path.relpath(path, self.path.parent) for name, path in pictures.items()}
        self._append({**place(row), "pictures": relative})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        files.write_json(files.make_directory(self.path.parent / "tables") / f"{name}.json", rows)

    def summary(self, values: Mapping[str, Any]) -> None:
        self._summary.update(values)
        files.write_json(self.path.parent / "summary.json", self._summary)

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


class _Both:
    """Hands everything to metrics.jsonl first and then to wandb."""

    def __init__(self, lines: JsonLines, wandb: Wandb | None, kept: Iterable[Mapping[str, Any]]):
        self._lines = lines
        self._writers: list[Writer] = [lines, *([wandb] if wandb else [])]
        # A run killed between a step's rows and the next checkpoint says the last kept step's rows again.
        self._said = {_identity(row, row.get("pictures", {})) for row in kept}

    def scalars(self, row: Row) -> None:
        if _identity(row, {}) not in self._said:
            for writer in self._writers:
                writer.scalars({"time": time.time(), **row})

    def pictures(self, row: Row, pictures: Mapping[str, Path]) -> None:
        if _identity(place(row), pictures) not in self._said:
            for writer in self._writers:
                writer.pictures({"time": time.time(), **row}, pictures)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for writer in self._writers:
            writer.table(name, rows)

    def summary(self, values: Mapping[str, Any]) -> None:
        for writer in self._writers:
            writer.summary(values)

    def sync(self) -> None:
        self._lines.sync()

    def close(self, exit_code: int) -> None:
        for writer in reversed(self._writers):
            writer.close(exit_code)


def _identity(row: Mapping[str, Any], pictures: Mapping[str, Any]) -> tuple:
    names = frozenset({*row, *pictures} - {"time", "pictures"})
    return row["global_step"], row["scale"], row["scale_step"], names


def open_writer(
    tracking: TrackingConfig,
    workdir: str | os.PathLike,
    run_id: str,
    config_mapping: Mapping[str, Any],
    resume_global_step: int | None,
    *,
    online_timeout: float = 30.0,
) -> Writer:
    """Returns the writer of a run; one process of a run opens it.

    Args:
      run_id: the same at every start of the run.
      config_mapping: recorded with the wandb run.
      resume_global_step: the step that was restored, whose rows are kept; None starts anew and keeps none.
      online_timeout: seconds to wait for the wandb server before going on offline.

    Raises:
      UserError: the workdir cannot be written.
    """
    workdir = files.absolute(files.make_directory(workdir))
    lines = JsonLines(workdir / "metrics.jsonl")
    lines.trim_after(-1 if resume_global_step is None else resume_global_step)
    kept = lines.rows()
    last = max((row["global_step"] for row in kept if "global_step" in row), default=-1)
    if resume_global_step is not None and last < resume_global_step:
        print_warning(f"{lines.path} is damaged: its last rows, up to step {resume_global_step}, are missing")
    wandb = _wandb(tracking, workdir, run_id, config_mapping, kept, online_timeout)
    return _Both(lines, wandb, [row for row in kept if row.get("global_step") == resume_global_step])


def open_writer_to_append(
    tracking: TrackingConfig,
    workdir: str | os.PathLike,
    run_id: str,
    config_mapping: Mapping[str, Any],
    *,
    online_timeout: float = 30.0,
) -> Writer:
    """Returns the writer for what is found out about a run while nobody trains it: see `open_writer`.

    No row is dropped, and every new one is written, also at a step that has rows. Give a row the step of the weights
    that it speaks of, so that a resumed training keeps it where it keeps them.
    """
    workdir = files.absolute(files.make_directory(workdir))
    lines = JsonLines(workdir / "metrics.jsonl")
    lines.trim_after(sys.maxsize)  # only what is not whole
    kept = lines.rows()
    wandb = _wandb(tracking, workdir, run_id, config_mapping, kept, online_timeout)
    if wandb is not None:
        tables = {path.stem: files.read_json(path) for path in sorted((workdir / "tables").glob("*.json"))}
        wandb.append_to(tables)
    return _Both(lines, wandb, [])


def _wandb(
    tracking: TrackingConfig,
    workdir: Path,
    run_id: str,
    config_mapping: Mapping[str, Any],
    kept: list[dict[str, Any]],
    online_timeout: float,
) -> Wandb | None:
    if tracking.wandb == "off":
        return None
    try:
        return open_wandb(tracking, workdir, run_id, config_mapping, kept, online_timeout)
    except Exception as error:
        print_warning(f"wandb cannot be used ({one_line(error)}); this run is recorded in metrics.jsonl alone")
        return None
