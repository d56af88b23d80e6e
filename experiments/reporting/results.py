"""What the evaluations and the trainings say, brought together: one number per variant, start scale, image and seed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from launch.results.history import values
from launch.results.run_facts import final_rmse, read_facts
from singan import files

METRICS = ("swd", "random_sifid", "diversity", "ms_ssim", "rmse", "nearest_patch_ratio", "copied")
SECONDS = "seconds_per_image"  # of training
DEFINITIONS = {
    SECONDS: "wall time of a training, compilation and the metrics at each scale's end included, stops left out,"
    " divided by its images; in seconds; the baseline trains nothing and spends its time on every sample instead",
}

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


@dataclasses.dataclass(frozen=True)
class Training:
    """How a variant's trainings went; means over seeds and images.

    Attributes:
      rmse: of the finest scale's reconstruction, in units of [-1, 1].
      amplitudes: of the noise at each scale, coarsest first.
    """

    seconds_per_image: float
    rmse: float
    amplitudes: tuple[float, ...]


def read_training(workdirs: Sequence[Path]) -> Training | None:
    """Returns how the trainings of a variant went; None where there is none that has ended.

    Raises:
      UserError: a run's configuration cannot be read.
    """
    facts = [read_facts(path) for path in workdirs if (path / "config.json").exists()]
    facts = [each for each in facts if each.record.get("status") == "finished" and each.images]
    if not facts:
        return None
    seconds = [each.seconds / len(each.images) for each in facts]
    errors = [error for each in facts for error in final_rmse(each.history)]
    scales = min(len(each.history) for each in facts)
    ends = [[values(each.history[scale].ends.get("noise_amplitude", [])) for each in facts] for scale in range(scales)]
    amplitudes = tuple(float(np.mean(np.concatenate(of_scale))) for of_scale in ends if sum(map(len, of_scale)))
    return Training(float(np.mean(seconds)), float(np.mean(errors)) if errors else float("nan"), amplitudes)


@dataclasses.dataclass(frozen=True)
class Paired:
    """A metric of one variant less that of another, over the images and seeds that both have.

    Attributes:
      first, second, difference: means over images, seeds averaged before.
      low, high: 95 % interval of the mean difference, by Student's t over images; None for one image.
      lower, higher, pairs: of the images and seeds, how many differences are below 0, above 0, and all.
    """

    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    lower: int
    higher: int
    pairs: int


def pair(first: Mapping[Key, float], second: Mapping[Key, float]) -> Paired | None:
    """Returns first less second; None where they have no image and seed in common."""
    common = [key for key in first if key in second]
    if not common:
        return None
    differences = {key: first[key] - second[key] for key in common}
    each = np.array(list(by_image(differences).values()))
    low = high = None
    if len(each) > 1:
        half = float(stats.t.ppf(0.975, len(each) - 1)) * float(each.std(ddof=1)) / len(each) ** 0.5
        low, high = float(each.mean()) - half, float(each.mean()) + half
    a, b = (float(np.mean(list(by_image({key: of[key] for key in common}).values()))) for of in (first, second))
    values = list(differences.values())
    lower, higher = sum(d < 0 for d in values), sum(d > 0 for d in values)
    return Paired(a, b, float(each.mean()), low, high, lower, higher, len(values))
