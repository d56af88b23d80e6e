"""Kernel distance (KID) between two sets of features: unlike the Fréchet distance, unbiased with few images.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),      k(a, b) = (a . b / d + 1)^3

Source: Bińkowski et al. 2018, sections 3 and 4 (the unbiased estimator, the kernel, the average over subsets).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.errors import UserError
from singan.shapes import Array, Float, Int

SUBSET_SIZE = 1000
SUBSETS = 100


@dataclasses.dataclass(frozen=True)
class KernelDistance:
    """The kernel distance of two sets.

    Attributes:
      value: mean over the subsets.
      deviation: standard deviation over the subsets; None where there was one subset only.
      subset_size: vectors of each set in a subset.
      subsets: number of subsets.
    """

    value: float
    deviation: float | None
    subset_size: int
    subsets: int


def squared_mmd(real: Float[Array, "n d"], generated: Float[Array, "m d"]) -> Float[Array, ""]:
    """Returns the unbiased estimate of MMD^2 between the distributions that two sets of vectors were drawn from.

    No unit that means anything alone: compare figures on the same features. Its mean is 0 for two draws of one
    distribution, so that single values may be negative; a set and its own copy give a negative value of order 1 / n,
    since every vector meets its own copy in the cross term alone. Needs n and m of 2 or more. NaN where a feature is
    not finite.
    """
    n, m = len(real), len(generated)
    within = _off_diagonal(_kernel(real, real)) / (n * (n - 1)) + _off_diagonal(_kernel(generated, generated)) / (
        m * (m - 1)
    )
    return within - 2 * jnp.mean(_kernel(real, generated))


def kernel_distance(
    real: Float[Array, "n d"],
    generated: Float[Array, "m d"],
    subset_size: int = SUBSET_SIZE,
    subsets: int = SUBSETS,
    seed: int = 0,
) -> KernelDistance:
    """Returns the KID of two sets of 2048-d Inception features: `squared_mmd` over random subsets, averaged.

    Subsets are drawn without replacement within each. Where both sets fit into one subset there is nothing to draw, and
    the one value of all vectors is given; where the smaller set has fewer vectors than subset_size, that many are.

    Raises:
      UserError: a set has fewer than 2 vectors, or a feature is not finite.
    """
    sets = [np.asarray(part, np.float32) for part in (real, generated)]
    for name, part in zip(("real", "generated"), sets, strict=True):
        if len(part) < 2:
            raise UserError(f"the kernel distance needs at least 2 {name} images, not {len(part)}: give more")
        if len(bad := np.flatnonzero(~np.isfinite(part).all(axis=1))):
            raise UserError(f"the features of {name} image {bad[0]} are not finite: look at that image")
    size = min(subset_size, *map(len, sets))
    if size < 2 or subsets < 1:
        raise UserError(f"the kernel distance needs subsets of 2 or more vectors, not {subsets} of {size}")
    if max(map(len, sets)) <= size:
        return KernelDistance(float(_squared_mmd(*sets)), None, size, 1)
    rng = np.random.Generator(np.random.Philox(key=seed))
    chosen = [np.stack([rng.choice(len(part), size, replace=False) for part in sets]) for _ in range(subsets)]
    values = np.asarray(_over_subsets(*sets, np.stack(chosen)), np.float64)
    return KernelDistance(float(values.mean()), float(values.std()) if subsets > 1 else None, size, subsets)


_squared_mmd = jax.jit(squared_mmd)


@jax.jit
def _over_subsets(real: Float[Array, "n d"], generated: Float[Array, "m d"], chosen: Int[Array, "s 2 k"]):
    return lax.map(lambda rows: squared_mmd(real[rows[0]], generated[rows[1]]), chosen)


def _kernel(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Returns k(a, b) - 1: the constant cancels in MMD^2, and float32 keeps more digits without it."""
    t = jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST) / a.shape[1]
    return t * (3 + t * (3 + t))


def _off_diagonal(square: Float[Array, "n n"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(jnp.eye(len(square), dtype=bool), 0, square))
