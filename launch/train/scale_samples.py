"""What is measured as a scale ends: each image's reconstruction, and a few samples without any other network's weights.

Each process measures its own images, and all processes get the results of all. It is cheap enough for every scale of
every run; launch.evaluate measures more, of more samples and start scales.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from singan.config import Config
from singan.errors import UserError
from singan.metrics.diversity import ONE_SAMPLE, pixel_deviation
from singan.metrics.memorisation import rmse_to_image
from singan.metrics.random_features import random_sifid
from singan.metrics.sliced_wasserstein import sliced_wasserstein
from singan.metrics.values import Undefined, Value
from singan.model.noise import image_key_data
from singan.model.spec import ScaleSpec
from singan.parallel import cohort
from singan.parallel.cached_program import Program
from singan.parallel.processes import ProcessGroup
from singan.sampling.samples import sampler
from singan.shapes import Array, Float
from singan.storage.finished_scale import FinishedScale, trained_scales

METRICS = ("swd", "random_sifid", "diversity", "rmse")  # as defined in singan/metrics
BATCH = 64  # samples in one device call; what bounds the memory, with one image after another on each device
NOT_FINITE = Undefined("a sample holds values that are not numbers (NaN or infinite)")


@dataclasses.dataclass(frozen=True)
class ScaleQuality:
    """Of a scale's samples from noise at every scale.

    Attributes:
      rows: by image id, each of METRICS, the mean over samples.
      samples: by id, of the images that were to be shown, float32 [n, h, w, C] in [-1, 1].
      seconds: what it took to draw and to measure, compilation included.
    """

    rows: Mapping[str, Mapping[str, Value]]
    samples: Mapping[str, np.ndarray]
    seconds: float


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


def measure_scale(
    config: Config,
    spec: ScaleSpec,
    scales: Sequence[FinishedScale],
    images: Mapping[str, np.ndarray],
    padding: Mapping[str, np.ndarray],
    process_group: ProcessGroup,
    layouts: Mapping[str, np.ndarray] | None = None,
) -> ScaleEnd:
    """Measures the finest of `scales`. Every process of the group calls it, with the images that it trains.

    Args:
      images: training images at the scale's size, float32 [h, w, C] in [-1, 1], by id.
      padding: float32 [C] by id.
      layouts: by id, of a conditional run: what its training draws from. `images` then have the given channels too.
    """
    finished, own = scales[-1], process_group.assignment.of(scales[-1].ids).own
    shown = [name for name in finished.surviving[: config.tracking.max_grid_images] if name in own]
    quality = None
    if any(name in own for name in finished.surviving):
        mine = dataclasses.replace(finished, ids=own, diverged={n: s for n, s in finished.diverged.items() if n in own})
        quality = sample_and_measure(
            config, spec, [*scales[:-1], mine], images, padding, process_group.own_mesh, shown, layouts
        )
    rows, pictures = [], {}
    for name in own:
        weights = finished.rows([name])
        reconstruction, image = weights["reconstruction"][0, 0], images[name]
        rows.append(
            {
                "image": name,
                "reconstruction_rmse": float(np.sqrt(np.mean(np.square(reconstruction - image[..., : spec.channels])))),
                "noise_amplitude": float(weights["trained"].amplitude[0]),
                "diverged_at_step": finished.diverged.get(name),
                **columns(quality, name),
            }
        )
        if name in shown and quality is not None:
            whole = np.concatenate([reconstruction, image[..., spec.channels :]], axis=-1)
            pictures[name] = np.stack([image, whole, *quality.samples[name]])
    parts = process_group.processes.all_gather({"rows": rows, "quality": _plain(quality)})
    together = process_group.processes.gather_arrays(pictures)
    ordered = {name: together[name] for name in finished.surviving if name in together}
    return ScaleEnd([row for part in parts for row in part["rows"]], _merged([p["quality"] for p in parts]), ordered)


def sample_and_measure(
    config: Config,
    spec: ScaleSpec,
    scales: Sequence[FinishedScale],
    images: Mapping[str, np.ndarray],
    padding: Mapping[str, np.ndarray],
    mesh: Mesh,
    shown: Sequence[str],
    layouts: Mapping[str, np.ndarray] | None = None,
) -> ScaleQuality:
    """Draws config.tracking.num_samples samples of every surviving image and measures them, batch by batch.

    Args:
      scales: the finished scales up to spec.scale.
      images: training images at the scale's size, float32 [h, w, C] in [-1, 1], by id.
      padding: float32 [C] by id.
      shown: ids whose samples are kept.
      layouts: as in `measure_scale`; the samples have the first of them behind the image's own.
    """
    started = time.monotonic()
    ids, count = scales[-1].surviving, config.tracking.num_samples
    together = min(
        max(BATCH // max(count, 1) // mesh.size, 1) * mesh.size,
        cohort.padded_size(len(ids), mesh, 1),
    )
    drawing = sampler(spec, mesh, 0, 1, (1.0, 1.0), config.train.precision)
    images = {name: image[..., : spec.channels] for name, image in images.items()}
    functions, missing = _defined(next(iter(images.values())))
    measuring = Program(cohort.parallel(lambda *arguments: _measure(functions, *arguments), mesh), "highest")
    rows: dict[str, dict[str, Value]] = {}
    samples: dict[str, np.ndarray] = {}
    for begin in range(0, len(ids), together):
        some = ids[begin : begin + together]
        names = [some[min(i, len(some) - 1)] for i in range(together)]
        drawn = drawing(
            *cohort.shard(
                (
                    trained_scales(scales, names),
                    scales[0].rows(names)["reconstruction_noise"],
                    np.stack([padding[name] for name in names]),
                    np.stack([image_key_data(config.seed, name) for name in names]),
                    np.tile(np.arange(count, dtype=np.int32), (together, 1)),
                    np.ones(together, np.float32),  # the temperature
                    *([_given(layouts, names, count)] if layouts else []),
                ),
                mesh,
            )
        )
        real = np.stack([images[name] for name in names])
        generated = drawn[..., : spec.channels] if spec.condition else drawn
        measured = jax.tree.map(np.asarray, measuring(generated, cohort.shard(real, mesh))) if count else {}
        for index, name in enumerate(some):
            values = {metric: measured[metric][index] for metric in measured}
            rows[name] = {**missing, **_row(values, images[name], count)} if count else {}
        if wanted := [index for index, name in enumerate(some) if name in shown]:
            pixels = np.array(drawn)
            samples |= {some[index]: pixels[index] for index in wanted}
    return ScaleQuality(rows, samples, time.monotonic() - started)


def _given(layouts: Mapping[str, np.ndarray], names: Sequence[str], count: int) -> np.ndarray:
    """Returns what is given to the samples of each image, uint8 [n, count, h, w, K]."""
    return np.stack([layouts[name][np.arange(1, count + 1) % len(layouts[name])] for name in names])


def columns(quality: ScaleQuality | None, image_id: str) -> dict[str, Any]:
    """Returns an image's entries for the row of a table: METRICS, None where one has no value, and 'undefined', why."""
    row = quality.rows.get(image_id, {}) if quality else {}
    values = {name: row.get(name, Undefined("")) for name in METRICS}
    why = [f"{name}: {value.reason}" for name, value in row.items() if isinstance(value, Undefined)]
    return {n: None if isinstance(v, Undefined) else v for n, v in values.items()} | {"undefined": "; ".join(why)}


