"""metrics.jsonl read in one pass, in bounded memory: curves thinned out for drawing, and what each scale ended with."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from singan.storage.metrics_file import ROW_KEYS, parse_row, read_lines

MAX_ROWS = 6000  # rows of chunks that are parsed; of a longer file every k-th
MAX_POINTS = 150  # of a curve in one scale; neighbours are averaged
EVALUATION = "evaluation/"  # names of what launch.evaluate adds, long after the training
_CHUNK = b'"steps_per_second"'  # what only the rows of chunks have


class Point(NamedTuple):
    """A value of a curve: the mean over images with the 10th and 90th percentile; all equal where the mean alone is."""

    step: float  # global
    mean: float
    low: float
    high: float


@dataclasses.dataclass
class ScaleHistory:
    """What metrics.jsonl says of one scale.

    Attributes:
      curves: by name, in the order of steps.
      ends: what was said once, at the scale's end: by name, without 'end/', one value for each image or a number.
      steps: of the scale, done so far.
      seconds: of wall time, as far as rows tell; without the time between a stop and the next start.
    """

    scale: int
    curves: dict[str, list[Point]] = dataclasses.field(default_factory=dict)
    ends: dict[str, Any] = dataclasses.field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0

    @property
    def image_steps_per_second(self) -> float:
        """The median over chunks; the first, which may warm up, counts only where it is the only one."""
        rates = [point.mean for point in self.curves.get("image_steps_per_second", [])]
        return float(np.median(rates[1:] or rates)) if rates else math.nan


def read_history(path: Path, starts: Sequence[float] = ()) -> list[ScaleHistory]:
    """Returns the scales that have rows, coarsest first; [] where there are none.

    Args:
      path: metrics.jsonl, or where it would be.
      starts: when the run was started or resumed, in seconds since 1970.

    Raises:
      OSError: the file cannot be read.
    """
    scales: dict[int, ScaleHistory] = {}
    before = -math.inf
    for row in _rows(path):
        here = scales.setdefault(row["scale"], ScaleHistory(row["scale"]))
        here.steps = max(here.steps, row["scale_step"])
        if isinstance(now := row.get("time"), int | float):
            begun = max((start for start in starts if start <= now), default=-math.inf)
            if math.isfinite(since := max(before, begun)):
                here.seconds += max(now - since, 0.0)
            before = now
        for name, value in row.items():
            if name.startswith("end/"):
                here.ends[name.removeprefix("end/")] = value
            elif name not in (*ROW_KEYS, "time", "pictures") and (point := _point(row["global_step"], value)):
                here.curves.setdefault(name, []).append(point)
    for scale in scales.values():
        scale.curves = {name: _thinned(points) for name, points in scale.curves.items()}
    return [scales[scale] for scale in sorted(scales)]


def values(of: Any) -> np.ndarray:
    """Returns the finite numbers among what a row holds under one name, float64 [n]."""
    items = of if isinstance(of, list) else [of]
    numbers = [v for v in items if isinstance(v, int | float) and not isinstance(v, bool)]
    array = np.asarray(numbers, np.float64)
    return array[np.isfinite(array)]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows that count; broken lines, such as one that is being written, are left out."""
    chunks = sum(_CHUNK in line for line in read_lines(path))
    every, number = -(-chunks // MAX_ROWS), 0
    for line in read_lines(path):
        if _CHUNK in line:
            number += 1
            if (number - 1) % every:
                continue
        row = parse_row(line)
        if (
            row is not None
            and not any(name.startswith(EVALUATION) for name in row)
            and all(isinstance(row.get(key), int | float) for key in ROW_KEYS)
        ):
            yield row


def _point(step: float, value: Any) -> Point | None:
    numbers = values(value)
    if not numbers.size:
        return None
    low, high = np.percentile(numbers, (10, 90)) if numbers.size > 1 else (numbers[0], numbers[0])
    return Point(step, float(numbers.mean()), float(low), float(high))


def _thinned(points: list[Point]) -> list[Point]:
    if len(points) <= MAX_POINTS:
        return points
    groups = np.array_split(np.asarray(points), MAX_POINTS)
    return [Point(*map(float, group.mean(0))) for group in groups]
