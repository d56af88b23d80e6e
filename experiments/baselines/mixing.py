"""Pairs made of real ones by cutting and pasting: nuclei copy-paste, CutMix; CarveMix and TumorCP for tumours.

Images are [H, W, C] of any real type, instances int [H, W] with 0 = background. What is returned has the type of the
first image, and instances int32 numbered from 1 without gaps.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import relabel_sequential

from experiments.baselines.deformation import LINEAR, NEAREST, warp
from singan.shapes import Array, Bool, Int

Mixed = tuple[np.ndarray, Int[Array, "h w"]]
TRIES = 30  # places that are tried for one nucleus


def copy_paste(
    image: np.ndarray,
    instances: Int[Array, "h w"],
    donors: Sequence[Mixed],
    rng: np.random.Generator,
    count: int,
    feather: float = 1.0,
    gap: int = 2,
) -> Mixed:
    """Returns a pair with up to `count` nuclei of the donors pasted to free places (as in InsMix, Lin et al. 2022).

    Each is turned by any angle and perhaps mirrored. Its edge is feathered: it takes with it a rim of its surroundings
    that fades out. The mask is the nucleus without the rim. A nucleus that finds no free place is left out, and so
    are nuclei that a donor's border cuts.

    Args:
      donors: (image, instances) that nuclei are taken from; the pair itself may be one.
      feather: pixels, the standard deviation of the fading.
      gap: pixels that stay free between nuclei.
    """
    mixed, ids = image.astype(np.float64), instances.astype(np.int32)
    whole = [(number, *one) for number, (_, labels) in enumerate(donors) for one in _whole_nuclei(labels)]
    for _ in range(count if whole else 0):
        number, value, box = whole[rng.integers(len(whole))]
        patch, shape = _turned(donors[number][0], donors[number][1] == value, box, rng, int(np.ceil(3 * feather)))
        limits = np.array(ids.shape) - shape.shape
        if (limits < 0).any() or not shape.any():
            continue
        occupied = ndimage.binary_dilation(ids > 0, iterations=gap) if gap else ids > 0
        for y, x in rng.integers(0, limits + 1, (TRIES, 2)):
            part = np.s_[y : y + shape.shape[0], x : x + shape.shape[1]]
            if not (occupied[part] & shape).any():
                # 1 on the nucleus, fading out around it.
                alpha = np.maximum(
                    shape, np.exp(-((np.asarray(ndimage.distance_transform_edt(~shape)) / feather) ** 2) / 2)
                )
                alpha = np.where(ids[part] > 0, 0, alpha)[..., None]
                mixed[part] = alpha * patch + (1 - alpha) * mixed[part]
                ids[part][shape] = ids.max() + 1
                break
    return _as(image, mixed), relabel_sequential(ids)[0].astype(np.int32)


def cutmix(first: Mixed, second: Mixed, rng: np.random.Generator) -> Mixed:
    """Returns the first pair with a box of the second in the same place (Yun et al. 2019; French et al. 2020).

    The box's share of the area is drawn evenly from 0 to 1, its place evenly, its proportions are the image's. Nuclei
    that the box cuts keep the part that is left; parts that no longer touch are nuclei of their own.

    Args:
      second: of the same shape as the first.
    """
    (image, instances), (other, other_instances) = first, second
    shape = np.array(instances.shape)
    sides = np.rint(shape * np.sqrt(rng.uniform())).astype(int)
    y, x = (rng.integers(0, limit + 1) for limit in shape - sides)
    box = np.zeros(shape, bool)
    box[y : y + sides[0], x : x + sides[1]] = True
    return _joined(image, instances, other, other_instances, box)


def carvemix(first: Mixed, second: Mixed, rng: np.random.Generator) -> Mixed:
    """Returns the first pair with a region around the second's lesion in the same place (Zhang et al. 2021).

    The region is where the signed distance to the lesion's contour is at most a random one: from half the lesion's
    largest depth inside to as much outside, both sides as likely.

    Args:
      second: of the same shape as the first, with a lesion (instances above 0).
    """
    (image, instances), (other, other_instances) = first, second
    lesion = other_instances > 0
    depth = np.asarray(ndimage.distance_transform_edt(lesion))
    distance = np.where(lesion, -depth, np.asarray(ndimage.distance_transform_edt(~lesion)))
    limit = rng.uniform(0, depth.max() / 2) * rng.choice([-1, 1])
    return _joined(image, instances, other, other_instances, distance <= limit)


def tumor_cp(first: Mixed, donors: Sequence[Mixed], rng: np.random.Generator) -> Mixed:
    """Returns the first pair with one lesion of a donor copied to a random place (TumorCP, Yang et al. 2021).

    It is turned and perhaps mirrored and, each by chance, scaled by 0.75 to 1.25, its intensities raised to a power of
    0.75 to 1.5 of their range, and blurred; its edge is hard. All of it lies where the image is not 0 in every channel;
    it may cover other lesions. Where no place is found, the pair is returned as it is.

    Args:
      donors: (image, instances) of the same patient, of others, or of both; instances are lesions.
    """
    image, instances = first
    mixed, ids = image.astype(np.float64), instances.astype(np.int32)
    lesions = [(number, *one) for number, (_, labels) in enumerate(donors) for one in _whole_nuclei(labels)]
    if not lesions:
        return _as(image, mixed), relabel_sequential(ids)[0].astype(np.int32)
    number, value, box = lesions[rng.integers(len(lesions))]
    factor = rng.uniform(0.75, 1.25) if rng.random() < 0.5 else 1.0
    donor, labels = donors[number]
    patch, shape = _turned(donor, labels == value, box, rng, 0, factor)
    if rng.random() < 0.5:
        low, high = float(donor.min()), max(float(donor.max()), float(donor.min()) + 1e-9)
        patch = low + (high - low) * np.clip((patch - low) / (high - low), 0, 1) ** rng.uniform(0.75, 1.5)
    if rng.random() < 0.5:
        patch = ndimage.gaussian_filter(patch, (sigma := rng.uniform(0.5, 1.0), sigma, 0))
    limits = np.array(ids.shape) - shape.shape
    outside = (image == 0).all(-1)
    for y, x in rng.integers(0, limits + 1, (TRIES, 2)) if (limits >= 0).all() and shape.any() else ():
        part = np.s_[y : y + shape.shape[0], x : x + shape.shape[1]]
        if not (outside[part] & shape).any():
            mixed[part][shape], ids[part][shape] = patch[shape], ids.max() + 1
            break
    return _as(image, mixed), relabel_sequential(ids)[0].astype(np.int32)


def _joined(image, instances, other, other_instances, region: Bool[Array, "h w"]) -> Mixed:
    mixed = np.where(region[..., None], other, image)
    ids = np.where(region, np.where(other_instances > 0, other_instances + int(instances.max()), 0), instances)
    pieces = np.asarray(label(ids, connectivity=2))  # equal values that touch are one
    return _as(image, mixed), pieces.astype(np.int32)


def _whole_nuclei(instances: np.ndarray) -> list[tuple[int, tuple[slice, slice]]]:
    """Returns the number and box of each nucleus that the border does not cut."""
    return [
        (value, box)
        for value, box in enumerate(ndimage.find_objects(instances.astype(np.int32)), start=1)
        if box is not None
        and all(side.start > 0 and side.stop < length for side, length in zip(box, instances.shape, strict=True))
    ]


def _turned(
    image: np.ndarray, shape: np.ndarray, box, rng: np.random.Generator, margin: int, factor: float = 1.0
) -> Mixed:
    """Returns an object with its surroundings, turned by a random angle, `factor` times as large.

    Pixels [s, s, C] and shape bool [s, s].
    """
    middle = np.array([(side.start + side.stop - 1) / 2 for side in box])
    side = int(np.ceil(np.hypot(*(one.stop - one.start for one in box)) * factor)) + 2 * margin
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        turn[:, 1] *= -1
    places = np.einsum("ij,jhw->ihw", turn / factor, np.indices((side, side)) - (side - 1) / 2) + middle[:, None, None]
    kept = warp(shape.astype(np.uint8), places, NEAREST) > 0
    # The mirrored border of a donor must not show the nucleus twice.
    inside = np.all([(axis >= 0) & (axis <= length - 1) for axis, length in zip(places, shape.shape, strict=True)], 0)
    return warp(image.astype(np.float64), places, LINEAR), kept & inside


def _as(like: np.ndarray, values: np.ndarray) -> np.ndarray:
    if like.dtype.kind in "iu":
        limits = np.iinfo(like.dtype)
        return np.clip(np.rint(values), limits.min, limits.max).astype(like.dtype)
    return values.astype(like.dtype)
