"""Samples as files: pictures, arrays, NIfTI slices that lie where the source's slice lay, and folds of PanNuke.

NIfTI and PanNuke are on the source's own grid: where the finest scale of a run is smaller than its images, samples are
resized to the images' size, so that they can be laid over the source. Pictures and arrays keep the size the run makes.
No file holds a time or a path: equal samples give equal files.
"""

import gzip
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from launch import geometry, mask_channels, pictures
from launch.readers import COLOURS
from singan import files
from singan.errors import UserError
from singan.workdir import ImageRecord

FORMATS: Mapping[str, str] = {
    "png": "pictures and a grid, slices upright",
    "npy": "the source's values, axes as stored",
    "nifti": "slices where the source lay, as .nii.gz",
    "pannuke": "a fold in PanNuke's layout",
}
PANNUKE_CLASSES = 5  # and a sixth channel for the background
FOLD = 1
GRID_SAMPLES = 8  # columns of the overview picture
NIFTI_TYPES = ("uint8", "int16", "int32", "float32", "int8", "uint16", "uint32")  # what readers of NIfTI expect


def write(form: str, folder: Path, records: Sequence[ImageRecord], samples: np.ndarray, start_scale: int) -> None:
    """Writes samples into a folder that exists.

    Args:
      form: one of FORMATS that suits the records (`check_format`).
      records: of the n images.
      samples: [n, k, H, W, C] in [-1, 1], k of each image.
      start_scale: at which their noise began; noted where the format has room for it.

    Raises:
      UserError: a file cannot be written.
    """
    if form == "pannuke":
        write_pannuke(folder, records, samples)
        return
    for record, drawn in zip(records, samples, strict=True):
        if form == "npy":
            files.write_npy(folder / f"{record.id}.npy", record.value_map.invert(drawn))
        elif form == "nifti":
            write_nifti(folder, record, drawn, start_scale)
        else:
            write_pictures(folder, record, geometry.upright(drawn, record.details))


def check_format(form: str, records: Sequence[ImageRecord]) -> None:
    """Raises a UserError that names the first image whose samples cannot be written as 'nifti' or 'pannuke'."""
    for record in records:
        if form == "nifti" and "affine" not in record.details:
            raise UserError(f"--format=nifti needs images from NIfTI or BraTS, {record.id} is none: use png or npy")
        if form == "pannuke" and not (
            set(COLOURS) <= set(record.channels)
            and {"instance", "binary", "class"} & set(record.details.get("masks", {}))
        ):
            raise UserError(
                f"--format=pannuke needs colour and nuclei, {record.id} has {', '.join(record.channels)}: train on"
                " tfds:pannuke with --config.data.channels=rgb,instance, or use png or npy"
            )


def write_pictures(folder: Path, record: ImageRecord, drawn: np.ndarray) -> None:
    """Writes samples [k, H, W, C] in [-1, 1] of one image: a PNG for each and each channel group, and a grid."""
    groups = pictures.channel_groups(record.channels)
    for number, sample in enumerate(drawn):
        for group, channels in groups.items():
            suffix = "" if len(groups) == 1 else f"_{pictures.file_word(group)}"
            pixels = pictures.to_uint8(sample[..., channels])
            files.write_bytes(folder / f"{record.id}_{number:04d}{suffix}.png", pictures.encode_png(pixels))
    shown = drawn[:GRID_SAMPLES]
    rows = pictures.image_rows(record.id, list(shown), record.channels)
    picture = pictures.grid(rows, [f"sample {i}" for i in range(len(shown))])
    files.write_bytes(folder / f"{record.id}_grid.png", pictures.encode_png(picture))


def write_nifti(folder: Path, record: ImageRecord, samples: np.ndarray, start_scale: int) -> None:
    """Writes samples [n, H, W, C] in [-1, 1] of one image as FOLDER/<id>_<number>_<channel>.nii.gz.

    Each is [x, y, 1] with the source slice's affine, in its value range and type; labels are one file, _seg, numbered
    as in the source's own segmentations.
    """
    masks = record.details.get("masks", {})
    drawn = {channel for mask in masks.values() for channel in mask["channels"]}
    affine = np.array(record.details["affine"])
    for number, sample in enumerate(samples):
        image = geometry.to_grid(sample, record.shape[:2])
        values = record.value_map.invert(image, as_stored=True)
        planes = {record.channels[c]: values[..., c] for c in range(len(record.channels)) if c not in drawn}
        for name, mask in masks.items():
            labels = mask_channels.decode_one_hot(image[..., mask["channels"]])
            planes[name] = np.array(mask["stored_values"], np.uint8)[labels]
        resized = "" if image.shape == sample.shape else f", resized from {sample.shape[0]}x{sample.shape[1]}"
        for name, plane in planes.items():
            word = f"{record.id}_{number:04d}_{name}"
            data = _nifti_bytes(plane, affine, f"SinGAN sample {number} from scale {start_scale}{resized}")
            files.write_bytes(folder / f"{word}.nii.gz", data)


