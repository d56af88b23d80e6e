"""Distances on Inception features: SIFID of samples to their one training image, FID and KID of two sets of images.

On the host, around singan/metrics/inception.py. Every figure names what Inception looked at: 'red+green+blue', or one
channel copied to all three.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from singan.errors import UserError
from singan.metrics.frechet import feature_frechet
from singan.metrics.inception import MIN_SIDES, inception_features, inception_inputs, inception_sifid, resized
from singan.metrics.kernel_distance import kernel_distance
from singan.metrics.values import Undefined, Value, check_images
from singan.shapes import PyTree

DEFINITIONS = {
    "sifid_64": "single-image Fréchet distance (SinGAN, section 3) on the 64-d feature map of Inception-v3 (weights of"
    " FID) before its first max pooling; images at their own size; squared features; 0 for copies",
    "sifid_192": "the same on the 192-d map before the second max pooling, the SinGAN paper's choice",
    "fid": "Fréchet distance (Heusel 2017) between the 2048-d Inception-v3 features of training images and of samples,"
    " resized to 299x299; squared features; 0 for equal sets; compare at equal numbers of images only",
    "kid": "kernel distance (Bińkowski 2018) between the same features: unbiased squared MMD, cubic kernel, averaged"
    " over subsets; no unit; around 0, also below, for two draws of one distribution",
}

_sifid = jax.jit(inception_sifid, static_argnums=3)
_resized = jax.jit(resized)
_pooled = jax.jit(lambda variables, images: inception_features(variables, images, (2048,))[2048])


def inception_distance(
    samples: Any,
    image: Any,
    variables: PyTree,
    names: Sequence[str],
    layers: Sequence[int] = (64, 192),
) -> list[dict[str, Value]]:
    """Returns for each sample `sifid_<layer>/<channels>`; see DEFINITIONS and inception_inputs.

    Args:
      samples: [n, H, W, C] in [-1, 1].
      image: [h, w, C] in [-1, 1]; of any size.
      variables: of Inception; jax.device_put them once where this is called for many images.
      names: of channels, see inception_inputs.
      layers: 64, 192 or 768.

    Raises:
      UserError: see check_images, inception_inputs and inception_sifid.
    """
    samples, image = check_images(samples, image)
    real, generated = (inception_inputs(images, names) for images in (image[None], samples))
    least = min(*samples.shape[1:3], *image.shape[:2])
    rows: list[dict[str, Value]] = [{} for _ in samples]
    for layer in layers:
        for title in real:
            if least < MIN_SIDES.get(layer, 0):
                values = [Undefined(f"a side below the {MIN_SIDES[layer]} pixels that layer {layer} needs")] * len(rows)
            else:
                values = np.asarray(_sifid(variables, real[title][0], generated[title], layer), np.float64).tolist()
            for row, value in zip(rows, values, strict=True):
                row[f"sifid_{layer}/{title}"] = value
    return rows


def set_features(
    images: Iterable[Any],
    variables: PyTree,
    names: Sequence[str],
    batch: int = 16,
) -> dict[str, np.ndarray]:
    """Returns {channels: features [n, 2048]} of n images [H, W, C] in [-1, 1], which may differ in size.

    Each is resized to 299x299; `batch` of them are computed together. No images give no channels.

    Raises:
      UserError: an image is not [H, W, C] with as many channels as names, or holds values that are not finite; the text
        gives its number. Names as in inception_inputs.
    """
    waiting: dict[str, list[Any]] = {}
    features: dict[str, list[np.ndarray]] = {}

    def compute() -> None:
        for title, parts in waiting.items():
            filled = np.concatenate([*parts, *parts[-1:] * (batch - len(parts))])  # one shape, one compilation
            features.setdefault(title, []).append(np.asarray(_pooled(variables, filled))[: len(parts)])
        waiting.clear()

    for number, image in enumerate(images):
        image = np.asarray(image, np.float32)
        if image.ndim != 3 or image.shape[2] != len(names):
            raise UserError(f"image {number} has shape {image.shape}, not [H, W, {len(names)}]")
        if not np.isfinite(image).all():
            raise UserError(f"image {number} holds values that are not numbers (NaN or infinite): leave it out")
        for title, inputs in inception_inputs(image[None], names).items():
            waiting.setdefault(title, []).append(_resized(inputs))
        if len(next(iter(waiting.values()))) == batch:
            compute()
    compute()
    return {title: np.concatenate(parts) for title, parts in features.items()}


def set_distances(real: Mapping[str, np.ndarray], generated: Mapping[str, np.ndarray]) -> dict[str, Value]:
    """Returns `fid/<channels>` and `kid/<channels>` of two sets' features (set_features); see DEFINITIONS.

    Undefined where a set has fewer than 2 images. With 2048 images or fewer the FID has a value, but is to be shown
    with what singan.metrics.frechet.shortfall says.
    """
    values: dict[str, Value] = {}
    for title in real:
        both = real[title], generated[title]
        few = Undefined(f"{len(both[0])} training and {len(both[1])} generated images: both need 2 at least")
        values[f"fid/{title}"] = few if min(map(len, both)) < 2 else feature_frechet(*both)
        values[f"kid/{title}"] = few if min(map(len, both)) < 2 else kernel_distance(*both).value
    return values
