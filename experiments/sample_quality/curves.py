"""What is measured: each image's samples at every start scale and temperature, kept in ROOT/measured as they are made.

ROOT/measured/<run>.json: {"settings": {...}, "rows": [{"image", "start_scale", "temperature", metric: mean, ..}, ..]}.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from experiments.baselines.generator import Settings, generate
from experiments.sample_quality.variants import Group
from launch.evaluate import image_metrics as metrics
from singan import files
from singan.errors import UserError
from singan.sampling import samples as sampling
from singan.source_image import SourceImage
from singan.storage.run import load_run
from singan.storage.run_record import record_of
from singan.storage.workdir import pixel_digest

MEASURED = ("swd", "random_sifid", "diversity", "rmse", "nearest_patch_ratio", "copied")
FAMILIES = ("swd", "random_sifid")
MORE = ("nuclei", "modalities")  # families that are measured at temperature 1 alone
BATCH = 64
SHOWN = 4  # samples of each method on a sheet
GPNN_NOISE = 0.75  # the paper's, in [0, 1]; a temperature is a factor of it
Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What samples are drawn: of each image, start scale and temperature as many, with one seed."""

    start_scales: tuple[int, ...]
    temperatures: tuple[float, ...]
    num_samples: int
    seed: int = 0


class Measured:
    """A run's file, which grows; a file of other weights or numbers of samples is begun anew."""

    def __init__(self, path: Path, settings: dict[str, Any]):
        self._path, self._settings = path, files.plain(settings)
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            content = files.read_json(path)
            if content.get("settings") == self._settings:
                self.rows = list(content["rows"])

    def has(self, image_id: str, start_scale: int, temperature: float) -> bool:
        key = (image_id, start_scale, temperature)
        return any((row["image"], row["start_scale"], row["temperature"]) == key for row in self.rows)

    def add(self, image_id: str, start_scale: int, temperature: float, entries: metrics.Metrics) -> None:
        """Takes the entries of `image_metrics.measure`, and writes the file."""
        means = {name: entry["mean"] for name, entry in entries.items() if "mean" in entry}
        self.rows.append({"image": image_id, "start_scale": start_scale, "temperature": temperature, **means})
        files.make_directory(self._path.parent)
        files.write_json(self._path, {"settings": self._settings, "rows": self.rows})


def measure_run(workdir: Path, path: Path, asked: Asked, mesh: Mesh, log: Log) -> Measured:
    """Returns the measured curves of a trained run; draws what `path` lacks."""
    run = load_run(workdir, warn=lambda text: log(f"warning: {text}"))
    weights = hashlib.blake2b("".join(scale.fingerprint for scale in run.scales).encode(), digest_size=16).hexdigest()
    measured = Measured(path, {"weights": weights, "num_samples": asked.num_samples, "seed": asked.seed})
    for start in (start for start in asked.start_scales if start < len(run.scales)):
        for temperature in asked.temperatures:
            missing = [name for name in run.ids if not measured.has(name, start, temperature)]
            if not missing:
                continue
            drawn = sampling.draw(
                run, missing, asked.num_samples, start, (1.0, 1.0), asked.seed, BATCH, mesh, temperature=temperature
            )
            for name, samples in sampling.by_image(drawn, asked.num_samples):
                entries = _entries(samples, run.finest(name), metrics.subject_of(run.record(name)), temperature)
                measured.add(name, start, temperature, entries)
    return measured


def measure_samples(folder: Path, path: Path, group: Group, asked: Asked) -> Measured:
    """Returns what is measured of the official implementation's samples, `official.train`'s, at temperature 1."""
    with (folder / "samples.npz").open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    measured = Measured(path, {"samples": digest, "num_samples": asked.num_samples})
    (image,) = group.images
    with np.load(folder / "samples.npz", allow_pickle=False) as drawn:
        for start in asked.start_scales:
            if f"start_{start}" in drawn and not measured.has(image.id, start, 1.0):
                samples = 2 * drawn[f"start_{start}"][: asked.num_samples].astype(np.float32) - 1
                measured.add(image.id, start, 1.0, _entries(samples, _finest(group, image), _subject(image), 1.0))
    return measured


def measure_gpnn(path: Path, group: Group, asked: Asked, log: Log) -> Measured:
    """Returns the curves of patch nearest neighbours, whose noise the temperature scales."""
    digests = {image.id: pixel_digest(image.pixels) for image in group.images}
    measured = Measured(path, {"images": digests, "num_samples": asked.num_samples, "seed": asked.seed})
    for start in (start for start in asked.start_scales if start < len(group.pyramid)):
        for temperature in asked.temperatures:
            for image in group.images:
                if measured.has(image.id, start, temperature):
                    continue
                log(f"gpnn: {image.id}, start scale {start}, noise times {temperature:g}")
                try:
                    samples = generate(
                        image.pixels,
                        group.pyramid,
                        asked.seed,
                        asked.num_samples,
                        start_scale=start,
                        background=image.value_map.background_levels,
                        image_id=image.id,
                        settings=Settings(noise=GPNN_NOISE * temperature),
                    )
                except UserError as error:
                    log(f"note: gpnn: {error}")
                    continue
                entries = _entries(samples, _finest(group, image), _subject(image), temperature)
                measured.add(image.id, start, temperature, entries)
                shown = shown_of_gpnn(path, image.id, start, temperature)
                files.make_directory(shown.parent)
                files.write_npy(shown, samples[:SHOWN])
    return measured


def shown_of_gpnn(path: Path, image_id: str, start_scale: int, temperature: float) -> Path:
    """Returns the file, beside its `Measured`, of the first samples, float32 [SHOWN, H, W, C] in [-1, 1]."""
    return path.with_suffix("") / f"{image_id}_start_{start_scale:02d}_t{temperature:g}.npy"


def _entries(samples: np.ndarray, image: np.ndarray, subject: metrics.Subject, temperature: float) -> metrics.Metrics:
    families = (*FAMILIES, *(MORE if temperature == 1 else ()))
    return metrics.measure(samples, image, subject, families, None)


def _finest(group: Group, image: SourceImage) -> np.ndarray:
    return group.pyramid.level(image.pixels, len(group.pyramid) - 1)


def _subject(image: SourceImage) -> metrics.Subject:
    return metrics.subject_of(record_of(image))


def shown_samples(workdir: Path, image_id: str, start_scale: int, temperature: float, mesh: Mesh) -> np.ndarray:
    """Returns the first samples of a run at a temperature, float32 [SHOWN, H, W, C] in [-1, 1]."""
    run = load_run(workdir)
    drawn = sampling.draw(run, [image_id], SHOWN, start_scale, mesh=mesh, temperature=temperature)
    return next(samples for _, samples in sampling.by_image(drawn, SHOWN))
