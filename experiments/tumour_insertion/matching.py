"""Intensities of one scan brought to those of another, by what healthy tissue looks like in both. NumPy alone.

MRI has no unit: the same tissue is 300 in one scan and 800 in the next. Per modality, healthy brain of the donor's
slice is brought to that of the background's, and the tumour goes along. Medians, because ventricles, vessels and the
rim of the skull would pull at means.

| rule | new value |
|---|---|
| median | the old one times the ratio of the medians: 0, no signal, stays 0, and ratios to healthy tissue stay |
| median_mad | as many median absolute deviations (MAD) from the new median as it was from the old one |
| auto | median_mad for a modality that was standardised and so goes below 0, where ratios mean nothing; else median |

A spread says as much about which part of the brain a slice shows as about the scan. Between slices of one scan, where
1 is right, the README has gains of both rules.
"""

import dataclasses

import numpy as np

RULES = ("auto", "median", "median_mad")
MIN_PIXELS = 50  # of healthy brain, for its statistics to mean something
RINGING = 0.1  # of the bright end: what lies less far below 0 is no signal, as launch.images.record_images has it


@dataclasses.dataclass(frozen=True, eq=False)
class Matching:
    """new value = gain * old value + offset, per channel, float64 [C]."""

    gain: np.ndarray
    offset: np.ndarray

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Returns an image [..., C] in the other scan's values, float64."""
        return np.asarray(image, np.float64) * self.gain + self.offset


def match(
    donor: np.ndarray, donor_tissue: np.ndarray, background: np.ndarray, tissue: np.ndarray, rule: str = "auto"
) -> Matching:
    """Returns the map from a donor's values to a background's.

    Args:
      donor: [H, W, C].
      donor_tissue: bool [H, W], its healthy brain.
      background: [h, w, C], the same channels.
      tissue: bool [h, w], its healthy brain.
      rule: one of RULES.

    Raises:
      ValueError: one of them shows too little healthy brain, or a median is not above 0 where its ratio is wanted.
    """
    for name, mask in (("the donor", donor_tissue), ("the background", tissue)):
        if mask.sum() < MIN_PIXELS:
            raise ValueError(f"{name} shows only {int(mask.sum())} pixels of healthy brain to match intensities by")
    old, new = np.asarray(donor[donor_tissue], np.float64), np.asarray(background[tissue], np.float64)
    by_spread = {"auto": _standardised(old) | _standardised(new), "median": False, "median_mad": True}[rule]
    middle, new_middle = np.median(old, axis=0), np.median(new, axis=0)
    if not (by_spread | ((middle > 0) & (new_middle > 0))).all():
        raise ValueError("the median of healthy brain is not above 0, so that no ratio can be taken: match median_mad")
    spread, new_spread = _spread(old), _spread(new)
    gain = np.where(
        by_spread,
        np.where(spread > 0, new_spread, 1) / np.where(spread > 0, spread, 1),
        new_middle / np.where(middle > 0, middle, 1),
    )
    return Matching(gain, np.where(by_spread, new_middle - gain * middle, 0.0))


def _standardised(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, [0.5, 99.5], axis=0)
    return low < -RINGING * high


def _spread(values: np.ndarray) -> np.ndarray:
    """Median absolute deviation of [n, C]."""
    return np.median(np.abs(values - np.median(values, axis=0)), axis=0)
