"""What one image file holds, and which of its axes are the channels."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from singan.errors import UserError
from singan.source_image import COLOURS as COLOURS

MAX_CHANNELS = 16

GREY = ("intensity",)


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """What one file holds.

    Attributes:
      pixels: [H, W, C], C from 1 to 16, of a boolean, integer or float type in native byte order; finite.
      channels: their C names, or None where the file does not say.
      part: which part of the file it is, as an index such as '[:, :, 78]', or '' for all of it.
      affine: float64 [4, 4], voxel (row, column, 0) to world in mm, where the file has one or nibabel assumes one.
      forms: of a NIfTI file, what it says itself of where it lies: 'qform' and 'sform', for each {'code', 'affine'};
        a form whose code is 0 is left out, so that {} says nothing. None for other files.
      alpha: [H, W], the opacity that was taken off, where it is not one value everywhere; else None.
    """

    pixels: np.ndarray
    channels: tuple[str, ...] | None
    part: str = ""
    affine: np.ndarray | None = None
    forms: Mapping[str, Any] | None = None
    alpha: np.ndarray | None = None


def without_alpha(pixels: np.ndarray, channels: tuple[str, ...]) -> Picture:
    """Returns the picture of [H, W, C or C + 1] whose last channel beyond the C named ones is its opacity."""
    alpha = pixels[..., len(channels)] if pixels.shape[-1] > len(channels) else None
    if alpha is not None and alpha.min() == alpha.max():
        alpha = None
    return Picture(pixels[..., : len(channels)], channels, alpha=alpha)


def channels_last(array: np.ndarray, layout: str) -> np.ndarray:
    """Returns a two- or three-dimensional array as [H, W, C].

    Raises:
      UserError: the array has another number of dimensions.
    """
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise UserError(
            f"an array of {array.ndim} dimensions {array.shape}: an image has 2 (height, width) or 3 with its channels;"
            " save one image a file"
        )
    first, _, last = array.shape
    if layout == "chw" or (layout == "auto" and first <= MAX_CHANNELS and last > first):
        return np.moveaxis(array, 0, -1)
    return array
