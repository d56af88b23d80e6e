"""Bringing samples towards the style of the real image: its patches at the finest scales.

Optional, after sampling; the structure of a sample stays, its texture moves. Fidelity bought this way can cost
diversity: measure both. Masks are no texture: the channels that are matched are named, the others stay to the bit.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from singan.errors import UserError
from singan.model.pyramid import resize_matrix
from singan.shapes import Array, Bool, Float, Int, Key

TOLERANCE = 0.05  # in [-1, 1], six grey levels of 8 bits: what is nearer to the background than this is background
NEAR_ENOUGH = 1e-3  # between projections, in [-1, 1]: nearer ones are not moved, an eighth of a grey level


def match_style(
    samples: Float[Array, "n h w c"],
    real: Float[Array, "hh ww cc"],
    key: Key[Array, ""],
    *,
    channels: Sequence[int] | None = None,
    background: Sequence[float | None] | None = None,
    steps: int = 50,
    strength: float = 1.0,
    levels: int = 3,
    ratio: float = 0.75,
    patch_size: int = 7,
    projections: int = 32,
    learning_rate: float = 0.02,
    batch: int | None = None,
) -> Float[Array, "n h w c"]:
    """Returns the samples with the real image's distribution of patches at the finest scales, in [-1, 1].

    Adam on the pixels lowers the sliced Wasserstein distance of order 1 between the patches of sample and real image,
    with random projections that are drawn anew at each step, summed over `levels` scales. The learning rate falls to 0
    along a cosine. Where there is a background, patches that hold some of it do not count: a sample with more of it
    than the real image is not made to fill it.

    Source: Elnekave and Weiss, "Generating natural images with direct Patch Distributions Matching" (ECCV 2022),
    section 3 (GPDM): there from noise at the coarsest scale, here from a sample and at the finest ones only.

    Args:
      samples: in [-1, 1].
      real: in [-1, 1]; may differ from the samples in size.
      key: of the projections, the same ones for all samples: but for rounding, a sample's result does not depend on
        the others.
      channels: which are matched, together; the others stay as they are. All where not given.
      background: per channel, in [-1, 1], None for a channel without. Where all matched channels have one, pixels of a
        sample that hold it in all of them stay as they are.
      strength: share of the change that is made, 0 (none) to 1.
      levels: scales, the samples' own one included; those smaller than a patch are left out.
      ratio: of neighbouring scales.
      batch: samples on the device at one time; by default all, or one on a CPU, which is as fast there.

    Raises:
      UserError: channels differ or do not exist, the samples or the image are smaller than a patch, or a number is out
        of range.
    """
    chosen = _check(samples, real, channels, steps, strength)
    if min(*samples.shape[1:3], *real.shape[:2]) < patch_size:
        raise UserError(f"samples and image must be larger than a patch of {patch_size} pixels to match their patches")
    if levels < 1 or projections < 1 or not 0 < ratio < 1:
        raise UserError("levels and projections must be at least 1, and ratio between 0 and 1")
    least = min(*samples.shape[1:3], *real.shape[:2])
    factors = tuple(ratio**level for level in range(levels) if level == 0 or ratio**level * least >= patch_size)
    x, y, padding = _matched(samples, real, background, chosen)
    matched = _match_patches(
        x,
        y,
        padding,
        key,
        learning_rate,
        steps=steps,
        factors=factors,
        patch_size=patch_size,
        projections=projections,
        batch=_batch(batch, samples),
    )
    return _put_back(samples, x, matched, chosen, strength)


def _check(samples: Any, real: Any, channels: Sequence[int] | None, steps: int, strength: float) -> tuple[int, ...]:
    """Returns the channels that are matched."""
    count = real.shape[-1]
    if samples.shape[-1] != count:
        raise UserError(f"samples have {samples.shape[-1]} channels and the real image has {count}")
    chosen = tuple(range(count)) if channels is None else tuple(channels)
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= channel < count for channel in chosen):
        raise UserError(f"channels={list(chosen)} must be different numbers from 0 to {count - 1}, at least one")
    if not 0 <= strength <= 1 or steps < 1:
        raise UserError(f"strength={strength:g} must be from 0 to 1 and steps={steps} at least 1")
    return chosen


def _matched(samples: Any, real: Any, background: Sequence[float | None] | None, chosen: tuple[int, ...]) -> Any:
    """Returns the matched channels of samples and image, and their background [k], NaN where there is none."""
    values = [None] * real.shape[-1] if background is None else list(background)
    if len(values) != real.shape[-1]:
        raise UserError(f"background={values} must have a value, or None, for each of {real.shape[-1]} channels")
    here = [values[channel] for channel in chosen]
    padding = np.array([np.nan if None in here else value for value in here], np.float32)
    return (*(jnp.asarray(image, jnp.float32)[..., list(chosen)] for image in (samples, real)), padding)


def _put_back(samples: Any, before: Array, after: Array, chosen: tuple[int, ...], strength: float) -> Array:
    if strength == 0:
        return jnp.asarray(samples)
    if strength < 1:
        after = jnp.where(after == before, before, before + jnp.float32(strength) * (after - before))
    return jnp.asarray(samples).at[..., list(chosen)].set(after)


def _batch(batch: int | None, samples: Any) -> int:
    if batch is not None:
        return batch
    return 1 if jax.default_backend() == "cpu" else max(1, len(samples))


def _is_background(image: Float[Array, "*n h w k"], padding: Float[Array, "k"]) -> Bool[Array, "*n h w 1"]:
    return jnp.all(jnp.abs(image - padding) <= TOLERANCE, axis=-1, keepdims=True)  # never where padding is NaN


def _descend(
    images: Float[Array, "n h w k"],
    kept: Bool[Array, "n h w 1"],
    extra: Any,
    shared: Callable[[Int[Array, ""]], Any],
    loss: Callable[[Array, Any, Any], Array],
    learning_rate: Array,
    steps: int,
    batch: int,
) -> Float[Array, "n h w k"]:
    """Returns images in [-1, 1] after `steps` steps of Adam on loss(image, its extra, shared(step)), one loss each."""
    adam = optax.adam(lambda step: learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * step / steps)))
    gradient = jax.grad(loss)

    def step(carry, number):
        now, state = carry
        of_all = shared(number)
        gradients = lax.map(
            lambda each: gradient(*each, of_all), (now, extra), batch_size=None if batch == 1 else batch
        )
        updates, state = adam.update(jnp.where(kept, 0, gradients), state)
        return (jnp.where(kept, now, jnp.clip(now + updates, -1, 1)), state), None

    (images, _), _ = lax.scan(step, (images, adam.init(images)), jnp.arange(steps))
    return images


@functools.partial(jax.jit, static_argnames=("steps", "factors", "patch_size", "projections", "batch"))
def _match_patches(samples, real, padding, key, learning_rate, *, steps, factors, patch_size, projections, batch):
    kept = _is_background(samples, padding)
    counted = [_counted(_shrink(~kept, factor), patch_size) for factor in factors]
    real_counted = [_counted(_shrink(~_is_background(real, padding), factor), patch_size) for factor in factors]
    real_levels = [_shrink(real, factor) for factor in factors]
    shape = (patch_size * patch_size * real.shape[-1], projections)

    def shared(number):
        directions = jax.random.normal(jax.random.fold_in(key, number), shape)
        directions /= jnp.sqrt(jnp.sum(directions**2, axis=0))
        slices = [
            _ascending(_project(level, directions), counts)
            for level, counts in zip(real_levels, real_counted, strict=True)
        ]
        return directions, slices

    def loss(image, counted, of_all):
        directions, slices = of_all
        total = 0.0
        for factor, counts, real_counts, target in zip(factors, counted, real_counted, slices, strict=True):
            projected = _project(_shrink(image, factor), directions)
            aims = _aims(lax.stop_gradient(projected), counts, target, real_counts.sum())
            distance = jnp.abs(projected - aims)
            # Adam would make a whole step of a rounding error.
            distance = jnp.where(counts & (distance > NEAR_ENOUGH), distance, 0)
            total += distance.sum() / (projections * jnp.maximum(counts.sum(), 1))
        return total

    return _descend(samples, kept, counted, shared, loss, learning_rate, steps, batch)


def _shrink(image: Array, factor: float) -> Float[Array, "*n hh ww k"]:
    image = image.astype(jnp.float32)
    if factor == 1:
        return image
    rows, columns = (
        jnp.asarray(resize_matrix(side, math.ceil(side * factor), factor, "mirror"), jnp.float32)
        for side in image.shape[-3:-1]
    )
    return jnp.einsum("ph,...hwk,qw->...pqk", rows, image, columns, precision=lax.Precision.HIGHEST)


def _counted(subject: Float[Array, "*n h w 1"], size: int) -> Bool[Array, "*n patches"]:
    """Returns which patches hold no background."""
    window = (1,) * (subject.ndim - 3) + (size, size, 1)
    least = lax.reduce_window(subject, jnp.inf, lax.min, window, (1,) * subject.ndim, "VALID")
    return least.reshape(*subject.shape[:-3], -1) > 0.5


def _project(image: Float[Array, "h w k"], directions: Float[Array, "d v"]) -> Float[Array, "v patches"]:
    size = math.isqrt(directions.shape[0] // image.shape[-1])
    rows, columns = (side - size + 1 for side in image.shape[:2])
    # Slices and a product: within a loop on a CPU, the gradient of a convolution takes five times as long.
    shifted = [image[y : y + rows, x : x + columns] for y in range(size) for x in range(size)]
    patches = jnp.stack(shifted, axis=2).reshape(rows * columns, -1)
    return jnp.matmul(patches, directions, precision=lax.Precision.HIGHEST).T


def _order(values: Float[Array, "v n"], counted: Bool[Array, "n"]) -> Int[Array, "v n"]:
    """Returns which values come first, second, ... in each row; those that do not count come last.

    Value and place share the bits of one integer, which XLA:CPU sorts fifteen times as fast as an argsort. Values are
    therefore told apart to 2^-15 of the largest for up to 65,536 of them; nearer ones may change places.
    """
    bits = max(1, (values.shape[1] - 1).bit_length())
    largest = jnp.maximum(jnp.max(jnp.abs(values), axis=1, keepdims=True), 1e-12)
    top = min(2 ** (31 - bits) - 1, 2**23)  # which float32 still counts to
    steps = jnp.where(counted, jnp.round(values / largest * (top - 1)), top).astype(jnp.int32)
    packed = (steps << bits) | lax.broadcasted_iota(jnp.int32, values.shape, 1)
    return jnp.sort(packed, axis=1) & ((1 << bits) - 1)


def _ascending(values: Float[Array, "v n"], counted: Bool[Array, "n"]) -> Float[Array, "v n"]:
    return jnp.take_along_axis(values, _order(values, counted), axis=1)


def _aims(
    values: Float[Array, "v n"],
    counted: Bool[Array, "n"],
    target: Float[Array, "v m"],
    target_count: Int[Array, ""],
) -> Float[Array, "v n"]:
    """Returns where optimal transport takes each value: to the target's quantile of the same rank."""
    ranks = jnp.arange(values.shape[1])
    count = jnp.maximum(counted.sum(), 1)
    place = jnp.clip((ranks + 0.5) / count * target_count - 0.5, 0, jnp.maximum(target_count - 1, 0))
    below = jnp.floor(place).astype(jnp.int32)
    above = jnp.minimum(below + 1, jnp.maximum(target_count - 1, 0))
    quantiles = target[:, below] + (place - below) * (target[:, above] - target[:, below])
    rows = jnp.arange(values.shape[0])[:, None]
    return jnp.zeros_like(values).at[rows, _order(values, counted)].set(quantiles, unique_indices=True)
