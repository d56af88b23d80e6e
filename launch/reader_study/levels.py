"""One grid of values for real and synthetic images, measured and not taken from the type of a file.

A 16-bit file may hold multiples of 16, an 8-bit one a stretched range with every fourth value missing, in each image
others: whoever counts values, or looks at the gaps between them, then knows which images are real. Three ways out, the
first that fits:

- one kind has few values altogether (labels): the other is rounded to these;
- all coarse images lie on one even grid and use all of it: all others are rounded to it, and these stay as they are;
- else no grid may be kept. Each value is spread over the step that it stands for, all images get noise until they have
  lost as much as the coarsest, and all are rounded to one new grid.

Then both kinds are cut off at common limits, which move single bright pixels, and a background that is exactly black
in real images and nearly so in synthetic ones.
"""

from collections.abc import Sequence

import numpy as np

from launch.reader_study.scoring import auc, chance_interval

FEW = 64  # with fewer values altogether, these are labels or nearly so
MIN_LEVELS, MAX_LEVELS = 256, 65536
MAX_STEP = 1 / (FEW - 1)  # nearly blank images do not turn the others to posters
FINE = 1 / 8  # of the common step: a finer step adds less than 2 % to the errors of rounding
WINDOW = 32  # neighbouring values that tell a step
WHOLE = 0.1  # how far from a grid, in steps, values may lie: float32, or 8 bits stretched to whole numbers of 12
NOISE = 3  # steps: what hides values that are missing or doubled in no regular way, as a gamma curve leaves them
RARE = 0.1  # share of a kind's images that may have other steps than the rest
DENSE = 4  # pixels of each value: where there are more, a missing value is no chance
MOST = 0.98  # of the values that make up a grid lie on it
ROUGH = 2  # times as uneven as chance: a histogram with missing or doubled values
MERGE = 0.25 / MAX_LEVELS  # values that are nearer are one
MAX_CUT = 0.02  # of the range, or else 1 % of the pixels: what common limits may move

Planes = Sequence[np.ndarray]


def quantise(
    real: Planes, generated: Planes, least: tuple[Sequence[float], Sequence[float]], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray], int, float]:
    """Returns both kinds as uint16 on one grid, its number of levels, 2 to 65536, and the noise: of the range, 1 sigma.

    Values at the ends of the range stay there, and the order of values is kept up to one step.

    Args:
      real, generated: [H, W] each, in [0, 1]; what is outside is cut off.
      least: for each kind, the step below which no image's values can be: of integers 1 in their units, else 0.
      rng: draws the noise.
    """
    sides = [[np.clip(plane, 0, 1) for plane in side] for side in (real, generated)]
    if len(few := _few_values(sides[0])):
        count = MIN_LEVELS if len(few) < 2 else int(np.clip(1 / np.diff(few).min() + 1, MIN_LEVELS, MAX_LEVELS))
        numbers = np.rint(few * (count - 1)).astype(np.uint16)
        halves = (few[1:] + few[:-1]) / 2
        kept = [[numbers[np.searchsorted(halves, plane, "right")] for plane in side] for side in sides]
        return kept[0], kept[1], count, 0.0
    fills = [[Fill(*one) for one in zip(*side, strict=True)] for side in zip(sides, least, strict=True)]
    step = min(max(_usual_step(side) for side in fills), MAX_STEP)
    if step < 1 / MAX_LEVELS:
        step, origin, even = 1 / (MAX_LEVELS - 1), 0.0, True
    else:
        step, origin, even = _even_grid(fills, step)
    if even:
        count = int(np.floor((1 - origin) / step + WHOLE)) + 1
        done = [
            [fill.grid_numbers(step, origin, rng).clip(0, count - 1).astype(np.int32) for fill in side]
            for side in fills
        ]
    else:
        count = int(np.clip(np.rint(1 / step) + 1, MIN_LEVELS, MAX_LEVELS))
        done = [[np.rint(fill.noisy(step, rng) * (count - 1)).astype(np.int32) for fill in side] for side in fills]
    cut = _common_limits(done, count)
    return cut[0], cut[1], count, 0.0 if even else NOISE * step / 6**0.5


