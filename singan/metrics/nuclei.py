"""Nuclei of samples with masks against the source's: how many, how large, of what kind, how well drawn. Host only.

Instances are int [H, W], 0 = background; pixels that meet at a corner are connected. Classes are numbered from 1.
Nuclei that the image's border cuts count like any other, in samples and source alike.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage, stats
from scipy.spatial import ConvexHull

from singan.errors import UserError
from singan.metrics.values import Undefined, Value, difference
from singan.shapes import Array, Bool, Float, Int

DEFINITIONS = {
    "nuclei": "number of nuclei in the image",
    "nuclei_ratio": "number of nuclei divided by the source's; 1 for copies",
    "area_mean": "mean area of a nucleus, in pixels",
    "area_distance": "1-D Wasserstein distance of the areas of nuclei to the source's, in pixels; 0 for copies",
    "class_distance": "total variation of the shares of classes among nuclei to the source's: half the sum of absolute"
    " differences, 0 (as in copies) to 1",
    "agreement": "probability that a pixel inside the mask holds more stain than one outside (area under the ROC"
    " curve): 1 where the mask shows where the stain is, 0.5 where it has nothing to do with it",
    "agreement_gap": "agreement less the source's; 0 for copies, negative where image and mask go together less well",
    "valid": "share of nuclei that are connected, of an area and of a solidity as in the source; the source's own share"
    " for copies",
    "valid_connected": "share of nuclei that are one piece",
    "valid_area": "share of nuclei whose area is in the source's range, widened by half on both sides",
    "valid_solidity": "share of nuclei whose area is at least such a part of their convex hull's as the source's least"
    " solid nucleus has, less 0.05",
}

AREA_MARGIN, SOLIDITY_MARGIN = 1.5, 0.05
EIGHT = np.ones((3, 3), bool)
DARKEST = 1e-6  # of the transmitted light, as in scikit-image
# Optical density of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
NO_NUCLEI = Undefined("the sample shows no nuclei")
NO_SOURCE_NUCLEI = Undefined("the source shows no nuclei")


@dataclasses.dataclass(frozen=True)
class Nuclei:
    """What is measured of the nuclei of one image, in the order of their ids.

    Attributes:
      areas: int [n], in pixels.
      classes: int [n]; empty where no classes were given.
      pieces: int [n], how many connected pieces an instance has.
      solidity: float [n], area divided by that of the convex hull.
      agreement: see DEFINITIONS.
    """

    areas: np.ndarray
    classes: np.ndarray
    pieces: np.ndarray
    solidity: np.ndarray
    agreement: Value


class PanopticQuality(NamedTuple):
    """Kirillov et al. 2019: quality = segmentation * recognition, each from 0 to 1."""

    quality: float
    segmentation: float
    recognition: float


def measure_nuclei(instances: Any, classes: Any = None, stain: Any = None) -> Nuclei:
    """Returns what is measured of one image, sample or source.

    Args:
      instances: int [H, W].
      classes: int [n], the class of each id that occurs, in ascending order of ids; None where there are none.
      stain: [H, W], more of it where nuclei should be: see haematoxylin; None where there is no image.

    Raises:
      UserError: the shapes do not go together, or the stain is not finite.
    """
    instances = np.asarray(instances)
    if instances.ndim != 2 or instances.dtype.kind not in "iu" or instances.min(initial=0) < 0:
        raise UserError(f"instances must be whole numbers from 0 up, [H, W], not {instances.dtype}{instances.shape}")
    ids, numbered = np.unique(instances, return_inverse=True)
    numbered = numbered.reshape(instances.shape) + int(0 not in ids)  # without gaps
    count = len(ids) - int(0 in ids)
    classes = np.zeros(0, np.int64) if classes is None else np.asarray(classes, np.int64)
    if len(classes) not in (0, count):
        raise UserError(f"{len(classes)} classes were given for {count} nuclei: give one for each")
    cut = [numbered[box] == number for number, box in enumerate(ndimage.find_objects(numbered), start=1)]
    without_image = Undefined("no image was given beside the mask")
    return Nuclei(
        areas=np.array([shape.sum() for shape in cut], np.int64),
        classes=classes,
        pieces=np.array([_pieces(shape) for shape in cut], np.int64),
        solidity=np.array([solidity(shape) for shape in cut], np.float64),
        agreement=without_image if stain is None else separability(stain, numbered > 0),
    )


def compare_nuclei(sample: Nuclei, source: Nuclei) -> dict[str, Value]:
    """Returns the metrics of DEFINITIONS for one sample; for the source's own values give it as the sample."""
    count, source_count = len(sample.areas), len(source.areas)
    missing = NO_NUCLEI if not count else NO_SOURCE_NUCLEI if not source_count else None
    row: dict[str, Value] = {
        "nuclei": float(count),
        "nuclei_ratio": count / source_count if source_count else NO_SOURCE_NUCLEI,
        "area_mean": float(sample.areas.mean()) if count else NO_NUCLEI,
        "area_distance": missing or area_distance(sample.areas, source.areas),
        "class_distance": missing or class_distance(sample.classes, source.classes),
        "agreement": sample.agreement,
        "agreement_gap": difference(sample.agreement, source.agreement),
    }
    shares = ("valid", "valid_connected", "valid_area", "valid_solidity")
    if missing:
        return {**row, **dict.fromkeys(shares, missing)}
    connected = sample.pieces == 1
    area = (sample.areas >= source.areas.min() / AREA_MARGIN) & (sample.areas <= source.areas.max() * AREA_MARGIN)
    solid = sample.solidity >= source.solidity.min() - SOLIDITY_MARGIN
    candidates = (connected & area & solid, connected, area, solid)
    return {**row, **{name: float(each.mean()) for name, each in zip(shares, candidates, strict=True)}}


