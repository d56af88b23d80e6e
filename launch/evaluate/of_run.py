"""Evaluating a run: samples of each image and start scale are drawn, measured, forgotten; the results are told."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from launch.evaluate import image_metrics as metrics
from launch.evaluate.evaluation_file import Evaluation
from launch.evaluate.image_metrics import Inception
from launch.tracking import writer as tracking
from singan import files
from singan.config import to_mapping
from singan.errors import UserError
from singan.parallel.costs import Memory
from singan.sampling import samples as sampling
from singan.storage import workdir as records
from singan.storage.run import Run

MAX_SCALES = 4  # start scales that are measured where none are asked for


def default_scales(scales: int) -> list[int]:
    """Returns the start scales that tell most: from the coarsest to the one below the finest, evenly, at most four."""
    below = max(scales - 1, 1)
    return sorted({round(place) for place in np.linspace(0, below - 1, min(below, MAX_SCALES))})


def settings(
    run: Run,
    num_samples: int,
    seed: int,
    families: Sequence[str],
    inception: Inception | None,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Returns all that the numbers depend on; a temperature of 1, which older files do not know, is left out."""
    weights = hashlib.blake2b("".join(scale.fingerprint for scale in run.scales).encode(), digest_size=16).hexdigest()
    return {
        "num_samples": num_samples,
        "seed": seed,
        "finest_scale": len(run.scales) - 1,
        "inception": inception.name if inception and "inception" in families else None,
        "metrics": [*families, *metrics.ALWAYS],
        "weights": weights,
        **({"temperature": temperature} if temperature != 1 else {}),
    }


def evaluate(
    run: Run,
    evaluation: Evaluation,
    ids: Sequence[str],
    start_scales: Sequence[int],
    batch: int,
    mesh: Mesh,
    families: Sequence[str],
    inception: Inception | None,
    log: Callable[[str], None],
) -> None:
    """Measures what `evaluation` lacks. The file is written as it grows, and at the end, also where an error ends it.

    Memory holds one device call's samples, or those of one image where they are more, and the Inception features of
    all samples of a start scale (8 KiB each).
    """
    count, seed = evaluation.settings["num_samples"], evaluation.settings["seed"]
    temperature = evaluation.settings.get("temperature", 1.0)
    of_sets = inception if evaluation.settings["inception"] else None
    real: dict[str, Any] = {}
    evaluation.define(metrics.DEFINITIONS)
    try:
        for scale in start_scales:
            missing = evaluation.missing(ids, scale)
            # FID and KID are of all images that the summary over images is of, be they asked for now or before.
            pooled = [name for name in run.ids if name in ids or str(scale) in evaluation.images.get(name, {})]
            pooling = of_sets is not None and not evaluation.has_pooled(pooled, scale)
            wanted = pooled if pooling else missing
            known = len(ids) - len(missing)
            log(f"start scale {scale}: {known} of {len(ids)} images are measured already" if known else "")
            if not wanted:
                continue
            generated: list[Any] = []
            tell_memory = _tell_memory(scale, log)
            drawn = sampling.draw(run, wanted, count, scale, (1.0, 1.0), seed, batch, mesh, tell_memory, temperature)
            bar = tqdm(
                sampling.by_image(drawn, count),
                f"start scale {scale}",
                len(wanted),
                unit="image",
                leave=False,
                disable=None,
            )
            for name, samples in bar:
                image, subject = run.finest(name), metrics.subject_of(run.record(name))
                try:
                    if name in missing:
                        evaluation.add(name, scale, metrics.measure(samples, image, subject, families, inception))
                    if pooling and of_sets is not None and np.isfinite(samples).all():
                        if name not in real:
                            real[name] = metrics.features([image], subject, of_sets)
                        generated.append(metrics.features(samples, subject, of_sets))
                except UserError as error:
                    raise UserError(f"image {name}, start scale {scale}: {error}") from error
            if generated:
                everything = [real[name] for name in pooled if name in real]
                evaluation.add_pooled(pooled, scale, metrics.set_entries(everything, generated, len(pooled)))
    finally:
        if evaluation.images:
            evaluation.write()


def tell(run: Run, evaluation: Evaluation) -> None:
    """Writes the cohort's means to metrics.jsonl, summary.json and wandb, and a table with a row for each image.

    Does nothing where summary.json has these numbers: they have been told. There they are under names of what training
    ends with, too (final/start_0/swd), which do not depend on the number of scales.
    """
    of_means = [
        (scale, name, entry)
        for scale, entries in evaluation.cohort().items()
        for name, entry in entries.items()
        if "mean" in entry
    ]
    means = {f"evaluation/start_{int(scale):02d}/{name}": entry["mean"] for scale, name, entry in of_means}
    summary = run.workdir.path / "summary.json"
    if summary.exists() and means.items() <= files.read_json(summary).items():
        return
    last = run.spec.at(len(run.scales) - 1)
    row = {"global_step": last.steps_before + last.steps, "scale": last.scale, "scale_step": last.steps, **means}
    row |= {f"evaluation/{key}": evaluation.settings[key] for key in ("num_samples", "seed")}
    run_id = str(records.read_run(run.workdir)["id"])
    writer = tracking.open_writer_to_append(run.config.tracking, run.workdir.path, run_id, to_mapping(run.config))
    writer.scalars(row)
    writer.table("evaluation", _table(evaluation))
    final = {f"final/start_{int(scale)}/{name}": entry["mean"] for scale, name, entry in of_means}
    writer.summary({**means, **final})
    writer.close(0)


def _table(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in sorted(evaluation.images):
        row: dict[str, Any] = {"image": name}
        for scale in evaluation.start_scales:
            entries = evaluation.images[name].get(str(scale), {})
            row |= {f"start_{scale:02d}/{metric}": e["mean"] for metric, e in entries.items() if "mean" in e}
            reasons = [f"{metric}: {e['undefined']}" for metric, e in entries.items() if "undefined" in e]
            row |= {f"start_{scale:02d}/undefined": "; ".join(reasons)} if reasons else {}
        rows.append(row)
    return rows


def _tell_memory(scale: int, log: Callable[[str], None]) -> Callable[[int, Memory], None]:
    return lambda samples, memory: log(
        f"start scale {scale}: {samples} samples a call, {memory.total / 2**20:.0f} MiB on each device"
    )


def note(text: str) -> None:
    """Says a line on stderr, above a progress bar that may be there; '' is not said."""
    if text:
        tqdm.write(text, file=sys.stderr)
