"""Where a run's numbers and pictures go: metrics.jsonl always, wandb when asked (launch/tracking/wandb_run.py).

metrics.jsonl (singan/storage/metrics_file.py) is the truth. On resume it is cut back to the
restored step, and what is left of it is played into the new wandb run.
"""

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from launch.tracking.wandb_mode import wandb_mode
from launch.tracking.wandb_run import Wandb, one_line
from launch.tracking.wandb_start import open_wandb
from singan import files
from singan.config import TrackingConfig
from singan.storage.json_lines import JsonLines
from singan.storage.metrics_file import Row, place
from singan.text import print_warning


class Writer(Protocol):
    """Takes what a run has to say. A row has global_step, scale and scale_step (time is filled in) and the values.

    A value may be a list, one entry per image. Pictures are paths of PNG files that are written already; of their row
    only the step counts, as its values have been told by `scalars`. `weights` are of a scale that has them on disk.
    """

    def scalars(self, row: Row) -> None: ...

    def pictures(self, row: Row, pictures: Mapping[str, Path]) -> None: ...

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def summary(self, values: Mapping[str, Any]) -> None: ...

    def weights(self, scale: int) -> None: ...

    def sync(self) -> None: ...

    def close(self, exit_code: int) -> None: ...


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

    def weights(self, scale: int) -> None:
        for writer in self._writers:
            writer.weights(scale)

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
) -> Writer:
    """Returns the writer of a run; one process of a run opens it.

    Args:
      run_id: the same at every start of the run.
      config_mapping: recorded with the wandb run.
      resume_global_step: the step that was restored, whose rows are kept; None starts anew and keeps none.

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
    wandb = _wandb(tracking, workdir, run_id, config_mapping, kept)
    return _Both(lines, wandb, [row for row in kept if row.get("global_step") == resume_global_step])


def open_writer_to_append(
    tracking: TrackingConfig,
    workdir: str | os.PathLike,
    run_id: str,
    config_mapping: Mapping[str, Any],
) -> Writer:
    """Returns the writer for what is found out about a run while nobody trains it: see `open_writer`.

    No row is dropped, and every new one is written, also at a step that has rows. Give a row the step of the weights
    that it speaks of, so that a resumed training keeps it where it keeps them.
    """
    workdir = files.absolute(files.make_directory(workdir))
    lines = JsonLines(workdir / "metrics.jsonl")
    lines.trim_after(sys.maxsize)  # only what is not whole
    kept = lines.rows()
    wandb = _wandb(tracking, workdir, run_id, config_mapping, kept)
    if wandb is not None:
        wandb.append()
    return _Both(lines, wandb, [])


def _wandb(
    tracking: TrackingConfig,
    workdir: Path,
    run_id: str,
    config_mapping: Mapping[str, Any],
    kept: list[dict[str, Any]],
) -> Wandb | None:
    if wandb_mode(tracking) == "off":
        return None
    try:
        return open_wandb(tracking, workdir, run_id, config_mapping, kept)
    except Exception as error:
        print_warning(f"wandb cannot be used ({one_line(error)}); this run is recorded in metrics.jsonl alone")
        return None