def area_distance(areas: Int[Array, "n"], source_areas: Int[Array, "m"]) -> float:
    """Returns the 1-D Wasserstein distance of two lists of areas, in pixels; both hold at least one.

    Also of the areas of all samples taken together, which is steadier than the mean of each sample's distance.
    """
    return float(stats.wasserstein_distance(areas, source_areas))


def class_distance(classes: Int[Array, "n"], source_classes: Int[Array, "m"]) -> Value:
    """Returns the total variation distance of the shares of classes, 0 to 1; undefined without classes."""
    if not len(classes) or not len(source_classes):
        return Undefined("no classes were given")
    longest = int(max(classes.max(), source_classes.max())) + 1
    shares, source_shares = (np.bincount(each, minlength=longest) / len(each) for each in (classes, source_classes))
    return float(np.abs(shares - source_shares).sum() / 2)


def haematoxylin(image: Float[Array, "h w 3"]) -> Float[Array, "h w"]:
    """Returns how much haematoxylin a stained tissue image shows, in optical density (base 10), at least 0.

    Colour deconvolution (Ruifrok and Johnston 2001); six times what scikit-image's rgb2hed gives.

    Args:
      image: red, green and blue in [-1, 1], 1 being the light where there is no tissue.
    """
    light = np.maximum((np.asarray(image, np.float64) + 1) / 2, DARKEST)
    return np.maximum((-np.log10(light) @ np.linalg.inv(STAINS))[..., 0], 0)


def separability(stain: Any, mask: Any) -> Value:
    """Returns the probability that a pixel inside `mask` [H, W] holds more `stain` [H, W] than one outside.

    The area under the ROC curve (Mann-Whitney U divided by both counts; half for ties), whatever the stain's unit. Give
    the image's brightness itself, where nuclei are bright, and its negative, where they are dark and not stained.
    """
    stain, mask = np.asarray(stain, np.float64), np.asarray(mask, bool)
    if stain.shape != mask.shape:
        raise UserError(f"the image {stain.shape} and its mask {mask.shape} must be of one size")
    if not np.isfinite(stain).all():
        raise UserError("the image beside the mask holds values that are not numbers: leave it out")
    inside, outside = int(mask.sum()), int((~mask).sum())
    if not inside:
        return NO_NUCLEI
    if not outside:
        return Undefined("nuclei cover the whole image")
    ranks = stats.rankdata(stain.ravel())[mask.ravel()].sum()
    return float((ranks - inside * (inside + 1) / 2) / (inside * outside))


def solidity(shape: Bool[Array, "h w"]) -> float:
    """Returns the area of a shape divided by that of its convex hull, in whole pixels, in (0, 1]; 1 for a convex one.

    The hull is that of the middles of the pixels' sides, and holds the pixels whose middles it holds: as in
    scikit-image's convex_hull_image.
    """
    pixels = np.argwhere(shape)
    sides = np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])
    hull = ConvexHull((pixels[:, None] + sides).reshape(-1, 2)).equations
    grid = np.moveaxis(np.indices(shape.shape), 0, -1)
    inside = (grid @ hull[:, :2].T + hull[:, 2] <= 1e-9).all(-1)
    return len(pixels) / int(inside.sum())


def dice(a: Bool[Array, "h w"], b: Bool[Array, "h w"]) -> float:
    """Returns twice the overlap of two masks divided by the sum of their areas, 0 to 1; 1 where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def panoptic_quality(predicted: Int[Array, "h w"], truth: Int[Array, "h w"]) -> PanopticQuality:
    """Returns the panoptic quality of instances against the true ones, classes aside; all 1 where both have none.

    Pairs match where their intersection over union is above 0.5; `segmentation` is the mean of it over these pairs (0
    without any), `recognition` twice their number divided by the number of instances of both.
    """
    pairs, overlaps = np.unique(np.stack([predicted.ravel(), truth.ravel()]), axis=1, return_counts=True)
    predicted_areas, true_areas = (
        dict(zip(*np.unique(each, return_counts=True), strict=True)) for each in (predicted, truth)
    )
    instances = sum(number > 0 for number in [*predicted_areas, *true_areas])
    if not instances:
        return PanopticQuality(1.0, 1.0, 1.0)
    ratios = [
        overlap / (predicted_areas[a] + true_areas[b] - overlap)
        for (a, b), overlap in zip(pairs.T, overlaps, strict=True)
        if a > 0 and b > 0
    ]
    matched = [ratio for ratio in ratios if ratio > 0.5]
    segmentation = float(np.mean(matched)) if matched else 0.0
    recognition = 2 * len(matched) / instances
    return PanopticQuality(segmentation * recognition, segmentation, recognition)


def _pieces(shape: np.ndarray) -> int:
    labels: Any = ndimage.label(shape, EIGHT)
    return int(labels[1])
