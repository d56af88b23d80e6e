"""SIFID on fixed random convolutional features: needs no weights and no network, and takes any number of channels.

A small untrained network in place of Inception: random filters and rectification tell textures apart well enough to
rank images (Saxe et al. 2011; Ulyanov et al. 2016), and the same few filters for everyone make the figures comparable.
They are NOT comparable with an Inception SIFID, nor between images of different numbers of channels.

    3x3 convolution C -> 32, LeakyReLU, 3x3 32 -> 32, LeakyReLU, mean over 2x2, 3x3 32 -> 64, LeakyReLU

without padding, so that each of the 64-d vectors looks at 10x10 pixels and lies 2 pixels from the next. The filters of
a layer are orthonormal (in groups, where there are more than dimensions) and scaled so that the variance is kept; no
biases. All but four of the first layer's filters have mean 0 in each channel and see texture alone; those four count a
quarter, since otherwise a little more light would outweigh any loss of detail.
"""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.errors import UserError
from singan.metrics.fixed_random import fixed_normal, unit_rows
from singan.metrics.frechet import map_frechet
from singan.metrics.values import Undefined, Value, check_images
from singan.shapes import Array, Float

DEFINITIONS = {
    "random_sifid": "squared Fréchet distance between the features of sample and training image on a fixed random"
    " convolutional network (64-d, 10x10 pixels), after SIFID; in squared features of [-1, 1] images; 0 for copies; not"
    " comparable with an Inception SIFID or between numbers of channels",
}

MAX_CHANNELS = 16
MIN_SIDE = 16  # pixels: 4 x 4 feature vectors
DIMENSIONS = 64
_WIDTHS = (32, 32, DIMENSIONS)
_TONE, _TONE_GAIN = 4, 0.25  # filters of the first layer that keep their mean, and how much they count
_LEAK = 0.2
_SEED = 20190502


def texture_distance(samples: Any, image: Any) -> list[dict[str, Value]]:
    """Returns for each sample `random_sifid`; see DEFINITIONS.

    Args:
      samples: [n, H, W, C] in [-1, 1].
      image: [h, w, C] in [-1, 1]; of any size.

    Raises:
      UserError: see check_images.
    """
    samples, image = check_images(samples, image)
    try:
        return [{"random_sifid": float(value)} for value in np.asarray(_compiled(image, samples))]
    except UserError as error:
        return [{"random_sifid": Undefined(str(error))} for _ in samples]


def random_sifid(real: Float[Array, "h w c"], samples: Float[Array, "n hh ww c"]) -> Float[Array, "n"]:
    """Returns the SIFID of each sample against the real image on `random_features`: see singan/metrics/frechet.py.

    In units of squared features, whose scale is that of [-1, 1] images. At least 0; copies of the image give 0 (below
    1e-5), and so does an image whose texture has the same statistics. Samples may differ from the image in size. NaN
    where a sample's pixels (or the real image's: everywhere) are not finite. Memory does not grow with n.

    Raises:
      UserError: an image has a side below MIN_SIDE, or more than MAX_CHANNELS channels.
    """
    features = random_features(real[None])[0]
    return lax.map(lambda sample: map_frechet(features, random_features(sample[None])[0]), samples)


_compiled = jax.jit(random_sifid)


def random_features(images: Float[Array, "n h w c"]) -> Float[Array, "n hh ww d"]:
    """Returns the feature maps [n, (h - 4) // 2 - 2, (w - 4) // 2 - 2, DIMENSIONS] of images in [-1, 1].

    Raises:
      UserError: as random_sifid.
    """
    height, width, channels = images.shape[1:]
    if min(height, width) < MIN_SIDE:
        raise UserError(
            f"an image of {height}x{width} pixels is too small for random features: use at least {MIN_SIDE}x{MIN_SIDE}"
        )
    kernels = filters(channels)
    x = _layer(images, kernels[0])
    x = _layer(x, kernels[1])
    x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    return _layer(x, kernels[2])


@functools.cache
def filters(channels: int) -> list[np.ndarray]:
    """Returns the float32 filters [3, 3, inputs, outputs] of the three layers, the same for everyone.

    Raises:
      UserError: there are no channels, or more than MAX_CHANNELS.
    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise UserError(f"random features take 1 to {MAX_CHANNELS} channels, not {channels}: choose some of them")
    gain = math.sqrt(2 / (1 + _LEAK**2))
    tone = unit_rows(fixed_normal(_SEED + channels, (_TONE, 9 * channels))).reshape(-1, 9, channels)
    texture = unit_rows(fixed_normal(_SEED + 100 + channels, (_WIDTHS[0] - _TONE, 8 * channels)))
    texture = np.einsum("rkc,kp->rpc", texture.reshape(-1, 8, channels), _without_mean())
    layers = [np.concatenate([_TONE_GAIN * tone, texture])]
    for number, (inputs, outputs) in enumerate(itertools.pairwise(_WIDTHS), 2):
        layers.append(unit_rows(fixed_normal(_SEED + 100 * number, (outputs, 9 * inputs))).reshape(outputs, 9, inputs))
    return [
        (gain * rows.transpose(1, 2, 0)).reshape(3, 3, rows.shape[2], len(rows)).astype(np.float32) for rows in layers
    ]


def _without_mean() -> np.ndarray:
    """Returns eight orthonormal vectors [8, 9] of mean 0 (Helmert's)."""
    rows = np.tril(np.ones((8, 9)))
    rows[np.arange(8), np.arange(1, 9)] = -np.arange(1, 9)
    return rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True))


def _layer(x: Float[Array, "n h w i"], kernel: np.ndarray) -> Float[Array, "n h-2 w-2 o"]:
    y = lax.conv_general_dilated(
        x,
        jnp.asarray(kernel),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return jnp.where(y > 0, y, _LEAK * y)
