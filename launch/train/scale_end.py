"""What is known of a scale as it ends: measured by each process of its own images, and brought together."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch.train import scale_samples
from launch.train.scale_samples import ScaleQuality
from singan.config import Config
from singan.metrics.values import Undefined
from singan.model.spec import ScaleSpec
from singan.parallel.processes import ProcessGroup
from singan.storage.finished_scale import FinishedScale


@dataclasses.dataclass(frozen=True)
class ScaleEnd:
    """Of all images of the cohort.

    Attributes:
      rows: of the scale's table, in the order of the cohort.
      quality: of the samples; None where every image has diverged.
      pictures: by id, of those that are to be shown: training image, reconstruction and samples, [n, h, w, C].
    """

    rows: list[dict[str, Any]]
    quality: ScaleQuality | None
    pictures: Mapping[str, np.ndarray]


def measure(
    config: Config,
    spec: ScaleSpec,
    scales: Sequence[FinishedScale],
    images: Mapping[str, np.ndarray],
    padding: Mapping[str, np.ndarray],
    process_group: ProcessGroup,
) -> ScaleEnd:
    """Measures the finest of `scales`. Every process of the team calls it, with the images that it trains.

    Args:
      images: training images at the scale's size, float32 [h, w, C] in [-1, 1], by id.
      padding: float32 [C] by id.
    """
    finished, own = scales[-1], process_group.assignment.of(scales[-1].ids).own
    shown = [name for name in finished.surviving[: config.tracking.max_grid_images] if name in own]
    quality = None
    if any(name in own for name in finished.surviving):
        mine = dataclasses.replace(finished, ids=own, diverged={n: s for n, s in finished.diverged.items() if n in own})
        quality = scale_samples.sample_and_measure(
            config, spec, [*scales[:-1], mine], images, padding, process_group.own_mesh, shown
        )
    rows, pictures = [], {}
    for name in own:
        weights = finished.rows([name])
        reconstruction = weights["reconstruction"][0, 0]
        rows.append(
            {
                "image": name,
                "reconstruction_rmse": float(np.sqrt(np.mean(np.square(reconstruction - images[name])))),
                "noise_amplitude": float(weights["trained"].amplitude[0]),
                "diverged_at_step": finished.diverged.get(name),
                **scale_samples.columns(quality, name),
            }
        )
        if name in shown and quality is not None:
            pictures[name] = np.stack([images[name], reconstruction, *quality.samples[name]])
    parts = process_group.processes.all_gather({"rows": rows, "quality": _plain(quality)})
    together = process_group.processes.gather_arrays(pictures)
    ordered = {name: together[name] for name in finished.surviving if name in together}
    return ScaleEnd([row for part in parts for row in part["rows"]], _merged([p["quality"] for p in parts]), ordered)


def _plain(quality: ScaleQuality | None) -> dict[str, Any] | None:
    """Returns the figures in JSON's own types."""
    if quality is None:
        return None
    plain = lambda value: {"undefined": value.reason} if isinstance(value, Undefined) else float(value)  # noqa: E731
    rows = {name: {metric: plain(value) for metric, value in row.items()} for name, row in quality.rows.items()}
    return {"rows": rows, "seconds": quality.seconds}


def _merged(parts: Sequence[dict[str, Any] | None]) -> ScaleQuality | None:
    there = [part for part in parts if part is not None]
    if not there:
        return None
    value = lambda plain: Undefined(plain["undefined"]) if isinstance(plain, dict) else plain  # noqa: E731
    rows = {
        name: {metric: value(plain) for metric, plain in row.items()}
        for part in there
        for name, row in part["rows"].items()
    }
    return ScaleQuality(rows, {}, max(part["seconds"] for part in there))
