"""Modalities of samples against the source's: their values, whether they go together, a clean background. Host only.

The subject of an image is where any modality differs from its background by more than TOLERANCE; everywhere, where no
modality has a background. Give the channels that are measured (T1, T2, ...), without masks.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from singan.errors import UserError
from singan.metrics.values import Undefined, Value, check_images, difference, mean
from singan.shapes import Array, Bool, Float

DEFINITIONS = {
    "histogram_distance": "1-D Wasserstein distance of a modality's values within the subject to the source's, divided"
    " by the source's range of them; 0 for copies, 0.1 where values lie a tenth of the range away",
    "mutual_information": "normalised mutual information 2 I / (H + H) of two modalities' values within the subject, in"
    " 32 bins over the source's range; 0 independent, 1 one determines the other; the source's own for copies",
    "mutual_information_gap": "mutual_information less the source's; 0 for copies, negative where modalities go"
    " together less well than in the source",
    "mutual_information_null": "the same between one modality of a sample and the other of the next sample, where both"
    " show the subject: what shared anatomy and few pixels alone give; the source's own for copies",
    "border_background": "share of the pixels along the image's border (a twentieth of the shorter side wide) at which"
    " every modality with a background holds it, to half a grey level of 8 bits; the source's own for copies",
    "border_background_gap": "border_background less the source's; 0 for copies, negative for haze at the border",
    "subject": "share of the image that is subject, not background; the source's own for copies",
}

TOLERANCE = 0.5 / 127.5  # half a grey level of 8 bits
BORDER = 0.05  # of the shorter side
BINS = 32
NO_BACKGROUND = Undefined("the source has no background")
NO_SUBJECT = Undefined("there is no subject: every pixel is background")
CONSTANT = Undefined("a modality has no two values in the source's subject")
ONE_SAMPLE = Undefined("one sample has no other to exchange modalities with: draw two or more")


def compare_modalities(
    samples: Any, source: Any, background: Sequence[Any], names: Sequence[str] = ()
) -> list[dict[str, Value]]:
    """Returns for each sample the metrics of DEFINITIONS; give source[None] as samples for the source's own values.

    `histogram_distance/<T1>` for each modality, `mutual_information/<T1-T2>` (also _gap and _null) for each pair of
    them, and the means over these under the plain names.

    Args:
      samples: [n, H, W, C] in [-1, 1].
      source: [h, w, C] in [-1, 1], the training image; of any size.
      background: in [-1, 1] (ValueMap.padding where ValueMap.background is not None), None for a modality without.
      names: of the modalities; their numbers where not given.

    Raises:
      UserError: there is not one background for each modality; or see check_images.
    """
    samples, source = check_images(samples, source)
    names = names or [str(channel) for channel in range(source.shape[-1])]
    if len(background) != source.shape[-1]:
        raise UserError(
            f"{len(background)} backgrounds were given for {source.shape[-1]} modalities: give one for each"
        )
    subject, of_source = foreground(samples, background), foreground(source, background)
    true_values = source[of_source]
    binned, source_binned = (_binned(each, true_values) for each in (samples, source))
    pairs = {f"{names[a]}-{names[b]}": (a, b) for a, b in combinations(range(len(names)), 2)}
    expected = {pair: _consistency(source_binned, source_binned, of_source, *pairs[pair]) for pair in pairs}
    border, nobody = border_background(source, background), all(value is None for value in background)
    rows: list[dict[str, Value]] = []
    for number, (sample, inside) in enumerate(zip(samples, subject, strict=True)):
        here, following = binned[number], binned[(number + 1) % len(samples)]
        both = inside & subject[(number + 1) % len(samples)]
        distances = [histogram_distance(sample[inside, c], true_values[:, c]) for c in range(len(names))]
        consistency = {pair: _consistency(here, here, inside, *channels) for pair, channels in pairs.items()}
        null = {
            pair: _consistency(here, following, both, *channels) if len(samples) > 1 else ONE_SAMPLE
            for pair, channels in pairs.items()
        }
        gaps = {pair: difference(consistency[pair], expected[pair]) for pair in pairs}
        at_border = border_background(sample, background)
        row = _with_mean("histogram_distance", dict(zip(names, distances, strict=True)))
        for key, values in (("", consistency), ("_gap", gaps), ("_null", null)):
            row |= _with_mean(f"mutual_information{key}", values)
        row["border_background"] = at_border
        row["border_background_gap"] = difference(at_border, border)
        row["subject"] = NO_BACKGROUND if nobody else float(inside.mean())
        rows.append(row)
    return rows


def foreground(images: Float[Array, "*n h w c"], background: Sequence[Any]) -> Bool[Array, "*n h w"]:
    """Returns where the subject is: any modality more than TOLERANCE from its background; everywhere without any."""
    known = [channel for channel, value in enumerate(background) if value is not None]
    if not known:
        return np.ones(images.shape[:-1], bool)
    values = np.array([background[channel] for channel in known], np.float64)
    return (np.abs(images[..., known] - values) > TOLERANCE).any(-1)


def histogram_distance(values: Float[Array, "n"], source_values: Float[Array, "m"]) -> Value:
    """Returns the 1-D Wasserstein distance of two lists of values, divided by the range of the second."""
    if not len(values) or not len(source_values):
        return NO_SUBJECT
    span = float(np.ptp(source_values))
    return float(stats.wasserstein_distance(values, source_values)) / span if span else CONSTANT


def mutual_information(joint: Any) -> Value:
    """Returns 2 I(X; Y) / (H(X) + H(Y)) of the counts [x, y] of two binned quantities, 0 to 1.

    The symmetric uncertainty; undefined where both are constant. Finite counts bias it upwards, by about
    (x - 1)(y - 1) / (pixels * (H(X) + H(Y))) for independent quantities.
    """
    joint = np.asarray(joint, np.float64)
    if not joint.sum():
        return NO_SUBJECT
    of_x, of_y, of_both = (stats.entropy(counts) for counts in (joint.sum(1), joint.sum(0), joint.ravel()))
    if of_x + of_y <= 0:
        return Undefined("both modalities hold one value only")
    return float(np.clip(2 * (of_x + of_y - of_both) / (of_x + of_y), 0, 1))


def border_background(image: Float[Array, "h w c"], background: Sequence[Any]) -> Value:
    """Returns the share of the border's pixels at which every modality with a background holds it; see DEFINITIONS."""
    if all(value is None for value in background):
        return NO_BACKGROUND
    width = max(1, round(BORDER * min(image.shape[:2])))
    border = np.ones(image.shape[:2], bool)
    border[width:-width, width:-width] = False
    return float((~foreground(image, background))[border].mean())


