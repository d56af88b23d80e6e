"""The study's result: study.md, study.csv, comparisons.csv, study.json and study.png, and the text for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.augmentation_study import plot
from experiments.augmentation_study.conditions import COMPARISONS, Condition
from experiments.augmentation_study.scores import INSTANCE_METRICS, METRICS
from experiments.augmentation_study.segmenters import THRESHOLD, Job, digest_of, finished
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.statistics import (
    RULE,
    Comparison,
    Estimate,
    Values,
    difference,
    estimate,
    headline,
    sentence,
)
from experiments.reporting.tables import markdown_table
from launch.results.text_table import text_table
from launch.spreadsheet import csv_lines
from singan import files

Cell = tuple[str, int, str]  # condition, number of real patches, metric
FORMAT = 1


def write(
    root: Path, jobs: Sequence[Job], study: Study, world: str, command: str, facts: Sequence[str], patient: str
) -> str:
    """Writes the files of the result; returns the text for the terminal.

    Args:
      facts: what was studied, and how, a line each.
      patient: the word for what is kept apart: pairs.PATIENT or pairs.FOLD.
    """
    scores = collect(root / "results", jobs, study, world)
    chosen = list({job.condition.name: job.condition for job in jobs}.values())
    metrics = [name for name in METRICS if study.task == "nuclei" or name not in INSTANCE_METRICS]
    means = {cell: estimate(values, "mean") for cell, values in scores.items()}
    compared = comparisons(scores, chosen, study, metrics)
    about = {condition.name: condition.about for condition in chosen}
    rule = RULE.format(patient=patient)
    definitions = {name: METRICS[name].format(patient=patient) for name in metrics}
    short = f"{headline(compared, 'dice', patient)} {_beside_threshold(means, chosen)}".strip()
    lines = [sentence(one, about, means[one.second, one.size, one.metric].mean) for one in compared]
    ablation_names = {condition.name for condition in chosen if condition.is_ablation}
    main = [
        line
        for line, one in zip(lines, compared, strict=True)
        if one.metric in ("dice", "aji") and one.first not in ablation_names
    ]
    table = _rows(means, chosen, study, metrics)
    ablations = _ablation_rows(means, compared, chosen, study, metrics)
    parts = ["# Augmentation study", "", *(f"- {fact}" for fact in [f"`{command}`", *facts]), ""]
    parts += ["## In short", "", short, "", "## Conditions", "", markdown_table(table), ""]
    if ablations:
        parts += [f"## Ablations, at n = {study.lever_size}", "", markdown_table(ablations), ""]
    parts += ["## What the numbers support", "", *(f"- {line}" for line in main), "", rule, "", "## Definitions", ""]
    parts += [f"- {name}: {words}" for name, words in definitions.items()]
    files.write_text(root / "study.md", "\n".join(parts) + "\n")
    files.write_text(root / "study.csv", _csv(scores, patient))
    files.write_text(root / "comparisons.csv", _comparisons_csv(compared, patient))
    files.write_bytes(root / "study.png", plot.draw(means, compared, chosen, study, patient))
    content = {
        "format": FORMAT,
        "command": command,
        "facts": facts,
        "in_short": short,
        "comparisons": [
            {"first": c.first, "second": c.second, "n": c.size, "metric": c.metric, **_numbers(c.estimate, patient)}
            for c in compared
        ],
        "definitions": definitions,
        "rule": rule,
    }
    files.write_json(root / "study.json", content)
    shown = [*text_table(table), ""] + (
        [f"ablations, at n = {study.lever_size}", *text_table(ablations), ""] if ablations else []
    )
    return "\n".join([*shown, *main, "", short, rule])


def collect(folder: Path, jobs: Sequence[Job], study: Study, world: str) -> dict[Cell, Values]:
    """Returns the values of every condition, number of real patches and metric; Otsu's threshold stands at n = 0."""
    splits = {job.split.seed: job.split for job in jobs}.values()
    every = [*jobs, *(Job(Condition(THRESHOLD, "", False), 0, split) for split in splits)]
    cells: dict[Cell, dict[int, dict[str, float]]] = {}
    for job in every:
        result = finished(folder, job.name, digest_of(job, study, world))
        if result is None:
            continue
        for patient, row in result["patients"].items():
            for metric, value in row.items():
                cell = cells.setdefault((job.condition.name, job.size, metric), {})
                cell.setdefault(job.split.seed, {})[patient] = value
    return dict(cells)


