"""How near what was made of an unknown channel is to the true one, as numbers and as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

from launch.images import mask_channels
from singan.metrics.nuclei import dice
from singan.metrics.values import Undefined, Value

DEFINITIONS = {
    "psnr": "10 log10(4 / mean squared difference) over the subject, in dB: values span 2",
    "ssim": "structural similarity (Wang 2004: Gaussian of 1.5 pixels, values span 2), averaged over the subject",
    "dice": "twice the overlap of both masks divided by the sum of their areas; 1 where both are empty",
}
TITLES = {"psnr": "PSNR in dB", "ssim": "SSIM", "dice": "Dice"}
WINDOW = 11  # pixels of SSIM's Gaussian, cut off at 3.5 standard deviations
MISSING = "         -"


def score(made: np.ndarray, truth: np.ndarray, inside: np.ndarray, kind: str) -> dict[str, Value]:
    """Returns psnr and ssim of a measured channel, or dice of a mask; see DEFINITIONS.

    Args:
      made, truth: [h, w] in [-1, 1].
      inside: bool [h, w], the subject.
      kind: of the mask; '' for a measured channel.
    """
    if kind:
        least = mask_channels.INSTANCE_THRESHOLD if kind == "instance" else 0.0
        return {"dice": dice(made > least, truth > least)}
    if not inside.any():
        empty = Undefined("there is no subject: all is background")
        return {"psnr": empty, "ssim": empty}
    error = float(np.mean(np.square(made[inside].astype(np.float64) - truth[inside])))
    same = Undefined("equal at every pixel: PSNR is infinite")
    values: dict[str, Value] = {"psnr": 10 * float(np.log10(4 / error)) if error else same}
    if min(made.shape) < WINDOW:
        return {**values, "ssim": Undefined(f"smaller than SSIM's window of {WINDOW}x{WINDOW} pixels")}
    pair = np.asarray(made, np.float64), np.asarray(truth, np.float64)
    result: Any = structural_similarity(  # of (mean, map), which its hints do not say for full=True
        *pair, data_range=2.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return {**values, "ssim": float(np.asarray(result[1])[inside].mean())}


def tables(rows: Sequence[Mapping], methods: Sequence[str]) -> str:
    """Returns a table as text for each metric, a line for each case and channel and the means of each kind of case.

    Args:
      rows: 'image', 'case', 'kind', 'unknown', 'channel', 'method' and the metrics' values, None where undefined.
      methods: the columns, in order.
    """
    return "\n\n".join(
        _table(metric, rows, methods) for metric in DEFINITIONS if any(row.get(metric) is not None for row in rows)
    )


def verdicts(rows: Sequence[Mapping], guesses: Sequence[str]) -> list[str]:
    """Returns a line for each kind of case, channel and metric: whether the pyramid beats the plain guesses."""
    lines = []
    for (kind, unknown, channel), some in _grouped(rows, ("kind", "unknown", "channel")).items():
        what = channel if channel == unknown else f"{channel} of {unknown}"
        for metric in DEFINITIONS:
            means = _means(some, metric)
            plain = {name: means[name] for name in guesses if name in means}
            made = {name: value for name, value in means.items() if name not in plain}
            if not plain or not made:
                continue
            best, pyramid = max(plain, key=lambda name: plain[name]), max(made, key=lambda name: made[name])
            gain = made[pyramid] - plain[best]
            word = "better" if gain > 0 else "worse" if gain < 0 else "equal"
            lines.append(
                f"{kind}: {what}, {TITLES[metric]}: pyramid {made[pyramid]:.3f} ({pyramid}) against {plain[best]:.3f}"
                f" ({best}): {word} by {abs(gain):.3f}"
            )
    return lines


def _table(metric: str, rows: Sequence[Mapping], methods: Sequence[str]) -> str:
    rows = [row for row in rows if row.get(metric) is not None]
    label = "{:10} {:28} {:14}".format
    lines = [
        f"{TITLES[metric]}, * the best",
        label("kind", "case", "unknown") + "".join(f"{m[:9]:>10}" for m in methods),
    ]
    for (kind, unknown, channel), some in _grouped(rows, ("kind", "unknown", "channel")).items():
        what = channel if channel == unknown else f"{channel}:{unknown}"
        cases = _grouped(some, ("image", "case"))
        for (_, case), own in cases.items():
            lines.append(label(kind, str(case)[-28:], what[:14]) + _cells(_means(own, metric), methods))
        if len(cases) > 1:
            lines.append(label(kind, f"mean of {len(cases)}", what[:14]) + _cells(_means(some, metric), methods))
    return "\n".join(lines)


def _cells(means: Mapping[str, float], methods: Sequence[str]) -> str:
    most = max(means.values())
    return "".join(
        f"{means[name]:9.3f}{'*' if means[name] == most else ' '}" if name in means else MISSING for name in methods
    )


def _means(rows: Sequence[Mapping], metric: str) -> dict[str, float]:
    groups = _grouped([row for row in rows if row.get(metric) is not None], ("method",))
    return {method: float(np.mean([row[metric] for row in some])) for (method,), some in groups.items()}


def _grouped(rows: Sequence[Mapping], keys: Sequence[str]) -> dict[tuple, list[Mapping]]:
    groups: dict[tuple, list[Mapping]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups
