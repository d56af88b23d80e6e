"""Slices that tumours are taken from: records of a prepared BraTS folder, or npz files of segmented slices."""

import dataclasses
import functools
import glob
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from launch.images import mask_channels, readers, tfds_records
from launch.images.brain import brain_mask, fluid_mask
from launch.images.modality_names import modality
from launch.images.record_images import MODALITIES
from launch.text import printable
from singan.config import DataConfig
from singan.errors import UserError

TRIM = 2.0  # pixels of the brain's border that no tumour is taken from
RIM = 6.0  # pixels from it within which nothing dark is
OUTLINE = 3.0  # pixels within a tumour's contour where nothing dark is


@dataclasses.dataclass(frozen=True, eq=False)
class Donor:
    """A slice with a tumour.

    Attributes:
      channels: modalities by their usual names (`modality`).
      image: float32 [H, W, C] in the source's values, 0 outside the brain.
      labels: uint8 [H, W] in the source's numbering, 0 where there is no tumour.
      details: what launch.images.record_images keeps of a BraTS slice; {} for files.
    """

    id: str
    patient: str
    channels: tuple[str, ...]
    image: np.ndarray
    labels: np.ndarray
    details: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A slice that a tumour may be taken from, and what reads it."""

    id: str
    patient: str
    read: Callable[[], Donor]


def usable_parts(donor: Donor) -> tuple[np.ndarray, np.ndarray]:
    """Returns what may be taken of a donor slice, bool [H, W] each: of its tumour, and of the brain around that.

    Tumour off the brain's border, which is part background, and without what is dark in FLAIR near that or near its own
    contour, and a pixel around that: an outline of fluid is no part of it. Brain likewise, off narrow sulci too.
    """
    outside, tumour = (donor.image == 0).all(-1), donor.labels > 0
    brain = brain_mask(outside, 0)
    flair = [name if name == "flair" else "" for name in donor.channels]  # a tumour is dark in T1 itself
    dark = fluid_mask(donor.image, flair, brain, tumour, specks=True)
    deep = brain_mask(outside, RIM) & (np.asarray(ndimage.distance_transform_edt(tumour)) > OUTLINE)
    take = brain_mask(outside, TRIM) & (deep | np.logical_not(ndimage.binary_dilation(dark & ~deep)))
    fluid = fluid_mask(donor.image, donor.channels, brain, tumour, specks=True) & ~tumour
    return take, take & np.logical_not(ndimage.binary_dilation(fluid))


def patient_of(slice_id: str, details: Mapping[str, Any]) -> str:
    """Returns whose slice it is: as its record says, else its name without the slice's number, PATIENT_z080."""
    return str(details.get("patient") or re.sub(r"_z\d+$", "", slice_id))


def spacing_of(details: Mapping[str, Any]) -> tuple[float, float]:
    """Returns mm between rows and columns; 1 mm, which all of BraTS has, where that is not known."""
    first, second = details.get("spacing", (1.0, 1.0))[:2]
    return (float(first), float(second)) if first > 0 and second > 0 else (1.0, 1.0)


def find_candidates(given: Sequence[str], channels: Sequence[str], min_voxels: int) -> list[Candidate]:
    """Returns the slices with a tumour of at least `min_voxels` pixels, in a fixed order, each id once.

    Args:
      given: data_dirs of `python -m datasets.build brats`, npz files, folders of them, or globs.
      channels: of the run. Records of a data_dir must have all that are modalities; files need only one.

    Raises:
      UserError: something of `given` cannot be read, or there is no such tumour at all.
    """
    wanted = [name for name in dict.fromkeys(map(modality, channels)) if name in MODALITIES]
    candidates: dict[str, Candidate] = {}
    for text in given:
        path = Path(text).expanduser()
        if (path / "brats").is_dir():
            new = _of_data_dir(path, wanted, min_voxels)
        else:
            new = _of_files(text, path, channels, min_voxels)
        for candidate in new:
            candidates.setdefault(candidate.id, candidate)
    if not candidates:
        raise UserError(f"--tumours: no slice shows a tumour of at least {min_voxels} pixels: --min_tumour=N asks less")
    return list(candidates.values())


