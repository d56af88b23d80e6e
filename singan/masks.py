"""Masks of manipulation: reading them as yes or no, dilating, blurring, and blending by them. NumPy and SciPy."""

import dataclasses

import numpy as np
from scipy import ndimage

from singan.errors import UserError

REFERENCE_SIZE = 250  # pixels of the longer side for which the reference states its radii
TRUNCATE = 4.0  # standard deviations after which a Gaussian is cut off


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


def binary_mask(values: np.ndarray, name: str = "the mask") -> np.ndarray:
    """Returns bool [H, W]: what lies above the middle of a mask's least and largest value.

    So a mask that went through JPEG, or holds 0 and 255, or labels, is read as it was meant. Of several channels the
    largest counts; an alpha channel is to be taken off before.

    Args:
      values: [H, W] or [H, W, C], boolean or of any number type.

    Raises:
      UserError: it is all one value (empty or full), or not finite.
    """
    plane = np.asarray(values, np.float64)
    plane = plane.max(axis=-1) if plane.ndim == 3 else plane
    low, high = plane.min(), plane.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{name} holds values that are not finite: give 0 outside and 1 (or 255) inside")
    if low == high:
        what = "empty" if low == 0 else "full"
        raise UserError(f"{name} is {what}, {low:g} at every pixel: mark the part that is to change, and only that")
    return plane > (low + high) / 2


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
