"""What was measured as a table, as CSV and as a plot: every method a curve in the plane of diversity and SWD."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.reporting.tables import TITLES, markdown_table
from experiments.sample_quality.curves import MEASURED
from experiments.sample_quality.frontier import Curve, Key, Ratio, compare, curves_of
from experiments.sample_quality.variants import OFFICIAL
from launch.results.numbers import MISSING, number
from launch.spreadsheet import csv_lines
from singan import files
from singan.errors import UserError

DPI = 130
# Colours that can be told apart by eyes of every kind (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777")
PEER_COLOUR = "#000000"
COPIED = 0.05  # a share of copied patches from which a marker is hollow
COMPARED = ("swd", "random_sifid", "nearest_patch_ratio")
AS_DRAWN = ("diversity", "swd")  # also compared at temperature 1 of both
CSV_COLUMNS = ("variant", "start_scale", "image", "seed", "temperature", *MEASURED)

# variant -> start scale -> (image, seed) -> curve
Curves = Mapping[str, Mapping[int, Mapping[Key, Curve]]]


def markdown(curves: Curves, start_scales: Sequence[int], facts: Sequence[str], seconds: Mapping[str, float]) -> str:
    """Returns table.md.

    Args:
      facts: what was trained on and how, a line each.
      seconds: of training, of each variant: the mean over images and seeds.
    """
    parts = ["# Quality of samples", "", *(f"- {fact}" for fact in facts), ""]
    parts += ["Values at temperature 1 are means over images and seeds.", ""]
    for start in start_scales:
        parts += [f"## Start scale {start}", "", markdown_table(_points(curves, start, seconds)), ""]
        if rows := _against_official(curves, start):
            parts += [
                "Against the official implementation at its own diversity, as ratios (below 1 is closer): median over"
                " images; geometric mean [95 % interval, Student's t over images]; of how many images and"
                " seeds the curve reaches that diversity. The last two: both at temperature 1.",
                "",
                markdown_table(rows),
                "",
            ]
    if each := _each(curves, start_scales):
        parts += ["## Each image and seed: SWD against the official's, at its diversity", "", markdown_table(each), ""]
    return "\n".join(parts)


def csv_text(curves: Curves) -> str:
    """Returns table.csv: a line for each variant, start scale, image, seed and temperature."""
    rows: list[list[Any]] = []
    for variant, by_start in curves.items():
        for start, of in sorted(by_start.items()):
            for (image, seed), curve in sorted(of.items()):
                for place, temperature in enumerate(curve.temperatures):
                    values = [curve.values[metric][place] for metric in MEASURED]
                    rows.append([variant, start, image, seed, temperature, *values])
    return csv_lines(CSV_COLUMNS, rows)


def read_csv(path: str | Path) -> dict[str, dict[int, dict[Key, Curve]]]:
    """Returns what a table.csv holds, as `csv_text` wrote it.

    Raises:
      UserError: it cannot be read, or is another kind of table.
    """
    made: dict[str, dict[int, dict[Key, Curve]]] = {}
    rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
    try:
        for row in csv.DictReader(io.StringIO(files.read_bytes(path).decode())):
            values: dict[str, Any] = {name: float(row[name]) for name in CSV_COLUMNS[4:]}
            values |= {"image": row["image"], "start_scale": int(row["start_scale"])}
            rows.setdefault((row["variant"], int(row["seed"])), []).append(values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no table.csv of this study: it has to have {', '.join(CSV_COLUMNS)}") from error
    for (variant, seed), of in rows.items():
        for (image, start), curve in curves_of(of, MEASURED).items():
            made.setdefault(variant, {}).setdefault(start, {})[image, seed] = curve
    return made


def plot(curves: Curves, start_scale: int, images: Sequence[str]) -> bytes:
    """Returns a PNG: a panel for each image, SWD against diversity, a marker for each temperature."""
    columns = min(len(images), 3)
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False)
    for place, image in enumerate(images):
        axes = panels[place // columns][place % columns]
        colours = iter(COLOURS * (1 + len(curves) // len(COLOURS)))
        for variant, by_start in curves.items():
            colour = PEER_COLOUR if variant == OFFICIAL else next(colours)
            named = False
            for (name, _), curve in by_start.get(start_scale, {}).items():
                if name != image:
                    continue
                x, y = curve.values["diversity"], curve.values["swd"]
                axes.plot(x, y, "-", color=colour, linewidth=1.2, label=None if named else variant)
                named = True
                for a, b, copied, temperature in zip(x, y, curve.values["copied"], curve.temperatures, strict=True):
                    face = colour if copied < COPIED else "white"
                    mark = ("*", 11) if variant == OFFICIAL else ("o", 6 if temperature == 1 else 3.5)
                    axes.plot([a], [b], mark[0], markersize=mark[1], color=colour, markerfacecolor=face)
        axes.set_title(image, fontsize=10)
        axes.set_xlabel("diversity")
        axes.set_ylabel("SWD")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    for place in range(len(images), rows * columns):
        panels[place // columns][place % columns].set_axis_off()
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 * columns, fontsize=8, frameon=False)
    figure.suptitle(
        f"Start scale {start_scale}: lower and further right is better; hollow: {COPIED:.0%} or more copied",
        fontsize=11,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _points(curves: Curves, start: int, seconds: Mapping[str, float]) -> list[list[str]]:
    rows = [["variant", *(TITLES[metric] for metric in MEASURED), "s/image"]]
    for variant, by_start in curves.items():
        cells = []
        for metric in MEASURED:
            values = [v for c in by_start.get(start, {}).values() if (v := c.at_temperature(1.0, metric)) is not None]
            cells.append(number(sum(values) / len(values)) if values else MISSING)
        rows.append([variant, *cells, number(seconds[variant]) if variant in seconds else MISSING])
    return rows


def _against_official(curves: Curves, start: int) -> list[list[str]]:
    theirs = curves.get(OFFICIAL, {}).get(start, {})
    rows = []
    for variant, by_start in curves.items():
        ratios = {metric: compare(by_start.get(start, {}), theirs, metric) for metric in COMPARED}
        if variant == OFFICIAL or ratios["swd"] is None:
            continue
        swd = ratios["swd"]
        reached = f"{len(swd.each)} of {len(swd.each) + len(swd.missed)}"
        at_1 = (compare(by_start.get(start, {}), theirs, metric, at_temperature=1.0) for metric in AS_DRAWN)
        rows.append([variant, *map(_cell, ratios.values()), reached, *map(_cell, at_1)])
    heads = ["variant", "SWD", "SIFID, random features", "nearest-patch ratio", "reached", "diversity", "SWD as drawn"]
    return [heads, *rows] if rows else []


def _each(curves: Curves, start_scales: Sequence[int]) -> list[list[str]]:
    rows = []
    for start in start_scales:
        theirs = curves.get(OFFICIAL, {}).get(start, {})
        for key in theirs:
            cells = []
            for variant in (variant for variant in curves if variant != OFFICIAL):
                ratio = compare({k: c for k, c in curves[variant].get(start, {}).items() if k == key}, theirs, "swd")
                cells.append(MISSING if ratio is None or not ratio.each else number(ratio.each[key]))
            rows.append([str(start), key[0], str(key[1]), *cells])
    heads = ["start scale", "image", "seed", *(variant for variant in curves if variant != OFFICIAL)]
    return [heads, *rows] if rows else []


def _cell(ratio: Ratio | None) -> str:
    if ratio is None or not ratio.each:
        return MISSING
    interval = "" if ratio.low is None or ratio.high is None else f" [{number(ratio.low)}, {number(ratio.high)}]"
    return f"{number(ratio.median)}; {number(ratio.mean)}{interval}"
