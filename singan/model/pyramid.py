"""The scales of an image pyramid, and resizing as two small matrices.

Cubic resizing is linear and separable: out = A_h X A_w^T. With constant matrices it is two matrix products on the
device, for any number of channels and images, differentiable, and never leaves the device.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from singan.config import Config, PyramidConfig
from singan.errors import UserError

MAX_PIXELS = 2**26  # of what is made larger than its training image: 8192 x 8192


@dataclasses.dataclass(frozen=True)
class Pyramid:
    """Sizes of all scales, coarsest first, and what resizing needs to know.

    Attributes:
      source: height and width of the image as given.
      shrunk: height and width after the first shrinking to max_size; equals the finest scale.
      sizes: (height, width) of scale 0..N.
      ratio: factor between neighbouring scales, below 1; with `factors`, between the last two.
      border: 'mirror' or 'reference', see resize_matrix.
      factors: of each scale, how large it is against `shrunk` before rounding, where neighbours do not all have the
        factor `ratio` between them; else ().
    """

    source: tuple[int, int]
    shrunk: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]
    ratio: float
    border: str
    factors: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.sizes)

    def factor(self, scale: int) -> float:
        """Returns how large a scale is against `shrunk`, at most 1."""
        return self.factors[scale] if self.factors else self.ratio ** (len(self) - 1 - scale)

    def growth(self, scale: int) -> float:
        """Returns how large a scale is against the one below it, above 1."""
        return self.factors[scale] / self.factors[scale - 1] if self.factors else 1 / self.ratio

    def level(self, image: np.ndarray, scale: int) -> np.ndarray:
        """Returns image [..., H, W, C] at a scale, as float32 clipped to [-1, 1].

        Each level is made straight from the shrunk image, not from its neighbour, as the reference does.
        """
        shrink = max(self.shrunk) / max(self.source)
        image = image.astype(np.float64)
        if self.shrunk != self.source:
            image = _resize(image, self.shrunk, shrink, self.border)
        if scale < len(self) - 1:
            image = _resize(image, self.sizes[scale], self.factor(scale), self.border)
        return np.clip(image, -1, 1).astype(np.float32)

    def scaled(self, height: float, width: float) -> "Pyramid":
        """Returns the pyramid whose scales are `height` and `width` times as large, for images of another size.

        The factor between its scales stays the one that the networks were trained with (the reference's scale_v and
        scale_h: every size is rounded by itself).

        Raises:
          UserError: a factor is not positive, or leaves less than 3 pixels at some scale, or more than MAX_PIXELS.
        """
        if (height, width) == (1, 1):
            return self
        if not (0 < height < math.inf and 0 < width < math.inf):
            raise UserError(f"a size of {height:g} x {width:g} times the image's must be positive, such as 1.0,1.5")
        if self.sizes[-1][0] * height * self.sizes[-1][1] * width > MAX_PIXELS:
            raise UserError(
                f"a size of {height:g} x {width:g} times the image's has more than {MAX_PIXELS} pixels: lower it"
            )
        times = lambda size: (round(size[0] * height), round(size[1] * width))  # noqa: E731
        sizes = tuple(times(size) for size in self.sizes)
        if min(min(size) for size in sizes) < 3:
            raise UserError(f"a size of {height:g} x {width:g} times the image's leaves {sizes[0]} pixels at scale 0")
        return dataclasses.replace(self, source=times(self.source), shrunk=times(self.shrunk), sizes=sizes)

    def upsampling(self, scale: int, cropped: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Returns the float32 matrices (rows, columns) that take scale - 1 to scale: x -> rows @ x @ columns.T.

        The reference resizes by 1/ratio to ceil(size / ratio) and keeps the top left part of it.

        Args:
          cropped: make the kept rows only; else all of them, of which the first ones are kept.
        """
        old, new, growth = self.sizes[scale - 1], self.sizes[scale], self.growth(scale)
        if not cropped:
            new = tuple(max(n, math.ceil(o * growth)) for o, n in zip(old, new, strict=True))
        rows, columns = (resize_matrix(o, n, growth, self.border) for o, n in zip(old, new, strict=True))
        return rows.astype(np.float32), columns.astype(np.float32)


def pyramid_of(shape: Sequence[int], config: Config) -> Pyramid:
    """Returns the Pyramid of a configuration for images [height, width, ...]; raises UserError as `make_pyramid`."""
    return make_pyramid(shape[0], shape[1], config.pyramid, str(config.method.resize_border))


