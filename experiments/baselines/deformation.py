"""Elastic deformation and affine warps of images with their masks (Simard et al. 2003; Ronneberger et al. 2015)."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from singan.shapes import Array, Float, Int

NEAREST, LINEAR, CUBIC = 0, 1, 3  # orders of interpolation


def displacement(
    shape: Sequence[int], rng: np.random.Generator, amplitude: float, spacing: float
) -> Float[Array, "2 h w"]:
    """Returns a smooth random displacement in rows and columns, in pixels.

    Normal values of standard deviation `amplitude` stand on a grid and are joined by cubic splines.

    Args:
      shape: height and width.
      spacing: of the grid, in pixels.
    """
    nodes = [int(np.ceil(side / spacing)) + 3 for side in shape[:2]]
    coarse = rng.normal(0, amplitude, (2, *nodes))
    places = np.stack(np.meshgrid(*(np.arange(side) / spacing + 1 for side in shape[:2]), indexing="ij"))
    return np.stack([ndimage.map_coordinates(each, places, order=CUBIC, mode="nearest") for each in coarse])


def warp(values: np.ndarray, places: Float[Array, "2 h w"], order: int) -> np.ndarray:
    """Returns `values` [H, W] or [H, W, C] at `places` (rows, columns), of the same type; mirrored at the border."""
    if values.ndim == 2:
        return ndimage.map_coordinates(values, places, order=order, mode="mirror")
    return np.stack([warp(values[..., c], places, order) for c in range(values.shape[-1])], -1)


def elastic(
    image: np.ndarray, instances: Int[Array, "h w"], rng: np.random.Generator, amplitude: float = 3, spacing: float = 24
) -> tuple[np.ndarray, Int[Array, "h w"]]:
    """Returns an image [H, W, C] and its instances [H, W], both deformed alike.

    Args:
      amplitude, spacing: in pixels, see displacement. More than about a fifth of the spacing folds the image.
    """
    places = np.indices(instances.shape) + displacement(instances.shape, rng, amplitude, spacing)
    return warp(image, places, LINEAR), warp(instances, places, NEAREST)
