"""All that is measured of the samples of one image, and of all images with all samples: which metrics, of what."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from launch.evaluate import evaluation_file
from launch.evaluate.evaluation_file import Metrics
from launch.evaluate.inception_weights import inception_weights_file
from launch.images import mask_channels
from launch.images.readers import COLOURS
from singan.errors import UserError
from singan.metrics import (
    diversity,
    inception_distances,
    memorisation,
    modalities,
    nuclei,
    random_features,
    sliced_wasserstein,
)
from singan.metrics.frechet import shortfall
from singan.metrics.inception_weights import read_inception_weights
from singan.metrics.values import Value
from singan.model.pyramid import resize_to
from singan.shapes import PyTree
from singan.storage.workdir import ImageRecord

FAMILIES = {
    "swd": sliced_wasserstein.DEFINITIONS,
    "random_sifid": random_features.DEFINITIONS,
    "inception": inception_distances.DEFINITIONS,
    "nuclei": nuclei.DEFINITIONS,
    "modalities": modalities.DEFINITIONS,
}
# Fidelity says nothing without these: near-copies of the training image score best. They are always measured.
ALWAYS = {"diversity": diversity.DEFINITIONS, "memorisation": memorisation.DEFINITIONS}
DEFINITIONS = {name: text for family in (*FAMILIES.values(), *ALWAYS.values()) for name, text in family.items()}
NOT_FINITE = "a sample holds values that are not numbers (NaN or infinite)"
NUCLEI_MASKS = ("instance", "binary", "class")


@dataclasses.dataclass(frozen=True)
class Subject:
    """What metrics need to know of an image beside its pixels.

    Attributes:
      channels: their names.
      backgrounds: in [-1, 1], None for a channel without one.
      masks: how channels show masks (launch/images/mask_channels.py), {} without.
      size: (height, width) of the grid that masks are decoded on; None for the samples' own.
      given: how many channels, the last ones, a conditional run was given and did not make.
    """

    channels: tuple[str, ...]
    backgrounds: tuple[float | None, ...]
    masks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    size: tuple[int, int] | None = None
    given: int = 0

    @property
    def measured(self) -> list[int]:
        """The channels that are no masks."""
        masks = mask_channels.kinds_of_channels(self.masks)
        return [channel for channel in range(len(self.channels)) if channel not in masks]

    @property
    def modalities(self) -> list[int]:
        """The channels that are modalities of one subject before a background, [] where there are none such."""
        kept = [channel for channel in self.measured if self.channels[channel] not in COLOURS]
        return kept if len(kept) > 1 and any(self.backgrounds[channel] is not None for channel in kept) else []


@dataclasses.dataclass(frozen=True, eq=False)
class Inception:
    """Weights on the device, and the name and digest of their file."""

    variables: PyTree
    name: str


def subject_of(record: ImageRecord) -> Subject:
    """Returns what images.json says of an image of a run."""
    backgrounds = record.value_map.background_levels
    return Subject(record.channels, backgrounds, record.details.get("masks", {}), record.shape[:2], record.given)


def chosen_families(wanted: Sequence[str]) -> list[str]:
    """Returns the families to measure, all where none is wanted; raises UserError for one that there is not."""
    for name in wanted:
        if name not in FAMILIES and name not in ALWAYS:
            raise UserError(
                f"--metrics: {name!r} is none of {', '.join(FAMILIES)} (diversity and memorisation always are)"
            )
    return [name for name in FAMILIES if name in wanted or not wanted]


def load_inception(given: str, log: Callable[[str], None]) -> Inception | None:
    """Returns the weights that --inception_weights names, or None.

    Args:
      given: a file; 'none'; 'download' to fetch FID's once; '' to take those of the cache where they are there.
      log: told in one line what is fetched, or left out.

    Raises:
      UserError: the file is missing or holds something else; or it cannot be fetched.
    """
    if given == "none":
        return None
    if given in ("", "download"):
        try:
            path = inception_weights_file(fetch=given == "download", log=log)
        except UserError:
            if given:
                raise
            log(
                "note: no Inception weights are here, so SIFID, FID and KID are left out: --inception_weights=FILE or"
                " =download adds them, =none asks for none"
            )
            return None
    else:
        path = inception_weights_file(Path(given))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Inception(jax.device_put(read_inception_weights(path)), f"{path.name} {digest[:16]}")


def measure(
    samples: np.ndarray, image: np.ndarray, subject: Subject, families: Sequence[str], inception: Inception | None
) -> Metrics:
    """Returns the entries of all metrics of the samples of one image; undefined ones where a sample is not finite.

    Args:
      samples: [n, H, W, C] in [-1, 1].
      image: [h, w, C] in [-1, 1]: the training image.

    Raises:
      UserError: see singan.metrics.values.check_images.
    """
    whole, whole_image = samples, image
    if subject.given:  # of what was given there is nothing to measure but the nuclei
        samples, image = samples[..., : -subject.given], image[..., : -subject.given]
    if not np.isfinite(samples).all():
        names = [name for name in ("swd", "random_sifid") if name in families]
        names += ["diversity", *memorisation.DEFINITIONS]
        return {name: {"undefined": NOT_FINITE} for name in names}
    rows: list[dict[str, Value]] = [{} for _ in samples]

    def join(rows_of_metric: Iterable[Mapping[str, Value]]) -> None:
        for row, more in zip(rows, rows_of_metric, strict=True):
            row |= more

    if "swd" in families:
        join(sliced_wasserstein.patch_distribution(samples, image))
    if "random_sifid" in families:
        join(random_features.texture_distance(samples, image))
    if "inception" in families and inception is not None:
        kept = subject.measured
        names = [subject.channels[channel] for channel in kept]
        join(inception_distances.inception_distance(samples[..., kept], image[..., kept], inception.variables, names))
    join(memorisation.memorisation(samples, image))
    if "nuclei" in families and set(NUCLEI_MASKS) & set(subject.masks):
        of_source = _nuclei(whole_image, subject)
        join(nuclei.compare_nuclei(_nuclei(sample, subject), of_source) for sample in whole)
    if "modalities" in families and (kept := subject.modalities):
        names = [subject.channels[channel] for channel in kept]
        backgrounds = [subject.backgrounds[channel] for channel in kept]
        join(modalities.compare_modalities(samples[..., kept], image[..., kept], backgrounds, names))
    together = diversity.diversity(samples, image, subject.channels[: samples.shape[-1]])
    return {**evaluation_file.entries(rows), **evaluation_file.single_entries(together, len(samples))}


def features(images: Iterable[np.ndarray], subject: Subject, inception: Inception) -> dict[str, np.ndarray]:
    """Returns the 2048-d features [n, 2048] of images [H, W, C], by what Inception looked at."""
    kept = subject.measured
    names = [subject.channels[channel] for channel in kept]
    return inception_distances.set_features((image[..., kept] for image in images), inception.variables, names)


def set_entries(
    real: Sequence[Mapping[str, np.ndarray]], generated: Sequence[Mapping[str, np.ndarray]], images: int
) -> Metrics:
    """Returns the entries of FID and KID of all images and all samples, from their features part by part."""
    joined = [
        {title: np.concatenate([part[title] for part in parts]) for title in parts[0]} for parts in (real, generated)
    ]
    distances = evaluation_file.single_entries(inception_distances.set_distances(*joined), images, of="images")
    least = min(len(features) for part in joined for features in part.values())
    note = shortfall(least, 2048)
    for name, entry in distances.items():
        entry.pop("count", None)
        if name.startswith("fid/") and note and "mean" in entry:
            entry["note"] = note
    return distances


def _nuclei(image: np.ndarray, subject: Subject) -> nuclei.Nuclei:
    image = resize_to(image, subject.size or image.shape[:2])
    instances, classes = mask_channels.decode_nuclei(image, subject.masks)
    stain = None
    if set(COLOURS) <= set(subject.channels):
        stain = nuclei.haematoxylin(image[..., [subject.channels.index(colour) for colour in COLOURS]])
    return nuclei.measure_nuclei(instances, classes if "class" in subject.masks else None, stain)
