"""Samples that lie in a folder already, read back as far as a data card measures them."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from launch.data_card.measure import MAX_SAMPLES, measured_ids
from launch.images import geometry, image_folders
from launch.images.image_folders import Entry
from launch.images.readers import COLOURS
from launch.text import printable
from singan import files
from singan.errors import UserError
from singan.storage.run import Run
from singan.storage.workdir import ImageRecord
from singan.value_map import volume_map

FOLD = "patches.json"  # beside a fold in PanNuke's layout: which sample each patch is


@dataclasses.dataclass(frozen=True, eq=False)
class SampleSet:
    """What a folder holds of a run's samples.

    Attributes:
      samples: [n, H, W, c] in [-1, 1] by image, up to MOST_SAMPLES each.
      channels: the numbers of the run's channels that these are.
      total: samples in the folder.
      owners: ids of all images that there are samples of.
    """

    samples: dict[str, np.ndarray]
    channels: list[int]
    total: int
    owners: list[str]


def sets_in(folder: Path) -> dict[Path, int | None]:
    """Returns the folders of sets in a folder with the start scale of each: start_00, start_01, ..., or itself."""
    if not folder.is_dir():
        raise UserError(f"--samples={printable(str(folder))} is no folder: give the one that launch.sample wrote")
    scale_folders = sorted(path for path in folder.iterdir() if path.is_dir() and _scale_of(path) is not None)
    return {path: _scale_of(path) for path in scale_folders or [folder]}


def read_samples(folder: Path, run: Run) -> SampleSet:
    """Returns the samples of a folder, each of the image whose id its name begins with.

    Raises:
      UserError: it holds none of this run's, or what it holds does not go with the run.
    """
    words = list(dict.fromkeys((*run.images[0].channels, "rgb")))
    entries = [
        entry
        for entry in image_folders.list_entries(str(folder), "samples", words)
        if Path(entry.source).suffix != ".json"
    ]
    owners = _owners(folder, entries, run)
    wanted = measured_ids(sorted({owner for owner in owners if owner}))
    if not wanted:
        raise UserError(
            f"--samples={printable(str(folder))} holds no sample of {run.workdir.path}: names begin with an image's id"
        )
    parts: dict[str, list[np.ndarray]] = {}
    channels: list[int] = []
    for entry, owner in zip(entries, owners, strict=True):
        if owner in wanted and len(parts.setdefault(owner, [])) < MAX_SAMPLES:
            pixels, channels = _read(entry, run.record(owner))
            parts[owner].append(pixels)
    return SampleSet(
        {name: np.stack(drawn) for name, drawn in parts.items()},
        channels,
        sum(map(bool, owners)),
        sorted({owner for owner in owners if owner}),
    )


def _scale_of(path: Path) -> int | None:
    match = image_folders.START_FOLDER.match(path.name)
    return int(match[1]) if match else None


def _owners(folder: Path, entries: Sequence[Entry], run: Run) -> list[str]:
    """Returns the image that each entry is a sample of, '' for none."""
    if (folder / FOLD).is_file():
        rows = files.read_json(folder / FOLD)
        return [str(rows[entry.index]["image"]) if entry.index is not None else "" for entry in entries]
    by_length = sorted(run.ids, key=len, reverse=True)
    names = [Path(entry.source).name for entry in entries]
    return [next((i for i in by_length if re.match(rf"{re.escape(i)}(_\d{{4,}}|\.)", name)), "") for name in names]


def _read(entry: Entry, record: ImageRecord) -> tuple[np.ndarray, list[int]]:
    """Returns a sample [H, W, c] in [-1, 1] with axes as stored, and which of the record's channels it has."""
    image = image_folders.read(entry, upright=False)
    generated = record.channels[: record.generated]
    names = image.channels or (COLOURS if len(image.planes) == 3 < len(generated) else generated)
    if len(names) != len(image.planes):
        raise UserError(f"{entry.source} has {len(image.planes)} channels, {record.id} has {len(record.channels)}")
    if len(record.channels) == 1 == len(image.planes):
        names = record.channels  # a picture calls it grey
    by_name = {name.casefold(): number for number, name in enumerate(record.channels)}
    kept = [
        (by_name[name.casefold()], plane)
        for name, plane in zip(names, image.planes, strict=True)
        if name.casefold() in by_name
    ]
    if not kept:
        raise UserError(f"{entry.source} has {', '.join(names)}, {record.id} has {', '.join(record.channels)}")
    kept.sort(key=lambda pair: pair[0])
    numbers = [number for number, _ in kept]
    pixels = np.stack([plane for _, plane in kept], axis=-1)
    part = record.value_map.of_channels(numbers)
    if pixels.dtype == np.uint8 and entry.index is None and entry.paths[0].suffix == ".png":
        mapped = volume_map([(0.0, 255.0)] * len(numbers), np.uint8, "fixed").apply(pixels)
        return _as_stored(part.from_shown(mapped), record), numbers
    return part.apply(pixels), numbers


def _as_stored(image: np.ndarray, record: ImageRecord) -> np.ndarray:
    """Returns a picture, which is upright, with its axes as the source stores them."""
    turn = record.details.get("upright")
    if not turn:
        return image
    for axis, flipped in zip((0, 1), turn["flip"], strict=True):
        if flipped:
            image = np.flip(image, axis)
    stored = np.swapaxes(image, 0, 1) if turn["transpose"] else image
    assert geometry.upright(stored, record.details).shape == image.shape
    return np.ascontiguousarray(stored)
