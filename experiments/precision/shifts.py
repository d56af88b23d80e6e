"""How far a precision moves a metric, measured by how far another seed does."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from scipy import stats

from experiments.reporting.results import Key

WITHIN, BEYOND, NOT_SHOWN = "within", "beyond", "not shown"
RULE = (
    "Differences are paired by image and seed: the mean over images of the mean over seeds, with a 95 % interval"
    " (Student's t; the variance over seeds is an image's own, with Welch's degrees of freedom). The images are these"
    " and no sample of others: of other images the intervals say nothing. The seeds' spread is the standard deviation"
    " over seeds of one image's value at `highest`, pooled over images. within: the whole interval lies within one"
    " spread of 0; beyond: all of it lies outside; not shown: neither. Nothing is corrected for the number of"
    " comparisons."
)


@dataclasses.dataclass(frozen=True)
class Shift:
    """A metric at one precision less the same at another, paired by image and seed.

    Attributes:
      base: mean at the other precision.
      difference, low, high: the mean difference with its 95 % interval.
      spread: standard deviation over seeds of one image's value at the other precision, pooled over images.
      pairs: of image and seed.
    """

    base: float
    difference: float
    low: float
    high: float
    spread: float
    pairs: int

    @property
    def verdict(self) -> str:
        """WITHIN, BEYOND or NOT_SHOWN, see RULE."""
        if -self.spread <= self.low and self.high <= self.spread:
            return WITHIN
        return BEYOND if self.low > self.spread or self.high < -self.spread else NOT_SHOWN

    def in_spreads(self) -> tuple[float, float, float]:
        """Returns the difference and its interval as multiples of the spread; all 0 or infinite where that is 0."""

        def scaled(value: float) -> float:
            return value / self.spread if self.spread else math.copysign(math.inf, value) if value else 0.0

        return scaled(self.difference), scaled(self.low), scaled(self.high)


def shift(values: Mapping[Key, float], base: Mapping[Key, float]) -> Shift | None:
    """Returns found less base, over the images and seeds that both have.

    None where no image has two seeds in common: then there is neither an interval nor a spread. Images with a single
    one are left out.
    """
    seeds = {name: sorted(s for n, s in values if n == name and (n, s) in base) for name, _ in values}
    seeds = {name: some for name, some in sorted(seeds.items()) if len(some) > 1}
    if not seeds:
        return None
    differences = [np.array([values[name, s] - base[name, s] for s in some]) for name, some in seeds.items()]
    bases = [np.array([base[name, s] for s in some]) for name, some in seeds.items()]
    mean = float(np.mean([each.mean() for each in differences]))
    errors = np.array([each.var(ddof=1) / len(each) for each in differences])  # of each image's mean
    half = 0.0
    if errors.any():
        freedom = errors.sum() ** 2 / sum(e**2 / (len(each) - 1) for e, each in zip(errors, differences, strict=True))
        half = float(stats.t.ppf(0.975, freedom)) * float(np.sqrt(errors.sum())) / len(errors)
    spread = float(np.sqrt(np.mean([each.var(ddof=1) for each in bases])))
    base_mean = float(np.mean([each.mean() for each in bases]))
    return Shift(base_mean, mean, mean - half, mean + half, spread, sum(map(len, differences)))
