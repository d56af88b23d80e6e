"""The study as a queue of pieces, each a file when it is done: what there is to do, what it costs, what is left."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.augmentation_study.conditions import THRESHOLDS, Condition, train_sizes
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.splits import Split
from singan import files
from singan.model.spec import ScaleSpec

FORMAT = 2
NEEDS_PYRAMIDS = ("stacked", "conditional", "near_copies")
# Settings that change no result that is kept: how many there are, and what is done beside them.
NOT_IN_DIGEST = (
    "seeds",
    "train_sizes",
    "share_size",
    "share",
    "patient",
    "also",
    "test_path",
    "inserted",
)
# CPU seconds, measured on two cores of a small machine (README.md), for the plan of a study that has not begun.
CPU_SECONDS_A_STEP = 0.07  # of 4 crops of 64 pixels, width 24
CPU_SECONDS_A_PYRAMID_STEP = 100.0  # for each megapixel of a scale, 32 channels and 3 + 3 updates
CPU_SECONDS_GPNN = 60.0  # for a pair of 128 pixels
CORES = 2  # that hours are told for


@dataclasses.dataclass(frozen=True)
class Job:
    """One segmenter, or a threshold: a condition, a number of real tiles (0 = all) and a fold of a seed."""

    condition: Condition
    size: int
    split: Split

    @property
    def name(self) -> str:
        """The name of its result's file."""
        return f"{self.condition.name}_n{self.size or 'all'}_seed{self.split.seed}_fold{self.split.fold}"

    @property
    def is_threshold(self) -> bool:
        return self.condition.name in THRESHOLDS


def jobs_of(study: Study, chosen: Sequence[Condition], splits: Sequence[Split], stained: bool) -> list[Job]:
    """Returns all that is to be trained, in the order in which it is: seed by seed, what needs pyramids last.

    So results accumulate over all conditions alike, and a study that is not whole can be read.
    """
    jobs = []
    for seed in sorted({split.seed for split in splits}):
        of_seed = [split for split in splits if split.seed == seed]
        if stained:
            jobs += [Job(Condition(name, words), 0, split) for name, words in THRESHOLDS.items() for split in of_seed]
        for late in (False, True):
            for condition in [one for one in chosen if (one.generator in NEEDS_PYRAMIDS) == late]:
                jobs += [Job(condition, size, split) for size in train_sizes(condition, study) for split in of_seed]
    return jobs


def digest_of(job: Job, study: Study, tiles: str, fingerprint: Callable[[str], str]) -> str:
    """Returns a digest of all that a result depends on.

    Args:
      tiles: a digest of the tiles' values.
      fingerprint: of a generator's pairs, by its name.
    """
    settings = {key: value for key, value in dataclasses.asdict(study).items() if key not in NOT_IN_DIGEST}
    condition = dataclasses.asdict(job.condition)
    condition.pop("about")
    made = fingerprint(job.condition.generator) if job.condition.generator else ""
    split = [job.split.seed, job.split.fold, job.split.train(job.size), job.split.validation, job.split.test]
    made_from = [settings, condition, job.size, split, tiles, made]
    return hashlib.blake2b(json.dumps(files.plain(made_from)).encode(), digest_size=12).hexdigest()


class Results:
    """The results of a study, files in ROOT/results."""

    def __init__(self, folder: Path, digest: Callable[[Job], str]):
        self._folder, self._digest = folder, digest

    def read(self, job: Job) -> dict[str, Any] | None:
        """Returns a result that is kept and was made from the same, else None."""
        path = self._folder / f"{job.name}.json"
        if not path.is_file():
            return None
        record = files.read_json(path)
        same = record.get("format") == FORMAT and record.get("made_from") == self._digest(job)
        return record if same else None

    def write(self, job: Job, content: Mapping[str, Any]) -> None:
        """Keeps a result."""
        files.make_directory(self._folder)
        head = {
            "format": FORMAT,
            "made_from": self._digest(job),
            "condition": job.condition.name,
            "train_size": job.size,
            "seed": job.split.seed,
            "fold": job.split.fold,
            "trained_on": [] if job.is_threshold else job.split.train(job.size),
        }
        files.write_json(self._folder / f"{job.name}.json", {**head, **content})


@dataclasses.dataclass(frozen=True)
class Cost:
    """CPU seconds that a study takes: the pyramids, the pools of GPNN, and each segmenter, by what is known."""

    pyramids: float
    gpnn: float
    segmenter: float

    def of(self, jobs: Sequence[Job]) -> float:
        """Returns those of segmenters, thresholds being free."""
        return self.segmenter * sum(not job.is_threshold for job in jobs)


def work_of(spec: ScaleSpec) -> float:
    """Returns the work of one pyramid: megapixels times steps of all scales, as if of 32 channels and 3 + 3 updates."""
    updates = (spec.train.critic_updates + spec.train.generator_updates) / 6
    scales = [spec.at(scale) for scale in range(len(spec.pyramid))]
    return sum(math.prod(one.window) / 1e6 * one.steps * updates * (one.width / 32) ** 2 for one in scales)


def cost_of(study: Study, pyramid_work: float, pooled: int, done: Sequence[Mapping[str, Any]]) -> Cost:
    """Returns what a study costs: as measured in this study where segmenters are done, else by the constants above.

    Args:
      pyramid_work: of all pyramids that are still to be trained, by work_of.
      pooled: pairs that GPNN is still to make.
      done: results.
    """
    work = study.batch * study.crop**2 * study.width**2 / (4 * 64**2 * 24**2)
    segmenter = CPU_SECONDS_A_STEP * study.steps * work
    trained = [one["cpu_seconds"]["training"] + one["cpu_seconds"]["pairs"] for one in done if one["trained_on"]]
    if trained:
        segmenter = sum(trained) / len(trained)
    pyramids = CPU_SECONDS_A_PYRAMID_STEP * pyramid_work
    return Cost(pyramids, CPU_SECONDS_GPNN * pooled * (study.tile / 128) ** 4, segmenter)


def hours(cpu_seconds: float) -> float:
    """Returns the hours that CORES cores take, kept busy."""
    return cpu_seconds / CORES / 3600
