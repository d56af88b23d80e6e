"""Methods compared at equal diversity: each is a curve over temperatures in the plane of diversity and distance.

Of a curve, the distance at another method's diversity is read off between its neighbouring temperatures; where the
curve does not reach that diversity there is no value, and nothing is extrapolated.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

Row = Mapping[str, Any]
Key = tuple[str, int]  # image id, seed of the training


@dataclasses.dataclass(frozen=True)
class Curve:
    """A run's samples of one image from one start scale, in the order of their temperatures."""

    temperatures: tuple[float, ...]
    values: Mapping[str, tuple[float, ...]]  # of each metric

    def at_diversity(self, diversity: float, metric: str) -> float | None:
        """Returns a metric where the curve has this diversity, linear between temperatures; None where it never has.

        Where it has it more than once, the lowest temperature's value.
        """
        place = self._place(diversity)
        return None if place is None else self._between(place, self.values[metric])

    def temperature_at(self, diversity: float) -> float | None:
        """Returns the temperature at which the curve has this diversity; None where it never has."""
        place = self._place(diversity)
        return None if place is None else self._between(place, self.temperatures)

    def at_temperature(self, temperature: float, metric: str) -> float | None:
        """Returns a metric as it was measured at a temperature; None where it was not."""
        if temperature not in self.temperatures or metric not in self.values:
            return None
        return self.values[metric][self.temperatures.index(temperature)]

    def _place(self, diversity: float) -> tuple[int, float] | None:
        for index, (a, b) in enumerate(itertools.pairwise(self.values["diversity"])):
            if min(a, b) <= diversity <= max(a, b):
                return index, 0.0 if a == b else (diversity - a) / (b - a)
        return None

    @staticmethod
    def _between(place: tuple[int, float], values: Sequence[float]) -> float:
        index, share = place
        return float((1 - share) * values[index] + share * values[index + 1])


def curves_of(rows: Iterable[Row], metrics: Sequence[str]) -> dict[tuple[str, int], Curve]:
    """Returns {(image id, start scale): Curve} of a run's rows."""
    points_of: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if all(metric in row for metric in metrics):
            points_of.setdefault((row["image"], row["start_scale"]), []).append(row)
    made = {}
    for key, points in points_of.items():
        points = sorted(points, key=lambda row: row["temperature"])
        values = {metric: tuple(float(row[metric]) for row in points) for metric in metrics}
        made[key] = Curve(tuple(float(row["temperature"]) for row in points), values)
    return made


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A metric of one method against another's, at the other's diversity.

    Attributes:
      each: the ratio of every image and seed that both have and where the curve reaches the diversity.
      missed: the images and seeds where it does not.
      median: over images, of each its mean over seeds (geometric).
      mean, low, high: the geometric mean over images and its 95 % interval (Student's t of the logarithms); low and
        high are None for one image.
    """

    each: Mapping[Key, float]
    missed: tuple[Key, ...]
    median: float
    mean: float
    low: float | None
    high: float | None


def compare(
    ours: Mapping[Key, Curve], theirs: Mapping[Key, Curve], metric: str, at_temperature: float | None = None
) -> Ratio | None:
    """Returns `ours` against `theirs` at temperature 1 of `theirs`; None where they share no image and seed.

    Args:
      at_temperature: of `ours`; None: where it has the diversity of `theirs`.
    """
    each, missed = {}, []
    for key in (key for key in theirs if key in ours):
        diversity, other = (theirs[key].at_temperature(1.0, name) for name in ("diversity", metric))
        if diversity is None or other is None:
            continue
        if at_temperature is None:
            value = ours[key].at_diversity(diversity, metric)
        else:
            value = ours[key].at_temperature(at_temperature, metric)
        if value is None:
            missed.append(key)
        else:
            each[key] = value / other
    if not each and not missed:
        return None
    if not each:
        return Ratio({}, tuple(missed), float("nan"), float("nan"), None, None)
    images = {name for name, _ in each}
    logs = np.array([np.mean([np.log(value) for (name, _), value in each.items() if name == one]) for one in images])
    low = high = None
    if len(logs) > 1:
        half = float(stats.t.ppf(0.975, len(logs) - 1)) * float(logs.std(ddof=1)) / len(logs) ** 0.5
        low, high = float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))
    return Ratio(each, tuple(missed), float(np.exp(np.median(logs))), float(np.exp(logs.mean())), low, high)
