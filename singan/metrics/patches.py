"""Patches of images, and the nearest one of the training image to each of a sample's, in bounded memory.

Patches are compared by the root mean squared difference of their values, all channels alike, in units of the [-1, 1]
range. The nearest one is found by matrix products of blocks of patches, and its distance is then taken anew from the
differences: exactly 0 for an equal patch. Between patches whose distances differ by less than about 0.0005, rounding
chooses.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.shapes import Array, Float, Int

PATCH = 7  # pixels along a side, as in GPNN
SAMPLE_BLOCK, IMAGE_BLOCK = 1024, 4096  # patches compared at a time: 16 MiB of distances


class NearestPatches(NamedTuple):
    """For the patches of samples, every `stride` pixels, the nearest patch of the training image.

    Attributes:
      distance: [n, gh, gw], root mean squared difference; infinite where there is no patch to compare with.
      row, column: int32 [n, gh, gw], the top left pixel of the nearest patch.
    """

    distance: Float[Array, "n gh gw"]
    row: Int[Array, "n gh gw"]
    column: Int[Array, "n gh gw"]


def patch_grid(image_size: tuple[int, ...], size: int = PATCH, stride: int = 1) -> tuple[int, int]:
    """Returns how many patches of `size` x `size` pixels lie in an image of (height, width), down and across.

    One every `stride` pixels; the last ones end up to stride - 1 pixels before the border. (0, 0) in an image smaller
    than a patch.
    """
    height, width = image_size
    if min(height, width) < size:
        return 0, 0
    return (height - size) // stride + 1, (width - size) // stride + 1


def extract_patches(image: Float[Array, "h w c"], size: int = PATCH, stride: int = 1) -> Float[Array, "gh gw d"]:
    """Returns the patches of an image, their values by row, column and channel: d = size * size * c."""
    rows, columns = patch_grid(image.shape[:2], size, stride)
    down, across = (np.arange(count)[:, None] * stride + np.arange(size) for count in (rows, columns))
    # One gather: compiled several times faster than size * size slices.
    return image[down[:, None, :, None], across[None, :, None, :]].reshape(rows, columns, -1)


@partial(jax.jit, static_argnames=("size", "stride"))
def nearest_patches(
    samples: Float[Array, "n h w c"], image: Float[Array, "hh ww c"], size: int = PATCH, stride: int = 1
) -> NearestPatches:
    """Returns the nearest of all patches of `image` (every pixel) to each patch of the samples (every `stride` pixels).

    Samples are taken one after another and may be of another size than the image; both must hold a patch.
    """
    patches = extract_patches(image, size)
    return NearestPatches(*lax.map(lambda sample: _nearest(extract_patches(sample, size, stride), patches), samples))


@partial(jax.jit, static_argnames=("size", "stride"))
def own_distances(image: Float[Array, "h w c"], size: int = PATCH, stride: int = 1) -> Float[Array, "gh gw"]:
    """Returns how far each patch of an image (every `stride` pixels) is from the nearest that shares no pixel with it.

    Infinite where all patches overlap it.
    """
    return _nearest(extract_patches(image, size, stride), extract_patches(image, size), size, stride).distance


def _nearest(
    patches: Float[Array, "gh gw d"], others: Float[Array, "oh ow d"], apart: int = 0, stride: int = 1
) -> NearestPatches:
    """Returns the nearest of `others` to each of `patches`: [gh, gw] each.

    Args:
      patches: one every `stride` pixels.
      others: one at every pixel.
      apart: if not 0, others that are nearer than `apart` pixels both down and across do not count.
    """
    (height, width, depth), columns = patches.shape, others.shape[1]
    listed = others.reshape(-1, depth)
    centre = jnp.mean(listed, axis=0)  # small numbers lose less in the products
    block, other_block = _block(height * width, SAMPLE_BLOCK), _block(listed.shape[0], IMAGE_BLOCK)
    numbers = jnp.arange(height * width)
    places = jnp.stack([numbers // width, numbers % width], axis=-1) * stride
    other_numbers = jnp.arange(listed.shape[0])
    other_places = jnp.stack([other_numbers // columns, other_numbers % columns], axis=-1)
    squares = jnp.sum(jnp.square(listed - centre), axis=-1)
    blocks = (
        _in_blocks(listed - centre, other_block),
        _in_blocks(squares, other_block, jnp.inf),  # what fills up the last block is never the nearest
        _in_blocks(other_places, other_block),
        _in_blocks(other_numbers, other_block),
    )

    def of_block(block):
        values, place = block

        def step(best, others):
            other, square, other_place, number = others
            # Without the patch's own square, which is the same for all.
            score = square - 2 * jnp.matmul(values, other.T, precision=lax.Precision.HIGHEST)
            if apart:
                away = jnp.abs(place[:, None] - other_place[None])
                score = jnp.where(jnp.all(away < apart, axis=-1), jnp.inf, score)
            least = jnp.min(score, axis=-1)
            # Two minima are several times faster than XLA's argmin on a CPU.
            nearest = jnp.min(jnp.where(score == least[:, None], number, listed.shape[0] - 1), axis=-1)
            nearer = least < best[0]
            return (jnp.where(nearer, least, best[0]), jnp.where(nearer, nearest, best[1])), None

        nothing = (jnp.full(place.shape[:1], jnp.inf), jnp.zeros(place.shape[:1], jnp.int32))
        return lax.scan(step, nothing, blocks)[0]

    flat = patches.reshape(-1, depth)
    score, nearest = lax.map(of_block, (_in_blocks(flat - centre, block), _in_blocks(places, block)))
    score, nearest = (each.reshape(-1)[: height * width] for each in (score, nearest))
    distance = jnp.sqrt(jnp.mean(jnp.square(flat - listed[nearest]), axis=-1))
    distance = jnp.where(jnp.isinf(score), jnp.inf, distance)
    return NearestPatches(*(x.reshape(height, width) for x in (distance, nearest // columns, nearest % columns)))


def _block(count: int, most: int) -> int:
    """Returns the size of equal blocks of at most `most` that hold `count` with the least filling up."""
    return -(-count // -(-count // most))


def _in_blocks(values: Array, block: int, filling: float = 0) -> Array:
    """Returns an array [n, ...] as [blocks, block, ...], filled up at the end."""
    missing = -values.shape[0] % block
    padding = [(0, missing)] + [(0, 0)] * (values.ndim - 1)
    return jnp.pad(values, padding, constant_values=filling).reshape(-1, block, *values.shape[1:])
