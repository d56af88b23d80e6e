"""What is to be translated: slices beside a training image, images of others, files; and what is unknown of them."""

import dataclasses
import glob
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from experiments.modality_translation.translation import subject
from launch.images import readers, tfds_records
from launch.images.channels import channel_groups
from launch.images.found_images import TFDS
from launch.images.image_ids import unique_ids
from launch.images.mask_channels import kinds_of_channels
from launch.images.modality_names import modality
from launch.manipulate import inputs
from launch.text import printable
from singan import value_map
from singan.config import DataConfig, nearest
from singan.errors import UserError
from singan.source_image import SourceImage
from singan.storage.run import Run
from singan.storage.run_record import record_of
from singan.storage.workdir import ImageRecord

MATCHES = {
    "auto": "moments, but not for slices of the training image's own patient",
    "moments": "every measured channel gets the mean and the deviation of the training image's, over the subject",
    "none": "values are taken as they are",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One image that the pyramid of a training image is to complete.

    Attributes:
      image_id: of the pyramid.
      kind: 'neighbour', 'other' or 'file'.
      pixels: float32 [H, W, C] in [-1, 1]; what it does not hold is NaN.
      present: which channels it holds, and what is made of them can be compared with.
      record: what results are written back by.
    """

    image_id: str
    name: str
    kind: str
    pixels: np.ndarray
    present: tuple[bool, ...]
    record: ImageRecord


def neighbours(run: Run, image_id: str, data_dir: str, offsets: Sequence[int]) -> list[Case]:
    """Returns the slices of the training image's own patient that lie `offsets` above and below it."""
    details = run.record(image_id).details
    if "slice_index" not in details:
        return []
    prepared = tfds_records.open_prepared(_selection(run, data_dir))
    wanted = {details["slice_index"] + sign * offset: sign * offset for offset in offsets for sign in (-1, 1)}
    channels = {
        row["id"]: wanted[row["slice_index"]]
        for row in _index(prepared)
        if row["patient"] == details["patient"] and row["slice_index"] in wanted
    }
    images = _read(run, data_dir, prepared, list(channels))
    images.sort(key=lambda image: (abs(channels[image.id]), channels[image.id]))
    return [_of_record(image_id, image, "neighbour") for image in images]


def others(run: Run, image_id: str, data_dir: str, count: int) -> list[Case]:
    """Returns up to `count` images of others: of each patient the slice nearest in height, or patches."""
    record = run.record(image_id)
    prepared = tfds_records.open_prepared(_selection(run, data_dir))
    rows = [row for row in _index(prepared) if row["id"] != image_id]
    if "slice_index" in record.details:
        height: Callable[[dict], int] = lambda row: abs(row["slice_index"] - record.details["slice_index"])  # noqa: E731
        best: dict[str, dict] = {}
        for row in sorted(rows, key=lambda row: (height(row), row["id"])):
            if row["patient"] != record.details["patient"]:
                best.setdefault(row["patient"], row)
        chosen = sorted(best.values(), key=lambda row: row["patient"])
    else:
        tissue = record.details.get("tissue")
        chosen = sorted(rows, key=lambda row: (row["tissue"] != tissue, row["id"]))
    images = _read(run, data_dir, prepared, [row["id"] for row in chosen[:count]])
    return [_of_record(image_id, image, "other") for image in images]


def files(run: Run, image_id: str, paths: Sequence[str], unknown: Sequence[Sequence[int]]) -> list[Case]:
    """Returns image files: with all channels, or with those alone that are known where one thing is unknown.

    Values of the type that the run was trained on are taken by the run's map, others by the limits of their own type.

    Args:
      paths: files, or globs.
      unknown: numbers of channels that a file may lack.
    """
    record = run.record(image_id)
    inputs = [
        match for path in paths for match in ([path] if Path(path).is_file() else sorted(glob.glob(path)) or [path])
    ]
    cases = []
    for path, name in zip(inputs, unique_ids([Path(path).as_posix().lstrip("./") for path in inputs]), strict=True):
        numbers = _channels_of(path, record, unknown)
        pixels = _pixels(path, _part(record, numbers))
        whole = np.full((*pixels.shape[:2], len(record.channels)), np.nan, np.float32)
        whole[..., numbers] = pixels
        present = tuple(c in numbers for c in range(len(record.channels)))
        about = dataclasses.replace(
            record, id=name, source=printable(path), shape=whole.shape, details=_without_place(record)
        )
        cases.append(Case(image_id, name, "file", whole, present, about))
    return cases


def matched(run: Run, case: Case, rule: str) -> Case:
    """Returns a case with its measured channels brought to the training image's brightness and contrast: see MATCHES.

    Intensities of MRI have no unit, and stains differ: what a pyramid learnt holds for those of its own image. Masks
    are left as they are, and so is what is background.
    """
    record = run.record(case.image_id)
    same = case.record.details.get("patient", "") == record.details.get("patient") != ""
    if rule == "none" or (rule == "auto" and same and case.kind != "file"):
        return case
    empty = record.value_map.background_levels
    measured = [c for c in measured_channels(record) if case.present[c]]
    training, pixels = run.pixels(case.image_id), case.pixels.copy()
    some = [empty[c] if c in measured else None for c in range(len(empty))]
    there, here = subject(training, some), subject(pixels, some)
    for c in measured if there.any() and here.any() else []:
        wanted, values = training[there][:, c].astype(np.float64), pixels[here][:, c].astype(np.float64)
        gain = wanted.std() / values.std() if values.std() > 0 else 0.0
        pixels[here, c] = np.clip((values - values.mean()) * gain + wanted.mean(), -1, 1)
    return dataclasses.replace(case, pixels=pixels)


def unknown_channels(record: ImageRecord, wanted: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns what is to be unknown, each in its turn, by name: numbers of channels.

    Args:
      wanted: names of channels, of groups of them ('rgb', 'class'), or of several at once, joined by '+'. Where none is
        wanted: each mask; without masks each channel, colours together.

    Raises:
      UserError: a name is not known, or nothing would be left that is known.
    """
    groups = {name: tuple(numbers) for name, numbers in channel_groups(record.channels).items()}
    masks = {name: tuple(mask["channels"]) for name, mask in record.details.get("masks", {}).items()}
    known = {**{name: (c,) for c, name in enumerate(record.channels)}, **groups, **masks}
    unknown = {}
    for text in wanted or list(masks or groups):
        numbers: list[int] = []
        for name in text.split("+"):
            if name not in known:
                raise UserError(
                    f"--unknown: {name!r} is no channel of this run{nearest(name, known)}: it has {', '.join(known)}"
                )
            numbers += known[name]
        if len(set(numbers)) == len(record.channels):
            raise UserError(f"--unknown={text} leaves no channel that is known: name fewer")
        unknown[text] = tuple(sorted(set(numbers)))
    return unknown


def measured_channels(record: ImageRecord) -> list[int]:
    """Returns the numbers of the channels that are no masks."""
    drawn = mask_channels_of(record)
    return [c for c in range(len(record.channels)) if c not in drawn]


def mask_channels_of(record: ImageRecord) -> dict[int, str]:
    """Returns the kinds of the channels that are masks, by number: as recorded, else as their names say."""
    recorded = kinds_of_channels(record.details.get("masks", {}))
    by_name = {"instance": "instance", "mask": "binary", "binary": "binary", "seg": "binary"}
    return recorded or {c: by_name[name] for c, name in enumerate(record.channels) if name in by_name}


def _selection(run: Run, data_dir: str, ids: Sequence[str] = ()) -> DataConfig:
    data = run.config.data
    if not data.source.startswith(TFDS):
        raise UserError("--data finds images for runs that were trained on a TFDS source: give this one --inputs=FILES")
    kept = {key: getattr(data, key) for key in ("source", "channels", "value_range", "background")}
    return DataConfig(path=data_dir, ids=tuple(ids), **kept)


def _index(prepared: tfds_records.Prepared) -> list[dict]:
    return [
        dict(zip(columns, values, strict=True))
        for columns in prepared.index.values()
        for values in zip(*columns.values(), strict=True)
    ]


def _read(run: Run, data_dir: str, prepared: tfds_records.Prepared, ids: Sequence[str]) -> list[SourceImage]:
    if not ids:
        return []
    data = _selection(run, data_dir, ids)
    return tfds_records.read(prepared, tfds_records.choose(prepared, data), data)


def _of_record(image_id: str, image: SourceImage, kind: str) -> Case:
    return Case(image_id, image.id, kind, image.pixels, (True,) * len(image.channels), record_of(image))


def _channels_of(path: str, record: ImageRecord, unknown: Sequence[Sequence[int]]) -> list[int]:
    """Returns which channels of the run a file holds, in the file's order."""
    if not Path(path).is_file() or not readers.is_image(Path(path)):
        raise UserError(f"{printable(path)} is no image file that is read here: {', '.join(sorted(readers.SUFFIXES))}")
    picture = readers.read(Path(path), printable(path))
    usual = [modality(name) for name in record.channels]
    count = picture.pixels.shape[-1]
    if (
        picture.channels is not None
        and (named := [modality(name) for name in picture.channels])
        and set(named) & set(usual)
    ):
        if missing := [name for name in named if name not in usual]:
            raise UserError(f"{printable(path)} holds {', '.join(missing)}, which this run does not know: take it out")
        return [usual.index(name) for name in named]
    if count == len(usual):
        return list(range(count))
    rest = {tuple(c for c in range(len(usual)) if c not in numbers) for numbers in unknown}
    fitting = [numbers for numbers in rest if len(numbers) == count]
    if len(fitting) != 1:
        raise UserError(
            f"{printable(path)} has {count} channels without names, the run {len(usual)}: give all, or an npz that"
            f" names them ({', '.join(record.channels)})"
        )
    return list(fitting[0])


def _part(record: ImageRecord, numbers: Sequence[int]) -> ImageRecord:
    names, part = tuple(record.channels[c] for c in numbers), record.value_map.of_channels(numbers)
    return dataclasses.replace(record, channels=names, value_map=part, shape=(*record.shape[:2], len(names)))


def _pixels(path: str, record: ImageRecord) -> np.ndarray:
    values = readers.read(Path(path), printable(path)).pixels
    if values.dtype == np.dtype(record.value_map.dtype):
        return inputs.read_pixels(path, record)
    return value_map.fit(values, "auto", "none").apply(values)


def _without_place(record: ImageRecord) -> dict:
    """What is known of the training image, but for where it lay and whose it was."""
    gone = ("affine", "spacing", "patient", "slice_index")
    return {key: value for key, value in record.details.items() if key not in gone}
