"""Every segmenter of the study: trained many in one program, scored, its result kept as a file; found ones are kept."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.augmentation_study.conditions import Condition, schedule
from experiments.augmentation_study.pairs import Pair
from experiments.augmentation_study.scores import by_threshold, score
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.splits import Split
from experiments.augmentation_study.unet import Runs, training_program
from singan import files
from singan.parallel import cohort

FORMAT = 1
THRESHOLD = "threshold"  # the condition that needs no training
# What of the settings changes neither a batch nor a step.
NOT_IN_DIGEST = (
    "together",
    "seeds",
    "train_sizes",
    "lever_size",
    "style",
    "test_share",
    "inserted",
    "patient",
    "licence",
)
RowsOf = Callable[[Condition, Split, Sequence[str]], dict[str, list[int]]]


@dataclasses.dataclass(frozen=True)
class Job:
    """One segmenter: a condition, a number of real patches and a seed."""

    condition: Condition
    size: int
    split: Split

    @property
    def name(self) -> str:
        """The name of its result's file."""
        return f"{self.condition.name}_n{self.size}_seed{self.split.seed}"


def digest_of(job: Job, study: Study, world: str) -> str:
    """Returns a digest of all that a result depends on.

    Args:
      world: of the patches' values and the SinGANs' weights.
    """
    settings = {key: value for key, value in dataclasses.asdict(study).items() if key not in NOT_IN_DIGEST}
    condition = dataclasses.asdict(job.condition)
    condition.pop("about")
    made_from = [settings, condition, job.size, job.split.seed, job.split.order[: job.size], job.split.test, world]
    if any(source.styled for source in job.condition.sources):
        made_from.append(study.style)
    return hashlib.blake2b(json.dumps(files.plain(made_from)).encode(), digest_size=12).hexdigest()


def finished(folder: Path, name: str, digest: str) -> dict[str, Any] | None:
    """Returns a result that is kept and was made from the same, else None."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    record = files.read_json(path)
    return record if record.get("format") == FORMAT and record.get("made_from") == digest else None


def train(
    jobs: Sequence[Job],
    study: Study,
    world: str,
    folder: Path,
    bank: Any,
    rows_of: RowsOf,
    pairs: Mapping[str, Pair],
    stop: Callable[[], bool],
    log: Callable[[str], None],
) -> bool:
    """Trains and scores what has no result yet; returns whether all have one. `stop` is asked between device calls.

    Args:
      rows_of: the rows of `bank` by source for a condition, a split and the ids of its real patches.
      pairs: of all patches, by id.
    """
    files.make_directory(folder)
    left = [job for job in jobs if finished(folder, job.name, digest_of(job, study, world)) is None]
    log(f"{len(jobs)} segmenters, {len(left)} to train")
    if not left:
        return True
    plans = [(job, _schedule(job, study, bank, rows_of)) for job in left]
    groups = [plans[first : first + study.together] for first in range(0, len(plans), study.together)]
    most_rows = max(len(np.unique(np.stack([rows for _, rows in group]))) for group in groups)
    most_tests = max(len(job.split.test) for job in left)
    tests = sorted({name for job in left for name in job.split.test})
    shown = jax.device_put(np.stack([pairs[name].pixels for name in tests]))
    program = None
    for number, group in enumerate(groups):
        if stop():
            return False
        used, places = np.unique(np.stack([rows for _, rows in group]), return_inverse=True)
        images, targets = bank.take([*used, *[used[0]] * (most_rows - len(used))])  # one shape, one compilation
        rows = places.reshape(len(group), study.steps, study.batch).astype(np.int32)
        runs = Runs(
            rows,
            np.stack([_places(job.split.test, tests, most_tests) for job, _ in group]),
            np.array([job.condition.augmented for job, _ in group]),
            np.array([job.split.seed for job, _ in group], np.uint32),
        )
        runs = Runs(*(_filled(each, study.together if len(groups) > 1 else len(group)) for each in runs))
        arguments = jax.device_put((images, targets)) + (shown, jax.device_put(runs))
        if program is None:
            program = cohort.compile_program(training_program(study, jax.default_backend() != "cpu"), *arguments)
        predicted = np.asarray(program(*arguments))
        for (job, _), probability in zip(group, predicted, strict=False):
            held_out = [pairs[name] for name in job.split.test]
            masks = [each > 127 for each in probability[: len(held_out)]]
            write(folder, job, score(masks, held_out, study.task == "nuclei"), digest_of(job, study, world))
        log(f"segmenters: {min((number + 1) * study.together, len(left))} of {len(left)} trained")
    return True


def score_threshold(splits: Sequence[Split], study: Study, world: str, folder: Path, pairs: Mapping[str, Pair]) -> None:
    """Scores Otsu's threshold on the stain, which no condition may fall behind."""
    condition = Condition(THRESHOLD, "Otsu's threshold on the stain, no training", False)
    files.make_directory(folder)
    for split in splits:
        job = Job(condition, 0, split)
        if finished(folder, job.name, digest_of(job, study, world)) is None:
            held_out = [pairs[name] for name in split.test]
            masks = [by_threshold(pair) for pair in held_out]
            write(folder, job, score(masks, held_out, True), digest_of(job, study, world))


def write(folder: Path, job: Job, patients: dict[str, dict[str, float]], digest: str) -> None:
    """Keeps the result of a segmenter."""
    content = {
        "format": FORMAT,
        "made_from": digest,
        "condition": job.condition.name,
        "train_size": job.size,
        "seed": job.split.seed,
        "trained_on": job.split.order[: job.size],
        "patients": patients,
    }
    files.write_json(folder / f"{job.name}.json", content)


def _schedule(job: Job, study: Study, bank: Any, rows_of: RowsOf) -> np.ndarray:
    ids = job.split.order[: job.size]
    synthetic = rows_of(job.condition, job.split, ids)
    return schedule(job.condition, study, job.split.seed, bank.real(ids), synthetic)


def _places(names: Sequence[str], known: Sequence[str], count: int) -> np.ndarray:
    """Returns the places of names among the known ones, the first repeated up to `count`."""
    indices = [known.index(name) for name in names]
    return np.array([*indices, *itertools.repeat(indices[0], count - len(indices))], np.int32)


def _filled(values: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([values, np.repeat(values[-1:], count - len(values), axis=0)])
