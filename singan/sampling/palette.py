"""Few colours that stand for an image, and an image in those colours: what paintings look like."""

import jax.numpy as jnp
import numpy as np

from singan.errors import UserError
from singan.shapes import Array, Float


def palette(image: np.ndarray, colours: int = 5, seed: int = 0) -> np.ndarray:
    """Returns the `colours` that stand for an image [H, W, C] best, float32 [colours, C], by k-means.

    Raises:
      UserError: the image has fewer different values.
    """
    # Imported here: it takes a fifth of a command's start, and only paintings need it.
    from scipy.cluster.vq import kmeans2

    values = image.reshape(-1, image.shape[-1]).astype(np.float64)
    if len(np.unique(values, axis=0)) < colours:
        raise UserError(f"the image has fewer than {colours} different colours: quantise to fewer")
    centres, _ = kmeans2(values, colours, iter=50, minit="++", rng=np.random.default_rng(seed))
    return centres.astype(np.float32)


def nearest_colour(image: Float[Array, "*b h w c"], centres: Float[Array, "k c"]) -> Float[Array, "*b h w c"]:
    """Returns the image with each pixel replaced by the centre nearest to it."""
    distance = jnp.sum(jnp.square(image[..., None, :] - centres), axis=-1)
    return jnp.asarray(centres)[jnp.argmin(distance, axis=-1)]
