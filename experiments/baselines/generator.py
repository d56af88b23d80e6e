"""GPNN: samples from one image without training, by replacing patches with their nearest neighbours, coarse to fine.

Source: Granot et al., "Drop the GAN: In Defense of Patches Nearest Neighbors as Single Image Generative Models"
(CVPR 2022), sections 3.1 and 3.2. Its numbers (noise, alpha) are for values in [0, 1]; here they are given as there.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.baselines.patch_matching import replace_patches
from singan.errors import UserError
from singan.model.noise import image_words
from singan.model.pyramid import Pyramid

GREY_LEVEL = 1 / 127.5  # of 8 bits, in [-1, 1]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How samples are made; the defaults are the paper's for random samples.

    Attributes:
      patch_size: pixels of a patch's side.
      noise: standard deviation of what is added to the image at the start scale, one map for all channels, where
        the values are [0, 1]: twice as much in [-1, 1].
      alpha: of the completeness score (experiments.baselines.patch_matching.nearest), in mean squares of [0, 1].
      alpha_beside_background: the same where a background is held. Its patches have perfect matches, so that a small
        alpha makes any other patch more attractive, and tissue swells until it is cut off at the rim.
      iterations: replacements at a scale.
      first_iterations: replacements at the start scale, unless it is the finest, which nothing sharpens afterwards.
    """

    patch_size: int = 7
    noise: float = 0.75
    alpha: float = 0.005
    alpha_beside_background: float = 1.0
    iterations: int = 10
    first_iterations: int = 1


def generate(
    image: np.ndarray,
    pyramid: Pyramid,
    seed: int,
    num_samples: int,
    *,
    first: int = 0,
    start_scale: int = 0,
    background: Sequence[float | None] | None = None,
    image_id: str = "",
    settings: Settings = Settings(),
) -> np.ndarray:
    """Returns float32 [num_samples, h, w, C] in [-1, 1], of the pyramid's finest size.

    The start scale's level of the image with noise on it, then at each scale its patches replaced by the image's
    nearest ones: the first time compared with the image as blurred as the sample is, the level below enlarged, then
    with the image itself. A sample depends on (seed, image_id, its number, start_scale) alone.

    Args:
      image: float32 [H, W, C] in [-1, 1], of the size that the pyramid was planned for.
      seed: of the noise, 0 or more.
      first: number of the first sample, so that many can be drawn in several calls.
      start_scale: where the noise comes in; a coarse one makes samples that differ more from the image.
      background: per channel, in [-1, 1]. Where every channel has one (none is None), pixels that are background in
        all channels get no noise and are held at every scale, so that what surrounds the subject stays as it is; the
        paper knows no background and would lay tissue there.

    Raises:
      UserError: the pyramid has no such scale, or the start scale is smaller than a patch.
    """
    check_start(pyramid, start_scale, settings.patch_size)
    levels = tuple(pyramid.level(image, scale) for scale in range(start_scale, len(pyramid)))
    held = None if background is None or None in background else np.asarray(background, np.float32)
    free = tuple(_subject(level, held) for level in levels)
    alpha = settings.alpha if held is None else settings.alpha_beside_background
    settings = dataclasses.replace(settings, alpha=alpha)
    words = np.array([seed, start_scale], np.uint32) ^ np.array(image_words(image_id), np.uint32)
    numbers = np.arange(first, first + num_samples, dtype=np.int32)
    return np.asarray(_samples(pyramid, settings, levels, free, words, numbers))


def check_start(pyramid: Pyramid, start_scale: int, patch_size: int) -> None:
    """Raises a UserError where the pyramid has no such scale, or one that is smaller than a patch."""
    if not 0 <= start_scale < len(pyramid):
        raise UserError(f"start scale {start_scale} is not there: this pyramid has scales 0 to {len(pyramid) - 1}")
    height, width = pyramid.sizes[start_scale]
    if min(height, width) < patch_size:
        raise UserError(
            f"scale {start_scale} of {height}x{width} pixels is smaller than a patch of {patch_size}: start at a finer"
            " scale or raise config.pyramid.min_size"
        )


def _subject(image: np.ndarray, background: np.ndarray | None) -> np.ndarray:
    """Returns bool [H, W, 1]: where an image [H, W, C] is not background in all channels."""
    if background is None:
        return np.ones((*image.shape[:2], 1), bool)
    return np.any(np.abs(image - background) > GREY_LEVEL, axis=-1)[..., None]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _samples(pyramid, settings, levels, free, words, numbers):
    start_scale = len(pyramid) - len(levels)
    alpha = settings.alpha * 4  # mean squares of [-1, 1]

    def one(number):
        key = jax.random.fold_in(jax.random.wrap_key_data(words, impl="threefry2x32"), number)
        noise = 2 * settings.noise * jax.random.normal(key, free[0].shape)
        image, keys = levels[0] + noise * free[0], levels[0]
        for scale, (real, subject) in enumerate(zip(levels, free, strict=True), start=start_scale):
            if scale > start_scale:
                rows, columns = pyramid.upsampling(scale)
                image, keys = (_resize(rows, columns, x) for x in (image, levels[scale - 1 - start_scale]))

            def step(_, carry, real=real, subject=subject):
                image = replace_patches(carry[0], carry[1], real, settings.patch_size, alpha)
                return jnp.where(subject, image, real), real

            coarsest = scale == start_scale < len(pyramid) - 1
            count = settings.first_iterations if coarsest else settings.iterations
            image, _ = lax.fori_loop(0, count, step, (image, keys))
        return image

    # One after another: the memory stays that of one sample, and a sample is the same in any batch.
    return lax.map(one, numbers)


def _resize(rows, columns, image):
    highest = lax.Precision.HIGHEST
    return jnp.einsum("ph,hwc,qw->pqc", rows, image, columns, precision=highest)