def _of_data_dir(path: Path, wanted: Sequence[str], min_voxels: int) -> list[Candidate]:
    if not wanted:
        raise UserError(f"--tumours={printable(str(path))} has {', '.join(MODALITIES)}, of which the run has none")
    data = DataConfig(
        source="tfds:brats/slices", path=str(path), channels=(*wanted, "seg"), has_tumour="yes", value_range="volume"
    )
    prepared = tfds_records.open_prepared(data)
    rows = prepared.index
    return [
        Candidate(
            record.id,
            str(rows[record.split]["patient"][record.position]),
            functools.partial(_read_record, prepared, record, data),
        )
        for record in tfds_records.choose(prepared, data)
        if rows[record.split]["tumour_voxels"][record.position] >= min_voxels
    ]


def _read_record(prepared: tfds_records.Prepared, record: tfds_records.Record, data: DataConfig) -> Donor:
    (record_image,) = tfds_records.read(prepared, [record], data)
    seg = record_image.details["masks"]["seg"]
    labels = mask_channels.decode_one_hot(record_image.pixels[..., seg["channels"]])
    stored = np.array(seg["stored_values"], np.uint8)[labels]
    count = min(seg["channels"])  # the modalities come first
    outside = (
        record_image.pixels == record_image.value_map.padding
    )  # of standardised scans 0 comes back as 0 but for rounding
    image = np.where(outside, 0, record_image.value_map.invert(record_image.pixels, as_stored=True))[..., :count]
    patient = patient_of(record_image.id, record_image.details)
    return Donor(
        record_image.id, patient, record_image.channels[:count], image.astype(np.float32), stored, record_image.details
    )


def _of_files(text: str, path: Path, channels: Sequence[str], min_voxels: int) -> list[Candidate]:
    name = printable(text)
    if path.is_dir():
        paths = sorted(path.glob("*.npz"))
    else:
        paths = [path] if path.is_file() else [Path(match) for match in sorted(glob.glob(str(path)))]
    if not paths or any(each.suffix.lower() != ".npz" for each in paths):
        raise UserError(
            f"--tumours={name} is neither a DATA_DIR of python -m datasets.build brats, nor npz files or a folder of"
            " them"
        )
    candidates = []
    for each in paths:
        donor = _read_file(each)
        if not set(donor.channels) & set(map(modality, channels)):
            raise UserError(
                f"{printable(str(each))} holds {', '.join(donor.channels)}, the run {', '.join(channels)}: none in"
                " common"
            )
        if (donor.labels > 0).sum() >= min_voxels:
            candidates.append(Candidate(donor.id, donor.patient, functools.partial(_read_file, each)))
    return candidates


def _read_file(path: Path) -> Donor:
    name = printable(str(path))
    picture = readers.read(path, name)
    if picture.channels is None:
        raise UserError(f"{name} does not name its channels: give it an array 'channels', such as t1, t1ce, t2, flair")
    names = tuple(map(modality, picture.channels))
    with np.load(path, allow_pickle=False) as arrays:
        labels = arrays["seg"] if "seg" in arrays.files else None
        patient = str(arrays["patient"]) if "patient" in arrays.files else ""
    size = picture.pixels.shape[:2]
    if labels is None or labels.shape != size or len(set(names)) != picture.pixels.shape[-1]:
        raise UserError(
            f"{name} is no slice with a tumour: it must hold image [channels, H, W], channels (a name each) and seg"
            " [H, W] of labels"
        )
    if labels.dtype.kind not in "bui" or labels.max() > 255 or labels.min() < 0:
        raise UserError(f"{name}: its seg must hold labels from 0 to 255 as integers")
    details = {"patient": patient} if patient else {}
    return Donor(
        path.stem, patient_of(path.stem, details), names, picture.pixels.astype(np.float32), labels.astype(np.uint8), {}
    )
