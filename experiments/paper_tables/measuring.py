"""Draws and measures samples of every variant: evaluation.json beside each run, and a few samples to be looked at."""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from experiments.baselines.generator import Settings, generate
from experiments.paper_tables.variants import GPNN, Plan
from experiments.reporting.measuring import BATCH, FAMILIES, Log
from launch.evaluate import image_metrics as metrics
from launch.evaluate.evaluation_file import Evaluation
from launch.images.source_image import SourceImage
from launch.run_record import record_of
from launch.workdir_lock.lock import WorkdirLock
from singan import files
from singan.model.pyramid import Pyramid
from singan.sampling import samples as sampling
from singan.storage.run import load_run
from singan.storage.workdir import pixel_digest

SHOWN = 4  # samples of each image that are kept as pictures
GPNN_BATCH = 16

Shown = dict[str, np.ndarray]  # image id -> samples [k, h, w, C] in [-1, 1]


def measure_gpnn(plan: Plan, path: Path, num_samples: int, seed: int, log: Log) -> None:
    """Draws and measures what the baseline's evaluation.json lacks; samples are kept.

    They are start_NN/ID.npy: float32 [n, h, w, C] in [-1, 1].
    """
    pyramid = plan.pyramids[GPNN]
    settings: dict[str, Any] = {
        "num_samples": num_samples,
        "seed": seed,
        "finest_scale": len(pyramid) - 1,
        "inception": None,
        "metrics": [*FAMILIES, *metrics.ALWAYS],
        "sizes": pyramid.sizes,
        "gpnn": dataclasses.asdict(Settings()),
        "images": {image.id: pixel_digest(image.pixels) for image in plan.images},
    }
    with WorkdirLock(path):
        evaluation = Evaluation(path / "evaluation.json", settings, lambda text: log(f"note: {text}"))
        evaluation.define(metrics.DEFINITIONS)
        pairs = itertools.product(plan.start_scales, plan.images)
        missing = [(scale, image) for scale, image in pairs if evaluation.missing([image.id], scale)]
        try:
            for scale, image in missing:
                began = time.monotonic()
                samples = _gpnn_samples(image, pyramid, num_samples, scale, seed)
                seconds = (time.monotonic() - began) / num_samples
                log(f"{path.name}: {image.id}, start scale {scale}: {seconds:.2g} s a sample")
                files.write_npy(files.make_directory(_gpnn_folder(path, scale)) / f"{image.id}.npy", samples)
                real, subject = pyramid.level(image.pixels, len(pyramid) - 1), metrics.subject_of(record_of(image))
                evaluation.add(image.id, scale, metrics.measure(samples, real, subject, FAMILIES, None))
        finally:
            if missing and evaluation.images:
                evaluation.write()


def _gpnn_samples(image: SourceImage, pyramid: Pyramid, num_samples: int, scale: int, seed: int) -> np.ndarray:
    parts = [
        generate(
            image.pixels,
            pyramid,
            seed,
            min(GPNN_BATCH, num_samples - first),
            first=first,
            start_scale=scale,
            background=image.value_map.background_levels,
            image_id=image.id,
        )
        for first in range(0, num_samples, GPNN_BATCH)
    ]
    return np.concatenate(parts)


def _gpnn_folder(path: Path, start_scale: int) -> Path:
    return path / f"start_{start_scale:02d}"


def shown_of_run(path: Path, num_samples: int, start_scale: int, seed: int, mesh: Mesh) -> Shown:
    """Returns the first samples that a trained run was measured by."""
    run = load_run(path)
    # As many as were measured, so that the compiled program is there already.
    drawn = sampling.draw(run, run.ids, num_samples, start_scale, (1.0, 1.0), seed, BATCH, mesh) if run.ids else ()
    shown: Shown = {}
    for batch in drawn:
        for name, pixels in zip(batch.ids, batch.pixels, strict=True):
            shown[name] = np.concatenate([shown[name], pixels])[:SHOWN] if name in shown else pixels[:SHOWN]
    return shown


def shown_of_gpnn(path: Path, ids: Sequence[str], start_scale: int) -> Shown:
    """Returns the first samples that the baseline was measured by."""
    folder = _gpnn_folder(path, start_scale)
    return {name: np.load(folder / f"{name}.npy")[:SHOWN] for name in ids if (folder / f"{name}.npy").is_file()}
