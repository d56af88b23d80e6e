"""Composites -> harmonised results, figures and files, many at once on the device and not more than that in memory."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from experiments.tumour_insertion import figures, outputs
from experiments.tumour_insertion.compositing import Insertion
from experiments.tumour_insertion.scores import score
from launch.manipulate import results as manipulated
from launch.samples import pictures
from singan import files
from singan.sampling import fine_tuning, manipulation
from singan.sampling.manipulation import Input, Result
from singan.sampling.masks import MaskRule
from singan.storage.run import Run

TOGETHER = 64  # composites that are harmonised in one go


def harmonize_and_write(
    run: Run,
    insertions: Sequence[Insertion],
    scales: Sequence[int],
    rule: MaskRule,
    out: Path,
    form: str,
    seed: int,
    fine_tune_steps: int,
    mesh: Mesh,
    log: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Returns the rows of insertions.json, in order; all else is written below `out`.

    composite/..., start_SS/... as outputs.FORMATS says, figures/<name>_2a.png and figures/<name>_2b.png.
    """
    rows = []
    shown = files.make_directory(out / "figures")
    for begin in range(0, len(insertions), TOGETHER):
        some = insertions[begin : begin + TOGETHER]
        inputs = [Input(one.record.id, one.name, one.pixels, one.mask) for one in some]
        by_scale: list[list[Result]] = []
        for scale in scales:
            trained = None
            if fine_tune_steps:
                report_step = functools.partial(_fine_tuning, log, scale, fine_tune_steps)
                trained = fine_tuning.fine_tune_to_composites(
                    run, inputs, scale, fine_tune_steps, seed, mesh, report_step
                )
            by_scale.append(manipulation.harmonize(run, inputs, scale, rule, 1, seed, mesh, trained))
            log(f"start scale {scale}: {begin + len(some)} of {len(insertions)} composites harmonised")
        for one, *results in zip(some, *by_scale, strict=True):
            rows.append(_write(run, one, results, rule, out, form))
            for letter, figure in (
                ("a", figures.figure_2a(run, one)),
                ("b", figures.figure_2b(run, one, results)),
            ):
                files.write_bytes(shown / f"{one.name}_2{letter}.png", pictures.encode_png(figure))
    return rows


def _write(run: Run, one: Insertion, results: Sequence[Result], rule: MaskRule, out: Path, form: str) -> dict[str, Any]:
    row = outputs.describe(one)
    note = f"tumour of {one.donor.id} pasted in"
    names = outputs.write_image(out / "composite", form, one, one.pixels, note)
    row["composite"] = [f"composite/{name}" for name in names]
    row["results"] = []
    for result in results:
        folder = f"start_{result.start_scale:02d}"
        pixels = manipulated.on_source_grid(run, result, rule)[0]
        note = f"tumour of {one.donor.id}, SinGAN from scale {result.start_scale}"
        names = outputs.write_image(out / folder, form, one, pixels, note)
        row["results"].append(
            {
                "start_scale": result.start_scale,
                "files": [f"{folder}/{name}" for name in names],
                **score(run, one, result),
            }
        )
    return row


def _fine_tuning(log: Callable[[str], None], scale: int, steps: int, step: int) -> None:
    log(f"start scale {scale}: fine-tuning, {step} of {steps} steps")
