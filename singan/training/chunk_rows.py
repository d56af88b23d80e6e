"""The row of metrics.jsonl that a chunk of steps gives."""

from typing import Any

import numpy as np

from singan.config import Config
from singan.model.spec import ScaleSpec
from singan.training.observer import ChunkResult


def chunk_row(config: Config, result: ChunkResult) -> dict[str, Any]:
    """Returns the step's place, each metric's mean over the images that are alive, and the speed in steps a second."""
    alive = len(result.ids) - len(result.diverged)
    rate = result.steps / max(result.seconds, 1e-9)
    row: dict[str, Any] = step_row(result.spec, result.step)
    row |= {name: finite_mean(values) for name, values in result.metrics.items()}
    if weight := config.train.reconstruction_weight:
        # In units of [-1, 1], of the reconstruction loss, a mean square times its weight.
        row["generator/reconstruction_rmse"] = finite_mean(np.sqrt(result.metrics["generator/reconstruction"] / weight))
    return row | {"images_alive": alive, "steps_per_second": rate, "image_steps_per_second": rate * alive}


def step_row(spec: ScaleSpec, step: int) -> dict[str, Any]:
    """Returns a row that says only which step it is of."""
    return {"global_step": spec.steps_before + step, "scale": spec.scale, "scale_step": step}


def finite_mean(values: np.ndarray) -> float:
    """Returns the mean of the finite values, NaN without any."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
