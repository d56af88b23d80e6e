"""What evaluations say, brought together: one number per variant, start scale, image and seed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from singan import files

METRICS = ("swd", "random_sifid", "diversity", "ms_ssim", "rmse", "nearest_patch_ratio", "copied")
Key = tuple[str, int]  # image id, seed


@dataclasses.dataclass
class Quality:
    """What was measured of one variant.

    Attributes:
      values: start scale -> metric -> (image id, seed) -> mean over samples.
      reasons: start scale -> metric -> why some values are missing, each reason once.
    """

    values: dict[int, dict[str, dict[Key, float]]] = dataclasses.field(default_factory=dict)
    reasons: dict[int, dict[str, list[str]]] = dataclasses.field(default_factory=dict)

    def add(self, start_scale: int, metric: str, key: Key, entry: Mapping[str, Any]) -> None:
        """Takes an entry of evaluation.json."""
        if "mean" in entry:
            self.values.setdefault(start_scale, {}).setdefault(metric, {})[key] = float(entry["mean"])
        else:
            self.miss(start_scale, metric, str(entry.get("undefined", "not measured")))

    def miss(self, start_scale: int, metric: str, reason: str) -> None:
        """Notes why a value is missing."""
        reasons = self.reasons.setdefault(start_scale, {}).setdefault(metric, [])
        if reason not in reasons:
            reasons.append(reason)

    def of(self, start_scale: int, metric: str) -> dict[Key, float]:
        return self.values.get(start_scale, {}).get(metric, {})

    def why(self, start_scale: int, metric: str) -> str:
        return "; ".join(self.reasons.get(start_scale, {}).get(metric, []))

    def summary(self, start_scale: int, metric: str) -> dict[str, Any]:
        """Returns {mean, p10, p90, images} over images, an image's value being its mean over seeds; or {undefined}."""
        values = self.of(start_scale, metric)
        if not values:
            return {"undefined": self.why(start_scale, metric) or "not measured"}
        means = list(by_image(values).values())
        p10, p90 = np.percentile(means, [10, 90]).tolist()
        entry = {"mean": float(np.mean(means)), "p10": p10, "p90": p90, "images": len(means)}
        note = self.why(start_scale, metric)
        return {**entry, "note": note} if note else entry


def by_image(values: Mapping[Key, float]) -> dict[str, float]:
    """Returns the mean over seeds of each image."""
    return {name: float(np.mean([v for (n, _), v in values.items() if n == name])) for name, _ in values}


def read_quality(evaluations: Mapping[int, Path], ids: Sequence[str], start_scales: Sequence[int]) -> Quality:
    """Returns what the evaluation.json of each seed says of these images; a file that is missing is a reason.

    Raises:
      UserError: a file cannot be read.
    """
    quality = Quality()
    for seed, path in evaluations.items():
        images = files.read_json(path)["images"] if path.exists() else {}
        for scale in start_scales:
            for name in ids:
                entries = images.get(name, {}).get(str(scale))
                for metric in METRICS:
                    if entries is None:
                        why = f"{name} diverged (seed {seed})" if images else f"not trained (seed {seed}): see its log"
                        quality.miss(scale, metric, why)
                    else:
                        quality.add(scale, metric, (name, seed), entries.get(metric, {}))
    return quality
