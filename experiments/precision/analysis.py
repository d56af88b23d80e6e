"""Measures the runs of the sweep and says, metric by metric, whether a precision moves it further than a seed does.

python -m experiments.precision.analysis --workdir=runs/precision --out=runs/precision_tables

Writes precision.md, precision.json and precision.png; each run's evaluation.json holds its numbers, and what is there
of the same settings is kept. Samples are drawn at the precision that their run was trained with.
"""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.precision import plot
from experiments.precision.comparison import compare, facts_of, in_short, others, read_runs, table_of
from experiments.precision.shifts import RULE, Shift
from experiments.reporting.measuring import measure_run
from experiments.reporting.results import METRICS
from experiments.reporting.tables import TITLES, markdown_table
from launch import cli, runtime, selection
from launch import command_flags as flags
from launch.evaluate import image_metrics as metrics
from launch.evaluate.of_run import note
from singan import files
from singan.storage.run import load_run

WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=ROOT, the root of the sweep.", required=True)
OUT = flags.DEFINE_string("out", None, "give --out=FOLDER, where the results are written.", required=True)
START_SCALES = flags.DEFINE_list("start_scales", ["0", "1"], "Scales at which fresh noise begins.")
flags.DEFINE_alias("start_scale", "start_scales")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 16, "Samples of each image, start scale and run.", lower_bound=2)


def main(argv: list[str]) -> int:
    del argv
    root = Path(WORKDIR.value)
    runs = read_runs(root)
    first = next(iter(runs.values()))
    start_scales = selection.chosen_scales(load_run(first.workdir.path), START_SCALES.value)
    mesh = runtime.start_jax(len(first.images))
    for (_, seed), facts in runs.items():
        measure_run(Path(facts.workdir.path), NUM_SAMPLES.value, start_scales, seed, mesh, note)
    rows = compare(runs, start_scales)
    out = files.make_directory(OUT.value)
    facts = facts_of(runs, NUM_SAMPLES.value)
    table, says = table_of(rows), [in_short(rows, name) for name in others(runs)]
    definitions = {name: metrics.DEFINITIONS[name] for name in METRICS}
    parts = ["# Precision", "", *(f"- {fact}" for fact in facts), "", *(f"- {line}" for line in says), ""]
    parts += [markdown_table(table), "", RULE, "", "## Definitions", ""]
    parts += [*(f"- {TITLES[name]}: {text}" for name, text in definitions.items())]
    files.write_text(out / "precision.md", "\n".join(parts) + "\n")
    shifts = {name: {p: _plain(shift) for p, shift in by.items()} for name, by in rows}
    files.write_json(out / "precision.json", {"facts": facts, "rule": RULE, "shifts": shifts})
    files.write_bytes(out / "precision.png", plot.draw(rows, facts[0]))
    print("\n".join([markdown_table(table), "", *says]))
    print(f"precision.md, precision.json and precision.png are in {out}")
    return 0


def _plain(shift: Shift | None) -> dict[str, Any] | None:
    return {**dataclasses.asdict(shift), "verdict": shift.verdict} if shift else None


if __name__ == "__main__":
    cli.run(main)
