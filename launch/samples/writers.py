"""Samples as files: pictures, arrays, NIfTI slices that lie where the source's slice lay, PanNuke folds, TFDS.

Samples arrive in batches and leave as files at once, so that thousands of them take no more memory than a batch.
NIfTI, PanNuke, COCO and nnU-Net are on the source's own grid: where the finest scale of a run is smaller than its
images, samples are resized to the images' size, so that they can be laid over the source. Pictures and arrays keep
the size the run makes.
No file holds a time or a path: equal samples give equal files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from launch.images.readers import COLOURS
from launch.samples.nifti import NiftiWriter
from launch.samples.npy import NpyWriter
from launch.samples.pannuke import PANNUKE_CLASSES, PannukeWriter
from launch.samples.png import PictureWriter
from launch.samples.segmentation_sets import CocoWriter, NnunetWriter
from launch.samples.shown_layout import class_names, has_objects
from launch.samples.tfds import TfdsWriter
from singan.errors import UserError
from singan.model.layouts import Layout
from singan.storage.workdir import ImageRecord

FORMATS: Mapping[str, str] = {
    "png": "pictures and a grid, slices upright",
    "npy": "the source's values, axes as stored",
    "nifti": "slices where the source lay, as .nii.gz",
    "pannuke": "a fold in PanNuke's layout",
    "coco": "pictures and annotations.json",
    "nnunet": "a raw data set of nnU-Net",
    "tfds": "a TensorFlow data set, in the source's values",
}
SOURCE_GRID = ("nifti", "pannuke", "coco", "nnunet")  # formats that lie on the source's own grid


class SampleWriter(Protocol):
    """Takes samples as they are drawn; what is written is whole when the context is left without an error."""

    def __enter__(self) -> "SampleWriter": ...

    def __exit__(self, *error: Any) -> None: ...

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray, layouts: Sequence[Sequence[Layout]] = ()) -> None:
        """Writes samples first, first + 1, ... of some images: [n, k, H, W, C] in [-1, 1].

        Args:
          layouts: of a conditional run, what each sample was given, on the source's grid.
        """


def open_writer(
    form: str, folder: Path, records: Sequence[ImageRecord], num_samples: int, start_scale: int
) -> SampleWriter:
    """Returns the writer of samples into a folder that exists.

    Args:
      form: one of FORMATS that suits the records (`check_format`).
      records: of the images that samples will come of.
      num_samples: of each image.
      start_scale: at which their noise began; noted where the format has room for it.

    Its methods raise UserError where a file cannot be written.
    """
    if form == "pannuke":
        return PannukeWriter(folder, records, num_samples)
    if form == "coco":
        return CocoWriter(folder, records)
    if form == "nnunet":
        return NnunetWriter(folder, records)
    if form == "tfds":
        return TfdsWriter(folder, records, num_samples, start_scale)
    if form == "npy":
        return NpyWriter(folder, records, num_samples)
    if form == "nifti":
        return NiftiWriter(folder, records, start_scale)
    return PictureWriter(folder, records, num_samples)


def check_format(form: str, records: Sequence[ImageRecord], size: tuple[float, float] = (1.0, 1.0)) -> None:
    """Raises a UserError that names the first image whose samples cannot be written as 'nifti' or 'pannuke'."""
    if form in SOURCE_GRID and size != (1.0, 1.0):
        raise UserError(f"--format={form} holds the source's own grid, which --size leaves: use png or npy")
    if form == "pannuke" and len(sizes := sorted({record.shape[:2] for record in records})) > 1:
        raise UserError(f"--format=pannuke: a fold has one size, these images have {sizes}: choose some with --images")
    for record in records:
        if form in ("coco", "nnunet") and not has_objects(record):
            raise UserError(
                f"--format={form} needs masks, {record.id} has {', '.join(record.channels)}: train with masks as"
                " channels, or with config.data.condition"
            )
        if form == "tfds" and record.generated < len(record.channels):
            raise UserError("--format=tfds has no place for the masks of pairs: use npy, pannuke, coco or nnunet")
        if form == "pannuke" and len(class_names(record)) > PANNUKE_CLASSES:
            raise UserError(f"--format=pannuke holds {PANNUKE_CLASSES} classes, {record.id} has more: use coco")
        if form == "nifti" and "affine" not in record.details:
            raise UserError(f"--format=nifti needs images from NIfTI or BraTS, {record.id} is none: use png or npy")
        if form == "nifti" and record.details.get("forms", True) == {}:
            raise UserError(
                f"--format=nifti: the source of {record.id} does not say where it lies (qform and sform codes are 0):"
                " set them and train again, or use png or npy"
            )
        if form == "pannuke" and not (
            set(COLOURS) <= set(record.channels)
            and {"instance", "binary", "class"} & set(record.details.get("masks", {}))
        ):
            raise UserError(
                f"--format=pannuke needs colour and nuclei, {record.id} has {', '.join(record.channels)}: train on"
                " tfds:pannuke with --config.data.channels=rgb,instance, or use png or npy"
            )
