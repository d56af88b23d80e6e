"""Masks of manipulation: reading them as yes or no, dilating, blurring, and blending by them. NumPy and SciPy."""

import dataclasses

import numpy as np
from scipy import ndimage

from singan.errors import UserError

REFERENCE_SIZE = 250  # pixels of the longer side for which the reference states its radii
TRUNCATE = 4.0  # standard deviations after which a Gaussian is cut off
WHOLE = 0.05  # from the next whole number: labels that were stored with a scale factor come back as 1.992
AREA = 2.2  # equal neighbours, of 4, of a level's mean pixel: 2 along a line, 2.67 in a square of 3 x 3


@dataclasses.dataclass(frozen=True)
class MaskRule:
    """How a mask becomes the weights of a blend. Lengths are pixels of an image whose longer side is 250.

    Attributes:
      dilation: radius of the disk that the mask is dilated with; the reference's is 7 to harmonise and 20 to edit.
      blur: standard deviation of the Gaussian that then softens it.
      within: keep the soft edge inside the dilated mask, so that nothing outside of that changes at all. The reference
        lets it reach out on both sides of the dilated mask's edge.
    """

    dilation: float = 7.0
    blur: float = 5.0
    within: bool = False


HARMONIZE = MaskRule(7.0)
EDIT = MaskRule(20.0)


def binary_mask(values: np.ndarray, name: str = "the mask", labels: bool | None = None) -> np.ndarray:
    """Returns bool [H, W], what is inside: all labels of a label map; of a grey mask what is above the middle.

    A label map (0 outside, a number for each class, instance or the whole) is inside wherever it is above 0. A grey
    mask, which was blurred, resampled or went through JPEG, is inside above the middle of its least and largest value.
    Of several channels the largest counts; an alpha channel is to be taken off before.

    Args:
      values: [H, W] or [H, W, C], boolean or of any number type.
      labels: whether it is a label map; None finds out with `is_label_map`.

    Raises:
      UserError: it is empty or full, or not finite.
    """
    plane = np.asarray(values)
    plane = plane.max(axis=-1) if plane.ndim == 3 else plane
    low, high = float(plane.min()), float(plane.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{name} holds values that are not finite: give 0 outside and 1 (or 255) inside")
    if low == high:
        what = "empty" if low == 0 else "full"
        raise UserError(f"{name} is {what}, {low:g} at every pixel: mark the part that is to change, and only that")
    if not (is_label_map(plane) if labels is None else labels):
        return plane.astype(np.float64) > (low + high) / 2
    inside = np.rint(plane) > 0 if plane.dtype.kind == "f" else plane > 0
    if not inside.any():
        raise UserError(f"{name} is empty, nothing in it is above 0: mark the part that is to change")
    if inside.all():
        raise UserError(f"{name} is full, its labels go from {low:g} to {high:g}: give 0 to what is outside")
    return inside


def is_label_map(plane: np.ndarray) -> bool:
    """Returns whether a mask [H, W] holds labels (whole numbers that name things) rather than shades of grey.

    Whole numbers are labels, floats up to a rounding of WHOLE. Only those that use the scale of 8 or 16 bits by at
    least half may be shades as well: they are where most levels are specks or contour lines, as blurring, resampling
    and JPEG leave them, while a label has an area.
    """
    if plane.dtype.kind == "b":
        return True
    high = float(plane.max())
    if plane.dtype.kind == "f" and (high <= 1 or np.abs(plane - np.rint(plane)).max() > WHOLE):
        return False
    if not any(limit / 2 < high <= limit for limit in (255, 65535)):
        return True
    levels, level = np.unique(np.rint(plane), return_inverse=True)
    if len(levels) == 2:
        return bool(levels[0] == 0)
    level, alike = level.reshape(plane.shape), np.zeros(plane.shape)
    for axis in (0, 1):
        equal = np.diff(level, axis=axis) == 0
        alike += np.pad(equal, [(1, 0) if side == axis else (0, 0) for side in (0, 1)])
        alike += np.pad(equal, [(0, 1) if side == axis else (0, 0) for side in (0, 1)])
    neighbours = np.bincount(level.ravel(), alike.ravel()) / np.bincount(level.ravel())
    return bool(np.mean(neighbours[levels != 0] > AREA) >= 0.5)


def soft_mask(mask: np.ndarray, rule: MaskRule = HARMONIZE) -> np.ndarray:
    """Returns float64 [H, W] in [0, 1], the share of the result in a blend; 1 somewhere, exactly 0 far from the mask.

    Source: the reference's dilate_mask: disk, Gaussian, stretched to [0, 1].

    Args:
      mask: bool [H, W], neither empty nor full.

    Raises:
      UserError: dilated, the mask leaves nothing of the background.
    """
    scale = max(mask.shape) / REFERENCE_SIZE
    grown = dilate(mask, rule.dilation * scale)
    if grown.all():
        raise UserError(
            f"a mask of {mask.mean():.0%} of the image, dilated by {rule.dilation * scale:.1f} pixels, covers it all:"
            " mark less, or dilate less"
        )
    soft = grown.astype(np.float64)
    if rule.blur > 0:
        soft = ndimage.gaussian_filter(soft, rule.blur * scale, mode="nearest", truncate=TRUNCATE)
        soft[soft < 1e-6] = 0.0  # what rounding leaves far away
        if rule.within:
            # The blurred edge is 1/2 on the edge itself: stretched so, it is 0 there.
            soft = np.where(grown, np.maximum(2 * soft - 1, 0.0), 0.0)
    if soft.max() <= 0:
        raise UserError("the mask is so small that its blurred edge leaves nothing of it: blur less, or dilate more")
    least = 0.0 if rule.within else soft.min()
    return np.clip((soft - least) / (soft.max() - least), 0.0, 1.0)


def dilate(mask: np.ndarray, radius: float) -> np.ndarray:
    """Returns bool [H, W]: the pixels within `radius` pixels of the mask."""
    if radius <= 0:
        return mask.copy()
    return np.asarray(ndimage.distance_transform_edt(~mask)) <= radius


def blend(background: np.ndarray, result: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns (1 - weights) * background + weights * result, in the background's type; its very bits at weight 0.

    Args:
      background, result: [..., H, W, C].
      weights: [H, W] in [0, 1].
    """
    share = weights[..., None]
    mixed = (1 - share) * background.astype(np.float64) + share * result.astype(np.float64)
    if background.dtype.kind in "iu":
        mixed = np.rint(mixed)
    return np.where(share > 0, mixed.astype(background.dtype), background)
