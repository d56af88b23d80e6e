"""Samples as PNG files, and a grid of the first of them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from launch.images import geometry
from launch.samples import pictures
from launch.samples.shown_layout import layout_at
from singan import files
from singan.model.layouts import Layout
from singan.storage.workdir import ImageRecord

GRID_SAMPLES = 8  # columns of the overview picture


THREADS = 4  # that write files: compressing them takes longer than drawing does on a fast device


class PictureWriter:
    """A PNG for each sample and each of its channel groups, and for each image a grid of its first samples.

    Of a conditional run, what it was given is <id>_<number>_objects.png, the ids in 16 bits, and _classes.png.
    """

    def __init__(self, folder: Path, records: Sequence[ImageRecord], num_samples: int):
        self._folder, self._records = folder, {record.id: record for record in records}
        self._shown = min(num_samples, GRID_SAMPLES)
        self._grids: dict[str, list[np.ndarray]] = {}
        self._pool = ThreadPoolExecutor(THREADS)

    def __enter__(self) -> "PictureWriter":
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.shutdown()

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray, layouts: Sequence[Sequence[Layout]] = ()) -> None:
        jobs = []
        for place, (name, drawn) in enumerate(zip(ids, pixels, strict=True)):
            record = self._records[name]
            for index, sample in enumerate(drawn):
                given = layout_at(layouts, place, index)
                given = given.resized(sample.shape[:2]) if given is not None else None
                jobs.append((record, first + index, _picture(record, sample), given))
        list(self._pool.map(lambda job: self._write(*job), jobs))
        for record, number, sample, _ in jobs:
            if number < self._shown:
                shown = self._grids.setdefault(record.id, [])
                shown.append(sample.copy())  # a view would keep the whole batch
                if len(shown) == self._shown:
                    self._write_grid(record, self._grids.pop(record.id))

    def _write(self, record: ImageRecord, number: int, sample: np.ndarray, layout: Layout | None) -> None:
        name = f"{record.id}_{number:04d}"
        made = record.generated
        for suffix, pixels in pictures.of_channels(sample[..., :made], record.channels[:made]):
            files.write_bytes(self._folder / f"{name}{suffix}.png", pictures.encode_png(pixels))
        for suffix, plane in _planes(layout):
            files.write_bytes(
                self._folder / f"{name}_{suffix}.png",
                pictures.encode_png(np.ascontiguousarray(geometry.upright(plane[..., None], record.details))),
            )

    def _write_grid(self, record: ImageRecord, shown: Sequence[np.ndarray]) -> None:
        rows = pictures.image_rows(record.id, shown, record.channels)
        picture = pictures.grid(rows, [f"sample {i}" for i in range(len(shown))])
        files.write_bytes(self._folder / f"{record.id}_grid.png", pictures.encode_png(picture))


def _planes(layout: Layout | None) -> list[tuple[str, np.ndarray]]:
    """Returns what pictures show of a layout: its ids and classes."""
    if layout is None:
        return []
    return [("objects", layout.objects.astype(np.uint16)), ("classes", layout.classes)]


def _picture(record: ImageRecord, sample: np.ndarray) -> np.ndarray:
    return geometry.upright(record.value_map.shown(sample), record.details)
