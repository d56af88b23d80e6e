"""Composites -> what a pyramid makes of them, figures and files, many at once on the device and not more in memory."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from experiments.tumour_insertion import blending, figures, outputs
from experiments.tumour_insertion.compositing import Insertion
from experiments.tumour_insertion.scores import OWN, score
from launch.samples import pictures
from singan import files
from singan.metrics.seams import signed_distance
from singan.model.pyramid import resize_to
from singan.sampling import fine_tuning, manipulation, masks
from singan.sampling.manipulation import Input
from singan.sampling.masks import MaskRule
from singan.storage.run import Run

TOGETHER = 64  # composites that go through the pyramid in one go
REGIONS = ("whole", "ring")
RING = 2.0  # pixels, the standard deviation of the ring at the contour in which the pyramid is used
FAR = 3  # standard deviations after which it ends


@dataclasses.dataclass(frozen=True)
class Harmonisation:
    """How a pyramid is used on a composite.

    Attributes:
      scales: at which composites enter.
      first: the composite that does, one of blending.METHODS.
      rule: of the part that the pyramid may change.
      region: whole: all of that part, also the tumour; ring: only a ring at the contour.
      fine_tune_steps: of the finest scale, on each composite; 0 for none.
    """

    scales: Sequence[int]
    first: str
    rule: MaskRule
    region: str
    fine_tune_steps: int = 0


def harmonize_and_write(
    run: Run,
    insertions: Sequence[Insertion],
    how: Harmonisation,
    out: Path,
    form: str,
    seed: int,
    mesh: Mesh,
    log: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Returns the rows of insertions.json, in order; all else is written below `out`.

    paste/..., feather/..., poisson/..., start_SS/... as outputs.FORMATS says, figures/<name>_2a.png and _2b.png.
    """
    rows = []
    shown = files.make_directory(out / "figures")
    for begin in range(0, len(insertions), TOGETHER):
        some = insertions[begin : begin + TOGETHER]
        inputs = [Input(one.record.id, one.name, one.composite(how.first), one.mask) for one in some]
        by_scale: list[list[np.ndarray]] = []
        for scale in how.scales:
            trained = None
            if how.fine_tune_steps:
                report_step = functools.partial(_fine_tuning, log, scale, how.fine_tune_steps)
                trained = fine_tuning.fine_tune_to_composites(
                    run, inputs, scale, how.fine_tune_steps, seed, mesh, report_step
                )
            by_scale.append(manipulation.inject(run, inputs, scale, 1, seed, mesh, trained))
            log(f"start scale {scale}: {begin + len(some)} of {len(insertions)} composites harmonised")
        for one, *raw in zip(some, *by_scale, strict=True):
            results = {method: one.composite(method) for method in blending.METHODS}
            results |= {
                method_of(scale): on_source_grid(one, each[0], how) for scale, each in zip(how.scales, raw, strict=True)
            }
            rows.append(_write(one, results, out, form))
            beside = {name: results[name] for name in results if name != "poisson" or how.first == "poisson"}
            for letter, figure in (("a", figures.figure_2a(one)), ("b", figures.figure_2b(one, beside))):
                files.write_bytes(shown / f"{one.name}_2{letter}.png", pictures.encode_png(figure))
    return rows


def method_of(scale: int) -> str:
    """Returns the name of what a pyramid makes of composites that enter at a scale."""
    return f"start_{scale:02d}"


def on_source_grid(one: Insertion, raw: np.ndarray, how: Harmonisation) -> np.ndarray:
    """Returns the composite with what the pyramid changed of it, float32 [H, W, C]; its very bits elsewhere.

    Where the pyramid's finest scale is smaller than the source, its change is enlarged, and not its image: the
    composite keeps the detail that the pyramid does not know of.

    Args:
      raw: [h, w, C] in [-1, 1], what the pyramid made.
    """
    composite = one.composite(how.first)
    change = (raw - resize_to(composite, raw.shape[:2])) / 2  # within [-1, 1], as images are
    change = 2 * resize_to(change, composite.shape[:2])
    weights = masks.soft_mask(one.mask, how.rule)
    if how.region == "ring":
        ring = np.exp(-np.square(signed_distance(one.mask) / RING) / 2)
        weights = np.where(ring > np.exp(-(FAR**2) / 2), np.minimum(weights, ring), 0.0)
    return masks.blend(composite, np.clip(composite + change, -1, 1), weights)


def _write(one: Insertion, results: Mapping[str, np.ndarray], out: Path, form: str) -> dict[str, Any]:
    row = outputs.describe(one)
    row[OWN] = score(one, one.own)
    row["results"] = []
    for method, pixels in results.items():
        note = f"tumour of {one.donor.id}, {method}"
        names = outputs.write_image(out / method, form, one, pixels, note)
        scale = int(method.removeprefix("start_")) if method.startswith("start_") else None
        row["results"].append(
            {
                "method": method,
                "start_scale": scale,
                "files": [f"{method}/{name}" for name in names],
                **score(one, pixels[one.placed.window]),
            }
        )
    return row


def _fine_tuning(log: Callable[[str], None], scale: int, steps: int, step: int) -> None:
    log(f"start scale {scale}: fine-tuning, {step} of {steps} steps")
