"""Runs side by side: what is put into the tables of the terminal, of compare.csv and of compare.html."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from launch.compare.compared import Compared
from launch.results import quality
from launch.results.numbers import MISSING, counted, duration, number, shown
from launch.results.quality import NOT_MEASURED, Measured
from launch.spreadsheet import csv_lines
from singan.config import flatten

CSV_COLUMNS = ("run", "part", "scale", "name", "value", "p10", "p90", "count", "note")
UNMEASURED = Measured(reason=NOT_MEASURED)
NOT_EVALUATED = Measured(reason="not evaluated")
NOT_APPLICABLE = Measured(reason=MISSING)  # of what has no scales


class Row(NamedTuple):
    """One quantity of all runs.

    cells: text, or a metric.
    """

    name: str
    label: str
    cells: Sequence[str | Measured]


class Part(NamedTuple):
    """One table. key and scale name it in compare.csv; headline ones are shown on the terminal too."""

    key: str
    scale: str
    title: str
    rows: Sequence[Row]
    headline: bool = True


def parts(runs: Sequence[Compared]) -> list[Part]:
    """Returns all tables that have rows."""
    tables = [_about(runs), _configuration(runs), *_by_start_scale(runs), *_by_scale(runs)]
    return [part for part in tables if part.rows]


def remarks(runs: Sequence[Compared]) -> list[str]:
    """Returns what a reader must know before comparing the numbers, a line each."""
    said = []
    sets = {one.name: set(one.images.values()) for one in runs if one.images}
    if len(set(map(frozenset, sets.values()))) > 1:
        common = set.intersection(*sets.values())
        each = ", ".join(f"{name} {len(digests)}" for name, digests in sets.items())
        said.append(
            f"The runs have different training images ({each}; {len(common)} in common): their numbers are of"
            " different images."
        )
    folders = [one.name for one in runs if not one.config]
    if folders:
        said.append(f"Whether {', '.join(folders)} was made from the same images is not recorded.")
    beside = [one.name for one in runs if one.evaluation and set(one.evaluation.cohort) == {quality.NOT_KNOWN}]
    if beside and len(beside) < len(runs):
        said.append(f"The start scale of {', '.join(beside)} is not known: its numbers stand beside each start scale.")
    planned = {tuple(map(tuple, one.sizes)) for one in runs if one.sizes}
    if len(planned) > 1:
        said.append("The runs have scales of different sizes: a scale's number does not mean the same in all of them.")
    settings = [flatten(one.evaluation.settings) for one in runs if one.evaluation]
    keys = ("num_samples", "seed", "finest_scale", "inception")
    if changed := [key for key in keys if len({str(s[key]) for s in settings if s.get(key) is not None}) > 1]:
        said.append(f"The evaluations have different settings ({', '.join(changed)}).")
    notes = {
        f"{one.name}: {quality.name_of(name)} is {value.note}"
        for one in runs
        for of in (one.evaluation.cohort.values() if one.evaluation else ())
        for name, value in of.items()
        if value.note
    }
    said += sorted(notes)
    for one in runs:
        if one.evaluation is None and one.is_workdir:
            said.append(f"{one.name} is not evaluated yet: python -m launch.evaluate --workdir={one.place}")
        said += [f"{one.name}: {problem}" for problem in one.problems]
    return said


def definitions(runs: Sequence[Compared]) -> dict[str, str]:
    """Returns what the metrics mean that the tables show."""
    texts: dict[str, str] = {}
    if any(name in ends for one in runs for ends in one.ends.values() for name in quality.AT_SCALES):
        texts = quality.scale_definitions()
    for one in runs:
        if one.evaluation:
            texts |= one.evaluation.definitions
    return texts


def to_csv(runs: Sequence[Compared], tables: Iterable[Part]) -> str:
    """Returns one line for each run and quantity (CSV_COLUMNS), with all parts."""
    lines = []
    for part in tables:
        for row in part.rows:
            for one, cell in zip(runs, row.cells, strict=True):
                if not isinstance(cell, Measured):
                    values = (cell, "", "", "", "")
                elif cell.count:
                    values = (cell.mean, cell.low, cell.high, cell.count, cell.note)
                else:
                    values = ("", "", "", "", cell.reason)
                lines.append((one.name, part.key, part.scale, row.name, *values))
    return csv_lines(CSV_COLUMNS, lines)


def _about(runs: Sequence[Compared]) -> Part:
    words = list(dict.fromkeys(name for one in runs for name in one.about))
    rows = [Row(name, name, [one.about.get(name) or MISSING for one in runs]) for name in words]
    rows.append(_row(runs, "images", lambda one: f"{len(one.images):,}" if one.images else MISSING))
    rows.append(_row(runs, "images diverged", lambda one: MISSING if one.diverged is None else str(one.diverged)))
    rows.append(_row(runs, "wall time", lambda one: duration(one.seconds) if one.seconds else MISSING))
    timed = [one.speeds for one in runs if one.speeds]
    if common := set.intersection(*map(set, timed)) if timed else set():
        scale = max(common)
        speed = lambda one: number(one.speeds[scale]) if one.speeds else MISSING  # noqa: E731
        rows.append(_row(runs, f"image-steps/s, scale {scale}", speed))
    last = [one.ends[max(one.ends)] if one.ends else {} for one in runs]
    cells = [ends.get("reconstruction_rmse", NOT_APPLICABLE) for ends in last]
    rows.append(Row("reconstruction_rmse", "reconstruction RMSE, last finished scale", cells))
    return Part("run", "", "Runs", rows)


def _configuration(runs: Sequence[Compared]) -> Part:
    keys = dict.fromkeys(key for one in runs for key in one.config)
    missing = object()
    rows = []
    for key in keys:
        held = [one.config.get(key, missing) for one in runs if one.config]
        if any(value != held[0] for value in held[1:]):
            rows.append(Row(key, key, [shown(one.config[key]) if key in one.config else MISSING for one in runs]))
    return Part("config", "", "Configuration, where it differs", rows)


def _by_start_scale(runs: Sequence[Compared]) -> list[Part]:
    """Returns a table for each start scale; what has none stands beside every start scale of the others."""
    cohorts = [one.evaluation.cohort if one.evaluation else {} for one in runs]
    starts = {start for cohort in cohorts for start in cohort}
    tables = []
    for start in sorted(starts - {quality.NOT_KNOWN} or starts, key=quality.start_order):
        metrics = [cohort.get(start, cohort.get(quality.NOT_KNOWN, {})) for cohort in cohorts]
        main, rest = quality.divided(name for of in metrics for name in of)
        missing = [UNMEASURED if one.evaluation else NOT_EVALUATED for one in runs]
        title = f"Samples, {quality.start_name(start)}"
        tables.append(Part("evaluation", start, title, _metric_rows(main, metrics, missing)))
        others = _metric_rows(rest, metrics, missing)
        tables.append(Part("evaluation", start, f"{title}: other metrics", others, headline=False))
    return tables


def _by_scale(runs: Sequence[Compared]) -> list[Part]:
    """Returns what training measured at each scale's end; of the last scale that all have also on the terminal."""
    scales = sorted({scale for one in runs for scale in one.ends})
    common = [scale for scale in scales if all(scale in one.ends for one in runs if one.ends)]
    tables = []
    for scale in scales:
        ends = [one.ends.get(scale, {}) for one in runs]
        names = ["reconstruction_rmse"]
        if any(of.get(name, UNMEASURED).count for of in ends for name in quality.AT_SCALES):
            names += quality.AT_SCALES
        size = {one.sizes[scale] for one in runs if scale < len(one.sizes)}
        pixels = "".join(f", {h}×{w} pixels" for h, w in size) if len(size) == 1 else ""
        title = f"At the end of scale {scale}{pixels}"
        missing = [UNMEASURED if one.config else NOT_APPLICABLE for one in runs]
        rows = _metric_rows(names, ends, missing)
        tables.append(Part("scale", str(scale), title, rows, scale == max(common, default=-1)))
    return tables


def _metric_rows(names: Iterable[str], of: Sequence[Mapping[str, Measured]], missing: Sequence[Measured]) -> list[Row]:
    pairs = list(zip(of, missing, strict=True))
    return [Row(name, quality.name_of(name), [have.get(name, no) for have, no in pairs]) for name in names]


def _row(runs: Sequence[Compared], name: str, cell: Callable[[Compared], str]) -> Row:
    return Row(name, name, [cell(one) for one in runs])


def summary(runs: Sequence[Compared]) -> str:
    """Returns what is compared, in a few words."""
    return f"{counted(len(runs), 'run')} side by side; metrics: mean over images [10th–90th percentile]"
