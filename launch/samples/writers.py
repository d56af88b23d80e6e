"""Samples as files: pictures, arrays, NIfTI slices that lie where the source's slice lay, and folds of PanNuke.

Samples arrive in batches and leave as files at once, so that thousands of them take no more memory than a batch.
NIfTI and PanNuke are on the source's own grid: where the finest scale of a run is smaller than its images, samples are
resized to the images' size, so that they can be laid over the source. Pictures and arrays keep the size the run makes.
No file holds a time or a path: equal samples give equal files.
"""

import contextlib
import gzip
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from launch.images import geometry, mask_channels
from launch.images.readers import COLOURS
from launch.samples import pictures
from launch.samples.npy import NpyRows
from singan import files
from singan.errors import UserError
from singan.model.resizing import resize_to
from singan.storage.workdir import ImageRecord

FORMATS: Mapping[str, str] = {
    "png": "pictures and a grid, slices upright",
    "npy": "the source's values, axes as stored",
    "nifti": "slices where the source lay, as .nii.gz",
    "pannuke": "a fold in PanNuke's layout",
}
SOURCE_GRID = ("nifti", "pannuke")  # formats that lie on the source's own grid
PANNUKE_CLASSES = 5  # and a sixth channel for the background
FOLD = 1
GRID_SAMPLES = 8  # columns of the overview picture
NIFTI_TYPES = ("uint8", "int16", "int32", "float32", "int8", "uint16", "uint32")  # what readers of NIfTI expect
THREADS = 4  # that write files: compressing them takes longer than drawing does on a fast device


class SampleWriter(Protocol):
    """Takes samples as they are drawn; what is written is whole when the context is left without an error."""

    def __enter__(self) -> "SampleWriter": ...

    def __exit__(self, *error: Any) -> None: ...

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray) -> None:
        """Writes samples first, first + 1, ... of some images: [n, k, H, W, C] in [-1, 1]."""


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


class PictureWriter:
    """A PNG for each sample and each of its channel groups, and for each image a grid of its first samples."""

    def __init__(self, folder: Path, records: Sequence[ImageRecord], num_samples: int):
        self._folder, self._records = folder, {record.id: record for record in records}
        self._shown = min(num_samples, GRID_SAMPLES)
        self._grids: dict[str, list[np.ndarray]] = {}
        self._pool = ThreadPoolExecutor(THREADS)

    def __enter__(self) -> "PictureWriter":
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.shutdown()

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray) -> None:
        jobs = [
            (self._records[name], first + index, _picture(self._records[name], sample))
            for name, drawn in zip(ids, pixels, strict=True)
            for index, sample in enumerate(drawn)
        ]
        list(self._pool.map(lambda job: self._write(*job), jobs))
        for record, number, sample in jobs:
            if number < self._shown:
                shown = self._grids.setdefault(record.id, [])
                shown.append(sample.copy())  # a view would keep the whole batch
                if len(shown) == self._shown:
                    self._write_grid(record, self._grids.pop(record.id))

    def _write(self, record: ImageRecord, number: int, sample: np.ndarray) -> None:
        for suffix, pixels in pictures.of_channels(sample, record.channels):
            files.write_bytes(self._folder / f"{record.id}_{number:04d}{suffix}.png", pictures.encode_png(pixels))

    def _write_grid(self, record: ImageRecord, shown: Sequence[np.ndarray]) -> None:
        rows = pictures.image_rows(record.id, shown, record.channels)
        picture = pictures.grid(rows, [f"sample {i}" for i in range(len(shown))])
        files.write_bytes(self._folder / f"{record.id}_grid.png", pictures.encode_png(picture))


def _picture(record: ImageRecord, sample: np.ndarray) -> np.ndarray:
    return geometry.upright(record.value_map.shown(sample), record.details)