def comparisons(
    cells: Mapping[Cell, Values], chosen: Sequence[Condition], study: Study, metrics: Sequence[str]
) -> list[Comparison]:
    """Returns the paired differences of the conditions, then of each ablation to what it differs from."""
    wanted = [(a, b, size) for a, b in COMPARISONS for size in study.train_sizes]
    wanted += [(ablation.name, ablation.against, study.lever_size) for ablation in chosen if ablation.is_ablation]
    return [
        Comparison(a, b, size, metric, difference(cells[a, size, metric], cells[b, size, metric], "difference"))
        for a, b, size in wanted
        for metric in metrics
    ]


def _beside_threshold(means: Mapping[Cell, Estimate], chosen: Sequence[Condition]) -> str:
    """Returns whether training was worth anything at all, where there is a threshold to compare with."""
    if (simple := means.get((THRESHOLD, 0, "dice"))) is None:
        return ""
    names = {condition.name for condition in chosen if not condition.is_ablation}
    best = max((cell for cell in means if cell[0] in names and cell[2] == "dice"), key=lambda cell: means[cell].mean)
    if means[best].mean < simple.mean:
        return (
            f"No condition reaches Otsu's threshold on the stain ({simple.mean:.3f} against at most"
            f" {means[best].mean:.3f}), which needs no training: these segmenters are too small, or were trained too"
            " short, to be used, and what better ones would gain is not known."
        )
    return f"The best condition has {means[best].mean:.3f}, Otsu's threshold without training {simple.mean:.3f}."


def _rows(
    means: Mapping[Cell, Estimate], chosen: Sequence[Condition], study: Study, metrics: Sequence[str]
) -> list[list[str]]:
    rows = [["n", "trained on", *metrics]]
    if (THRESHOLD, 0, metrics[0]) in means:
        rows.append(["0", "Otsu's threshold on the stain", *(_cell(means[THRESHOLD, 0, m]) for m in metrics)])
    for size in study.train_sizes:
        for condition in chosen:
            if not condition.is_ablation:
                cells = [_cell(means[condition.name, size, metric]) for metric in metrics]
                rows.append([str(size), condition.about, *cells])
    return rows


def _ablation_rows(
    means: Mapping[Cell, Estimate],
    compared: Sequence[Comparison],
    chosen: Sequence[Condition],
    study: Study,
    metrics: Sequence[str],
) -> list[list[str]]:
    about = {condition.name: condition.about for condition in chosen}
    rows = [["ablation", "against", *(f"{metric}, difference" for metric in metrics)]]
    for condition in chosen:
        if condition.is_ablation:
            cells = [
                _cell(one.estimate, signed=True)
                for metric in metrics
                for one in compared
                if (one.first, one.metric) == (condition.name, metric)
            ]
            base = means[condition.against, study.lever_size, metrics[0]].mean
            rows.append([condition.about, f"{about[condition.against]} ({metrics[0]} {base:.3f})", *cells])
    return rows if len(rows) > 1 else []


def _cell(estimate: Estimate, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return f"{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _numbers(estimate: Estimate, patient: str) -> dict[str, float]:
    return {f"{patient}s" if name == "patients" else name: value for name, value in vars(estimate).items()}


def _csv(cells: Mapping[Cell, Values], patient: str) -> str:
    rows = []
    for (condition, size, metric), values in cells.items():
        for seed, patients in sorted(values.items()):
            rows += [(condition, size, metric, seed, name, value) for name, value in sorted(patients.items())]
    return csv_lines(["condition", "n", "metric", "seed", patient, "value"], rows)


def _comparisons_csv(compared: Sequence[Comparison], patient: str) -> str:
    numbers = ["difference", "low", "high", "seeds", f"{patient}s"]
    columns, rows = ["first", "second", "n", "metric", *numbers, "verdict"], []
    for one in compared:
        estimate = one.estimate
        numbers = [estimate.mean, estimate.low, estimate.high, estimate.seeds, estimate.patients]
        rows.append([one.first, one.second, one.size, one.metric, *numbers, estimate.verdict])
    return csv_lines(columns, rows)
