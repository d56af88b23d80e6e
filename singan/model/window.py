"""The part of a large image in which a step trains (train.crop_size), for ONE image.

Both networks see 11 pixels: a window teaches them what the whole image does, for less work. A generator's window is cut
out of its inputs with what surrounds it there, so that without a normalisation its output would be the whole image's at
that place. The normalisation sees the window alone.
"""

import jax
import jax.numpy as jnp
from jax import lax

from singan.model.concurrent import GeneratorInputs
from singan.model.spec import ScaleSpec
from singan.shapes import Array, Float, Int, Key


def random_window(spec: ScaleSpec, key: Key[Array, ""]) -> Int[Array, "2"]:
    """Returns the row and column in pixels at which a window of spec.window begins.

    Windows are drawn from half a window outside the image and moved inside: otherwise a pixel at the border would be
    seen once where one in the middle is seen as often as a window has rows.
    """
    most = [size - side for size, side in zip(spec.size, spec.window, strict=True)]
    outside = [side // 2 for side in spec.window]
    low = jnp.asarray([-out if room else 0 for room, out in zip(most, outside, strict=True)])
    high = jnp.asarray([room + (out if room else 0) for room, out in zip(most, outside, strict=True)])
    return jnp.clip(jax.random.randint(key, (2,), low, high + 1), 0, jnp.asarray(most))


def crop(
    image: Float[Array, "b h w c"], begin: Int[Array, "2"] | None, size: tuple[int, int]
) -> Float[Array, "b hh ww c"]:
    """Returns the part of an image of `size` that begins at a row and column; all of it where `begin` is None."""
    if begin is None:
        return image
    return lax.dynamic_slice(image, (0, begin[0], begin[1], 0), (image.shape[0], *size, image.shape[3]))


def crop_inputs(spec: ScaleSpec, inputs: GeneratorInputs, begin: Int[Array, "2"] | None) -> GeneratorInputs:
    """Returns what enters the generator for a window, with the `spec.border` pixels around it that it loses."""
    height, width = (side + 2 * spec.border for side in spec.window)
    return inputs._replace(x=crop(inputs.x, begin, (height, width)), y=crop(inputs.y, begin, (height, width)))
