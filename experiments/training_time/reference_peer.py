"""The PyTorch reference beside this project, where the user has a checkout of it: make bench ARGS=--peer=DIR.

It trains in its own process and a temporary folder: the same image and sizes, and as many updates of each network in an
iteration. What is measured is the time from the last update of an iteration to that of the next.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.reporting import official_checkout
from experiments.reporting.tables import markdown_table
from experiments.training_time import whole_steps
from singan.model.spec import ScaleSpec


def measure(
    checkout: str, python: str, specs: Sequence[ScaleSpec], expected: Mapping[int, float], seconds: float
) -> dict[str, Any]:
    """Returns the checkout's rows, each with scale, ms (of an iteration) and iterations, and the torch that it used.

    Args:
      checkout: a folder that official_checkout.check accepts.
      python: the program that runs it.
      specs: of all scales, coarsest first.
      expected: about how many milliseconds an iteration of each scale takes.
      seconds: about how long each scale is measured, in three to fifty iterations.

    Raises:
      UserError: it does not run, in one line.
    """
    iterations = [2 + min(max(math.ceil(1e3 * seconds / expected[spec.scale]), 3), 50) for spec in specs]
    with tempfile.TemporaryDirectory() as folder:
        measured = official_checkout.train(
            checkout,
            python,
            Path(folder),
            [whole_steps.example_of(spec)[0].real[0] for spec in specs],
            steps=iterations,
            widths=[spec.width for spec in specs],
            ratio=specs[0].pyramid.ratio,
            of_iterations=True,
            cuda=jax.default_backend() == "gpu",
        )
    rows = [
        {"scale": spec.scale, "ms": 1e3 * one, "iterations": count}
        for spec, one, count in zip(specs, measured["seconds"], iterations, strict=True)
    ]
    return {"rows": rows, "torch": f"torch {measured['torch']} with {measured['threads']} threads"}


def section(reference: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], steps_per_scale: int) -> str:
    """Returns the reference's times beside this project's and the plain PyTorch step's, as Markdown.

    Args:
      reference: what `measure` returned.
      steps: the benchmark's rows; those of the smallest cohort are taken.
      steps_per_scale: of a whole training.
    """
    fewest = min(row["images"] for row in steps)
    own = {row["scale"]: row for row in steps if row["images"] == fewest}
    cells, ratios, whole_theirs, whole_ours = [], [], 0.0, 0.0
    for row in reference["rows"]:
        mine = own[row["scale"]]
        plain, theirs = mine["pytorch_ms"], steps_per_scale * row["ms"] / 1e3
        ours = mine["steps"] * mine["ms_per_step_and_image"] / 1e3
        ratios.append(theirs / ours)
        whole_theirs, whole_ours = whole_theirs + theirs, whole_ours + ours
        cells.append(
            (row["scale"], f"{row['ms']:.1f}", row["iterations"] - 2, f"{plain:.1f}" if plain else "-")
            + (f"{mine['ms_per_step_and_image']:.1f}", f"{theirs:.0f}", f"{ours:.0f}", f"{theirs / ours:.2f}")
        )
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    heads = f"scale,reference ms,iterations,PyTorch ms,this project ms (N = {fewest}),reference s,this project s,ratio"
    return (
        f"{reference['torch']}. Milliseconds are of a step, seconds of all steps of a scale: {steps_per_scale}"
        " iterations of the reference.\n\n"
        f"{markdown_table([heads.split(','), *cells])}\n\nGeometric mean {mean:.2f}, least {min(ratios):.2f}."
        f" All scales: {whole_theirs:.0f} s against {whole_ours:.0f} s, {whole_theirs / whole_ours:.2f}."
    )
