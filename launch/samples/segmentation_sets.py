"""Samples as data sets that segmenters are trained on: COCO's annotations, and nnU-Net's raw layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.images import geometry
from launch.samples import pictures
from launch.samples.each_sample import EachSample
from launch.samples.nifti import nifti_bytes
from launch.samples.shown_layout import class_names, shown_layout
from singan import files
from singan.model.layouts import Layout
from singan.model.pyramid import resize_to
from singan.source_image import COLOURS
from singan.storage.workdir import ImageRecord


class SetWriter(EachSample):
    """Takes samples with their layouts on the source's grid, and writes a data set of them when all are there."""

    def __init__(self, folder: Path, records: Sequence[ImageRecord]):
        super().__init__(folder, records)
        self._names = class_names(records[0]) or ["object"]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if error[0] is None:
            self._finish()

    def _write(self, record: ImageRecord, number: int, sample: np.ndarray, layout: Layout | None) -> None:
        image = resize_to(sample, record.shape[:2])
        self._write_pair(record, f"{record.id}_{number:04d}", image, shown_layout(record, image, layout))

    def _write_pair(self, record: ImageRecord, name: str, image: np.ndarray, layout: Layout) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError


class CocoWriter(SetWriter):
    """FOLDER/images/<id>_<number>.png and FOLDER/annotations.json: each object as a run-length mask, exact.

    Masks are COCO's uncompressed RLE, which pycocotools reads as `annToMask`.
    """

    def __init__(self, folder: Path, records: Sequence[ImageRecord]):
        super().__init__(folder, records)
        self._images = files.make_directory(folder / "images")
        self._rows: dict[str, tuple[tuple[int, int], list[dict[str, Any]]]] = {}

    def _write_pair(self, record: ImageRecord, name: str, image: np.ndarray, layout: Layout) -> None:
        files.write_bytes(self._images / f"{name}.png", pictures.encode_png(_picture(record, image)))
        objects, classes = _upright(record, layout)
        rows = []
        for number, kind in Layout(objects, classes).class_of_each().items():
            mask = objects == number
            rows.append({"category_id": kind, "object": number, **_rle(mask)})
        self._rows[name] = objects.shape, rows

    def _finish(self) -> None:
        images, annotations = [], []
        for image_id, (name, ((height, width), rows)) in enumerate(sorted(self._rows.items()), start=1):
            images.append({"id": image_id, "file_name": f"images/{name}.png", "height": height, "width": width})
            for row in rows:
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, "iscrowd": 0, **row})
        categories = [{"id": number, "name": name} for number, name in enumerate(self._names, start=1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        files.write_json(self._folder / "annotations.json", content)


class NnunetWriter(SetWriter):
    """FOLDER/imagesTr, labelsTr and dataset.json, as nnU-Net reads a raw data set (version 2).

    Pictures are png; slices with an affine are nii.gz, a file for each channel. Labels are classes, numbered from 1.
    """

    def __init__(self, folder: Path, records: Sequence[ImageRecord]):
        super().__init__(folder, records)
        self._in_space = all("affine" in record.details for record in records)
        self._channels = list(records[0].channels[: records[0].generated])
        self._colour = tuple(self._channels) == COLOURS and not self._in_space
        self._count = 0
        for name in ("imagesTr", "labelsTr"):
            files.make_directory(folder / name)

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray, layouts: Sequence[Sequence[Layout]] = ()) -> None:
        super().add(ids, first, pixels, layouts)
        self._count += pixels.shape[0] * pixels.shape[1]

    def _write_pair(self, record: ImageRecord, name: str, image: np.ndarray, layout: Layout) -> None:
        images, labels = self._folder / "imagesTr", self._folder / "labelsTr"
        if self._in_space:
            affine, forms = np.array(record.details["affine"]), record.details.get("forms")
            values = record.value_map.invert(image, as_stored=True)
            for number in range(len(self._channels)):
                written = nifti_bytes(values[..., number], affine, "SinGAN sample", forms)
                files.write_bytes(images / f"{name}_{number:04d}.nii.gz", written)
            files.write_bytes(labels / f"{name}.nii.gz", nifti_bytes(layout.classes, affine, "its labels", forms))
            return
        shown = geometry.upright(record.value_map.shown(image), record.details)[..., : len(self._channels)]
        parts = [shown] if self._colour else [shown[..., c : c + 1] for c in range(len(self._channels))]
        for number, part in enumerate(parts):
            files.write_bytes(images / f"{name}_{number:04d}.png", pictures.encode_png(pictures.to_uint8(part)))
        _, classes = _upright(record, layout)
        files.write_bytes(labels / f"{name}.png", pictures.encode_png(classes))

    def _finish(self) -> None:
        content = {
            "channel_names": {str(number): name for number, name in enumerate(self._channels)},
            "labels": {"background": 0, **{name: number for number, name in enumerate(self._names, start=1)}},
            "numTraining": self._count,
            "file_ending": ".nii.gz" if self._in_space else ".png",
        }
        files.write_json(self._folder / "dataset.json", content)


def _picture(record: ImageRecord, image: np.ndarray) -> np.ndarray:
    """Returns uint8 [H, W, 3 or 1], upright: the colours, else the first channel."""
    shown = geometry.upright(record.value_map.shown(image), record.details)
    colours = [record.channels.index(name) for name in COLOURS] if set(COLOURS) <= set(record.channels) else [0]
    return pictures.to_uint8(shown[..., colours])


def _upright(record: ImageRecord, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids and classes [H, W], turned as pictures are."""
    both = np.stack([layout.objects, layout.classes.astype(np.int32)], axis=-1)
    turned = geometry.upright(both, record.details)
    return np.ascontiguousarray(turned[..., 0]), np.ascontiguousarray(turned[..., 1]).astype(np.uint8)


def _rle(mask: np.ndarray) -> dict[str, Any]:
    """Returns COCO's segmentation, area and box of a mask bool [H, W]: runs of 0 and 1 in turn, column by column."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    rows, columns = np.nonzero(mask)
    left, top = int(columns.min()), int(rows.min())
    return {
        "segmentation": {"counts": [0, *counts] if flat[0] else counts, "size": list(mask.shape)},
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1],
    }
