"""Writers of a file, or a few, for each sample."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np

from launch.samples.shown_layout import layout_at
from singan.model.layouts import Layout
from singan.storage.workdir import ImageRecord

THREADS = 4  # that write files: compressing them takes longer than drawing does on a fast device


class EachSample:
    """Hands every sample to `_write`, on several threads."""

    def __init__(self, folder: Path, records: Sequence[ImageRecord]):
        self._folder, self._records = folder, {record.id: record for record in records}
        self._pool = ThreadPoolExecutor(THREADS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.shutdown()

    def add(self, ids: Sequence[str], first: int, pixels: np.ndarray, layouts: Sequence[Sequence[Layout]] = ()) -> None:
        jobs = [
            (self._records[name], first + index, sample, layout_at(layouts, place, index))
            for place, (name, drawn) in enumerate(zip(ids, pixels, strict=True))
            for index, sample in enumerate(drawn)
        ]
        list(self._pool.map(lambda job: self._write(*job), jobs))

    def _write(self, record: ImageRecord, number: int, sample: np.ndarray, layout: Layout | None) -> None:
        raise NotImplementedError
