"""The study's result: study.md, study.csv, comparisons.csv, study.json and study.png, and the text for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.augmentation_study import plot
from experiments.augmentation_study.conditions import PRIMARY, THRESHOLDS, Condition, comparisons
from experiments.augmentation_study.pieces import Job, Results, hours
from experiments.augmentation_study.scores import INSTANCE_METRICS, METRICS
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.statistics import (
    RULE,
    Comparison,
    Estimate,
    Values,
    difference,
    estimate,
    with_correction,
)
from experiments.reporting.tables import markdown_table
from launch.results.text_table import text_table
from launch.spreadsheet import csv_lines
from singan import files

Cell = tuple[str, int, str]  # condition, number of real tiles (0 = all), metric
FORMAT = 2
FAILED = 0.5  # a Dice below which a segmentation of a patient counts as a failure
COMPARED = ("dice", "aji")
FAILURES = f"share of patients and seeds with a Dice below {FAILED:g}"


def write(
    root: Path,
    jobs: Sequence[Job],
    results: Results,
    study: Study,
    command: str,
    facts: Sequence[str],
    spent: Mapping[str, float],
    patient: str,
) -> str:
    """Writes the files of the result; returns the text for the terminal.

    Args:
      facts: what was studied, and how, a line each.
      spent: CPU seconds that went into pools and pyramids, by name.
      patient: the word for what is kept apart: pairs.PATIENT or pairs.FOLD.
    """
    cells, seconds = collect(jobs, results)
    chosen = list({job.condition.name: job.condition for job in jobs}.values())
    metrics = [name for name in METRICS if study.task == "nuclei" or name not in INSTANCE_METRICS]
    means = {cell: estimate(values, "mean") for cell, values in cells.items()}
    compared = compare(cells, chosen, study, [name for name in COMPARED if name in metrics])
    about = {condition.name: condition.about for condition in chosen}
    rule, answer = RULE.format(patient=patient), primary_answer(compared, about, patient)
    definitions = {name: METRICS[name].format(patient=patient) for name in metrics}
    table = [["n", "trained on", *metrics, "failures", "CPU s"]]
    for (name, size), used in seconds.items():
        values = [_cell(means[name, size, metric]) for metric in metrics]
        table.append([_size(name, size), about[name], *values, _failures(cells[name, size, "dice"]), f"{used:.0f}"])
    differences = [["n", "metric", "first", "second", "difference", "p (Holm)", "verdict"]]
    for one in compared:
        numbers = [_cell(one.estimate, signed=True), f"{one.corrected:.3f}", one.verdict]
        word = "primary: " * one.primary + about[one.first]
        differences.append([_size(one.first, one.size), one.metric, word, about[one.second], *numbers])
    once = [f"{name}: {hours(value):.2f} hours of two cores, once" for name, value in spent.items() if value]
    parts = ["# Augmentation study", "", *(f"- {fact}" for fact in [f"`{command}`", *facts, *once]), ""]
    parts += ["## The primary question", "", answer, "", "## Conditions", "", markdown_table(table), ""]
    parts += ["## Differences", "", markdown_table(differences), "", rule, "", "## Definitions", ""]
    parts += [f"- {name}: {words}" for name, words in definitions.items()]
    parts += [f"- failures: {FAILURES}", "- CPU s: mean CPU seconds of a segmenter, pairs made while training included"]
    files.write_text(root / "study.md", "\n".join(parts) + "\n")
    files.write_text(root / "study.csv", _csv(cells, patient))
    files.write_text(root / "comparisons.csv", _comparisons_csv(compared, patient))
    files.write_bytes(root / "study.png", plot.draw(means, compared, chosen, study, patient))
    content = {
        "format": FORMAT,
        "command": command,
        "facts": facts,
        "primary": answer,
        "cpu_seconds_once": dict(spent),
        "comparisons": [
            {"first": c.first, "second": c.second, "n": c.size, "metric": c.metric, "primary": c.primary}
            | {"corrected": c.corrected, "verdict": c.verdict, **vars(c.estimate)}
            for c in compared
        ],
        "definitions": definitions,
        "rule": rule,
    }
    files.write_json(root / "study.json", content)
    return "\n".join([*text_table(table), "", *text_table(differences), "", *once, answer, rule])


def collect(jobs: Sequence[Job], results: Results) -> tuple[dict[Cell, Values], dict[tuple[str, int], float]]:
    """Returns the values by condition, number of real tiles and metric, and the mean CPU seconds of a segmenter.

    Both are in the order of the table: by number of tiles, all of them last, thresholds first.
    """
    cells: dict[Cell, dict[int, dict[str, float]]] = {}
    seconds: dict[tuple[str, int], list[float]] = {}
    for job in sorted(jobs, key=lambda job: (not job.is_threshold, job.size or 10**9)):
        if (result := results.read(job)) is None:
            continue
        seconds.setdefault((job.condition.name, job.size), []).append(sum(result["cpu_seconds"].values()))
        for patient, row in result["patients"].items():
            for metric, value in row.items():
                cell = cells.setdefault((job.condition.name, job.size, metric), {})
                cell.setdefault(job.split.seed, {})[patient] = value
    return dict(cells), {key: sum(values) / len(values) for key, values in seconds.items()}


def compare(
    cells: Mapping[Cell, Values], chosen: Sequence[Condition], study: Study, metrics: Sequence[str]
) -> list[Comparison]:
    """Returns the paired differences of what is there, the primary one first."""
    compared = []
    for first, second in comparisons(chosen):
        for size in study.train_sizes:
            for metric in metrics:
                a, b = (first, size, metric), (second, 0 if second in THRESHOLDS else size, metric)
                if a in cells and b in cells and (estimated := difference(cells[a], cells[b], "difference")):
                    primary = (first, second, size, metric) == PRIMARY
                    compared.append(Comparison(first, second, size, metric, estimated, primary))
    return sorted(with_correction(compared), key=lambda one: not one.primary)


def primary_answer(compared: Sequence[Comparison], about: Mapping[str, str], patient: str) -> str:
    """Returns the answer to the primary question in one sentence."""
    first, second, size, metric = PRIMARY
    one = next((one for one in compared if one.primary), None)
    if one is None:
        return f"Open: {metric} of {first} against {second} at n = {size} needs both, and not both are there yet."
    words = {"higher": "is higher than", "lower": "is lower than", "not told apart": "is not told apart from"}
    return (
        f"At n = {size}, {metric} with {about[first]!r} {words[one.verdict]} that with {about[second]!r}:"
        f" {_cell(one.estimate, signed=True)} over {one.estimate.seeds} seeds and {one.estimate.patients} {patient}s."
    )


def _size(name: str, size: int) -> str:
    return "-" if name in THRESHOLDS else str(size or "all")


def _failures(values: Values) -> str:
    every = [value for of in values.values() for value in of.values()]
    return f"{sum(value < FAILED for value in every) / len(every):.0%}"


def _cell(estimate: Estimate, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return f"{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _csv(cells: Mapping[Cell, Values], patient: str) -> str:
    rows = []
    for (condition, size, metric), values in cells.items():
        for seed, patients in sorted(values.items()):
            rows += [(condition, size, metric, seed, name, value) for name, value in sorted(patients.items())]
    return csv_lines(["condition", "n", "metric", "seed", patient, "value"], rows)


def _comparisons_csv(compared: Sequence[Comparison], patient: str) -> str:
    numbers = ["difference", "low", "high", "p", "p_holm", "seeds", f"{patient}s"]
    columns, rows = ["first", "second", "n", "metric", "primary", *numbers, "verdict"], []
    for one in compared:
        e = one.estimate
        numbers = [e.mean, e.low, e.high, e.p, one.corrected, e.seeds, e.patients]
        rows.append([one.first, one.second, one.size, one.metric, one.primary, *numbers, one.verdict])
    return csv_lines(columns, rows)
