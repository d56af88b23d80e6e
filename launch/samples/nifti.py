"""Samples as NIfTI files, with the affine and values of the slice they were learnt from."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.images import mask_channels
from launch.samples.each_sample import EachSample
from launch.samples.shown_layout import shown_layout
from singan import files
from singan.model.layouts import Layout
from singan.model.pyramid import resize_to
from singan.storage.workdir import ImageRecord

NIFTI_TYPES = ("uint8", "int16", "int32", "float32", "int8", "uint16", "uint32")  # what readers of NIfTI expect


class NiftiWriter(EachSample):
    """FOLDER/<id>_<number>_<channel>.nii.gz: [x, y, 1] with the source slice's affine, in its value range and type.

    Labels are one file, _seg, numbered as in the source's own segmentations.
    """

    def __init__(self, folder: Path, records: Sequence[ImageRecord], start_scale: int):
        super().__init__(folder, records)
        self._start = start_scale

    def _write(self, record: ImageRecord, number: int, sample: np.ndarray, layout: Layout | None) -> None:
        image = resize_to(sample, record.shape[:2])
        resized = "" if image.shape == sample.shape else f", resized from {sample.shape[0]}x{sample.shape[1]}"
        note = f"SinGAN sample {number} from scale {self._start}{resized}"
        for name, data in nifti_files(record, image, note, layout).items():
            files.write_bytes(self._folder / f"{record.id}_{number:04d}_{name}.nii.gz", data)


def nifti_files(record: ImageRecord, image: np.ndarray, note: str, layout: Layout | None = None) -> dict[str, bytes]:
    """Returns the NIfTI files of an image on its source's grid: one for each measured channel and each label map.

    Args:
      image: [H, W, C] in [-1, 1].
      note: what the header's description says, up to 79 characters.
      layout: what a conditional run was given, whose labels are exact.
    """
    masks = record.details.get("masks", {})
    drawn = {channel for mask in masks.values() for channel in mask["channels"]}
    values = record.value_map.invert(image, as_stored=True)
    planes = {record.channels[c]: values[..., c] for c in range(len(record.channels)) if c not in drawn}
    labelled = {name: mask for name, mask in masks.items() if "stored_values" in mask}
    for name, mask in labelled.items():
        labels = mask_channels.decode_one_hot(image[..., mask["channels"]])
        labels = labels if layout is None else shown_layout(record, image, layout).classes
        planes[name] = np.array(mask["stored_values"], np.uint8)[labels]
    affine, forms = np.array(record.details["affine"]), record.details.get("forms")
    tables = {name: label_comment(record.details, name) for name in labelled}
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
        orientation = said.get(form, {"code": 0, "affine": None})
        getattr(image, f"set_{form}")(orientation["affine"], int(orientation["code"]))
    header: Any = image.header
    header.set_xyzt_units("mm")
    header["descrip"] = description.encode()[:79]
    if comment:
        header.extensions.append(Nifti1Extension("comment", comment.encode()))
    return gzip.compress(image.to_bytes(), mtime=0)  # without the time, equal samples are equal files
