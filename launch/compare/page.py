"""compare.html: runs side by side as a static page, of the same look as report.html."""

from collections.abc import Sequence
from pathlib import Path

from launch.compare import tables as compare_tables
from launch.compare.compared import Compared
from launch.compare.tables import Part, definitions, remarks, summary
from launch.compare.text import cells
from launch.report import curves, sections
from launch.report.markup import Html, picture, table, tag
from launch.report.page import page
from launch.results.quality import AT_SCALES, name_of
from singan import files
from singan.model.spec import steps_of_scale


def build(runs: Sequence[Compared], tables: Sequence[Part]) -> str:
    """Returns the text of the page."""
    kinds = {kind: [part for part in tables if part.key == kind] for kind in ("run", "config", "evaluation", "scale")}
    same = tag("p", "No value differs." if any(one.config for one in runs) else "No configuration is known.")
    measured = [_titled(runs, part) for part in kinds["evaluation"]]
    differences = [_table(runs, part) for part in kinds["config"]]
    parts = [
        ("runs", "Runs", "Runs", [_table(runs, part) for part in kinds["run"]]),
        ("samples", "Samples", "Samples", _grids(runs)),
        ("configuration", "Configuration", "Configuration, where it differs", differences or same),
        ("quality", "Quality", "How good the samples are", measured or tag("p", "None of them is evaluated yet.")),
        ("training", "Training", "While they trained", _curves(runs)),
        ("scales", "Scales", "At the end of each scale", [_titled(runs, part) for part in reversed(kinds["scale"])]),
        ("definitions", "Definitions", "What these metrics are", sections.definitions(definitions(runs))),
    ]
    names = ", ".join(one.name for one in runs)
    return page(f"{names}: comparison", "Comparison", f"{names}: {summary(runs)}.", remarks(runs), parts)


def write(runs: Sequence[Compared], tables: Sequence[Part], out: Path) -> str:
    """Writes compare.html and compare.csv into a directory; returns the text of the latter."""
    lines = compare_tables.to_csv(runs, tables)
    files.write_text(out / "compare.csv", lines)
    files.write_text(out / "compare.html", build(runs, tables))
    return lines


def _table(runs: Sequence[Compared], part: Part) -> Html:
    head, *rows = cells(runs, part)
    words = range(1, len(head)) if part.key in ("config", "run") else ()
    return table(head, rows, part.title, words=words)


def _titled(runs: Sequence[Compared], part: Part) -> Html:
    """Returns a table below its title; what is no headline is folded."""
    if part.headline:
        return tag("div", tag("h3", part.title), _table(runs, part))
    return tag("details", tag("summary", part.title), _table(runs, part))


def _curves(runs: Sequence[Compared]) -> Html:
    """Returns a line for each run in each panel, also of what its scales ended with."""
    histories = {one.name: one.history for one in runs}
    steps = {one.name: _steps(one) for one in runs if one.history}
    drawn: list[Html | None] = [*curves.side_by_side(histories, steps)]
    for metric in ("reconstruction_rmse", "noise_amplitude", *AT_SCALES):
        ends = {
            one.name: {scale: of[metric].mean for scale, of in one.ends.items() if metric in of and of[metric].count}
            for one in runs
        }
        name = name_of(metric).replace("_", " ")
        drawn.append(curves.ends_side_by_side(ends, f"{name[0].upper()}{name[1:]}", "at the end of each scale"))
    shown = [panel for panel in drawn if panel is not None]
    return tag("div", shown, class_="charts") if shown else tag("p", "Nothing is known of their training.")


def _steps(run: Compared) -> list[int]:
    """Returns the steps of each scale."""
    coarsest, shares = int(run.config["train.steps_per_scale"]), run.config.get("train.step_shares") or ()
    count = max(len(run.sizes), *(scale.scale + 1 for scale in run.history))  # sizes may be damaged
    return [steps_of_scale(coarsest, shares, scale, count) for scale in range(count)]


def _grids(runs: Sequence[Compared]) -> list[Html]:
    drawn, left = [], sections.PICTURE_BYTES
    for one in runs:
        if one.grid is None:
            shown = tag("p", "no picture of samples", class_="quiet")
        elif (left := left - len(one.grid[1])) < 0:
            shown = tag("p", f"left out to keep this page small: it is in {one.place}", class_="quiet")
        else:
            shown = tag("div", picture(one.grid[1], f"samples of {one.name}"), class_="grid", tabindex="0")
        drawn.append(tag("figure", tag("h3", one.name, f", {one.grid[0]}" if one.grid else ""), shown))
    return [tag("div", drawn, class_="grids")]