def _binned(images: np.ndarray, source_values: np.ndarray) -> np.ndarray:
    """Returns the bin of each value of images [..., C], 0 .. BINS - 1 over the range of the source's values [m, C].

    Values beyond it are in the outermost bins. -1 for channels without a range.
    """
    if not len(source_values):
        return np.full(images.shape, -1)
    low, high = source_values.min(0), source_values.max(0)
    bins = np.floor((images - low) / np.where(high > low, high - low, 1) * BINS)
    return np.where(high > low, np.clip(bins, 0, BINS - 1), -1).astype(np.int64)


def _consistency(first: np.ndarray, second: np.ndarray, where: np.ndarray, a: int, b: int) -> Value:
    """Returns the mutual information of channel a of the first and channel b of the second, both binned [h, w, C]."""
    x, y = first[..., a][where], second[..., b][where]
    if (x < 0).any() or (y < 0).any():
        return CONSTANT
    return mutual_information(np.bincount(x * BINS + y, minlength=BINS * BINS).reshape(BINS, BINS))


def _with_mean(key: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the mean under the key itself, and each value under key/name."""
    if not values:
        return {key: Undefined("a single modality has no other to go together with")}
    return {key: mean([*values.values()]), **{f"{key}/{name}": value for name, value in values.items()}}
