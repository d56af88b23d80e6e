"""What a conditional pyramid is given: channels that say what lies where, drawn from a layout, at every scale.

The given channels enter every generator beside noise and previous image, and every critic beside the image. They are
kept as uint8 (0 and 255 are -1 and 1), made at the finest scale, and brought to a coarser one by the mean over each
pixel's area: a small object stays a faint one there, where cubic resizing or the nearest pixel would lose it.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from singan.model.encodings import encode
from singan.model.layouts import POOL_DENSITY, Layout, Rule, permute
from singan.model.noise import Purpose, layout_generator
from singan.model.pyramid import Pyramid
from singan.shapes import Array, Float, UInt


def at_finest(layout: Layout, words: Sequence[str], classes: int, pyramid: Pyramid) -> np.ndarray:
    """Returns the given channels of a layout on the source's grid at the finest scale, uint8 [h, w, K]."""
    drawn = encode(layout, words, classes)
    if pyramid.shrunk == pyramid.source:
        return drawn
    shrink = max(pyramid.shrunk) / max(pyramid.source)
    rows, columns = (area_matrix(*pair, shrink) for pair in zip(pyramid.source, pyramid.shrunk, strict=True))
    return np.rint(np.einsum("ph,hwc,qw->pqc", rows, drawn.astype(np.float32), columns, optimize=True)).astype(np.uint8)


def make_pool(
    layout: Layout, words: Sequence[str], classes: int, pyramid: Pyramid, seed: int, image_id: str, count: int
) -> np.ndarray:
    """Returns the layouts that a training draws from, uint8 [count, h, w, K] at the finest scale, the real one first.

    They depend on (seed, image id) alone, and their densities lie in POOL_DENSITY.
    """
    drawn = [at_finest(layout, words, classes, pyramid)]
    for number in range(1, count):
        rng = layout_generator(seed, image_id, number, Purpose.LAYOUT_POOL)
        made = permute([layout], rng, Rule(density=rng.uniform(*POOL_DENSITY)))
        drawn.append(at_finest(made, words, classes, pyramid))
    return np.stack(drawn)


@functools.lru_cache(maxsize=64)
def area_matrix(length: int, out_length: int, scale: float) -> np.ndarray:
    """Returns the float32 matrix [out_length, length] that resizes a signal by `scale` < 1: means over areas.

    Output pixel p (from 0) covers p / scale to (p + 1) / scale. Rows sum to 1.
    """
    # The last pixel stays inside where a size was rounded up.
    start = np.minimum(np.arange(out_length)[:, None] / scale, length - 1 / scale)
    pixels = np.arange(length)[None]
    covered = np.clip(np.minimum(start + 1 / scale, pixels + 1) - np.maximum(start, pixels), 0, None)
    return (covered / covered.sum(1, keepdims=True)).astype(np.float32)


def condition_level(pyramid: Pyramid, scale: int, finest: UInt[Array, "*b h w k"]) -> UInt[Array, "*b hh ww k"]:
    """Returns given channels of the finest scale at another one."""
    if scale == len(pyramid) - 1:
        return finest
    rows, columns = (
        area_matrix(*pair, pyramid.factor(scale)) for pair in zip(pyramid.sizes[-1], pyramid.sizes[scale], strict=True)
    )
    drawn = jnp.einsum("ph,...hwc->...pwc", rows, jnp.asarray(finest, jnp.float32), precision="highest")
    drawn = jnp.einsum("qw,...pwc->...pqc", columns, drawn, precision="highest")
    return jnp.rint(drawn).astype(jnp.uint8)


def condition_levels(pyramid: Pyramid, finest: UInt[Array, "*b h w k"], last: int) -> tuple[UInt[Array, "..."], ...]:
    """Returns given channels of the finest scale at scales 0 .. last."""
    return tuple(condition_level(pyramid, scale, finest) for scale in range(last + 1))


def in_unit_range(condition: UInt[Array, "*b h w k"]) -> Float[Array, "*b h w k"]:
    """Returns given channels in [-1, 1], as networks take them."""
    return condition.astype(jnp.float32) / 127.5 - 1