class NpyWriter:
    """FOLDER/<id>.npy, float32 [num_samples, H, W, C] in the source's values, filled row by row."""

    def __init__(self, folder: Path, records: Sequence[ImageRecord], num_samples: int):
        self._folder, self._records, self._count = folder, {record.id: record for record in records}, num_samples
        self._open: dict[str, NpyRows] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "NpyWriter":
        self._stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray) -> None:
        for name, drawn in zip(ids, pixels, strict=True):
            if name not in self._open:
                path = self._folder / f"{name}.npy"
                rows = NpyRows(path, (self._count, *drawn.shape[1:]), np.float32)
                self._open[name] = self._stack.enter_context(rows)
            self._open[name].write(first, self._records[name].value_map.invert(drawn))
            if first + len(drawn) == self._count:
                self._open.pop(name).finish()


class NiftiWriter:
    """FOLDER/<id>_<number>_<channel>.nii.gz: [x, y, 1] with the source slice's affine, in its value range and type.

    Labels are one file, _seg, numbered as in the source's own segmentations.
    """

    def __init__(self, folder: Path, records: Sequence[ImageRecord], start_scale: int):
        self._folder, self._records, self._start = folder, {record.id: record for record in records}, start_scale
        self._pool = ThreadPoolExecutor(THREADS)

    def __enter__(self) -> "NiftiWriter":
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.shutdown()

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray) -> None:
        jobs = [
            (self._records[name], first + index, sample)
            for name, drawn in zip(ids, pixels, strict=True)
            for index, sample in enumerate(drawn)
        ]
        list(self._pool.map(lambda job: self._write(*job), jobs))

    def _write(self, record: ImageRecord, number: int, sample: np.ndarray) -> None:
        image = resize_to(sample, record.shape[:2])
        resized = "" if image.shape == sample.shape else f", resized from {sample.shape[0]}x{sample.shape[1]}"
        note = f"SinGAN sample {number} from scale {self._start}{resized}"
        for name, data in nifti_files(record, image, note).items():
            files.write_bytes(self._folder / f"{record.id}_{number:04d}_{name}.nii.gz", data)


def nifti_files(record: ImageRecord, image: np.ndarray, note: str) -> dict[str, bytes]:
    """Returns the NIfTI files of an image on its source's grid: one for each measured channel and each label map.

    Args:
      image: [H, W, C] in [-1, 1].
      note: what the header's description says, up to 79 characters.
    """
    masks = record.details.get("masks", {})
    drawn = {channel for mask in masks.values() for channel in mask["channels"]}
    values = record.value_map.invert(image, as_stored=True)
    planes = {record.channels[c]: values[..., c] for c in range(len(record.channels)) if c not in drawn}
    for name, mask in masks.items():
        labels = mask_channels.decode_one_hot(image[..., mask["channels"]])
        planes[name] = np.array(mask["stored_values"], np.uint8)[labels]
    affine, forms = np.array(record.details["affine"]), record.details.get("forms")
    tables = {name: label_comment(record.details, name) for name in masks}
    return {
        name: nifti_bytes(plane, affine, note, forms, comment=tables.get(name, "")) for name, plane in planes.items()
    }


def label_comment(details: Mapping[str, Any], mask: str = "seg") -> str:
    """Returns what the labels of a mask mean, as datasets.build reads it from a header's comment; '' if unknown."""
    table = details.get("masks", {}).get(mask, {})
    if "stored_values" not in table or "label_table" not in details:
        return ""
    pairs = zip(table["stored_values"][1:], table["names"], strict=True)
    meaning = {str(value): name for value, name in pairs if value > 0}
    return json.dumps({"label_table": details["label_table"], "labels": meaning})


