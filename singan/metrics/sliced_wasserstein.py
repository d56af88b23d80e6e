"""Sliced Wasserstein distance between the patches of a real image and of samples, per octave of detail; weights-free.

Of every level of a Laplacian pyramid all 7x7 patches, with all channels together, are projected on fixed random unit
vectors. For each vector the projections of the two images are two sets of numbers, whose Wasserstein distance of order
1 is the area between their distribution functions; the mean over the vectors is the value of the level.

Sources: sliced distance: Rabin et al. 2011; per pyramid level, to measure generators: Karras et al. 2018, section 5.
Unlike there, patches are not normalised (so that a change of contrast is seen), nothing is multiplied by 1000, and
the patches are no random choice: all there are, or those of a grid where there are more than MAX_PATCHES.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.errors import UserError
from singan.metrics.fixed_random import fixed_normal
from singan.metrics.values import Undefined, Value, check_images
from singan.shapes import Array, Bool, Float

DEFINITIONS = {
    "swd": "sliced Wasserstein distance of order 1 between the 7x7 patches of sample and training image, in units of"
    " the [-1, 1] range along a unit vector, averaged over the octaves; 0 for copies",
    "swd/1": "swd of the finest octave: what only pixels of the full resolution show",
    "swd/2": "swd of the octave that pixels twice as large show; and so on with 4, 8, 16; the last is all the rest",
}

PATCH = 7
PROJECTIONS = 64
MIN_SIDE = 14  # of the coarsest level: at least 8 x 8 patches
MAX_LEVELS = 5
MAX_PATCHES = 4096  # of a level; larger levels give those of a grid
_SEED = 20180226
_BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16


def patch_distribution(samples: Any, image: Any) -> list[dict[str, Value]]:
    """Returns for each sample `swd` and its parts `swd/1`, `swd/2`, ..., by octave; see DEFINITIONS.

    Args:
      samples: [n, H, W, C] in [-1, 1].
      image: [h, w, C] in [-1, 1]; of any size.

    Raises:
      UserError: see check_images.
    """
    samples, image = check_images(samples, image)
    try:
        values = np.asarray(_compiled(image, samples), np.float64)
    except UserError as error:
        return [{"swd": Undefined(str(error))} for _ in samples]
    names = [f"swd/{2**octave}" for octave in range(values.shape[1])]
    return [{"swd": float(row.mean()), **dict(zip(names, map(float, row[::-1]), strict=True))} for row in values]


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Returns (height, width) of the pyramid levels of an image, coarsest first; the last is the image itself.

    Each level has half the pixels a side (rounded up) of the next. There are as many as have MIN_SIDE pixels on their
    shorter side, up to MAX_LEVELS, and always one.

    Raises:
      UserError: the image is smaller than one patch.
    """
    if min(height, width) < PATCH:
        raise UserError(f"an image of {height}x{width} pixels holds no patch of {PATCH}x{PATCH}: use larger ones")
    sizes = [(height, width)]
    while len(sizes) < MAX_LEVELS and math.ceil(min(sizes[0]) / 2) >= MIN_SIDE:
        sizes.insert(0, (math.ceil(sizes[0][0] / 2), math.ceil(sizes[0][1] / 2)))
    return sizes


def sliced_wasserstein(real: Float[Array, "h w c"], samples: Float[Array, "n hh ww c"]) -> Float[Array, "n levels"]:
    """Returns the sliced Wasserstein distance of each sample to the real image, per level, coarsest first.

    In units of the image's own values ([-1, 1]) along a unit vector: from 0, which copies of the image give, upwards.
    Columns belong to level_sizes of the image with fewer levels, so that, counted from the finest, a column is always
    one octave: the last holds what only the full resolution shows, the first everything coarser than the second.
    Samples may differ from the real image in size; then the distance compares shares of the patches. NaN where a
    sample's (or, in all rows, the real image's) pixels are not finite.

    Memory does not grow with n: samples are compared one after another.

    Raises:
      UserError: an image is smaller than one patch.
    """
    levels = min(len(level_sizes(*image.shape[-3:-1])) for image in (real, samples))
    vectors = jnp.asarray(unit_vectors(real.shape[-1]))
    real_slices = [sorted_projections(band, vectors) for band in laplacian(real, levels)]

    def compare(sample: Float[Array, "hh ww c"]) -> Float[Array, "levels"]:
        slices = [sorted_projections(band, vectors) for band in laplacian(sample, levels)]
        return jnp.stack([wasserstein(a, b) for a, b in zip(real_slices, slices, strict=True)])

    return lax.map(compare, samples)


_compiled = jax.jit(sliced_wasserstein)


def detail_distance(
    image: Float[Array, "h w c"],
    mask: Bool[Array, "h w"],
    other: Float[Array, "hh ww c"],
    other_mask: Bool[Array, "hh ww"],
    octaves: int = 2,
) -> float:
    """Returns the sliced Wasserstein distance between the fine detail of two parts of images, in their own units.

    Of the finest octaves of each image the patches centred in its mask; the mean over the octaves. What is coarser,
    such as how bright the parts are, does not count. NaN where a mask holds no whole patch.
    """
    vectors = unit_vectors(image.shape[-1]).reshape(-1, PROJECTIONS)
    slices = []
    # In NumPy: parts of images differ in size, and none is worth compiling for.
    for pixels, inside in ((image, mask), (other, other_mask)):
        for octave in range(octaves):
            down, up = ([make(side).astype(np.float32) for side in pixels.shape[:2]] for make in (_halving, _doubling))
            small = _resized(down, pixels)
            slices.append(_within(pixels - _resized(up, small), inside[:: 2**octave, :: 2**octave], vectors))
            pixels = small
    if not all(each.size for each in slices):
        return float("nan")
    return float(np.mean([wasserstein(a, b) for a, b in zip(slices[:octaves], slices[octaves:], strict=True)]))


