"""The statistics of a reader study: proportions, ROC, agreement, and intervals by resampling readers and items.

Sources: Wilson (1927) for a proportion's interval; Hanley and McNeil (1982) for the ROC area as the share of pairs in
order; Fleiss (1971) for agreement of many raters; Beiden, Wagner and Campbell (2000) for drawing readers and cases anew
together.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]
RESAMPLES = 2000
Z_95 = 1.959963984540054  # the 97.5th percentile of the normal distribution


@dataclasses.dataclass(frozen=True, eq=False)
class Ratings:
    """What R readers said of the study's N items.

    Attributes:
      positive: [N], whether the item is what high scores should mean.
      scores: float [R, N], higher where the reader leant towards positive: -5 to 5 without 0; NaN where not answered.
    """

    positive: np.ndarray
    scores: np.ndarray

    @property
    def answered(self) -> np.ndarray:
        """[R, N]."""
        return np.isfinite(self.scores)

    @property
    def correct(self) -> np.ndarray:
        """[R, N]; False where not answered."""
        return self.answered & ((self.scores > 0) == self.positive)


@dataclasses.dataclass(frozen=True)
class Resampled:
    """95 % intervals by the bootstrap; None where one cannot be made.

    Attributes:
      accuracy, auc: of all readers together.
      auc_of_reader: of each reader.
    """

    accuracy: Interval | None
    auc: Interval | None
    auc_of_reader: list[Interval | None]


def wilson(successes: int, trials: int) -> Interval:
    """Returns Wilson's 95 % interval of a proportion; (0, 1) where nothing was tried."""
    if not trials:
        return 0.0, 1.0
    share, unsure = successes / trials, Z_95**2 / trials
    middle = (share + unsure / 2) / (1 + unsure)
    half = Z_95 * np.sqrt(share * (1 - share) / trials + unsure / (4 * trials)) / (1 + unsure)
    # At the ends the formula gives 0 and 1 up to rounding.
    return (0.0 if not successes else float(middle - half)), (1.0 if successes == trials else float(middle + half))


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Returns the area under the ROC curve: the share of (positive, negative) pairs in order, ties counting half.

    NaN where either kind is missing.

    Args:
      scores: [N], finite.
      positive: bool [N].
    """
    order = _in_order(scores[positive], scores[~positive])
    return float(order.mean()) if order.size else float("nan")


def chance_interval(positive: int, negative: int) -> Interval:
    """Returns the 95 % interval of the area where scores say nothing: the normal one of Mann and Whitney (1947)."""
    half = Z_95 * np.sqrt((positive + negative + 1) / (12 * positive * negative))
    return float(max(0.5 - half, 0)), float(min(0.5 + half, 1))


def fleiss_kappa(counts: np.ndarray) -> float:
    """Returns Fleiss' kappa of [items, categories]: how many raters put the item there; NaN where it is not defined.

    Every item must have the same number of raters, at least two. Where all ratings are alike, chance alone would agree
    always: not defined.
    """
    raters = counts.sum(1)
    if not len(counts) or raters[0] < 2:
        return float("nan")
    if (raters != raters[0]).any():
        raise ValueError("Fleiss' kappa needs the same number of raters for each item")
    n = float(raters[0])
    agreement = ((np.square(counts).sum(1) - n) / (n * (n - 1))).mean()
    by_chance = np.square(counts.sum(0) / counts.sum()).sum()
    return float((agreement - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan")


def agreement(ratings: Ratings) -> tuple[float, int]:
    """Returns Fleiss' kappa of the answers, without their confidence, and the number of items it rests on: those that
    every reader has answered."""
    everyone = ratings.answered.all(0)
    leant = (ratings.scores[:, everyone] > 0).sum(0)
    counts = np.stack([leant, len(ratings.scores) - leant], axis=1)
    return fleiss_kappa(counts), int(everyone.sum())


def mean_auc(ratings: Ratings) -> float:
    """Returns the mean of the readers' areas: readers use the confidence scale differently, so their scores are not
    thrown together. NaN where no reader has one."""
    aucs = [reader_auc(ratings, reader) for reader in range(len(ratings.scores))]
    finite = [value for value in aucs if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def reader_auc(ratings: Ratings, reader: int) -> float:
    """Returns one reader's area, over what the reader has answered."""
    there = ratings.answered[reader]
    return auc(ratings.scores[reader, there], ratings.positive[there])


def resample(ratings: Ratings, seed: int = 0) -> Resampled:
    """Returns percentile intervals: items are drawn anew, the same for all readers, and readers as whole clusters.

    Items are drawn within positive and negative ones, so that both are always there. With one reader only the items are
    drawn, and the interval says nothing about other readers.
    """
    rng = np.random.default_rng(seed)
    readers, positive = len(ratings.scores), ratings.positive
    weights = np.zeros((RESAMPLES, len(positive)))
    for kind in (positive, ~positive):
        if kind.any():
            weights[:, kind] = rng.multinomial(kind.sum(), np.full(kind.sum(), 1 / kind.sum()), size=RESAMPLES)
    drawn = rng.multinomial(readers, np.full(readers, 1 / readers), size=RESAMPLES)
    areas = np.stack([_weighted_auc(ratings, reader, weights) for reader in range(readers)], axis=1)
    has_area = np.isfinite(areas)
    answered, correct = weights @ ratings.answered.T.astype(float), weights @ ratings.correct.T.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = (drawn * correct).sum(1) / (drawn * answered).sum(1)
        area = (drawn * np.where(has_area, areas, 0)).sum(1) / (drawn * has_area).sum(1)
    return Resampled(_percentiles(accuracy), _percentiles(area), [_percentiles(areas[:, r]) for r in range(readers)])


def _in_order(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Returns [P, N]: 1 where the positive scores higher, 0.5 where both score alike, else 0."""
    above = positive[:, None] - negative[None, :]
    return (np.sign(above) + 1) / 2


def _weighted_auc(ratings: Ratings, reader: int, weights: np.ndarray) -> np.ndarray:
    """Returns [resamples]: a reader's area where item i counts weights[:, i] times."""
    there, scores = ratings.answered[reader], ratings.scores[reader]
    high, low = there & ratings.positive, there & ~ratings.positive
    above = weights[:, high] @ _in_order(scores[high], scores[low])
    total = weights[:, high].sum(1) * weights[:, low].sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (above * weights[:, low]).sum(1) / total


def _percentiles(values: np.ndarray) -> Interval | None:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def quartiles(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Returns lower quartile, median and upper quartile; None of nothing."""
    if not len(values):
        return None
    low, middle, high = np.percentile(np.asarray(values), [25, 50, 75])
    return float(low), float(middle), float(high)
