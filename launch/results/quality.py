"""evaluation.json and the metrics of each scale as values to show: fidelity never without diversity and distance."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from launch.results import history
from launch.results.numbers import MISSING, interval, number
from singan import files
from singan.errors import UserError

FORMAT = 1  # of evaluation.json
# Always shown together, measured or not: near-copies of the training image score best in fidelity alone.
HEADLINE = {
    "fidelity": ("swd", "random_sifid"),
    "diversity": ("diversity",),
    "distance to the training image": ("rmse", "nearest_patch_ratio", "copied"),
}
MORE = {
    "fidelity": ("fid", "kid", "random_frechet", "sifid_64", "sifid_192"),
    "diversity": ("ms_ssim", "feature_spread"),
    "distance to the training image": ("nearest_patch", "nearest_real_ratio"),
}
NOT_KNOWN = "-1"  # the start scale of images that are in no folder named after one
AT_SCALES = ("swd", "random_sifid", "diversity", "rmse")  # what training measures at each scale's end
NAMES = {
    "swd": "SWD",
    "random_sifid": "SIFID, random features",
    "diversity": "diversity",
    "rmse": "RMSE to training image",
    "nearest_patch_ratio": "nearest-patch ratio",
    "copied": "copied patches, share",
    "nearest_patch": "nearest-patch distance",
    "ms_ssim": "MS-SSIM between samples",
    "fid": "FID",
    "kid": "KID",
    "sifid_64": "SIFID, 64-d",
    "sifid_192": "SIFID, 192-d",
    "random_frechet": "Fréchet distance, random features",
    "feature_spread": "spread of features",
    "nearest_real_ratio": "nearest-real ratio",
    "reconstruction_rmse": "reconstruction RMSE",
}
NOT_MEASURED = "not measured"


class Measured(NamedTuple):
    """The mean, 10th and 90th percentile of a metric over images (or samples) and their number; or a reason.

    note: why the value is to be read with care.
    """

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    count: int = 0
    reason: str = ""
    note: str = ""

    def text(self) -> str:
        """Returns 'mean [p10–p90]', the mean alone where it is one value, or the reason for having none."""
        if math.isnan(self.mean):
            return self.reason or MISSING
        return interval(self.mean, self.low, self.high) if self.count > 1 else number(self.mean)


class Evaluation(NamedTuple):
    """What evaluation.json holds; cohort by start scale, images by id and start scale, then by metric."""

    settings: Mapping[str, Any]
    definitions: Mapping[str, str]
    cohort: Mapping[str, Mapping[str, Measured]]
    images: Mapping[str, Mapping[str, Mapping[str, Measured]]]


def read_evaluation(path: Path) -> Evaluation | None:
    """Returns what evaluation.json holds, or None where there is none.

    Raises:
      UserError: it is damaged, or of another format.
    """
    if not path.exists():
        return None
    content = files.read_json(path)
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        written = content.get("format") if isinstance(content, Mapping) else None
        raise UserError(f"{path} has format {written}, this version reads {FORMAT}: run launch.evaluate again")
    try:
        cohort = {str(start): _metrics(of) for start, of in content["cohort"].items()}
        images = {
            str(name): {str(start): _metrics(of) for start, of in starts.items()}
            for name, starts in content["images"].items()
        }
        return Evaluation(dict(content.get("settings") or {}), dict(content["definitions"]), cohort, images)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r}): run launch.evaluate again") from None


def of_scale(ends: Mapping[str, Any], name: str) -> Measured:
    """Returns a metric of ScaleHistory.ends over the images that have it."""
    if name not in ends:
        return Measured(reason=NOT_MEASURED)
    numbers = history.values(ends[name])
    if not numbers.size:
        return Measured(reason="undefined")
    low, high = np.percentile(numbers, (10, 90))
    return Measured(float(numbers.mean()), float(low), float(high), int(numbers.size))


def ordered(names: Iterable[str]) -> list[str]:
    """Returns the headline metrics, whether they are among the names or not, and then the others in their order."""
    headline = [name for group in HEADLINE.values() for name in group]
    return headline + [name for name in dict.fromkeys(names) if name not in headline]


def divided(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Returns the metrics that are shown first (the headline, and others that speak of the same), and the rest."""
    every = ordered(names)
    first = [name for name in every if group_of(name) and ("/" not in name or name.split("/")[0] not in every)]
    return first, [name for name in every if name not in first]


def name_of(metric: str) -> str:
    """Returns a metric's name for people."""
    base, _, of = metric.partition("/")
    return NAMES.get(metric) or (f"{NAMES[base]}, {of}" if base in NAMES else metric)


def group_of(metric: str) -> str:
    """Returns what a metric speaks of; '' where that is something else than these three."""
    base = metric.split("/")[0]
    return next((group for part in (HEADLINE, MORE) for group, names in part.items() if base in names), "")


def start_order(start: str) -> tuple:
    """Sorts start scales: numbers first, in their order, then those that are not known."""
    return (0, int(start), "") if start.isdecimal() else (1, 0, start)


def start_name(start: str) -> str:
    """Returns 'start scale 0'."""
    return "start scale not known" if start == NOT_KNOWN else f"start scale {start}"


def scale_definitions() -> dict[str, str]:
    """Returns the definitions of AT_SCALES."""
    # Here, since these load JAX, which a page does without.
    from singan.metrics import diversity, memorisation, random_features, sliced_wasserstein

    modules = (sliced_wasserstein, random_features, diversity, memorisation)
    known = {name: text for module in modules for name, text in module.DEFINITIONS.items()}
    return {name: known[name] for name in AT_SCALES if name in known}


def _metrics(of: Mapping[str, Any]) -> dict[str, Measured]:
    return {str(metric): _measured(entry) for metric, entry in of.items()}


def _measured(entry: Mapping[str, Any]) -> Measured:
    if "undefined" in entry:
        return Measured(reason=f"undefined: {entry['undefined']}")
    mean, low, high = (math.nan if entry[key] is None else float(entry[key]) for key in ("mean", "p10", "p90"))
    count = int(entry.get("images", entry.get("count", 0)) or 0)
    why = "undefined, no reason given" if math.isnan(mean) else ""
    return Measured(mean, low, high, count, why, str(entry.get("note") or ""))