def _resized(matrices: list[np.ndarray], image: np.ndarray) -> np.ndarray:
    rows, columns = matrices
    return np.einsum("ph,hwc,qw->pqc", rows, image, columns, optimize=True)


def _within(band: np.ndarray, inside: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Returns [v, n]: on each vector the projections, ascending, of the patches that are centred inside."""
    windows = np.lib.stride_tricks.sliding_window_view(band, (PATCH, PATCH), (0, 1))  # [h, w, c, p, p]
    centred = inside[PATCH // 2 :, PATCH // 2 :][: windows.shape[0], : windows.shape[1]]
    patches = np.moveaxis(windows[centred], 1, -1).reshape(-1, vectors.shape[0])
    return np.sort(patches @ vectors, axis=0).T


@functools.cache
def unit_vectors(channels: int) -> np.ndarray:
    """Returns the float32 unit vectors [PATCH, PATCH, channels, PROJECTIONS] that patches are projected on."""
    vectors = fixed_normal(_SEED + channels, (PROJECTIONS, PATCH * PATCH * channels))
    vectors /= np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return vectors.T.reshape(PATCH, PATCH, channels, PROJECTIONS).astype(np.float32)


def laplacian(image: Float[Array, "h w c"], levels: int) -> list[Float[Array, "_ _ c"]]:
    """Returns the Laplacian pyramid of an image, coarsest first; the first level is the image itself made small.

    Source: Burt and Adelson 1983, with the binomial kernel 1 4 6 4 1; at the borders the kernel's rest is renormalised.
    """
    bands = []
    for _ in range(levels - 1):
        down = [_halving(side) for side in image.shape[:2]]
        up = [_doubling(side) for side in image.shape[:2]]
        small = _apply(down, image)
        bands.insert(0, image - _apply(up, small))
        image = small
    return [image, *bands]


def sorted_projections(band: Float[Array, "h w c"], vectors: Float[Array, "p p c v"]) -> Float[Array, "v patches"]:
    """Returns the projections of a level's patches on each vector, in ascending order."""
    positions = [side - PATCH + 1 for side in band.shape[:2]]
    stride = 1
    while math.prod(math.ceil(count / stride) for count in positions) > MAX_PATCHES:
        stride += 1
    projections = lax.conv_general_dilated(
        band[None],
        vectors,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return _ascending(projections.reshape(-1, vectors.shape[-1]).T)


def wasserstein(a: Float[Array, "v n"], b: Float[Array, "v m"]) -> Float[Array, ""]:
    """Returns the mean over rows of the Wasserstein distance of order 1 between two sets of numbers, each ascending.

    The integral over q of |a's quantile q - b's quantile q|, exact for any n and m: between neighbours of the numbers
    i / n and j / m both quantile functions are constant.
    """
    n, m = a.shape[-1], b.shape[-1]
    if n == m:
        return abs(a - b).mean()
    edges = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    shares = (np.diff(edges) / (n * m)).astype(np.float32)
    return (abs(a[:, edges[:-1] // m] - b[:, edges[:-1] // n]) * shares).sum(-1).mean()


def _ascending(x: Float[Array, "v n"]) -> Float[Array, "v n"]:
    """Returns jnp.sort(x). Sorting the bits as integers of the same order is five times as fast on a CPU."""

    def flip(bits):
        return bits ^ ((bits >> 31) & jnp.int32(0x7FFFFFFF))

    ordered = jnp.sort(flip(lax.bitcast_convert_type(x, jnp.int32)), axis=-1)
    return lax.bitcast_convert_type(flip(ordered), jnp.float32)


def _apply(matrices: list[np.ndarray], image: Float[Array, "h w c"]) -> Float[Array, "hh ww c"]:
    rows, columns = (jnp.asarray(matrix, jnp.float32) for matrix in matrices)
    return jnp.einsum("ph,hwc,qw->pqc", rows, image, columns, precision=jax.lax.Precision.HIGHEST)


def _halving(length: int) -> np.ndarray:
    """Returns the matrix [ceil(length / 2), length] that smooths and keeps every other pixel; rows sum to 1."""
    matrix = _spread(length).T
    return matrix / matrix.sum(axis=1, keepdims=True)


def _doubling(length: int) -> np.ndarray:
    """Returns the matrix [length, ceil(length / 2)] that puts the pixels back and fills in between; rows sum to 1."""
    matrix = _spread(length)
    return matrix / matrix.sum(axis=1, keepdims=True)


def _spread(length: int) -> np.ndarray:
    """Returns [length, ceil(length / 2)]: column j is the kernel around pixel 2 j."""
    offsets = np.arange(length)[:, None] - 2 * np.arange(math.ceil(length / 2))
    return np.where(np.abs(offsets) <= 2, _BINOMIAL[np.clip(offsets, -2, 2) + 2], 0.0)
