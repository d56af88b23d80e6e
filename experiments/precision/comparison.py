"""The runs of the sweep brought together: every metric's shift by precision, and the table of them."""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.precision.shifts import NOT_SHOWN, Shift, shift
from experiments.reporting.results import METRICS, Key, Quality, read_quality
from experiments.reporting.tables import TITLES, signed
from launch.results.numbers import MISSING, counted, number
from launch.results.run_facts import RunFacts, read_facts
from singan import files
from singan.config import flatten, to_mapping
from singan.errors import UserError
from singan.parallel.cohort import PRECISIONS

BASE = "highest"
RECONSTRUCTION = "reconstruction RMSE"
Runs = Mapping[tuple[str, int], RunFacts]  # (precision, seed) -> its run
Row = tuple[str, dict[str, Shift | None]]  # a metric's name, and its shift by precision


def read_runs(root: Path) -> Runs:
    """Returns the finished runs in ROOT by precision and seed, in the order of PRECISIONS.

    Raises:
      UserError: there are none to be compared, one is not finished, or they differ in more than precision and seed.
    """
    runs: dict[tuple[str, int], RunFacts] = {}
    for path in sorted(root.glob("*/config.json")):
        facts = read_facts(path.parent)
        if facts.record.get("status") != "finished":
            raise UserError(f"{path.parent} is not trained to its end: start the sweep again first")
        runs[facts.config.train.precision, facts.config.seed] = facts
    counts = collections.Counter(precision for precision, _ in runs)
    if counts[BASE] < 2 or len(counts) < 2:
        raise UserError(f"{root} needs two seeds at {BASE} and at another precision: train the sweep into it first")
    first = next(iter(runs.values()))
    for facts in runs.values():
        if _fixed(facts) != _fixed(first):
            raise UserError(
                f"{facts.workdir.path} and {first.workdir.path} differ in more than precision and seed: compare the"
                " runs of one sweep"
            )
    order = list(PRECISIONS)
    return {key: runs[key] for key in sorted(runs, key=lambda key: (order.index(key[0]), key[1]))}


def others(runs: Runs) -> list[str]:
    """Returns the precisions that are compared with BASE."""
    return list(dict.fromkeys(precision for precision, _ in runs if precision != BASE))


def compare(runs: Runs, start_scales: Sequence[int]) -> list[Row]:
    """Returns a row for the reconstruction, and one for each start scale and metric."""
    ids = [image.id for image in next(iter(runs.values())).images]
    qualities: dict[str, Quality] = {}
    for name in (BASE, *others(runs)):
        paths = {seed: Path(of.workdir.path) / "evaluation.json" for (p, seed), of in runs.items() if p == name}
        qualities[name] = read_quality(paths, ids, start_scales)
    errors = {name: _reconstruction_errors(runs, name) for name in qualities}
    rows: list[Row] = [(RECONSTRUCTION, {name: shift(errors[name], errors[BASE]) for name in others(runs)})]
    for scale in start_scales:
        for metric in METRICS:
            of = {name: quality.of(scale, metric) for name, quality in qualities.items()}
            shifts = {name: shift(of[name], of[BASE]) for name in others(runs)}
            rows.append((f"{TITLES[metric]}, start scale {scale}", shifts))
    return rows


def table_of(rows: Sequence[Row]) -> list[list[str]]:
    """Returns the head and a line for each metric; numbers as text."""
    names = list(rows[0][1])
    head = ["metric", BASE, "seeds' spread", *(word for name in names for word in (f"{name} less {BASE}", "is"))]
    lines = [head]
    for title, shifts in rows:
        known = next((one for one in shifts.values() if one), None)
        cells = [title, number(known.base), number(known.spread)] if known else [title, MISSING, MISSING]
        for one in shifts.values():
            if one is None:
                cells += [MISSING, NOT_SHOWN]
            else:
                cells += [f"{signed(one.difference)} [{signed(one.low)}, {signed(one.high)}]", one.verdict]
        lines.append(cells)
    return lines


def in_short(rows: Sequence[Row], precision: str) -> str:
    """Returns one sentence on all metrics of a precision."""
    verdicts = collections.Counter(shift.verdict if (shift := shifts[precision]) else NOT_SHOWN for _, shifts in rows)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    sure = [f for _, shifts in rows if (f := shifts[precision]) and (f.low > 0 or f.high < 0)]
    return (
        f"{precision}, of {counted(len(rows), 'metric')} beside the seeds' spread: {counts};"
        f" the interval leaves out 0 in {len(sure)}."
    )


def facts_of(runs: Runs, num_samples: int) -> list[str]:
    """Returns what was compared, and how, a line each."""
    first = next(iter(runs.values()))
    flat = flatten(to_mapping(first.config))
    sizes = " ".join(f"{height}x{width}" for height, width in first.sizes)
    seeds = sorted({seed for _, seed in runs})
    starts = [start for facts in runs.values() for start in facts.starts]
    devices = sorted({f"{start.get('devices')}, commit {str(start.get('git_commit'))[:7]}" for start in starts})
    return [
        f"{counted(len(first.images), 'image')}, {counted(len(seeds), 'seed')}, scales of {sizes} pixels,"
        f" {flat['train.steps_per_scale']} steps a scale",
        f"images: {', '.join(image.id for image in first.images)}",
        f"{flat['network.width']} channels at scale 0, {num_samples} samples of each image, start scale and run",
        f"precisions: {BASE} (float32), against {', '.join(others(runs))}; trained on {'; '.join(devices)}",
    ]


def _reconstruction_errors(runs: Runs, precision: str) -> dict[Key, float]:
    """Returns the RMSE of the finest scale's reconstruction, in units of the [-1, 1] range, by image and seed."""
    errors: dict[Key, float] = {}
    for (name, seed), facts in runs.items():
        if name == precision:
            table = Path(facts.workdir.path) / "tables" / f"scale_{facts.finished[-1]:02d}.json"
            for row in files.read_json(table):
                if row.get("reconstruction_rmse") is not None:
                    errors[str(row["image"]), seed] = float(row["reconstruction_rmse"])
    return errors


def _fixed(facts: RunFacts) -> tuple[Any, ...]:
    """Returns all that the weights depend on but precision and seed."""
    flat = flatten(to_mapping(facts.config))
    free = ("seed", "train.precision", "data.path")
    kept = {key: value for key, value in flat.items() if key not in free and not key.startswith("tracking.")}
    return kept, [(image.id, image.digest) for image in facts.images]
