"""Samples as a PanNuke fold: images, instance masks and tissue types in PanNuke's own layout."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.images.readers import COLOURS
from launch.samples.npy import NpyRows
from launch.samples.shown_layout import layout_at, shown_layout
from singan import files
from singan.model.layouts import Layout
from singan.model.pyramid import resize_to
from singan.storage.workdir import ImageRecord

PANNUKE_CLASSES = 5  # and a sixth channel for the background


FOLD = 1


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

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray, layouts: Sequence[Sequence[Layout]] = ()) -> None:
        by_id = {record.id: record for record in self._records}
        for row, (name, drawn) in enumerate(zip(ids, pixels, strict=True)):
            record = by_id[name]
            colours = [record.channels.index(colour) for colour in COLOURS]
            for number, sample in enumerate(drawn, first):
                place = self._places[name] + number
                image = resize_to(sample, record.shape[:2])
                layout = shown_layout(record, image, layout_at(layouts, row, number - first))
                classes = list(layout.class_of_each().values())
                self._images.write(place, record.value_map.invert(image, as_stored=True)[..., colours][None])
                self._masks.write(place, pannuke_masks(layout.objects, layout.classes)[None])
                self._rows[place] = {
                    "image": record.id,
                    "sample": number,
                    "tissue": record.details.get("tissue", "unknown"),
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
    """Returns float64 [h, w, 6] as in masks.npy, from ids [h, w], 0 where there is no nucleus, and classes 1..5."""
    kinds = np.where(nuclei > 0, classes, PANNUKE_CLASSES + 1)
    shown = kinds[..., None] == np.arange(1, PANNUKE_CLASSES + 2)
    return np.where(shown, np.maximum(nuclei, 1)[..., None], 0).astype(np.float64)
