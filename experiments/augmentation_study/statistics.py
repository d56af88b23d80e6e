"""Means and paired differences over seeds and patients, with 95 % intervals, and the sentences that they support."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 10_000
LEVEL = 95  # per cent
RULE = (
    "Intervals hold 95 % of 10 000 bootstrap resamples of seeds and, within each, of its test patients; differences are"
    " paired by seed and patient. With few seeds and patients they are too narrow rather than too wide, and of twenty"
    " intervals one leaves out the truth by chance."
)

Values = Mapping[int, Mapping[str, float]]  # seed -> patient -> a metric's value


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds of means over patients, with its interval, and how many there are of both."""

    mean: float
    low: float
    high: float
    seeds: int
    patients: int

    @property
    def verdict(self) -> str:
        """What an interval of differences says: 'higher', 'lower', or 'not told apart'."""
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "not told apart"


def estimate(values: Values, name: str) -> Estimate:
    """Returns the mean and its two-level bootstrap interval; the resamples follow from `name` alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    by_seed = [np.array([patients[name] for name in sorted(patients)]) for _, patients in sorted(values.items())]
    mean = float(np.mean([each.mean() for each in by_seed]))
    # The mean over resampled patients, for each seed, then over resampled seeds: each draw of a seed has its own.
    drawn = rng.integers(len(by_seed), size=(RESAMPLES, len(by_seed)))
    means = np.zeros(drawn.shape)
    for seed, each in enumerate(by_seed):
        chosen = drawn == seed
        means[chosen] = each[rng.integers(len(each), size=(int(chosen.sum()), len(each)))].mean(1)
    low, high = np.percentile(means.mean(1), [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    patients = {name for of in values.values() for name in of}
    return Estimate(mean, float(low), float(high), len(by_seed), len(patients))


def difference(first: Values, second: Values, name: str) -> Estimate:
    """Returns the estimate of first less second, by seed and patient; both must have the same ones."""
    assert {s: set(p) for s, p in first.items()} == {s: set(p) for s, p in second.items()}
    paired = {s: {p: first[s][p] - second[s][p] for p in patients} for s, patients in first.items()}
    return estimate(paired, name)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A condition less another, at one number of real patches."""

    first: str
    second: str
    size: int
    metric: str
    found: Estimate


def headline(comparisons: Sequence[Comparison], metric: str) -> str:
    """Returns in plain words whether synthetic pairs helped, from the comparisons of d with a, and of e with b."""
    parts = []
    for first, second, words in (
        ("real_synthetic", "real", "without other augmentation"),
        ("all", "real_augmented", "on top of the usual augmentation"),
    ):
        some = [c for c in comparisons if (c.first, c.second, c.metric) == (first, second, metric)]
        if not some:
            continue
        up, down = ([c.size for c in some if c.found.verdict == word] for word in ("higher", "lower"))
        even = [c.size for c in some if c.found.verdict == "not told apart"]
        told = []
        if up:
            told.append(f"raised it at n = {_listed(up)}")
        if down:
            told.append(f"lowered it at n = {_listed(down)}")
        if even:
            told.append(f"made no difference that can be told from chance at n = {_listed(even)}")
        spread = f"mean differences {min(c.found.mean for c in some):+.3f} to {max(c.found.mean for c in some):+.3f}"
        parts.append(f"{words}, synthetic pairs {', '.join(told)} ({spread})")
    if not parts:
        return ""
    text = "; ".join(parts)
    return f"{metric.capitalize()} on patients that were not trained on: {text}."


def sentence(comparison: Comparison, about: Mapping[str, str], baseline: float) -> str:
    """Returns what one comparison supports, as a sentence."""
    found = comparison.found
    verdict = {
        "higher": "higher",
        "lower": "lower",
        "not told apart": "not told apart from no difference",
    }[found.verdict]
    return (
        f"n = {comparison.size}, {comparison.metric}: {about[comparison.first]} against"
        f" {about[comparison.second]} ({baseline:.3f}): {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}],"
        f" {verdict}."
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
