"""A loss that compares patches: the sliced Wasserstein distance between those of a sample and of the training image.

Patches are projected on random directions; for each direction the two sets of numbers, sorted, are compared in pairs.
Sources: sliced distance, Rabin et al. 2011; between patches of two images as what a generator minimises, GPDM (Elnekave
and Weiss, "Generating natural images with direct patch distributions matching", ECCV 2022). Here it stands beside the
critic, of this scale's patches alone, with new directions at every step.
"""

import jax
import jax.numpy as jnp

from singan.config_checks import PATCH
from singan.shapes import Array, Float, Int, Key

DIRECTIONS = 64
MAX_POSITIONS = 64  # of patches, along a side; larger images give those of a grid


def random_directions(key: Key[Array, ""], channels: int) -> Float[Array, "p c v"]:
    """Returns DIRECTIONS random unit vectors [PATCH * PATCH, channels, DIRECTIONS] in the space of patches."""
    vectors = jax.random.normal(key, (PATCH * PATCH, channels, DIRECTIONS), jnp.float32)
    return vectors / jnp.sqrt(jnp.sum(jnp.square(vectors), axis=(0, 1)))


def grid_offset(key: Key[Array, ""], size: tuple[int, int]) -> Int[Array, "2"]:
    """Returns where the grid of patches begins, (row, column): anywhere in the grid's first cell."""
    return jax.random.randint(key, (2,), 0, jnp.asarray([_stride(side) for side in size]))


def patch_distance(
    image: Float[Array, "1 h w c"],
    real: Float[Array, "1 h w c"],
    directions: Float[Array, "p c v"],
    offset: Int[Array, "2"],
) -> Float[Array, ""]:
    """Returns the mean over directions of the Wasserstein distance of order 1 between both images' patches.

    In units of the [-1, 1] range along a unit vector; 0 where both have the same patches, wherever they lie.

    Args:
      directions: of `random_directions`. offset: of `grid_offset`.
    """
    ours, theirs = (jnp.sort(_projections(one[0], directions, offset), axis=-1) for one in (image, real))
    return jnp.mean(jnp.abs(ours - theirs))


def _projections(
    image: Float[Array, "h w c"], directions: Float[Array, "p c v"], offset: Int[Array, "2"]
) -> Float[Array, "v n"]:
    rows, columns = (_stride(side) for side in image.shape[:2])
    # What the grid spans is the same for every offset, so that its size is known when the program is compiled.
    height, width = image.shape[0] - rows + 1, image.shape[1] - columns + 1
    image = jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, image.shape[2]))
    across, down = width - PATCH + 1, height - PATCH + 1
    patches = jnp.stack(
        [image[i : i + down : rows, j : j + across : columns] for i in range(PATCH) for j in range(PATCH)]
    )
    projected = jnp.einsum("phwc,pcv->vhw", patches, directions, precision="highest")
    return projected.reshape(projected.shape[0], -1)


def _stride(side: int) -> int:
    return max(1, -(-(side - PATCH + 1) // MAX_POSITIONS))