class PannukeWriter:
    """`FOLDER/Fold 1/...` in the layout of PanNuke's download.

    images.npy float64 [n k, h, w, 3] of whole numbers, masks.npy float64 [n k, h, w, 6] with a nucleus' number in its
    class' channel and the background last, types.npy; `FOLDER/patches.json` says for each patch which sample it is and
    counts its nuclei. `python -m datasets.build pannuke --manual_dir=FOLDER` reads them back.
    """

    def __init__(self, folder: Path, records: Sequence[ImageRecord], num_samples: int):
        self._folder, self._records, self._count = folder, list(records), num_samples
        self._places = {record.id: index * num_samples for index, record in enumerate(records)}
        self._rows: list[dict[str, Any]] = [{} for _ in range(len(records) * num_samples)]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "PannukeWriter":
        fold = self._folder / f"Fold {FOLD}"
        self._images_folder = files.make_directory(fold / "images" / f"fold{FOLD}")
        masks_folder = files.make_directory(fold / "masks" / f"fold{FOLD}")
        shape = (len(self._rows), *self._records[0].shape[:2])
        self._stack.__enter__()
        self._images = self._stack.enter_context(
            NpyRows(self._images_folder / "images.npy", (*shape, len(COLOURS)), np.float64)
        )
        self._masks = self._stack.enter_context(
            NpyRows(masks_folder / "masks.npy", (*shape, PANNUKE_CLASSES + 1), np.float64)
        )
        return self

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray) -> None:
        by_id = {record.id: record for record in self._records}
        for name, drawn in zip(ids, pixels, strict=True):
            record = by_id[name]
            colours = [record.channels.index(colour) for colour in COLOURS]
            for number, sample in enumerate(drawn, first):
                place = self._places[name] + number
                image = resize_to(sample, record.shape[:2])
                nuclei, classes = mask_channels.decode_nuclei(image, record.details["masks"])
                self._images.write(place, record.value_map.invert(image, as_stored=True)[..., colours][None])
                self._masks.write(place, pannuke_masks(nuclei, classes)[None])
                self._rows[place] = {
                    "image": record.id,
                    "sample": number,
                    "tissue": record.details["tissue"],
                    "num_nuclei": len(classes),
                    "class_counts": np.bincount(classes, minlength=PANNUKE_CLASSES + 1)[1:],
                }

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._images.finish()
            self._masks.finish()
        self._stack.__exit__(*error)
        if error[0] is None:
            files.write_npy(self._images_folder / "types.npy", np.array([row["tissue"] for row in self._rows]))
            files.write_json(self._folder / "patches.json", self._rows)


def pannuke_masks(nuclei: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns float64 [h, w, 6] as in masks.npy, from instances [h, w] 0..n and the class 1..5 of each."""
    kinds = np.concatenate([[PANNUKE_CLASSES + 1], classes]).astype(int)[nuclei]
    shown = kinds[..., None] == np.arange(1, PANNUKE_CLASSES + 2)
    return np.where(shown, np.maximum(nuclei, 1)[..., None], 0).astype(np.float64)


def nifti_bytes(
    plane: np.ndarray,
    affine: np.ndarray,
    description: str,
    forms: Mapping[str, Any] | None = None,
    *,
    comment: str = "",
) -> bytes:
    """Returns the gzipped NIfTI file of a plane [H, W] as [H, W, 1].

    Args:
      affine: [4, 4], voxel to world in mm.
      description: up to 79 characters.
      forms: which of 'qform' and 'sform' say so, for each its {'code', 'affine'}, as the source has them; None: both,
        as scanner coordinates.
      comment: goes into an extension of the header that holds plain text.
    """
    import nibabel  # here and not above: most samples are no NIfTI files
    from nibabel.nifti1 import Nifti1Extension

    if plane.dtype.name not in NIFTI_TYPES:
        plane = plane.astype(np.uint8 if plane.dtype.kind == "b" else np.float32)
    both = {form: {"code": 1, "affine": affine} for form in ("qform", "sform")}
    said = both if forms is None else forms
    image = nibabel.Nifti1Image(plane[..., None], affine)
    for form in both:
        found = said.get(form, {"code": 0, "affine": None})
        getattr(image, f"set_{form}")(found["affine"], int(found["code"]))
    header: Any = image.header
    header.set_xyzt_units("mm")
    header["descrip"] = description.encode()[:79]
    if comment:
        header.extensions.append(Nifti1Extension("comment", comment.encode()))
    return gzip.compress(image.to_bytes(), mtime=0)  # without the time, equal samples are equal files
