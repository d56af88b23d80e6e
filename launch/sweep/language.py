"""The sweep language: pure functions that give the runs of a sweep, each as {config key: value}.

    product({"pyramid.ratio": [0.65, 0.75], "train.steps_per_scale": [250, 500]})     # 4 runs: every combination
    zip_({"train.critic_learning_rate": [1e-4, 1e-3], "train.generator_learning_rate": [1e-4, 1e-3]})     # 2 runs
    chain({}, {"preset": "reference"}, {"pyramid.ratio": [0.65, 0.8]})                # 4 runs, the first as configured
    sample({"train.generator_learning_rate": log_uniform(1e-5, 1e-2)}, 8, seed=0)     # 8 runs drawn at random

A part is a mapping or a list of runs, as these functions return them, so they nest. In a mapping, a list (a range, an
array) holds the values to go through; anything else, a tuple too, is one value that is fixed for all runs of the part.
None leaves a key as the config has it.
"""

import dataclasses
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from singan.errors import UserError

Run = dict[str, Any]
Part = Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Interval:
    """Numbers that `sample` draws from."""

    low: float
    high: float
    spacing: str  # linear | log | integer

    @property
    def count(self) -> float:
        return int(self.high) - int(self.low) + 1 if self.spacing == "integer" else math.inf

    def at(self, share: float) -> float | int:
        """Returns the number at a share in [0, 1) of the interval, of four digits, so that names stay short."""
        if self.spacing == "integer":
            return int(self.low) + int(share * (int(self.high) - int(self.low) + 1))
        if self.spacing == "log":
            number = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            number = self.low + share * (self.high - self.low)
        return min(max(float(f"{number:.4g}"), self.low), self.high)


def uniform(low: float, high: float) -> Interval:
    """Returns the numbers from `low` to `high`, all as likely."""
    return _interval(low, high, "linear")


def log_uniform(low: float, high: float) -> Interval:
    """Returns the numbers from `low` to `high`, each power of ten as likely; both positive."""
    return _interval(low, high, "log")


def integers(low: int, high: int) -> Interval:
    """Returns the whole numbers from `low` to `high`, both included."""
    return _interval(low, high, "integer")


def product(*parts: Part) -> list[Run]:
    """Returns every combination of the parts' values, the last varying fastest."""
    groups = [group for part in parts for group in _groups(part, "product")]
    return [_merged(runs, "product") for runs in itertools.product(*groups)]


def zip_(*parts: Part) -> list[Run]:
    """Returns the first values together, then the second ones, and so on; a fixed value goes with each of them.

    Raises:
      UserError: the parts have unequal numbers of values.
    """
    groups = [group for part in parts for group in _groups(part, "zip_")]
    lengths = {len(group) for group in groups} - {1} or {1}
    if len(lengths) > 1:
        named = ", ".join(f"{' '.join(group[0])} has {len(group)}" for group in groups)
        raise UserError(f"zip_ needs as many values of each key; {named}")
    (length,) = lengths
    return [_merged(runs, "zip_") for runs in zip(*(g * length if len(g) == 1 else g for g in groups), strict=True)]


def chain(*parts: Part) -> list[Run]:
    """Returns the runs of one part after those of another; a mapping's are its product."""
    return [run for part in parts for run in product(part)]


def sample(space: Mapping[str, Any], count: int, seed: int = 0) -> list[Run]:
    """Returns `count` different runs drawn at random; the same ones for the same seed, and more with a larger count.

    Args:
      space: an interval (`uniform`, `log_uniform`, `integers`) or a list of values for each key; else a fixed value.

    Raises:
      UserError: the space has fewer than `count` different runs.
    """
    if not isinstance(space, Mapping) or not isinstance(count, int):
        raise UserError(f"sample takes a mapping and how many runs to draw, not {space!r} and {count!r}")
    draws = {
        key: value if isinstance(value, Interval) else _values(key, value, "sample") for key, value in space.items()
    }
    different = math.prod(values.count if isinstance(values, Interval) else len(values) for values in draws.values())
    rng, runs = random.Random(seed), []
    for _ in range(100 * (count + 10) if count <= different else 0):
        if len(runs) == count:
            return runs
        run = {key: _draw(values, rng.random()) for key, values in draws.items()}
        if run not in runs:
            runs.append(run)
    raise UserError(f"sample({count}) asks for more different runs than its space has: lower the count")


def _interval(low: float, high: float, spacing: str) -> Interval:
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (spacing == "log" and low <= 0):
        raise UserError(
            f"a {spacing} interval from {low} to {high} is none: the first must be the smaller"
            + (" and positive" if spacing == "log" else "")
        )
    return Interval(low, high, spacing)


def _draw(values: Interval | list[Any], share: float) -> Any:
    return values.at(share) if isinstance(values, Interval) else values[int(share * len(values))]


def _groups(part: Part, where: str) -> list[list[Run]]:
    """Returns what varies independently: the values of each key of a mapping, or the runs of a list."""
    if isinstance(part, Mapping):
        return [[{key: value} for value in _values(key, values, where)] for key, values in part.items()]
    if not isinstance(part, Sequence) or not all(isinstance(run, Mapping) for run in part):
        raise UserError(f"{where} takes mappings and lists of runs, not {part!r}")
    if not part:
        raise UserError(f"{where} was given a list without runs")
    return [[dict(run) for run in part]]


def _values(key: str, values: Any, where: str) -> list[Any]:
    if isinstance(values, Interval):
        raise UserError(f"{where} goes through values one by one, and {key!r} has an interval: use sample for it")
    if hasattr(values, "tolist"):  # a NumPy array or number
        values = values.tolist()
    values = list(values) if isinstance(values, list | range) else [values]
    if not values:
        raise UserError(f"{where} was given no values for {key!r}")
    return values


def _merged(runs: Sequence[Run], where: str) -> Run:
    merged: Run = {}
    for run in runs:
        if twice := sorted(set(merged) & set(run)):
            raise UserError(f"{where} was given {twice[0]!r} in two parts: leave it out of one")
        merged |= run
    return merged
