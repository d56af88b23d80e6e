"""How well a segmentation of real patches is: Dice and IoU of the foreground, PQ and AJI of instances, by patient."""

from collections.abc import Sequence

import numpy as np

from experiments.augmentation_study.pairs import Pair
from launch.images.readers import COLOURS
from singan.metrics.nuclei import haematoxylin, panoptic_quality
from singan.shapes import Array, Int

METRICS = {  # {patient}: the word for what is kept apart, pairs.PATIENT or pairs.FOLD
    "dice": "twice the overlap of prediction and truth divided by the sum of their areas, over all test pixels of a"
    " {patient}; 0 to 1",
    "iou": "their overlap divided by the area that either covers, over all test pixels of a {patient}; 0 to 1",
    "aji": "aggregated Jaccard index of nuclei (Kumar et al. 2017), mean over a {patient}'s tiles; 0 to 1",
    "pq": "panoptic quality of nuclei (Kirillov et al. 2019), mean over a {patient}'s tiles; 0 to 1",
}
INSTANCE_METRICS = ("aji", "pq")


def score(
    segmented: Sequence[Int[Array, "h w"]], pairs: Sequence[Pair], instances: bool
) -> dict[str, dict[str, float]]:
    """Returns the metrics of each patient.

    Args:
      segmented: predicted instances [H, W], 0 = background, of the tiles in their order.
      instances: whether nuclei are scored too, one by one.
    """
    scores: dict[str, dict[str, float]] = {}
    for patient in sorted({pair.patient for pair in pairs}):
        some = [(each, pair.instances) for each, pair in zip(segmented, pairs, strict=True) if pair.patient == patient]
        overlap = sum(int(((each > 0) & (truth > 0)).sum()) for each, truth in some)
        areas = sum(int((each > 0).sum()) + int((truth > 0).sum()) for each, truth in some)
        row = {"dice": 2 * overlap / areas if areas else 1.0, "iou": overlap / (areas - overlap) if areas else 1.0}
        if instances:
            row["aji"] = float(np.mean([aggregated_jaccard(nuclei, truth) for nuclei, truth in some]))
            row["pq"] = float(np.mean([panoptic_quality(nuclei, truth).quality for nuclei, truth in some]))
        scores[patient] = row
    return scores


def aggregated_jaccard(predicted: Int[Array, "h w"], truth: Int[Array, "h w"]) -> float:
    """Returns the AJI of instances [H, W] against the true ones; 1 where both have none.

    Kumar et al. 2017, algorithm 1: each true instance is taken with the one found that overlaps it best (by IoU); their
    overlaps are summed above, their unions and the areas of what no true instance was taken with below.
    """
    pairs, overlaps = np.unique(np.stack([predicted.ravel(), truth.ravel()]), axis=1, return_counts=True)
    predicted_areas, true_areas = (
        dict(zip(*np.unique(each, return_counts=True), strict=True)) for each in (predicted, truth)
    )
    best: dict[int, tuple[float, int, int, int]] = {}
    for (a, b), overlap in zip(pairs.T, overlaps, strict=True):
        if a > 0 and b > 0:
            union = predicted_areas[a] + true_areas[b] - overlap
            best[b] = max(best.get(b, (0.0, 0, 0, 0)), (overlap / union, int(overlap), int(union), int(a)))
    above = sum(overlap for _, overlap, _, _ in best.values())
    denominator = sum(union for _, _, union, _ in best.values())
    denominator += sum(int(area) for b, area in true_areas.items() if b > 0 and b not in best)
    taken = {a for _, _, _, a in best.values()}
    denominator += sum(int(area) for a, area in predicted_areas.items() if a > 0 and a not in taken)
    return above / denominator if denominator else 1.0


def has_stain(pair: Pair) -> bool:
    """Returns whether a pair's image is in colours, so that it can be asked for its haematoxylin."""
    return set(COLOURS) <= set(pair.channels)


def stain_of(pixels: np.ndarray) -> np.ndarray:
    """Returns the haematoxylin of uint8 [H, W, 3]."""
    return haematoxylin(pixels.astype(np.float32) / 127.5 - 1)