class Fill:
    """An image and the step between the values that it can take, as far as its values tell.

    Attributes:
      plane: [H, W] in [0, 1].
      least: no step is smaller.
      distinct: how many values it has.
      step: the median, apart from the ends of the range; 0 where it can take any value.
    """

    def __init__(self, plane: np.ndarray, least: float):
        self.plane, self.least = plane, least
        values, counts, steps = self.measure()
        weights = np.minimum(counts, 2 * DENSE) * ((values > 0) & (values < 1))  # a background is one value of many
        order = np.argsort(steps)
        middle = np.searchsorted(weights[order].cumsum(), weights.sum() / 2)
        self.distinct, self.step = len(values), float(steps[order][middle])

    def measure(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the distinct values, ascending; how many pixels have each; the step at each."""
        values, counts = _values(self.plane)
        return values, counts, np.maximum(_steps(values, counts), self.least)

    def spread(self, rng: np.random.Generator) -> np.ndarray:
        """Returns the plane with each value drawn from the step that it stands for: no gaps, no piles."""
        if not self.step:
            return self.plane
        values, counts, steps = self.measure()
        # Stretched values have gaps of, say, 1 and 2 but stand for equal steps: where they would be without rounding.
        smooth = np.clip(_moving_mean(values), values - steps, values + steps)
        rare = _moving_mean(np.minimum(counts, 2 * DENSE)) < DENSE  # gaps between these are chance
        smooth = np.where(rare, values, smooth)
        halves = (smooth[1:] + smooth[:-1]) / 2
        low = np.maximum(np.concatenate([[-np.inf], halves]), smooth - 0.6 * steps)
        high = np.minimum(np.concatenate([halves, [np.inf]]), smooth + 0.6 * steps)
        at_end = (values <= 0) | (values >= 1)
        places = np.zeros(int(values[-1] / MERGE + 1.5), np.int64)
        places[np.rint(values / MERGE).astype(np.int64)] = np.arange(len(values))
        places = places[_merged(self.plane)]
        low, high = (np.where(at_end, 0, ends - values)[places] for ends in (low, high))
        return self.plane + low + (high - low) * rng.random(self.plane.shape)

    def noisy(self, step: float, rng: np.random.Generator) -> np.ndarray:
        """Returns the plane with errors as if it had been rounded to NOISE times `step`, and then spread."""
        ends = np.rint(np.clip(self.plane, 0, 1))
        missing = np.sqrt(max((NOISE * step) ** 2 - self.step**2, 0))
        noise = rng.random(self.plane.shape) - rng.random(self.plane.shape)  # of rounding, and of spreading
        return np.where(abs(self.plane - ends) < step / 2, ends, np.clip(self.spread(rng) + missing * noise, 0, 1))

    def grid_numbers(self, step: float, origin: float, rng: np.random.Generator) -> np.ndarray:
        """Returns the number of the nearest point of a grid; a plane that is not on it is spread first."""
        numbers = (self.plane - origin) / step
        if np.mean(abs(numbers - np.rint(numbers)) > WHOLE) > 1 - MOST:
            numbers = (self.spread(rng) - origin) / step
        return np.rint(numbers)


def _moving_mean(values: np.ndarray) -> np.ndarray:
    reach = min(8, (len(values) - 1) // 2)
    padded = np.pad(values, reach, "reflect", reflect_type="odd") if reach else values
    return np.convolve(padded, np.full(2 * reach + 1, 1 / (2 * reach + 1)), "valid")


def _merged(plane: np.ndarray) -> np.ndarray:
    return np.rint(plane / MERGE).astype(np.int64)


def _values(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct values, ascending, and how many pixels have each."""
    counts = np.bincount(_merged(plane).ravel())
    there = np.flatnonzero(counts)
    return there * MERGE, counts[there]


def _few_values(planes: Planes) -> np.ndarray:
    """Returns the distinct values of all planes, ascending, or none where they are not few."""
    values = np.zeros(0)
    for plane in planes:
        values = np.union1d(values, _values(plane)[0])
        if len(values) >= FEW:
            return values[:0]
    return values


def _steps(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the step at each of the distinct values, ascending: the width of a window by the values it could hold.

    How many it could hold follows from how many are met once and twice (Chao 1984, Scandinavian Journal of Statistics
    11:265-270, bias-corrected): where all are met often, no more than are seen; where all are met once, any.
    """
    if len(values) < 2:
        return np.zeros(len(values))
    gaps = np.diff(values)
    starts = np.arange(0, max(len(gaps) - WINDOW // 2, 1), WINDOW)
    seen = np.diff(np.append(starts, len(gaps)))
    once, twice = (np.add.reduceat(counts[1:] == times, starts) for times in (1, 2))
    widest = np.where(seen > 2, np.maximum.reduceat(gaps, starts), 0)  # may be that from a background to a subject
    could = seen - (seen > 2) + once * (once - 1) / (2 * (twice + 1))
    gap_shares = np.where(once >= np.maximum(seen - 1, 2), 0, (np.add.reduceat(gaps, starts) - widest) / could)
    return np.repeat(gap_shares, np.diff(np.append(starts, len(values))))


def _usual_step(fills: Sequence[Fill]) -> float:
    telling = [fill.step for fill in fills if fill.distinct >= FEW] or [fill.step for fill in fills]
    return float(np.quantile(telling, 1 - RARE, method="higher"))


def _even_grid(sides: Sequence[Sequence[Fill]], usual: float) -> tuple[float, float, bool]:
    """Returns step and first value of the grid that all coarse images lie on and use, or `usual`, 0 and False."""
    none = usual, 0.0, False
    coarse = [[fill for fill in side if fill.step > FINE * usual] for side in sides]
    values = np.unique(np.concatenate([fill.measure()[0] for side in coarse for fill in side]))
    values = values[np.append(True, np.diff(values) > 2 * MERGE)]
    if len(values) < 3:
        return none
    gaps = np.diff(values)
    step = float(np.quantile(gaps, 0.05, method="lower"))
    for _ in range(3):  # stored values are rounded: many gaps together tell the step better than one
        numbers = np.rint(gaps / step)
        near = numbers <= 20
        step = float(gaps[near].sum() / max(numbers[near].sum(), 1))
    numbers = np.concatenate([[0], np.cumsum(np.rint(gaps / step))])
    step, origin = (float(x) for x in np.polyfit(numbers, values, 1))
    if step < 1 / MAX_LEVELS or np.mean(abs(values - origin - numbers * step) > WHOLE * step) > 1 - MOST:
        return none
    origin -= np.floor(origin / step + WHOLE) * step
    if any(np.mean([_leaves_out(fill, step, origin) for fill in side]) > RARE for side in coarse if side):
        return none
    if abs(1 / step - np.rint(1 / step)) < 0.01:  # as types have it, up to rounding
        step = float(1 / np.rint(1 / step))
    return step, origin if abs(origin) > 0.01 * step else 0.0, True


def _leaves_out(fill: Fill, step: float, origin: float) -> bool:
    """Says whether an image leaves out or piles up points of a grid, where it uses many, more than chance does."""
    if fill.step > 2 * step:
        return True
    values, counts, _ = fill.measure()
    numbers = np.rint((values - origin) / step).astype(int)
    pixels = np.bincount(numbers - numbers.min(), counts)[1:-1]  # what was cut off lies at the ends
    if len(pixels) < WINDOW:
        return False
    near = np.convolve(np.minimum(pixels, np.median(counts) * 8), np.full(9, 1 / 9), "same")
    dense = (near[1:] > DENSE) & (near[:-1] > DENSE)
    # Of smooth densities, neighbouring counts differ as Poisson's do: by twice the mean, squared.
    rough = np.square(np.diff(pixels))[dense] / (near[1:] + near[:-1])[dense]
    return bool(len(rough) and np.median(rough) > ROUGH * 0.455)  # the median of chi-squared


def _common_limits(sides: Sequence[Planes], count: int) -> list[list[np.ndarray]]:
    """Returns both kinds cut off at the same levels, where extremes or the share of pixels there tell them apart."""
    low = _cut(sides)
    high = count - 1 - _cut([[count - 1 - plane for plane in side] for side in sides])
    return [[np.clip(plane, low, max(low, high)).astype(np.uint16) for plane in side] for side in sides]


def _cut(sides: Sequence[Planes]) -> int:
    """Returns the level below which to cut: 0 where neither the least value nor the share of it tells the kinds apart.

    Else the highest that moves no value by more than a fiftieth of the range, or no more than a hundredth of either
    kind's pixels, if that tells less.
    """
    counts = [len(side) for side in sides]
    if min(counts) < 10:  # so few images say nothing
        return 0
    planes = [plane for side in sides for plane in side]
    real = np.arange(len(planes)) < counts[0]
    top = int(max(plane.max() for plane in planes))
    rare = []  # for each kind, the level up to which a hundredth of its pixels lies
    for side in sides:
        pixels = sum(np.bincount(plane.ravel(), minlength=top + 1) for plane in side)
        rare.append(np.searchsorted(np.cumsum(pixels), MAX_CUT / 2 * np.sum(pixels)))
    limits = 0, int(max(MAX_CUT * top, min(rare)))
    least = np.array([plane.min() for plane in planes])
    remarks = []
    for limit in limits:
        share = np.array([np.mean(plane <= limit) for plane in planes])
        remarks.append(max(abs(auc(scores, real) - 0.5) for scores in (np.maximum(least, limit), share)))
    enough = (chance_interval(*counts)[1] - 0.5) / 2
    return limits[1] if remarks[0] > max(enough, remarks[1]) else 0
