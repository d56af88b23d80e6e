"""Where the brain lies in a slice of MRI, and where fluid does. NumPy and SciPy alone; masks are bool [H, W]."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from launch.images.modality_names import modality

DARK = 0.6  # of healthy brain's median signal, below which is fluid


def brain_mask(outside: np.ndarray, margin: float) -> np.ndarray:
    """Returns the brain: the largest piece of what is not outside, holes filled, eroded.

    Args:
      outside: where every modality holds its background value.
      margin: pixels that the brain is eroded by; what lies beyond the image's border counts as outside too.
    """
    if outside.all():
        return np.zeros(outside.shape, bool)
    filled = np.asarray(ndimage.binary_fill_holes(largest_piece(~outside, ~outside)))
    return np.asarray(ndimage.distance_transform_edt(np.pad(filled, 1)))[1:-1, 1:-1] > margin


def fluid_mask(
    signal: np.ndarray, channels: Sequence[str], brain: np.ndarray, tumour: np.ndarray, specks: bool = False
) -> np.ndarray:
    """Returns where there is fluid, which is dark in FLAIR, and in T1 where there is no FLAIR.

    That is what is darker than DARK of the median of healthy brain. Empty where there is neither.

    Args:
      signal: [H, W, C], 0 where there is none.
      tumour: no part of healthy brain.
      specks: pieces of a few pixels too; else ventricles and wide sulci alone.
    """
    names = [modality(name) for name in channels]
    weighted = next((names.index(name) for name in ("flair", "t1") if name in names), None)
    healthy = brain & ~tumour
    if weighted is None or not healthy.any():
        return np.zeros(brain.shape, bool)
    plane = signal[..., weighted]
    dark = brain & (plane < DARK * np.median(plane[healthy]))
    return dark if specks else np.asarray(ndimage.binary_opening(dark))


def largest_piece(joined: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Returns the pixels of `counted` in that piece of `joined` that has most of them."""
    pieces: Any = np.zeros(joined.shape, np.int32)
    ndimage.label(joined, output=pieces)  # by edges alone: what touches at a corner is another piece
    sizes = np.bincount(pieces[counted])
    return counted & (pieces == sizes.argmax())
