"""Patches of images, their exact nearest neighbours, and images made of neighbours: what training-free models stand on.

Source: Granot et al., "Drop the GAN: In Defense of Patches Nearest Neighbors as Single Image Generative Models"
(CVPR 2022), section 3 (GPNN). A patch of s x s pixels and C channels is a row of s s C numbers.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.errors import UserError
from singan.shapes import Array, Float, Int

MAX_DISTANCES = 2**22  # distances that exist at one time, by default: 16 MiB


def extract_patches(image: Float[Array, "h w c"], size: int) -> Float[Array, "n d"]:
    """Returns all n = (h - size + 1) (w - size + 1) patches, row by row, each as d = size * size * c numbers.

    Raises:
      UserError: the image is smaller than a patch.
    """
    height, width, channels = image.shape
    if min(height, width) < size:
        raise UserError(f"an image of {height}x{width} pixels is smaller than a patch of {size}x{size}")
    rows, columns = height - size + 1, width - size + 1
    down, across = (np.arange(count)[:, None] + np.arange(size) for count in (rows, columns))
    return image[down[:, None, :, None], across[None, :, None, :]].reshape(rows * columns, size * size * channels)


def nearest(
    queries: Float[Array, "n d"],
    keys: Float[Array, "m d"],
    alpha: float | None = None,
    max_distances: int = MAX_DISTANCES,
) -> tuple[Int[Array, "n"], Float[Array, "n"]]:
    """Returns for each query the number of its nearest key (the first, where several are), and how far away it is.

    With D_ij the mean squared difference of query i and key j, plain nearest neighbours minimise D_ij over j. With
    alpha, they minimise the paper's normalised score S_ij = D_ij / (alpha + min_l D_lj) (its equation 2): keys that
    no query resembles become attractive, so that all of the keys' image is used ("completeness"). A large alpha is
    the plain search; a small one uses more of the keys.

    Args:
      alpha: in units of D; None for the plain search.
      max_distances: bounds the memory: distances are computed, by matrix products, for blocks of queries. With alpha
        they are computed twice where they do not fit at once.

    Returns:
      (index, distance): int32 and float32 [n]; distance is D, whatever alpha is.
    """
    # D by the binomial formula loses digits where values are large against their differences: hence the centring.
    centre = keys.mean(axis=0)
    queries, keys = queries - centre, keys - centre
    count, length = queries.shape
    key_squares = jnp.sum(keys**2, axis=1)
    blocks = -(-count * keys.shape[0] // max_distances)
    rows = -(-count // blocks)
    padded = jnp.pad(queries, ((0, rows * blocks - count), (0, 0))).reshape(blocks, rows, length)
    real = (jnp.arange(rows * blocks) < count).reshape(blocks, rows)

    def distances(block):
        products = jnp.matmul(block, keys.T, precision=lax.Precision.HIGHEST)
        squares = jnp.sum(block**2, axis=1)[:, None]
        return jnp.maximum(squares + key_squares - 2 * products, 0) / length

    def choose(matrix, weights):
        score = matrix if weights is None else matrix * weights
        least = score.min(axis=1, keepdims=True)
        numbers = lax.broadcasted_iota(jnp.int32, score.shape, 1)
        index = jnp.where(score == least, numbers, keys.shape[0] - 1).min(axis=1)  # on a CPU faster than argmin
        return index, jnp.take_along_axis(matrix, index[:, None], axis=1)[:, 0]

    if blocks <= 1:
        matrix = distances(queries)
        return choose(matrix, None if alpha is None else 1 / (alpha + matrix.min(axis=0)))

    def lower(least, block):
        rows_in, is_real = block
        return jnp.minimum(least, jnp.where(is_real[:, None], distances(rows_in), jnp.inf).min(axis=0)), None

    weights = None
    if alpha is not None:
        least, _ = lax.scan(lower, jnp.full(keys.shape[0], jnp.inf, keys.dtype), (padded, real))
        weights = 1 / (alpha + least)
    index, distance = lax.map(lambda block: choose(distances(block), weights), padded)
    return index.reshape(-1)[:count], distance.reshape(-1)[:count]


def aggregate(values: Float[Array, "h w c"], index: Int[Array, "p q"], size: int) -> Float[Array, "hh ww c"]:
    """Returns the image [p + size - 1, q + size - 1, c] that patches of `values` make where they overlap: their mean.

    Args:
      values: the image that patches are taken from.
      index: the number of the patch of `values` (as extract_patches counts them) that lies at each place.
    """
    values, index = jnp.asarray(values), jnp.asarray(index)
    channels = values.shape[-1]
    rows, columns = index.shape
    top, left = jnp.divmod(index, values.shape[1] - size + 1)
    shape = (rows + size - 1, columns + size - 1)

    # One pixel of all patches at a time, so that the patches never exist all at once.
    def add(total, offset):
        y, x = jnp.divmod(offset, size)
        pixels = values[top + y, left + x]
        old = lax.dynamic_slice(total, (y, x, 0), (rows, columns, channels))
        return lax.dynamic_update_slice(total, old + pixels, (y, x, 0)), None

    total, _ = lax.scan(add, jnp.zeros((*shape, channels), values.dtype), jnp.arange(size * size))
    over = [
        jnp.minimum(jnp.minimum(jnp.arange(n) + 1, n - jnp.arange(n)), jnp.minimum(size, n - size + 1)) for n in shape
    ]
    return total / (over[0][:, None] * over[1])[..., None]


def replace_patches(
    image: Float[Array, "h w c"],
    keys: Float[Array, "hh ww c"],
    values: Float[Array, "hh ww c"],
    size: int,
    alpha: float | None = None,
) -> Float[Array, "h w c"]:
    """Returns the image with each patch replaced by that of `values` whose place in `keys` is the most similar.

    One step of the paper's patch nearest neighbour module (section 3.2). What overlaps is averaged.
    """
    index, _ = nearest(extract_patches(image, size), extract_patches(keys, size), alpha)
    places = (image.shape[0] - size + 1, image.shape[1] - size + 1)
    return aggregate(values, index.reshape(places), size)
