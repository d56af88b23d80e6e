"""What tells real from synthetic images without an eye for them, measured on what a page shows.

Levels, gaps, limits and saturation are what levels.py makes alike. The spectrum is content: a generator
that leaves out fine detail does so in every image, and a page that hid it would hide what readers are asked about.
"""

from collections.abc import Sequence

import numpy as np

from launch.reader_study.scoring import auc, chance_interval

FORMAT = {
    "the number of values": lambda plane: len(np.unique(plane)),
    "the mean gap between values": lambda plane: np.ptp(plane) / max(len(np.unique(plane)) - 1, 1),
    "the least value": np.min,
    "the greatest value": np.max,
    "the share of pixels at the least value": lambda plane: np.mean(plane == plane.min()),
    "the share of pixels at the greatest value": lambda plane: np.mean(plane == plane.max()),
}
BEYOND = 1.35  # of six measures, none is so many half intervals from a half with 95 % probability


def report(real: Sequence[np.ndarray], generated: Sequence[np.ndarray]) -> list[str]:
    """Returns lines for the person who makes a study: the spectra, and what else still tells the kinds apart.

    Args:
      real, generated: [C, H, W] each, as shown.
    """
    sides = [[spectrum_slope(image) for image in side] for side in (real, generated)]
    low, high = chance_interval(len(real), len(generated))
    chance = f"{low:.2f} to {high:.2f} by chance"
    means = [np.median(side) for side in sides]
    lines = [
        f"slope of the spectra: real {means[0]:.2f}, synthetic {means[1]:.2f}; alone it tells them apart with an area"
        f" under the ROC curve of {_area(sides):.2f} ({chance}). That is content, and is left as it is"
    ]
    for name, measure in FORMAT.items():
        area = _area(
            [[float(np.mean([measure(plane) for plane in image])) for image in side] for side in (real, generated)]
        )
        if abs(area - 0.5) > BEYOND * (high - 0.5):
            lines.append(f"note: {name} alone tells them apart with an area of {area:.2f} ({chance})")
    return lines


def spectrum_slope(image: np.ndarray) -> float:
    """Returns by which power of its frequency the power of an image [C, H, W] falls: about -2 to -4, of noise 0.

    A line through the logarithms of the mean power in rings of equal width, from two periods in the shorter side to
    half a period in a pixel, of the image under a Hann window; the mean of the channels, 0 of a blank one.
    """
    height, width = image.shape[1:]
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    ring = np.rint(radius * min(height, width)).astype(int)
    rings = np.arange(2, min(height, width) // 2 + 1)
    slopes = []
    for plane in image.astype(np.float64):
        if np.ptp(plane) == 0 or len(rings) < 2:
            slopes.append(0.0)
            continue
        power = abs(np.fft.fft2((plane - plane.mean()) * window)) ** 2
        mean = np.bincount(ring.ravel(), power.ravel())[rings] / np.bincount(ring.ravel())[rings]
        slopes.append(np.polyfit(np.log(rings), np.log(mean + 1e-12), 1)[0])
    return float(np.mean(slopes))


def _area(sides: Sequence[Sequence[float]]) -> float:
    return auc(np.concatenate(sides), np.arange(sum(map(len, sides))) < len(sides[0]))
