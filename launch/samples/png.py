"""Samples as PNG files, and a grid of the first of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from launch.images import geometry
from launch.samples import pictures
from launch.samples.each_sample import EachSample
from singan import files
from singan.model.layouts import Layout
from singan.storage.workdir import ImageRecord

GRID_SAMPLES = 8  # columns of the overview picture


class PictureWriter(EachSample):
    """A PNG for each sample and each of its channel groups, and for each image a grid of its first samples.

    Of a conditional run, what it was given is <id>_<number>_objects.png, the ids in 16 bits, and _classes.png.
    """

    def __init__(self, folder: Path, records: Sequence[ImageRecord], num_samples: int):
        super().__init__(folder, records)
        self._shown = min(num_samples, GRID_SAMPLES)
        self._grids: dict[str, list[np.ndarray]] = {}

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray, layouts: Sequence[Sequence[Layout]] = ()) -> None:
        super().add(ids, first, pixels, layouts)
        for record, drawn in zip(map(self._records.__getitem__, ids), pixels, strict=True):
            for sample in drawn[: max(self._shown - first, 0)]:
                shown = self._grids.setdefault(record.id, [])
                shown.append(_picture(record, sample).copy())  # a view would keep the whole batch
                if len(shown) == self._shown:
                    self._write_grid(record, self._grids.pop(record.id))

    def _write(self, record: ImageRecord, number: int, sample: np.ndarray, layout: Layout | None) -> None:
        name, made = f"{record.id}_{number:04d}", record.generated
        picture = _picture(record, sample)
        for suffix, pixels in pictures.of_channels(picture[..., :made], record.channels[:made]):
            files.write_bytes(self._folder / f"{name}{suffix}.png", pictures.encode_png(pixels))
        if layout is None:
            return
        given = layout.resized(sample.shape[:2])
        for suffix, plane in (("objects", given.objects.astype(np.uint16)), ("classes", given.classes)):
            upright = np.ascontiguousarray(geometry.upright(plane[..., None], record.details))
            files.write_bytes(self._folder / f"{name}_{suffix}.png", pictures.encode_png(upright))

    def _write_grid(self, record: ImageRecord, shown: Sequence[np.ndarray]) -> None:
        rows = pictures.image_rows(record.id, shown, record.channels)
        picture = pictures.grid(rows, [f"sample {i}" for i in range(len(shown))])
        files.write_bytes(self._folder / f"{record.id}_grid.png", pictures.encode_png(picture))


def _picture(record: ImageRecord, sample: np.ndarray) -> np.ndarray:
    return geometry.upright(record.value_map.shown(sample), record.details)
