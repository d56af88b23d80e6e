"""How well something pasted into an image sits there: the gradient across its contour, the values inside. Host only.

For tumours (or nuclei) drawn into a background image by a mask and then harmonised. Masks are bool [H, W]; the image's
border is no contour.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from singan.errors import UserError
from singan.metrics.values import Undefined, Value, check_images
from singan.shapes import Array, Bool, Float

DEFINITIONS = {
    "seam": "mean size of the image's gradient across the mask's contour, in a band two pixels wide on either side,"
    " averaged over channels; in units of the [-1, 1] range per pixel; the composite's own for copies of it",
    "seam_composite": "the same of the composite, before harmonisation",
    "seam_background": "the same of the background image, in which nothing was pasted",
    "seam_removed": "how much of what pasting added to the gradient harmonisation took away: 0 for copies of the"
    " composite, 1 for a contour as smooth as the background, above 1 for a smoother one",
    "inside_mean": "mean inside the mask; in units of the [-1, 1] range",
    "inside_std": "standard deviation inside the mask; in units of the [-1, 1] range",
    "inside_p10": "10th percentile inside the mask",
    "inside_p50": "median inside the mask",
    "inside_p90": "90th percentile inside the mask",
    "inside_mean_change": "inside_mean less the composite's; 0 for copies of it",
    "inside_std_change": "inside_std less the composite's; 0 for copies of it",
    "contrast": "inside_mean less the mean of the surroundings, up to 8 pixels outside the contour",
    "contrast_change": "contrast less the composite's; 0 for copies of it",
}

BAND = 2  # pixels on either side of the contour
SURROUNDINGS = 8  # pixels outside the contour
NORMAL_SIGMA = 1.0  # pixels: the contour's stairs are smoothed for its direction
PERCENTILES = (10, 50, 90)


class InsideStatistics(NamedTuple):
    """Statistics of the values inside a mask, float64, per image and channel.

    Attributes:
      mean, std: [n, c], the deviation divided by the number of pixels.
      percentiles: [n, c, 3], of PERCENTILES.
    """

    mean: Float[Array, "n c"]
    std: Float[Array, "n c"]
    percentiles: Float[Array, "n c p"]


def compare_seams(
    harmonised: Any, composite: Any, background: Any, mask: Any, names: Sequence[str] = ()
) -> list[dict[str, Value]]:
    """Returns for each harmonised image the metrics of DEFINITIONS, those of values per channel (`contrast/<channel>`).

    Args:
      harmonised: [n, H, W, C] in [-1, 1]; give composite[None] or background[None] for their own values.
      composite: [H, W, C], what was pasted into the background, before harmonisation.
      background: [H, W, C], the image without it; for example the training image.
      mask: [H, W], true (or not 0) where it was pasted.
      names: of the channels; their numbers where not given.

    Raises:
      UserError: the mask is empty, full or of another size; or see check_images.
    """
    harmonised, composite = check_images(harmonised, composite, same_size=True)
    _, background = check_images(harmonised, background, same_size=True)
    mask = check_mask(mask, composite.shape[:2])
    names = names or [str(channel) for channel in range(composite.shape[-1])]
    before, without = (float(seam_energy(image[None], mask)[0]) for image in (composite, background))
    statistics, pasted = (inside_statistics(images, mask) for images in (harmonised, composite[None]))
    contrast, pasted_contrast = (contrasts(images, mask) for images in (harmonised, composite[None]))
    no_seam = Undefined("the composite's contour is no rougher than the background's: there is no seam to take away")
    rows: list[dict[str, Value]] = []
    for number, energy in enumerate(seam_energy(harmonised, mask).tolist()):
        row: dict[str, Value] = {
            "seam": energy,
            "seam_composite": before,
            "seam_background": without,
            "seam_removed": (before - energy) / (before - without) if before > without else no_seam,
        }
        per_channel = {
            "inside_mean": statistics.mean[number],
            "inside_std": statistics.std[number],
            **{f"inside_p{p}": statistics.percentiles[number, :, i] for i, p in enumerate(PERCENTILES)},
            "inside_mean_change": statistics.mean[number] - pasted.mean[0],
            "inside_std_change": statistics.std[number] - pasted.std[0],
            "contrast": contrast[number],
            "contrast_change": contrast[number] - pasted_contrast[0],
        }
        for key, values in per_channel.items():
            row |= {f"{key}/{name}": float(value) for name, value in zip(names, values, strict=True)}
        rows.append(row)
    return rows


def check_mask(mask: Any, size: tuple[int, int]) -> Bool[Array, "h w"]:
    """Returns a mask as bool [H, W], true where it is not 0.

    Raises:
      UserError: it is not of this size, holds NaN, or is empty or full, and so has no contour.
    """
    mask = np.asarray(mask)
    if mask.shape != tuple(size):
        raise UserError(f"a mask of shape {mask.shape} does not belong to an image of {size[0]}x{size[1]} pixels")
    if mask.dtype.kind == "f" and not np.isfinite(mask).all():
        raise UserError("the mask holds values that are not numbers (NaN or infinite): give 0 outside and 1 inside")
    mask = mask != 0
    if mask.all() or not mask.any():
        raise UserError(f"the mask is {'full' if mask.any() else 'empty'}: mark what was pasted, and nothing else")
    return mask


def signed_distance(mask: Bool[Array, "h w"]) -> Float[Array, "h w"]:
    """Returns the distance in pixels to the contour, which runs between pixels: from 0.5 outside, from -0.5 inside."""
    outside, inside = (np.asarray(ndimage.distance_transform_edt(each)) for each in (~mask, mask))
    return np.where(mask, 0.5 - inside, outside - 0.5)


def seam_energy(images: Float[Array, "n h w c"], mask: Bool[Array, "h w"], band: int = BAND) -> Float[Array, "n"]:
    """Returns the mean of |gradient . normal| over the band along the contour and over channels, float64.

    Gradients are central differences. The normal is the direction of the signed distance to the contour, smoothed by
    NORMAL_SIGMA. A step of height s across a straight contour gives s / (2 * band): its gradient s / 2 at the two
    pixels beside the contour, of 2 * band in the band; an image with one slope g across it gives g.
    """
    distance = signed_distance(mask)
    near = np.abs(distance) < band
    slopes = np.gradient(np.asarray(ndimage.gaussian_filter(distance, NORMAL_SIGMA)))
    normal = np.stack([np.asarray(slope) for slope in slopes], axis=-1)
    length = np.sqrt(np.square(normal).sum(-1, keepdims=True))
    normal = normal / np.where(length > 0, length, 1)
    down, across = (np.gradient(np.asarray(images, np.float64), axis=axis)[:, near] for axis in (1, 2))
    along = down * normal[near][:, :1] + across * normal[near][:, 1:]
    return np.array([np.abs(each).mean() for each in along])


def contour_step(
    image: Float[Array, "h w c"], mask: Bool[Array, "h w"], where: Bool[Array, "h w"] | None = None
) -> float:
    """Returns the mean size of the step over one pixel at the contour, over all channels; NaN without any such pixels.

    That is |a - b| for neighbours by an edge, a inside the mask and b outside.

    Args:
      where: only neighbours count that both lie here; None: all.
    """
    image = np.asarray(image, np.float64)
    counted = np.ones(mask.shape, bool) if where is None else where
    steps = []
    for axis in (0, 1):
        inside, both = (np.moveaxis(each, axis, 0) for each in (mask, counted))
        pairs = (inside[1:] != inside[:-1]) & both[1:] & both[:-1]
        steps.append(np.abs(np.diff(np.moveaxis(image, axis, 0), axis=0))[pairs])
    steps = np.concatenate(steps)
    return float(steps.mean()) if steps.size else float("nan")


def inside_statistics(images: Float[Array, "n h w c"], mask: Bool[Array, "h w"]) -> InsideStatistics:
    """Returns statistics of the values inside the mask, per image and channel."""
    values = np.asarray(images, np.float64)[:, mask]
    percentiles = np.moveaxis(np.percentile(values, PERCENTILES, axis=1), 0, -1)
    return InsideStatistics(values.mean(1), values.std(1), percentiles)


def surroundings(mask: Bool[Array, "h w"], width: int = SURROUNDINGS) -> Bool[Array, "h w"]:
    """Returns which pixels lie outside the mask, up to `width` pixels from its contour."""
    return ~mask & (signed_distance(mask) < width)


def contrasts(images: Float[Array, "n h w c"], mask: Bool[Array, "h w"]) -> Float[Array, "n c"]:
    """Returns the mean inside the mask less that of its surroundings, per image and channel, float64."""
    images = np.asarray(images, np.float64)
    return images[:, mask].mean(1) - images[:, surroundings(mask)].mean(1)
