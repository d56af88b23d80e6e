"""What a metric gives, a number or the reason why there is none, and what images it takes. Host only."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from singan.errors import UserError


@dataclasses.dataclass(frozen=True)
class Undefined:
    """A metric that has no value here; the reason is one line, for the cell of a table that would show it."""

    reason: str


Value = float | Undefined


@dataclasses.dataclass(frozen=True)
class Summary:
    """A metric over several samples.

    Attributes:
      mean, p10, p90: over the samples that have a value; percentiles interpolate linearly (np.percentile).
      count: the number of these samples.
      reasons: why the others have none, each reason once.
    """

    mean: float
    p10: float
    p90: float
    count: int
    reasons: tuple[str, ...] = ()


def difference(value: Value, of_source: Value) -> Value:
    """Returns the first less the second; Undefined where one of them is."""
    if isinstance(value, Undefined):
        return value
    return Undefined(f"of the source: {of_source.reason}") if isinstance(of_source, Undefined) else value - of_source


def mean(values: Sequence[Value]) -> Value:
    """Returns the mean of values; Undefined, for the first's reason, where one of them is, or where there are none."""
    undefined = [value for value in values if isinstance(value, Undefined)]
    if undefined or not values:
        return undefined[0] if undefined else Undefined("there is nothing to take the mean of")
    return float(np.mean(np.array(values, np.float64)))


def summarise(rows: Sequence[Mapping[str, Value]]) -> dict[str, Summary | Undefined]:
    """Returns a summary of each name over the rows, one row a sample; Undefined where no sample has a value.

    Raises:
      UserError: a value is not finite, which a metric must never give.
    """
    summaries: dict[str, Summary | Undefined] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        reasons = tuple(dict.fromkeys(value.reason for value in values if isinstance(value, Undefined)))
        numbers = [value for value in values if not isinstance(value, Undefined)]
        if not np.isfinite(numbers).all():
            raise UserError(f"{name} is not a finite number for every sample: look for broken values in the images")
        if not numbers:
            summaries[name] = Undefined("; ".join(reasons))
            continue
        p10, p90 = np.percentile(numbers, [10, 90])
        summaries[name] = Summary(float(np.mean(numbers)), float(p10), float(p90), len(numbers), reasons)
    return summaries


def check_images(samples: Any, image: Any, same_size: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns samples [n, H, W, C] and training image [h, w, c] as float32, seen to be what metrics can measure.

    Raises:
      UserError: there are no samples, the axes are not these, the channels differ, a value is not finite, or, where
        `same_size` is asked for, the sizes differ.
    """
    samples, image = np.asarray(samples, np.float32), np.asarray(image, np.float32)
    if samples.ndim != 4 or image.ndim != 3:
        raise UserError(
            f"metrics take samples [n, H, W, C] and one image [H, W, C], not arrays of shapes {samples.shape} and"
            f" {image.shape}"
        )
    if not samples.size or not image.size:
        raise UserError("there are no samples to measure: draw at least one")
    if samples.shape[-1] != image.shape[-1]:
        raise UserError(
            f"samples of {samples.shape[-1]} channels cannot be measured against an image of {image.shape[-1]}:"
            " give both the same channels"
        )
    if same_size and samples.shape[1:] != image.shape:
        raise UserError(
            f"samples of {samples.shape[1]}x{samples.shape[2]} pixels cannot be compared pixel by pixel with an image"
            f" of {image.shape[0]}x{image.shape[1]}: draw them at the image's own size"
        )
    for name, array in (("samples hold", samples), ("training image holds", image)):
        if not np.isfinite(array).all():
            raise UserError(f"the {name} values that are not numbers (NaN or infinite): leave them out")
    return samples, image