def in_words(quality: ScaleQuality | None) -> str:
    """Returns the means over images for a line on the terminal: fidelity beside diversity and distance, or nothing."""
    said = []
    for metric, what in (("swd", "SWD"), ("diversity", "diversity"), ("rmse", "RMSE to the training image")):
        known = [row[metric] for row in quality.rows.values() if metric in row] if quality else []
        values = [value for value in known if not isinstance(value, Undefined)]
        if not values:
            return ""
        said.append(f"{what} {np.mean(values):.3f}")
    return f"; samples: {', '.join(said)}"


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


def _defined(image: np.ndarray) -> tuple[dict[str, Callable[..., Any]], dict[str, Value]]:
    """Returns the functions (image, samples) -> values that images of this size have, and why they lack the others."""
    wanted = {"swd": sliced_wasserstein, "random_sifid": random_sifid}
    missing: dict[str, Value] = {}
    for name, function in wanted.items():
        try:
            jax.eval_shape(function, image, image[None])
        except UserError as error:
            missing[name] = Undefined(str(error))
    return {name: function for name, function in wanted.items() if name not in missing}, missing


def _measure(
    functions: Mapping[str, Callable[..., Any]], samples: Float[Array, "n h w c"], image: Float[Array, "h w c"]
) -> dict[str, Array]:
    values = {name: jnp.mean(function(image, samples)) for name, function in functions.items()}
    deviation = jnp.mean(pixel_deviation(samples))
    return {**values, "diversity": deviation, "rmse": jnp.mean(rmse_to_image(samples, image))}


def _row(values: Mapping[str, np.ndarray], image: np.ndarray, count: int) -> dict[str, Value]:
    row: dict[str, Value] = {name: float(v) if np.isfinite(v) else NOT_FINITE for name, v in values.items()}
    if count < 2:
        row["diversity"] = Undefined(ONE_SAMPLE)
    elif not np.ptp(image):
        row["diversity"] = Undefined("the training image holds one value only")
    elif not isinstance(row["diversity"], Undefined):
        row["diversity"] /= float(np.std(image, dtype=np.float64))
    return row
