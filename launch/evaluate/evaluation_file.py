"""evaluation.json: metrics of each image and start scale, kept as they are made, and summed up over the images.

    {"format": 1,
     "settings": {"num_samples", "seed", "start_scales": [..], "finest_scale", "inception": null or its file's name and
                  digest, and whatever else the numbers depend on},
     "definitions": {metric: text},
     "images": {id: {start scale: {metric: {"mean", "p10", "p90", "count"} or {"undefined": reason}}}},
     "cohort": {start scale: {metric: {"mean", "p10", "p90", "images"} or {"undefined": reason}}},
     "pooled": {start scale: which of the cohort's metrics compare all images at once, and a digest of their names}}

A metric may be one of a part ('swd/1', 'diversity/red'): its definition stands under its own name or under that before
the '/'. `count` is the number of samples behind a value. A metric of the cohort is the mean of its images' means, with
percentiles over these; those that compare all images with all samples at once ('fid/...') have one value only. Where a
value is to be read with care, 'note' says why; 'reasons' says why some samples have none.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from singan import files
from singan.errors import UserError
from singan.metrics.values import Summary, Undefined, Value, summarise

FORMAT = 1
WRITE_EVERY = 10.0  # seconds: what an end without warning may cost

Metrics = dict[str, dict[str, Any]]  # metric -> its entry, as the file has it


class Evaluation:
    """What is known so far, of the settings at hand; written to `path` as it grows, atomically."""

    def __init__(self, path: Path, settings: Mapping[str, Any], note: Callable[[str], None]):
        """Takes over what the file holds, where it was made with the same settings.

        Args:
          settings: without 'start_scales', which are those that something is known of.
          note: told, in one line, where what is there is of no use.
        """
        self.path, self.settings = path, files.plain(settings)
        self.images: dict[str, dict[str, Metrics]] = {}
        self.pooled: dict[str, Metrics] = {}  # of all images at once, by start scale
        self.definitions: dict[str, str] = {}
        self._pooled_of: dict[str, dict[str, Any]] = {}  # which metrics these are, and of which images
        self._written_at = time.monotonic()
        self._read_earlier(note)

    def _read_earlier(self, note: Callable[[str], None]) -> None:
        if not self.path.exists():
            return
        try:
            old = files.read_json(self.path)
            settings = {key: value for key, value in old["settings"].items() if key != "start_scales"}
            if old.get("format") != FORMAT or settings != self.settings:
                keys = sorted({*settings, *self.settings})
                changed = [key for key in keys if settings.get(key) != self.settings.get(key)] or ["format"]
                note(f"{self.path} was made with another {', '.join(changed)}: it is begun anew")
                return
            images, definitions, pooled_of = (dict(old[key]) for key in ("images", "definitions", "pooled"))
            self.images, self.definitions, self._pooled_of = images, definitions, pooled_of
            for scale, about in pooled_of.items():
                self.pooled[scale] = {metric: dict(old["cohort"][scale][metric]) for metric in about["metrics"]}
            self.cohort()  # what cannot be summed up is damaged
        except (UserError, KeyError, TypeError, AttributeError, ValueError) as error:
            note(f"{self.path} cannot be used ({' '.join(str(error).split())[:100]}): it is begun anew")
            self.images, self.definitions, self._pooled_of, self.pooled = {}, {}, {}, {}

    def missing(self, ids: Sequence[str], start_scale: int) -> list[str]:
        """Returns the images that nothing is known of at a start scale."""
        return [name for name in ids if str(start_scale) not in self.images.get(name, {})]

    def add(self, image_id: str, start_scale: int, metrics: Metrics) -> None:
        """Takes an image's metrics, and writes the file unless that was done a moment ago."""
        self.images.setdefault(image_id, {})[str(start_scale)] = metrics
        if time.monotonic() - self._written_at > WRITE_EVERY:
            self.write()

    def has_pooled(self, ids: Iterable[str], start_scale: int) -> bool:
        """Returns whether metrics of just these images at once are known."""
        return self._pooled_of.get(str(start_scale), {}).get("images") == _digest(ids)

    def add_pooled(self, ids: Iterable[str], start_scale: int, metrics: Metrics) -> None:
        """Takes the metrics of a set of images at once; those of another set are dropped."""
        self.pooled[str(start_scale)] = metrics
        self._pooled_of[str(start_scale)] = {"images": _digest(ids), "metrics": [*metrics]}

    def define(self, definitions: Mapping[str, str]) -> None:
        """Notes what metrics mean; of those given, the ones that occur are written."""
        self.definitions |= definitions

    @property
    def start_scales(self) -> list[int]:
        """The start scales that something is known of, coarsest first."""
        return sorted({int(scale) for rows in self.images.values() for scale in rows} | set(map(int, self.pooled)))

    def cohort(self) -> dict[str, Metrics]:
        """Returns the summary over images, by start scale."""
        return {str(scale): self._summary(str(scale)) for scale in self.start_scales}

    def _summary(self, scale: str) -> Metrics:
        rows = [image[scale] for image in self.images.values() if scale in image]
        summary: Metrics = {}
        for name in dict.fromkeys(name for row in rows for name in row):
            rows_with_it = [row[name] for row in rows if name in row]
            means = [entry["mean"] for entry in rows_with_it if "mean" in entry]
            if means:
                p10, p90 = np.percentile(means, [10, 90]).tolist()
                summary[name] = {"mean": float(np.mean(means)), "p10": p10, "p90": p90, "images": len(means)}
            else:
                summary[name] = {"undefined": "; ".join(dict.fromkeys(entry["undefined"] for entry in rows_with_it))}
        return {**summary, **self.pooled.get(scale, {})}

    def write(self) -> None:
        """Writes the file; raises UserError where it cannot be written."""
        cohort = self.cohort()
        names = {name for metrics in cohort.values() for name in metrics}
        used = names | {name.split("/")[0] for name in names}
        content = {
            "format": FORMAT,
            "settings": {**self.settings, "start_scales": self.start_scales},
            "definitions": {name: text for name, text in self.definitions.items() if name in used},
            "images": {name: self.images[name] for name in sorted(self.images)},
            "cohort": cohort,
            "pooled": self._pooled_of,
        }
        files.write_json(self.path, content)
        self._written_at = time.monotonic()


def entries(rows: Sequence[Mapping[str, Value]]) -> Metrics:
    """Returns the file's entries of metrics that each sample has, one row a sample.

    Raises:
      UserError: a value is not finite.
    """
    return {name: _entry(summary) for name, summary in summarise(rows).items()}


def single_entries(values: Mapping[str, Value], samples: int, of: str = "count") -> Metrics:
    """Returns the file's entries of metrics that a set of samples (or images) has together.

    Raises:
      UserError: a value is not finite.
    """
    values_of_set = entries([values])
    return {name: {**e, of: samples} if "mean" in e else e for name, e in values_of_set.items()}


def _digest(names: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(sorted(names)).encode(), digest_size=16).hexdigest()


def _entry(summary: Summary | Undefined) -> dict[str, Any]:
    if isinstance(summary, Undefined):
        return {"undefined": summary.reason}
    entry: dict[str, Any] = {"mean": summary.mean, "p10": summary.p10, "p90": summary.p90, "count": summary.count}
    return {**entry, "reasons": list(summary.reasons)} if summary.reasons else entry