def write_pannuke(folder: Path, records: Sequence[ImageRecord], samples: np.ndarray) -> None:
    """Writes samples [n images, k, H, W, C] in [-1, 1] as `FOLDER/Fold 1/...`, in the layout of PanNuke's download.

    images.npy float64 [n k, h, w, 3] of whole numbers, masks.npy float64 [n k, h, w, 6] with a nucleus' number in its
    class' channel and the background last, types.npy; `FOLDER/patches.json` says for each patch which sample it is and
    counts its nuclei. `python -m datasets.build pannuke --manual_dir=FOLDER` reads them back.

    Raises:
      UserError: the images differ in size, or files cannot be written.
    """
    sizes = sorted({record.shape[:2] for record in records})
    if len(sizes) > 1:
        raise UserError(f"--format=pannuke: a fold has one size, these images have {sizes}: choose some with --images")
    images_folder = files.make_directory(folder / f"Fold {FOLD}" / "images" / f"fold{FOLD}")
    masks_folder = files.make_directory(folder / f"Fold {FOLD}" / "masks" / f"fold{FOLD}")
    count = len(records) * samples.shape[1]
    rows: list[dict[str, Any]] = []
    with (
        _NpyFile(images_folder / "images.npy", (count, *sizes[0], 3)) as images,
        _NpyFile(masks_folder / "masks.npy", (count, *sizes[0], PANNUKE_CLASSES + 1)) as masks,
    ):
        for record, drawn in zip(records, samples, strict=True):
            colours = [record.channels.index(colour) for colour in COLOURS]
            for number, sample in enumerate(drawn):
                image = geometry.to_grid(sample, record.shape[:2])
                nuclei, classes = mask_channels.decode_nuclei(image, record.details["masks"])
                images.add(record.value_map.invert(image, as_stored=True)[..., colours])
                masks.add(pannuke_masks(nuclei, classes))
                counts = np.bincount(classes, minlength=PANNUKE_CLASSES + 1)[1:]
                rows.append(
                    {
                        "image": record.id,
                        "sample": number,
                        "tissue": record.details["tissue"],
                        "num_nuclei": len(classes),
                        "class_counts": counts,
                    }
                )
    files.write_npy(images_folder / "types.npy", np.array([row["tissue"] for row in rows]))
    files.write_json(folder / "patches.json", rows)


def pannuke_masks(nuclei: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns float64 [h, w, 6] as in masks.npy, from instances [h, w] 0..n and the class 1..5 of each."""
    kinds = np.concatenate([[PANNUKE_CLASSES + 1], classes]).astype(int)[nuclei]
    shown = kinds[..., None] == np.arange(1, PANNUKE_CLASSES + 2)
    return np.where(shown, np.maximum(nuclei, 1)[..., None], 0).astype(np.float64)


def _nifti_bytes(plane: np.ndarray, affine: np.ndarray, description: str) -> bytes:
    if plane.dtype.name not in NIFTI_TYPES:
        plane = plane.astype(np.uint8 if plane.dtype.kind == "b" else np.float32)
    image = nibabel.Nifti1Image(plane[..., None], affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    header: Any = image.header
    header.set_xyzt_units("mm")
    header["descrip"] = description.encode()[:79]
    return gzip.compress(image.to_bytes(), mtime=0)  # without the time, equal samples are equal files


class _NpyFile:
    """An .npy file of float64 that is written row by row and appears when it is whole."""

    def __init__(self, path: Path, shape: tuple[int, ...]):
        self._path, self._shape = path, shape
        self._temporary = path.parent / f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}"

    def __enter__(self) -> "_NpyFile":
        with files.named_os_errors(self._path):
            self._file = open(self._temporary, "wb")
            header = {"descr": "<f8", "fortran_order": False, "shape": self._shape}
            np.lib.format.write_array_header_1_0(self._file, header)
        return self

    def add(self, row: np.ndarray) -> None:
        """Writes one entry of the first axis."""
        assert row.shape == self._shape[1:]
        with files.named_os_errors(self._path):
            self._file.write(np.ascontiguousarray(row, "<f8").tobytes())

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            with files.named_os_errors(self._path):
                self._file.close()
                if kind is None:
                    os.replace(self._temporary, self._path)
        finally:
            self._temporary.unlink(missing_ok=True)
