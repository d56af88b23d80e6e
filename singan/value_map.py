"""The fixed map between an image's own values and [-1, 1], one affine map per channel, recorded with the run.

It is fitted once, when the image is read, and never again: what a generator makes goes back through the same map, so
samples come out in the source's own units and a black MRI background stays black. NumPy only.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from singan.errors import UserError

BACKGROUND_SHARE = 0.9  # of a channel's border pixels that must hold one value for it to be the background
# Maps are computed in float64 and given back as float32, which must be able to hold every value in between.
LARGEST_VALUE = float(np.finfo(np.float32).max) / 4
NARROW = 0.1  # of a range: floats that use less of 0..1 or -1..1 get a range of their own

# How the source values that become -1 and 1 are found.
RULES = {
    "type": "the limits of the type: 0 and 255, 0 and 1, -1 and 1",
    "image": "the channel's own least and largest value in this image",
    "fixed": "as config.data.value_range gives them",
    "volume": "0 and the largest value of the whole volume; what is below 0 is clipped",
    "percentile": "0 and the 99.5th percentile of the volume's brain; what is below or above is clipped",
    "mask": "absent and present, for what is drawn rather than measured",
}


@dataclasses.dataclass(frozen=True)
class ValueMap:
    """Takes source values [low, high] of each of C channels to [-1, 1] and back.

    Attributes:
      low: the source value that becomes -1, per channel.
      high: the source value that becomes 1, per channel.
      background: the source value that surrounds the subject, per channel; None where there is none.
      dtype: NumPy's name of the type the source stores, for example 'uint8'.
      rules: by which of RULES each channel's low and high were found; () where that was not noted. A note for people:
        maps that differ in it alone are equal.
      least: the least source value that there is, per channel, where it is above `low`: an imported model may have been
        trained on [0, 1] as it is, and never have seen -1. () where it is `low`.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    background: tuple[float | None, ...]
    dtype: str
    rules: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    least: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == len(self.background) == len(self.rules or self.low):
            raise UserError(f"a value map needs low, high and background for every channel, not {self}")
        if unknown := set(self.rules) - set(RULES):
            raise UserError(f"a value map is fitted by one of {', '.join(RULES)}, not by {', '.join(sorted(unknown))}")
        if not all(np.isfinite([*self.low, *self.high])) or not all(np.less(self.low, self.high)):
            raise UserError(f"a value map needs finite values with low below high, not {self}")
        least = self.least or self.low
        if len(least) != len(self.low) or not (np.less_equal(self.low, least) & np.less(least, self.high)).all():
            raise UserError(f"a value map's least values lie from low to below high, not as in {self}")

    def of_channels(self, numbers: Sequence[int]) -> "ValueMap":
        """Returns the map of some of the channels."""
        names = [name for name in ("low", "high", "background", "rules", "least") if getattr(self, name)]
        return dataclasses.replace(self, **{name: tuple(getattr(self, name)[n] for n in numbers) for name in names})

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Returns `image` [..., C], in source units, as float32 [..., C]; values beyond [low, high] become -1 or 1."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        unit = (np.asarray(image, np.float64) - low) / (high - low)
        return np.clip(2.0 * unit - 1.0, -1.0, 1.0).astype(np.float32)

    def invert(self, image: np.ndarray, as_stored: bool = False) -> np.ndarray:
        """Returns `image` [..., C], in [-1, 1], in source units; what lies beyond them becomes least (or low) or high.

        Args:
          image: [..., C].
          as_stored: give the source's own dtype instead of float32, rounded to whole numbers for integers. For
            integers of up to 16 bits this undoes `apply` exactly.
        """
        low, high = np.asarray(self.low), np.asarray(self.high)
        values = low + (np.asarray(image, np.float64) + 1.0) / 2.0 * (high - low)
        values = np.clip(values, self.least or low, high)
        if not as_stored:
            return values.astype(np.float32)
        dtype = np.dtype(self.dtype)
        if dtype.kind == "b":
            return values >= 0.5
        if dtype.kind in "iu":
            values = np.clip(np.rint(values), *_float_limits(dtype))
        return values.astype(dtype)

    def shown(self, image: np.ndarray) -> np.ndarray:
        """Returns `image` [..., C] in [-1, 1] as pictures show it: the least source value is -1, which is black."""
        if not self.least:
            return image
        black = self.apply(np.asarray(self.least))
        return np.clip((image - black) / (1 - black) * 2 - 1, -1, 1).astype(np.float32)

    def from_shown(self, image: np.ndarray) -> np.ndarray:
        """Returns the image [..., C] in [-1, 1] that `shown` made a picture of; what is below least is lost."""
        if not self.least:
            return image
        black = self.apply(np.asarray(self.least))
        return (black + (image + 1) / 2 * (1 - black)).astype(np.float32)

    @property
    def padding(self) -> np.ndarray:
        """The background in [-1, 1], float32 [C]: what an image is surrounded with; 0 where a channel has none."""
        return np.array([0.0 if level is None else level for level in self.background_levels], np.float32)

    @property
    def background_levels(self) -> tuple[float | None, ...]:
        """The background of each channel in [-1, 1], None for a channel without one."""
        levels = self.apply(np.array([0.0 if value is None else value for value in self.background]))
        pairs = zip(self.background, levels.tolist(), strict=True)
        return tuple(None if value is None else level for value, level in pairs)

    def to_json(self) -> dict[str, Any]:
        """Returns the map as a dict that json can write."""
        return {
            "low": list(self.low),
            "high": list(self.high),
            "background": list(self.background),
            "dtype": self.dtype,
            "rules": list(self.rules),
            **({"least": list(self.least)} if self.least else {}),
        }

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> "ValueMap":
        """Returns the map that `to_json` wrote.

        Raises:
          UserError: the mapping is not such a map.
        """
        try:
            return cls(
                low=tuple(float(value) for value in mapping["low"]),
                high=tuple(float(value) for value in mapping["high"]),
                background=tuple(None if value is None else float(value) for value in mapping["background"]),
                dtype=np.dtype(mapping["dtype"]).name,
                rules=tuple(mapping.get("rules", ())),
                least=tuple(float(value) for value in mapping.get("least", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"not a value map: {mapping!r}") from error


def fit(image: np.ndarray, value_range: Any = "auto", background: Any = "auto") -> ValueMap:
    """Returns the value map of one image.

    Args:
      image: [H, W, C] of a boolean, integer or float type, finite.
      value_range: (low, high) in source units for all channels, or 'auto': uint8 (0, 255), bool (0, 1), other integers
        each channel's own min..max; floats (0, 1) if the whole image lies in it, else (-1, 1) if it lies in that, but
        its own min..max for a channel that spans less than a tenth of it, such as diffusivities in mm2/s; else
        each channel's own min..max. A channel of one value v that would get v..v becomes v..v + max(1, |v|): all -1.
      background: in source units: one number, one per channel (None or 'none' among them for a channel without),
        'none', or 'auto': per channel the value, as the range clips it, of at least 90 % of the outermost ring of
        pixels, if any.
        Both may be the text of such a value, for example '0, 1000', which is how command lines give them.

    Raises:
      UserError: no channel has more than one value (before or after the range clips it), a value is too large for
        float32, or value_range or background is malformed.
    """
    channels = image.shape[-1]
    values = np.asarray(image, np.float64)
    if np.abs(values).max() > LARGEST_VALUE:
        raise UserError("holds values too large for float32: scale the image down")
    if all(_is_constant(values[..., c]) for c in range(channels)):
        raise UserError("holds the same value at every pixel: there is nothing to learn, take it out")
    low, high, rules = _ranges(values, image.dtype, value_range)
    clipped = np.clip(values, low, high)
    if all(_is_constant(clipped[..., c]) for c in range(channels)):
        raise UserError(
            f"all values ({values.min():g} to {values.max():g}) lie on one side of config.data.value_range="
            f"({low[0]:g}, {high[0]:g}): give a range in the units of the file, or auto"
        )
    return ValueMap(low, high, backgrounds(clipped, background), image.dtype.name, rules)


def volume_map(
    ranges: Sequence[tuple[float, float]], dtype: Any, rule: str, background: float | None = 0.0
) -> ValueMap:
    """Returns the map of channels whose ranges are those of the volume that a slice was taken from.

    All slices of a patient are mapped alike, and the background is exactly -1 where it is the low end.

    Args:
      ranges: (low, high) per channel; a channel of one value v becomes v..v + max(1, |v|).
      dtype: of the source.
      rule: 'volume', 'percentile' or 'fixed'.
      background: of every channel, in source units.
    """
    low, high = zip(*(_widened(*pair) for pair in ranges), strict=True)
    return ValueMap(low, high, (background,) * len(low), np.dtype(dtype).name, (rule,) * len(low))


def mask_map(channels: int, high: float, dtype: Any) -> ValueMap:
    """Returns the map of mask channels: 0 (absent, the background) becomes -1 and `high` (present) becomes 1."""
    return ValueMap(
        (0.0,) * channels, (high,) * channels, (0.0,) * channels, np.dtype(dtype).name, ("mask",) * channels
    )


def join(maps: Sequence[ValueMap]) -> ValueMap:
    """Returns the map of the channels of all `maps`, one after another; they must share one dtype and note rules."""
    (dtype,) = {each.dtype for each in maps}
    low, high, background, rules = (
        tuple(value for each in maps for value in getattr(each, name))
        for name in ("low", "high", "background", "rules")
    )
    return ValueMap(low, high, background, dtype, rules)


def _ranges(
    values: np.ndarray, dtype: np.dtype, value_range: Any
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """Returns low, high and rule of each channel."""
    channels = values.shape[-1]
    if isinstance(value_range, str) and value_range.strip().lower() == "auto":
        limits = type_range(values, dtype)
        ranges = [(limits, "type") if limits else (_own_range(values[..., c]), "image") for c in range(channels)]
        if limits and dtype.kind == "f":
            for c in range(channels):
                if 0 < np.ptp(values[..., c]) < NARROW * (limits[1] - limits[0]):
                    ranges[c] = (_own_range(values[..., c]), "image")
        pairs, rules = zip(*ranges, strict=True)
        return tuple(low for low, _ in pairs), tuple(high for _, high in pairs), rules
    if value_range in ("volume", "percentile"):
        raise UserError(
            f"config.data.value_range={value_range} is known of prepared volumes only (data.source=tfds:brats/slices):"
            " give auto or (low, high)"
        )
    bounds = _numbers(value_range, "value_range", "auto or (low, high) with low below high")
    if len(bounds) != 2 or None in bounds or not bounds[0] < bounds[1]:
        raise UserError(f"config.data.value_range={value_range!r} must be auto or (low, high) with low below high")
    return (bounds[0],) * channels, (bounds[1],) * channels, ("fixed",) * channels


def type_range(values: np.ndarray, dtype: np.dtype) -> tuple[float, float] | None:
    """Returns the limits of the type that an image is of: of 8 bits, or floats of 0..1 or -1..1; None for others.

    The whole image decides, so that the three channels of a colour image keep their balance.
    """
    if dtype == np.uint8:
        return 0.0, 255.0
    if dtype.kind == "b":
        return 0.0, 1.0
    if dtype.kind == "f" and values.max() <= 1:
        if values.min() >= 0:
            return 0.0, 1.0
        if values.min() >= -1:
            return -1.0, 1.0
    return None


def used_ranges(image: np.ndarray, value_map: ValueMap) -> list[tuple[float, float]]:
    """Returns per channel the 0.5th and 99.5th percentile of an image [H, W, C], in source units, without background.

    Where that is little of the map's low..high, the channel has hardly any contrast left in [-1, 1]. A channel of two
    values or less, such as a drawn mask, has its whole range.
    """
    ranges = []
    for c, background in enumerate(value_map.background):
        channel = np.clip(np.asarray(image[..., c], np.float64), value_map.low[c], value_map.high[c])
        subject = channel[channel != background] if background is not None else channel
        two = subject.size == 0 or ((subject == subject.min()) | (subject == subject.max())).all()
        low, high = (value_map.low[c], value_map.high[c]) if two else np.percentile(subject, (0.5, 99.5))
        ranges.append((float(low), float(high)))
    return ranges


def _own_range(channel: np.ndarray) -> tuple[float, float]:
    return _widened(float(channel.min()), float(channel.max()))


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if low < high else (low, low + max(1.0, abs(low)))


def backgrounds(clipped: np.ndarray, background: Any) -> tuple[float | None, ...]:
    """Returns the background of each channel of an image [H, W, C] that its range has clipped; see `fit`."""
    channels = clipped.shape[-1]
    if isinstance(background, str) and background.strip().lower() == "auto":
        return tuple(_border_value(clipped[..., c]) for c in range(channels))
    given = _numbers(background, "background", "auto, none, a number, or one per channel")
    if len(given) not in (1, channels):
        raise UserError(
            f"config.data.background={background!r} has {len(given)} values for {channels} channels:"
            " give one number, or one per channel"
        )
    return given if len(given) == channels else given * channels


def _border_value(channel: np.ndarray) -> float | None:
    ring = np.ones(channel.shape, bool)
    ring[1:-1, 1:-1] = False
    values, counts = np.unique(channel[ring], return_counts=True)
    most = counts.argmax()
    return float(values[most]) if counts[most] >= BACKGROUND_SHARE * ring.sum() else None


def _numbers(given: Any, key: str, wanted: str) -> tuple[Any, ...]:
    """Returns floats (None for 'none') from a number, a sequence, or the text of one."""
    parts: Any = given
    if isinstance(given, str):
        parts = given.strip().strip("()[]").rstrip(", ").split(",")
    elif not isinstance(given, list | tuple):
        parts = (given,)
    result = []
    for part in parts:
        if part is None or (isinstance(part, str) and part.strip().strip("'\"").lower() == "none"):
            result.append(None)
            continue
        try:
            result.append(float(part))
        except (TypeError, ValueError):
            raise UserError(f"config.data.{key}={given!r} must be {wanted}") from None
        if not abs(result[-1]) <= LARGEST_VALUE:  # also refuses NaN
            raise UserError(f"config.data.{key}={given!r} must be {wanted}")
    return tuple(result)


def _is_constant(channel: np.ndarray) -> bool:
    return bool(channel.min() == channel.max())


def _float_limits(dtype: np.dtype) -> tuple[float, float]:
    """Returns the least and largest float64 that `dtype` can hold: 2**63 - 1 rounds up to a float that it cannot."""
    info = np.iinfo(dtype)
    top = float(info.max)
    return float(info.min), top if int(top) <= info.max else float(np.nextafter(top, 0.0))