def make_pyramid(height: int, width: int, config: PyramidConfig, border: str = "mirror") -> Pyramid:
    """Returns the Pyramid for an image of height x width pixels.

    Sources: the reference's adjust_scales2image and creat_reals_pyramid; sizes are ceil'ed in float64 as there. Where
    config.num_scales is set, ConSinGAN's functions of the same names (Hinz et al. 2021, section 3.2).

    Raises:
      UserError: the image has too few pixels for a pyramid of at least two strictly growing scales.
    """
    short, long = min(height, width), max(height, width)
    advice = "use larger images or lower config.pyramid.min_size"
    if long > config.max_size:
        advice = "lower config.pyramid.min_size or raise config.pyramid.max_size"
    if short < 2:
        raise UserError(f"an image of {height}x{width} pixels is too small: {advice}")
    shrink = min(config.max_size / long, 1)
    h, w = math.ceil(height * shrink), math.ceil(width * shrink)
    finest = config.num_scales - 1 if config.num_scales else _finest_scale(short, long, config)
    if min(h, w) <= config.min_size or finest < 1:
        raise UserError(
            f"an image of {height}x{width} pixels, {h}x{w} at its finest scale, is too small for a pyramid that"
            f" starts at {config.min_size} pixels: {advice}"
        )
    if finest >= min(h, w):  # every scale has a pixel more than the one below
        key = f"num_scales={config.num_scales}" if config.num_scales else f"ratio={config.ratio:g}"
        raise UserError(
            f"config.pyramid.{key} asks for {finest + 1} scales of an image of {h}x{w} pixels, which cannot all differ:"
            " lower it"
        )
    ratio = (config.min_size / min(h, w)) ** (1 / finest)
    if config.num_scales:
        factors = tuple(ratio ** _consingan_exponent(finest, i) for i in range(finest + 1))
    else:
        factors = tuple(ratio ** (finest - i) for i in range(finest + 1))
    sizes = tuple((math.ceil(h * factor), math.ceil(w * factor)) for factor in factors)
    if any(b[0] <= a[0] or b[1] <= a[1] for a, b in itertools.pairwise(sizes)):
        raise UserError(
            f"the scales of an image of {height}x{width} pixels do not grow"
            f" ({' '.join(f'{a}x{b}' for a, b in sizes)}): {advice},"
            f" or lower config.pyramid.{'num_scales' if config.num_scales else 'ratio'}"
        )
    return Pyramid((height, width), (h, w), sizes, ratio, border, factors if config.num_scales else ())


def _finest_scale(short: int, long: int, config: PyramidConfig) -> int:
    """Returns the number of the finest scale of an image, the coarsest's being 0, with config.ratio between scales."""
    count = math.ceil(math.log(config.min_size / short) / math.log(config.ratio)) + 1
    stop = math.ceil(math.log(min(config.max_size, long) / long) / math.log(config.ratio))
    return count - stop


def _consingan_exponent(finest: int, scale: int) -> float:
    """Returns the power of the ratio that a scale's size is: n at scale 0, slowly falling to 1, then 0 (n = finest)."""
    if finest == scale:
        return 0.0
    return (finest - 1) / math.log(finest) * math.log(finest - scale) + 1 if finest > 1 else 1.0


def resize_matrix(length: int, out_length: int, scale: float, border: str) -> np.ndarray:
    """Returns the float64 matrix [out_length, length] that resizes a signal by `scale` with a cubic kernel.

    Keys' cubic with a = -0.5, stretched by 1/scale when shrinking (antialiasing). Output pixel p (from 1) lies at
    p / scale + (1 - 1 / scale) / 2, with the scale as given, not out_length / length. Rows sum to 1.

    Args:
      border: 'mirror' mirrors at both ends; 'reference' mirrors past the end, but drops what lies before the
        start and renormalises, as the reference's imresize does.

    Source: MATLAB's imresize as ported in the reference (imresize.py); ALGORITHM section 3.
    """
    stretch = min(scale, 1.0)
    support = 4 / stretch
    centres = np.arange(1, out_length + 1) / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(centres - support / 2)
    taps = left[:, None] + np.arange(math.ceil(support) + 2)  # 1-based source pixels
    weights = _cubic(stretch * (centres[:, None] - taps))
    pixels = taps.astype(np.int64) - 1
    if border == "reference":
        weights = np.where(pixels < 0, 0.0, weights)
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    matrix = np.zeros((out_length, length))
    np.add.at(matrix, (np.arange(out_length)[:, None], mirrored[pixels % (2 * length)]), weights)
    return matrix


def resize_to(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns an image [..., H, W, C] in [-1, 1] at another size, cubic, clipped, float32 [..., h, w, C].

    An image of that size already is returned as it is. Shrinking antialiases; borders are mirrored.
    """
    if image.shape[-3:-1] == tuple(size):
        return np.asarray(image, np.float32)
    rows, columns = (
        resize_matrix(old, new, new / old, "mirror") for old, new in zip(image.shape[-3:-1], size, strict=True)
    )
    resized = np.einsum("ph,...hwc,qw->...pqc", rows, image.astype(np.float64), columns, optimize=True)
    return np.clip(resized, -1, 1).astype(np.float32)


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    return np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x <= 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0.0))


def _resize(image: np.ndarray, size: tuple[int, int], scale: float, border: str) -> np.ndarray:
    rows = resize_matrix(image.shape[-3], size[0], scale, border)
    columns = resize_matrix(image.shape[-2], size[1], scale, border)
    return np.einsum("ph,...hwc,qw->...pqc", rows, image, columns, optimize=True)
