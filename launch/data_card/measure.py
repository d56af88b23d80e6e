"""The numbers of a data card: fidelity, diversity, and each sample's distance to its training image beside real ones'.

Measured is a stated part of a set, so that a card costs seconds whatever the set's size.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch.evaluate import evaluation_file
from singan.metrics import diversity, memorisation, sliced_wasserstein
from singan.metrics.values import Undefined, Value
from singan.storage.run import Run

MAX_IMAGES, MAX_SAMPLES = 8, 8  # that are measured: of the images, and of the samples of each
COPIED = 0.5  # share of a sample's judged patches from which on it is a near-copy
NEAR = 0.5  # so is a blurred one, whose RMSE is below this part of what unrelated images have
DEFINITIONS = {
    **{name: sliced_wasserstein.DEFINITIONS[name] for name in ("swd",)},
    **diversity.DEFINITIONS,
    **memorisation.DEFINITIONS,
    "real_rmse": "root mean squared difference of two training images, over all pairs measured",
    "real_nearest_patch": "nearest_patch of one training image in another, over all pairs measured",
    "near_copy": f"more than {COPIED:.0%} of the patches that can be judged are copied, or, as in blurred copies, rmse"
    f" is below {NEAR:g} of what two unrelated images of the training image's contrast have (its standard deviation"
    f" times the square root of 2) and below {NEAR:g} of the least between two training images, where there are two",
    "nearer_than_real": "share of samples whose nearest_patch is below the least real_nearest_patch: they are nearer to"
    " their training image than any two training images are to each other",
}
_ONE = Undefined("the run has one training image only: there is no other to compare with")


def measured_ids(ids: Sequence[str]) -> list[str]:
    """Returns the images whose samples are measured: up to MAX_IMAGES, spread over all."""
    if len(ids) <= MAX_IMAGES:
        return list(ids)
    return [str(ids[round(place)]) for place in np.linspace(0, len(ids) - 1, MAX_IMAGES)]


class Collector:
    """Keeps the samples that are to be measured while all of them pass by."""

    def __init__(self, ids: Sequence[str]):
        self.samples: dict[str, np.ndarray] = {}
        self._wanted = set(measured_ids(ids))

    def add(self, ids: Sequence[str], first: int, pixels: Sequence[np.ndarray]) -> None:
        """Takes samples first, first + 1, ... of some images: [k, H, W, C] each, in [-1, 1]."""
        for name, drawn in zip(ids, pixels, strict=True):
            if name in self._wanted and first < MAX_SAMPLES:
                kept = np.array(drawn[: MAX_SAMPLES - first])  # a view would keep the whole batch
                self.samples[name] = np.concatenate([self.samples[name], kept]) if name in self.samples else kept


def real_images(run: Run, samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the training images to measure samples by: those of the samples, and others where these are few.

    At the finest scale, or on the source's own grid where samples are of its size alone.
    """
    first = next(iter(samples.values()))
    finest = run.spec.pyramid.sizes[len(run.scales) - 1]
    on_source = first.shape[1:3] != finest and all(
        drawn.shape[1:3] == run.record(name).shape[:2] for name, drawn in samples.items()
    )
    names = list(samples) + [name for name in run.ids if name not in samples][: MAX_IMAGES - len(samples)]
    return {name: run.pixels(name) if on_source else run.finest(name) for name in names}


def measure(samples: Mapping[str, np.ndarray], real: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns {"measured", "fidelity", "diversity", "distance"} of a card, ready for JSON.

    Args:
      samples: [n, H, W, C] in [-1, 1] by image.
      real: [h, w, C] in [-1, 1] by image: of the samples', and perhaps others to compare real images with each other.
    """
    rows: list[dict[str, Any]] = []
    metrics: dict[str, list[Value]] = {"swd": [], "diversity": [], "ms_ssim": []}
    between: dict[str, list[float]] = {"rmse": [], "nearest_patch": []}
    for name, drawn in samples.items():
        image = real[name]
        metrics["swd"] += [row["swd"] for row in sliced_wasserstein.patch_distribution(drawn, image)]
        together = diversity.diversity(drawn, image)
        metrics["diversity"].append(together["diversity"])
        metrics["ms_ssim"].append(together["ms_ssim"])
        copies = memorisation.memorisation(drawn, image)
        rows += [{"image": name, "sample": number, **row} for number, row in enumerate(copies)]
    for name, image in real.items():
        others = [other for word, other in real.items() if word != name and other.shape == image.shape]
        if name in samples and others:
            for row in memorisation.memorisation(np.stack(others), image):
                for key, values in between.items():
                    if not isinstance(row[key], Undefined):
                        values.append(float(row[key]))  # pyright: ignore[reportArgumentType]
    least = min(between["rmse"], default=None)
    unrelated = {name: float(np.sqrt(2 * real[name].var((0, 1), dtype=np.float64).mean())) for name in samples}
    near = [_is_near_copy(row, min(unrelated[row["image"]], least or np.inf)) for row in rows]
    judged = [value for value in near if value is not None]
    share: Value = float(np.mean(judged)) if judged else Undefined("no sample can be told to be a copy or not")
    nearer: list[Value] = [
        float(row["nearest_patch"] < min(between["nearest_patch"]))
        for row in rows
        if between["nearest_patch"] and not isinstance(row["nearest_patch"], Undefined)
    ]
    per_sample = [{key: value for key, value in row.items() if not isinstance(value, Undefined)} for row in rows]
    return {
        "measured": {
            "images": len(samples),
            "samples_of_each": max(len(drawn) for drawn in samples.values()),
            "samples": len(rows),
        },
        "fidelity": _summary({"swd": metrics["swd"]}),
        "diversity": _summary({key: metrics[key] for key in ("diversity", "ms_ssim")}),
        "distance": {
            **_summary({key: [row[key] for row in rows] for key in memorisation.DEFINITIONS}),
            **_summary({f"real_{key}": list(values) or [_ONE] for key, values in between.items()}),
            **_summary({"nearer_than_real": [float(np.mean(np.array(nearer)))] if nearer else [_ONE]}),
            **_summary({"near_copy": [share]}),
            "near_copies": sum(map(bool, judged)),
            "judged": len(judged),
            "per_sample": [{**row, "near_copy": flag} for row, flag in zip(per_sample, near, strict=True)],
        },
    }


def _is_near_copy(row: Mapping[str, Value], apart: float) -> bool | None:
    """Returns whether a sample is a near-copy; None where nothing of it can be judged.

    Args:
      apart: the RMSE that unrelated images have; 0 where that is not known.
    """
    copied, rmse = row["copied"], row["rmse"]
    answers = [] if isinstance(copied, Undefined) else [copied > COPIED]
    if apart and not isinstance(rmse, Undefined):
        answers.append(rmse < NEAR * apart)
    return any(answers) if answers else None


def _summary(columns: Mapping[str, Sequence[Value]]) -> dict[str, Any]:
    """Returns mean, percentiles and count of each column, or why there is none."""
    longest = max(map(len, columns.values()))
    padded = (itertools.chain(values, [None] * (longest - len(values))) for values in columns.values())
    rows = [
        {key: value for key, value in zip(columns, values, strict=True) if value is not None}
        for values in zip(*padded, strict=True)
    ]
    return evaluation_file.entries(rows)
