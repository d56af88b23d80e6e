"""An image as it was read from its source, before it becomes a training image; and which keys choose among records."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from singan.config import DataConfig
from singan.model.layouts import Layout
from singan.value_map import ValueMap

TFDS = "tfds:"


SELECTION = (
    "split",
    "ids",
    "patients",
    "first_slice",
    "last_slice",
    "has_tumour",
    "min_brain",
    "tissues",
    "min_nuclei",
    "every",
    "shuffle_seed",
)


@dataclasses.dataclass(frozen=True, eq=False)
class SourceImage:
    """One training image.

    Attributes:
      id: unique in the cohort, without regard to case; letters, digits, '_' and '-' only, fit for a file name.
      pixels: float32 [H, W, C] in [-1, 1].
      channels: the names of the C channels.
      value_map: takes pixels back to the source's own values.
      source: the file, relative to the folder of config.data.path, with the slice taken of a volume; or which part of
        a built-in image. Never an absolute path.
      layout: of a conditional run, what lies where in the image; the last channels are drawn from it.
      details: what else the source says of it and commands need to bring samples back, as JSON's own types.
    """

    id: str
    pixels: np.ndarray
    channels: tuple[str, ...]
    value_map: ValueMap
    source: str
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    layout: Layout | None = None


@dataclasses.dataclass(frozen=True)
class FoundImages:
    """The images that the configuration names, sorted by id, none of which is read yet.

    Attributes:
      ids: one per image.
      read: given positions among them, returns these images.
    """

    ids: tuple[str, ...]
    read: Callable[[Sequence[int]], list[SourceImage]]


def selection_keys(data: DataConfig) -> list[str]:
    """Returns the keys that choose records of a TFDS source and were given, in the order of the configuration."""
    default = dataclasses.asdict(DataConfig())
    given = dataclasses.asdict(data)
    return [key for key in SELECTION if given[key] != default[key]]
