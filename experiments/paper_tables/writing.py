"""The quality table as text for the terminal, Markdown, CSV and JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.paper_tables.sentences import RULE, Answer
from experiments.paper_tables.variants import ABOUT
from experiments.reporting.results import METRICS, SECONDS, Quality, Training
from experiments.reporting.tables import TITLES, Rows, markdown_table
from launch.results.numbers import MISSING, interval, number
from launch.spreadsheet import csv_lines

CSV_COLUMNS = ("variant", "start_scale", "pixels", "metric", "mean", "p10", "p90", "images", "note")


def pixels_of(sizes: Mapping[str, Sequence[tuple[int, int]]], variant: str, start_scale: int) -> str:
    """Returns '25x25', the height and width of a variant's scale."""
    height, width = sizes[variant][start_scale]
    return f"{height}x{width}"


def quality_rows(
    qualities: Mapping[str, Quality], start_scale: int, sizes: Mapping[str, Sequence[tuple[int, int]]]
) -> Rows:
    """Returns the head, and a line for each variant."""
    head = ["variant", "starts at", *TITLES.values()]
    lines = [
        [name, pixels_of(sizes, name, start_scale), *(_cell(of.summary(start_scale, metric)) for metric in METRICS)]
        for name, of in qualities.items()
    ]
    return [head, *lines]


def training_rows(trainings: Mapping[str, Training | None]) -> Rows:
    """Returns the head, and a line for each variant: what its training took and ended with."""
    lines = [["variant", "training, s/image", "reconstruction RMSE", "noise amplitude, coarsest scale first"]]
    for name, of in trainings.items():
        if of is None:
            lines.append([name, "0" if name == "gpnn" else MISSING, MISSING, MISSING])
        else:
            lines.append([name, number(of.seconds_per_image), number(of.rmse), " ".join(map(number, of.amplitudes))])
    return lines


def notes(qualities: Mapping[str, Quality], start_scales: Sequence[int]) -> list[str]:
    """Returns why values are missing, a line each; values marked with * are of some images only."""
    said = []
    for name, of in qualities.items():
        for scale in start_scales:
            whys: dict[str, list[str]] = {}
            for metric in METRICS:
                if why := of.why(scale, metric):
                    whys.setdefault(why, []).append(metric)
            said += [f"{name}, start scale {scale}: {', '.join(names)}: {why}" for why, names in whys.items()]
    return said


def markdown(
    facts: Sequence[str],
    qualities: Mapping[str, Quality],
    trainings: Mapping[str, Training | None],
    start_scales: Sequence[int],
    sizes: Mapping[str, Sequence[tuple[int, int]]],
    says: Sequence[tuple[str, Sequence[Answer]]],
    definitions: Mapping[str, str],
) -> str:
    """Returns table.md.

    Args:
      facts: what was trained on and how, a line each.
      says: (a question with its answer in short, the answers).
    """
    parts = ["# Quality of samples", "", *(f"- {fact}" for fact in facts), ""]
    parts += [
        "Mean over images [10th–90th percentile]; lower is closer for SWD and SIFID, more diverse for MS-SSIM.",
        "",
    ]
    for scale in start_scales:
        rows = markdown_table(quality_rows(qualities, scale, sizes))
        parts += [f"## Start scale {scale}", "", rows, ""]
    parts += ["## Training", "", markdown_table(training_rows(trainings)), ""]
    parts += ["## Variants", "", *(f"- {name}: {ABOUT[name]}" for name in qualities), ""]
    if says:
        parts += ["## What the numbers say", ""]
        for short, found in says:
            parts += [short, "", *(f"- {one.text}" for one in found), ""]
        parts += [RULE, ""]
    if missing := notes(qualities, start_scales):
        parts += ["## Missing values", "", *(f"- {line}" for line in missing), ""]
    parts += ["## Definitions", "", *(f"- {name}: {text}" for name, text in definitions.items())]
    return "\n".join(parts) + "\n"


def csv_text(
    qualities: Mapping[str, Quality],
    trainings: Mapping[str, Training | None],
    start_scales: Sequence[int],
    sizes: Mapping[str, Sequence[tuple[int, int]]],
) -> str:
    """Returns table.csv: a line for each variant, start scale and metric; training's lines have no start scale."""
    rows: list[list[Any]] = []
    for name, of in qualities.items():
        for scale in start_scales:
            for metric in METRICS:
                entry = of.summary(scale, metric)
                cells = [entry.get(key, "") for key in ("mean", "p10", "p90", "images")]
                note = entry.get("undefined", entry.get("note", ""))
                rows.append([name, scale, pixels_of(sizes, name, scale), metric, *cells, note])
        if training := trainings[name]:
            ends = {SECONDS: training.seconds_per_image, "reconstruction_rmse": training.rmse}
            lines = [[name, "", "", metric, value] for metric, value in ends.items() if math.isfinite(value)]
            rows += [[*line, *[""] * (len(CSV_COLUMNS) - len(line))] for line in lines]
    return csv_lines(CSV_COLUMNS, rows)


def _cell(entry: Mapping[str, Any]) -> str:
    if "undefined" in entry:
        return MISSING
    mark = "*" if "note" in entry else ""
    text = interval(entry["mean"], entry["p10"], entry["p90"]) if entry["images"] > 1 else number(entry["mean"])
    return text + mark
