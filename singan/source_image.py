"""An image as it was read from its source, before it becomes a training image."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from singan.model.layouts import Layout
from singan.value_map import ValueMap

COLOURS = ("red", "green", "blue")


def default_channels(count: int, dtype: np.dtype) -> tuple[str, ...]:
    """Returns the names of channels that nobody names: of three of bytes the colours, else channel_0 and so on."""
    return COLOURS if count == 3 and dtype == np.uint8 else tuple(f"channel_{i}" for i in range(count))


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
