"""Instances from what a segmenter predicts, or from a threshold on the stain; tuned on validation patients alone."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import relabel_sequential, watershed

from experiments.augmentation_study.pairs import Pair
from experiments.augmentation_study.scores import aggregated_jaccard, stain_of
from launch.images.mask_channels import MIN_AREA, split_mask
from launch.images.readers import COLOURS
from singan.shapes import Array, Float, Int


class Decoding(NamedTuple):
    """How instances are read from a prediction."""

    inside: float = 0.5  # probability from which on a pixel belongs to a nucleus
    valley: float = 0.1  # how deep the distance must fall between two hearts that are two nuclei
    least: int = 12  # pixels; smaller instances are dropped


GRID = [Decoding(inside, valley) for inside, valley in itertools.product((0.4, 0.5, 0.6), (0.05, 0.1, 0.2))]
SMOOTHING = 0.5  # pixels; of the predicted distance
HOLE = 64  # pixels; smaller holes in what is inside are filled: pale nuclei have dark rims
SIGMAS = (0.0, 0.5, 1.0, 2.0)  # pixels that the stain is blurred by before Otsu's threshold is taken


def decode(prediction: Float[Array, "h w 2"], how: Decoding, nuclei: bool) -> Int[Array, "h w"]:
    """Returns instances from 1, 0 = background, cut along the valleys of the distance by a watershed.

    Args:
      prediction: inside and distance in [0, 1].
      nuclei: False gives one instance of everything that is inside.
    """
    inside = prediction[..., 0] > how.inside
    if not nuclei:
        return inside.astype(np.int32)
    inside = _filled(inside)
    height = ndimage.gaussian_filter(prediction[..., 1].astype(np.float64), SMOOTHING)
    lowered = reconstruction(height - how.valley, height)
    hearts: Any = label(local_maxima(lowered, connectivity=2) & inside, connectivity=2)
    cut = np.asarray(watershed(-height, hearts, mask=inside))
    # Pieces too flat to have a heart are instances too.
    rest = np.asarray(label(inside & (cut == 0)))
    return _without_specks(np.where(rest > 0, rest + cut.max(), cut), how.least)


def tune(predictions: Sequence[np.ndarray], pairs: Sequence[Pair], nuclei: bool) -> Decoding:
    """Returns the decoding of GRID that does best on validation tiles: by AJI plus Dice, mean over tiles."""
    return _best(GRID, lambda how: [decode(each, how, nuclei) for each in predictions], pairs)


def tune_threshold(pairs: Sequence[Pair]) -> float:
    """Returns the blur of SIGMAS with which Otsu's threshold does best on validation tiles, in the same sense."""
    return _best(SIGMAS, lambda sigma: [by_threshold(pair, sigma, filled=True) for pair in pairs], pairs)


def by_threshold(pair: Pair, sigma: float = 0.0, filled: bool = False) -> Int[Array, "h w"]:
    """Returns the nuclei that Otsu's threshold on the stain gives without training, cut at their waists.

    Args:
      sigma: pixels that the stain is blurred by before.
      filled: whether small holes are filled, as in what a segmenter predicts.
    """
    colours = pair.pixels[..., [pair.channels.index(name) for name in COLOURS]]
    stain = ndimage.gaussian_filter(stain_of(colours), sigma)
    mask = stain > threshold_otsu(stain)
    return split_mask(_filled(mask) if filled else mask, MIN_AREA)


def _best(candidates: Sequence[Any], segment: Callable[[Any], list[np.ndarray]], pairs: Sequence[Pair]) -> Any:
    def quality(candidate):
        rows = zip(segment(candidate), pairs, strict=True)
        return np.mean([aggregated_jaccard(each, pair.instances) + _dice(each, pair.instances) for each, pair in rows])

    return max(candidates, key=quality)


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    areas = (one > 0).sum() + (other > 0).sum()
    return 2 * ((one > 0) & (other > 0)).sum() / areas if areas else 1.0


def _filled(mask: np.ndarray) -> np.ndarray:
    holes = np.asarray(label(~mask, connectivity=1))
    small = np.bincount(holes.ravel()) <= HOLE
    small[np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1], [0]])] = False  # the border closes no hole
    return mask | small[holes]


def _without_specks(instances: np.ndarray, least: int) -> np.ndarray:
    kept = np.bincount(instances.ravel()) >= least
    kept[0] = False
    return relabel_sequential(np.where(kept[instances], instances, 0))[0].astype(np.int32)
