"""How much samples of one image differ from each other: deviation per pixel, and multi-scale structural similarity."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.metrics.values import Undefined, Value, check_images
from singan.shapes import Array, Float, Int

DEFINITIONS = {
    "diversity": "standard deviation of each pixel's intensity over the samples, averaged over pixels (and channels),"
    " divided by that of all intensities of the training image (SinGAN, section 3); no unit; 0 for copies",
    "ms_ssim": "multi-scale structural similarity (Wang 2003) of pairs of samples, averaged over pairs and channels;"
    " 1 when all samples are alike, lower for diverse ones",
}

WINDOW, SIGMA = 11, 1.5  # pixels; of the Gaussian of Wang et al. 2004
RANGE = 2.0  # of the values
LUMINANCE, CONTRAST = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2  # C1 and C2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2; finest scale first
MAX_PAIRS = 128
ONE_SAMPLE = "one sample alone has no diversity: draw two or more"


def diversity(samples: Any, image: Any, names: Sequence[str] = ()) -> dict[str, Value]:
    """Returns `diversity`, `diversity/<channel>` and `ms_ssim` (see DEFINITIONS) of the samples of one image.

    A deviation over few samples is biased low (0.56 of its limit for two Gaussian samples, 0.95 for 16): compare equal
    numbers. MS-SSIM is taken over all pairs, or over MAX_PAIRS of them in which the samples take part equally often.

    Args:
      samples: [n, H, W, C] in [-1, 1].
      image: [h, w, C] in [-1, 1]; of any size.
      names: of the channels; their numbers where not given.

    Raises:
      UserError: see check_images.
    """
    samples, image = check_images(samples, image)
    names = names or [str(channel) for channel in range(image.shape[-1])]
    keys = ["diversity", *(f"diversity/{name}" for name in names)]
    if len(samples) < 2:
        return {key: Undefined(ONE_SAMPLE) for key in [*keys, "ms_ssim"]}
    over_samples = np.asarray(pixel_deviation(samples), np.float64)
    over_pixels = [_deviation(image), *(_deviation(image[..., channel]) for channel in range(image.shape[-1]))]
    ratios: dict[str, Value] = {}
    for key, top, bottom in zip(keys, [over_samples.mean(), *over_samples], over_pixels, strict=True):
        constant = Undefined("the training image holds one value only: there is nothing to compare the deviation with")
        ratios[key] = float(top / bottom) if bottom else constant
    if not scale_count(*samples.shape[1:3]):
        return {**ratios, "ms_ssim": Undefined(f"samples smaller than SSIM's window of {WINDOW}x{WINDOW} pixels")}
    first, second = sample_pairs(len(samples), MAX_PAIRS)
    return {**ratios, "ms_ssim": float(np.mean(pairwise_ms_ssim(samples, first, second)))}


@jax.jit
def pixel_deviation(samples: Float[Array, "n h w c"]) -> Float[Array, "c"]:
    """Returns each channel's standard deviation over the samples (divided by n) per pixel, averaged over pixels."""
    # Taken from the first, equal samples deviate by exactly nothing, however their mean is rounded.
    return jnp.mean(jnp.std(samples - samples[0], axis=0), axis=(0, 1))


def _deviation(values: np.ndarray) -> float:
    return float(np.std(values, dtype=np.float64)) if np.ptp(values) else 0.0


def sample_pairs(count: int, most: int = MAX_PAIRS) -> tuple[Int[Array, "p"], Int[Array, "p"]]:
    """Returns at most `most` different pairs of the numbers below `count`, first the ones next to each other (cyclic).

    Every number is in as many pairs as any other, or in one or two more.
    """
    pairs = dict.fromkeys(
        (min(a, b), max(a, b))
        for lag in range(1, count // 2 + 1)
        for a, b in ((a, (a + lag) % count) for a in range(count))
    )
    first, second = np.array([*pairs][:most], np.int32).reshape(-1, 2).T
    return first, second


@jax.jit
def pairwise_ms_ssim(
    samples: Float[Array, "n h w c"], first: Int[Array, "p"], second: Int[Array, "p"]
) -> Float[Array, "p c"]:
    """Returns MS-SSIM per channel of the pairs samples[first[k]], samples[second[k]], one pair after another."""
    return lax.map(lambda pair: ms_ssim(samples[pair[0]], samples[pair[1]]), (first, second))


def scale_count(height: int, width: int) -> int:
    """Returns how many scales MS-SSIM has for images of this size: at most 5, the coarsest no smaller than the window.

    5 from 176 pixels on, 3 at 56, 1 below 22, and 0, which means undefined, below 11.
    """
    sizes = [min(height, width) // 2**scale for scale in range(len(SCALE_WEIGHTS))]
    return sum(size >= WINDOW for size in sizes)


@jax.jit
def ms_ssim(a: Float[Array, "h w c"], b: Float[Array, "h w c"]) -> Float[Array, "c"]:
    """Returns the multi-scale structural similarity of two images in [-1, 1], per channel; at most 1, for equal images.

    The product over scales of the mean of contrast times structure, and at the coarsest scale of luminance too, to the
    power of SCALE_WEIGHTS (Wang, Simoncelli and Bovik 2003, equation 7, as in their code). Between scales 2x2 means.
    With fewer than five scales (see scale_count) the weights of the finest ones are used, divided by their sum. Means
    below 0 count as 0, since they have no such power.
    """
    count = scale_count(*a.shape[:2])
    weights = np.array(SCALE_WEIGHTS[:count]) / sum(SCALE_WEIGHTS[:count])
    product = jnp.ones(a.shape[-1], a.dtype)
    for scale, weight in enumerate(weights):
        similarity, contrast = ssim(a, b)
        product *= jnp.maximum(similarity if scale == count - 1 else contrast, 0) ** float(weight)
        a, b = _halve(a), _halve(b)
    return product


@jax.jit
def ssim(a: Float[Array, "h w c"], b: Float[Array, "h w c"]) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
    """Returns the structural similarity of two images in [-1, 1] and its part without luminance, per channel.

    Wang, Bovik, Sheikh and Simoncelli 2004, equations 12 and 13: Gaussian window of 11x11 pixels with sigma 1.5,
    K1 = 0.01, K2 = 0.03, averaged over the windows that lie within the image.
    """
    mean_a, mean_b, square_a, square_b, product = _windowed(jnp.stack([a, b, a * a, b * b, a * b]))
    variances = (square_a - mean_a**2) + (square_b - mean_b**2)
    contrast = (2 * (product - mean_a * mean_b) + CONTRAST) / (variances + CONTRAST)
    luminance = (2 * mean_a * mean_b + LUMINANCE) / (mean_a**2 + mean_b**2 + LUMINANCE)
    return jnp.mean(luminance * contrast, axis=(0, 1)), jnp.mean(contrast, axis=(0, 1))


def _windowed(images: Float[Array, "n h w c"]) -> Float[Array, "n hh ww c"]:
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (distance / SIGMA) ** 2)
    weights = (weights / weights.sum()).tolist()
    for axis in (1, 2):
        size = images.shape[axis] - WINDOW + 1
        images = sum(
            (weight * lax.slice_in_dim(images, i, i + size, axis=axis) for i, weight in enumerate(weights)),
            start=jnp.zeros((), images.dtype),
        )
    return images


def _halve(image: Float[Array, "h w c"]) -> Float[Array, "hh ww c"]:
    height, width, channels = image.shape
    even = image[: height // 2 * 2, : width // 2 * 2]
    return jnp.mean(even.reshape(height // 2, 2, width // 2, 2, channels), axis=(1, 3))
