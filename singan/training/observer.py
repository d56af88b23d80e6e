"""The trainer's observer: the events of a training, and the values that each of them carries."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from singan.model.spec import ScaleSpec
from singan.parallel.costs import Memory
from singan.storage.finished_scale import FinishedScale


@dataclasses.dataclass(frozen=True)
class ScaleStart:
    """What is known when a scale starts or goes on."""

    spec: ScaleSpec
    ids: tuple[str, ...]
    step: int  # steps done before
    group: int  # images of one device trained at the same time
    memory: Memory  # of the chunk's program, bytes per device
    compile_seconds: float  # that training waited for the program
    ahead_seconds: float = 0.0  # that its compilation took while the scale below trained


@dataclasses.dataclass(frozen=True)
class ChunkResult:
    """One chunk's outcome: metrics by name, float32 [n], averaged over the chunk's steps (NaN where diverged)."""

    spec: ScaleSpec
    ids: tuple[str, ...]
    step: int  # steps of this scale done after the chunk
    metrics: Mapping[str, np.ndarray]
    diverged: Mapping[str, int]
    steps: int
    seconds: float


@runtime_checkable
class Observer(Protocol):
    """Receives the events of a training. An exception it raises ends the training."""

    def restored(self, global_step: int | None) -> None:
        """Training goes on after this step of all scales, or starts (None). Discard what was logged after it."""
        ...

    def scale_started(self, start: ScaleStart) -> None: ...

    def chunk_done(self, result: ChunkResult) -> None: ...

    def checkpointing(self) -> None:
        """A checkpoint is about to be written: make everything logged so far durable."""
        ...

    def scale_finished(
        self, spec: ScaleSpec, scales: Sequence[FinishedScale], images: Mapping[str, np.ndarray]
    ) -> None:
        """A scale is done. `images` has the training images at its size, float32 [h, w, C], by id."""
        ...

    def warn(self, text: str) -> None: ...


class Silent:
    """An observer that does nothing; a base class for others."""

    def restored(self, global_step: int | None) -> None: ...

    def scale_started(self, start: ScaleStart) -> None: ...

    def chunk_done(self, result: ChunkResult) -> None: ...

    def checkpointing(self) -> None: ...

    def scale_finished(
        self, spec: ScaleSpec, scales: Sequence[FinishedScale], images: Mapping[str, np.ndarray]
    ) -> None: ...

    def warn(self, text: str) -> None: ...


class Repair(Silent):
    """Passes on warnings alone: for a scale that is trained again, whose metrics were logged the first time."""

    def __init__(self, observer: Observer):
        self._observer = observer

    def warn(self, text: str) -> None:
        self._observer.warn(text)
