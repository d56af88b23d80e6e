"""One run as it is compared with others."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from launch.results.history import ScaleHistory
from launch.results.quality import AT_SCALES, Evaluation, Measured
from singan import files

AT_END = ("reconstruction_rmse", "noise_amplitude", *AT_SCALES)


@dataclasses.dataclass(frozen=True)
class Compared:
    """One of the things that are compared; whatever it does not have is empty.

    Attributes:
      place: as it was given.
      about: status, devices, commit and the like, as text.
      config: flat, {'train.chunk': 100}.
      images: digest by id.
      sizes: pixels of each scale, (height, width).
      ends: metrics at the end of each scale.
      speeds: image-steps/s of each scale.
      seconds: wall time; 0 where it is not known.
      diverged: number of images; None where it is not known.
      grid: (what it shows, PNG).
      problems: what could not be read, a line each.
      history: what was said while it trained, of each scale.
      run_id: of the run, in wandb too.
    """

    name: str
    place: str
    about: Mapping[str, str]
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sizes: Sequence[tuple[int, int]] = ()
    ends: Mapping[int, Mapping[str, Measured]] = dataclasses.field(default_factory=dict)
    speeds: Mapping[int, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    diverged: int | None = None
    evaluation: Evaluation | None = None
    grid: tuple[str, bytes] | None = None
    problems: tuple[str, ...] = ()
    history: Sequence[ScaleHistory] = ()
    run_id: str = ""

    @property
    def is_workdir(self) -> bool:
        return bool(self.config) and files.as_path(self.place).is_dir()
