"""The augmentation study: does a segmenter trained on few real tiles get better with made ones, and with which?

python -m experiments.augmentation_study.run --workdir=runs/study --config.data.path=FOLDER --plan
python -m experiments.augmentation_study.run --workdir=runs/study --config.data.path=FOLDER --minutes=60

The study is a queue of pieces: pyramids, then segmenters, each a file in --workdir when it is done. The same command
goes on where the last one stopped, and writes the table of what is there.
"""

import dataclasses
import hashlib
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import config_flags

from experiments.augmentation_study import agreement, inserted, material, pieces, report, settings, singans
from experiments.augmentation_study.conditions import PRIMARY, TUNED_THRESHOLD, conditions
from experiments.augmentation_study.generators import Generator, generators, pool_size
from experiments.augmentation_study.patients import Known
from experiments.augmentation_study.pieces import Cost, Job, Results
from experiments.augmentation_study.scores import has_stain
from experiments.augmentation_study.training import Pools, Trainer, thresholds
from launch import cli, runtime
from launch import command_flags as flags
from launch.configs import load_config
from launch.evaluate.of_run import note
from launch.train.run_cohort import DONE, RESUMABLE
from singan import files
from singan.config import Config
from singan.errors import UserError
from singan.model.spec import make_spec
from singan.storage.workdir import pixel_digest
from singan.storage.workdir_lock.lock import WorkdirLock

CONFIG = cli.config_flag("experiments/augmentation_study/config.py")
try:
    settings.refuse_unknown(sys.argv[1:])  # before the flags are defined, which looks at them already
except UserError as unknown:
    print(f"error: {unknown}", file=sys.stderr)
    sys.exit(cli.USER_ERROR)
STUDY = config_flags.DEFINE_config_dict(
    "study", settings.placeholders(), "What is compared, and how large: see experiments/augmentation_study/settings.py."
)
WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=ROOT, where all is kept.", required=True)
MINUTES = flags.DEFINE_float("minutes", math.inf, "Work for about so long; the same command goes on.", lower_bound=0)
ONLY = flags.DEFINE_list("only", [], "Do only pieces whose names begin so, such as threshold,augmented_nall.")
AGREEMENT = flags.DEFINE_integer(
    "agreement",
    0,
    "Instead of the study, measure with SinGANs of so many patients whether pairs show what their masks say.",
    lower_bound=0,
)
PLAN = flags.DEFINE_boolean("plan", False, "Say what there is to do and how many hours it takes, and do nothing.")


@dataclasses.dataclass(frozen=True)
class _Work:
    """All that the queue is made of."""

    study: settings.Study
    config: Config
    tiles: material.Material
    generators: Mapping[str, Generator]
    jobs: Sequence[Job]
    results: Results
    pools: Pools
    sweeps: Mapping[str, singans.Sweep]  # of SinGANs, by the generator that needs them
    pyramid_work: float  # of one pyramid

    def left(self) -> list[Job]:
        return [job for job in self.jobs if self.results.read(job) is None]

    def cost(self) -> Cost:
        """Returns what is left to pay."""
        done = [result for job in self.jobs if (result := self.results.read(job))]
        used = {job.condition.generator for job in self.left()}
        needed = {str(sweep.runs[0].workdir): sweep for name, sweep in self.sweeps.items() if name in used}
        untrained = sum(not singans.is_trained(sweep) for sweep in needed.values())
        unmade = len(self.tiles.trained) - self.pools.count("gpnn") if "gpnn" in used else 0
        gpnn = unmade * pool_size("gpnn", self.study)
        work = self.pyramid_work * untrained * len(self.tiles.trained)
        return pieces.cost_of(self.study, work, gpnn, done)


def main(argv: list[str]) -> int:
    del argv
    if CONFIG.value is None:
        raise UserError("--config is needed: give --config=FILE, the config of the SinGANs")
    deadline = time.monotonic() + 60 * MINUTES.value
    root = Path(WORKDIR.value)
    work = _work(root, runtime.start_jax(1))
    if AGREEMENT.value:
        return _agree(work, root, deadline)
    print(_plan(work), flush=True)
    if PLAN.value:
        return DONE
    files.make_directory(root)
    stop = runtime.StopRequest()
    with WorkdirLock(root):
        _do(work, root, deadline, stop)
    left = work.left()
    if any(work.results.read(job) for job in work.jobs):
        command = shlex.join(["python", "-m", "experiments.augmentation_study.run", *sys.argv[1:]])
        facts = [*work.tiles.facts(work.study), f"{len(work.jobs) - len(left)} of {len(work.jobs)} pieces are done"]
        spent = {name: work.pools.cpu_seconds(name) for name in work.generators}
        spent["pyramids"] = sum(
            singans.cpu_seconds(sweep) for sweep in {id(s): s for s in work.sweeps.values()}.values()
        )
        print(report.write(root, work.jobs, work.results, work.study, command, facts, spent, work.tiles.kept_apart))
    if left:
        ended = stop.signal_name or ("done what --only names" if ONLY.value else "time is up")
        print(f"{ended}: {_left(work)}; the same command goes on", file=sys.stderr)
        return RESUMABLE
    print(f"study.md, study.csv, comparisons.csv and study.png are in {root}")
    return DONE


def _agree(work: _Work, root: Path, deadline: float) -> int:
    """Trains a SinGAN of each kind for one tile of each patient, measures with them, and returns the exit code."""
    if not set(agreement.MADE) <= set(work.generators):
        raise UserError("--agreement is of nuclei: leave it out beside --study.task=tumour")
    tiles, splits = work.tiles.pairs, work.tiles.splits
    known = agreement.tiles_of(tiles, splits, AGREEMENT.value)
    files.make_directory(root)
    stop = runtime.StopRequest()
    trainer = Trainer(work.study, work.tiles.pairs, work.generators, work.pools)
    with WorkdirLock(root):
        for name in agreement.MADE:
            singans.write_tiles(work.sweeps[name], [tiles[one] for one in known], work.study)
        done = all(work.generators[name].prepare(deadline - time.monotonic()) for name in agreement.MADE)
        if done:
            late = lambda: stop() or time.monotonic() > deadline  # noqa: E731
            done = agreement.measure(root, work.study, tiles, known, splits, work.generators, trainer, late, note)
        text = agreement.table(root)
        files.write_bytes(root / "agreement.md", f"{text}\n".encode())
    print(text)
    if not done:
        print(f"{stop.signal_name or 'time is up'}: the same command goes on", file=sys.stderr)
    return DONE if done else RESUMABLE


def _work(root: Path, mesh: Mesh) -> _Work:
    """Returns what there is to do, having read the tiles and written nothing."""
    holder = flags.FLAGS["config"]
    file, shared = config_flags.get_config_filename(holder), config_flags.get_override_values(holder)
    study = settings.study_of(file.partition(":")[2], STUDY.value.to_dict())
    config = load_config(CONFIG.value)
    tiles = material.gather(config.data, study, note)
    cohorts = {
        name: singans.plan_singans(name, file, CONFIG.value.to_dict(), shared, root, study.tile)
        for name in (singans.STACKED, singans.CONDITIONAL)
    }
    stacked = cohorts[singans.STACKED]
    sweeps = {"stacked": stacked, "near_copies": stacked}
    if study.task == "nuclei":
        sweeps["conditional"] = cohorts[singans.CONDITIONAL]
    pyramid = singans.pyramid_of(stacked, study)
    tumours = None
    if study.inserted:
        paths = [config.data.path, *(path for path in (study.also, study.test_path) if path)]
        known = Known(config.data, study.patient, paths, {pair.patient for pair in tiles.pairs.values()})
        tumours = inserted.Inserted(inserted.load(study, next(iter(tiles.pairs.values())), known), tiles.pairs)
    makers = generators(study, sweeps, pyramid, mesh, tumours)
    jobs = pieces.jobs_of(study, conditions(study, list(makers)), tiles.splits, _is_stained(tiles))
    digests = "".join(
        pixel_digest(pair.pixels) + pixel_digest(pair.instances) for _, pair in sorted(tiles.pairs.items())
    )
    of_tiles = hashlib.blake2b(digests.encode(), digest_size=12).hexdigest()
    results = Results(
        root / "results",
        lambda job: pieces.digest_of(job, study, of_tiles, lambda name: makers[name].fingerprint()),
    )
    config = stacked.runs[0].config
    work = pieces.work_of(make_spec(config, pyramid, len(next(iter(tiles.pairs.values())).channels) + 1, "direct"))
    pools = Pools(root / "pools", study, makers)
    return _Work(study, config, tiles, makers, jobs, results, pools, sweeps, work)


def _is_stained(tiles: material.Material) -> bool:
    return all(map(has_stain, tiles.pairs.values()))


def _plan(work: _Work) -> str:
    """Returns the pieces and their hours, and whether the primary question can be answered."""
    counts: dict[str, list[Job]] = {}
    for job in work.left():
        counts.setdefault(job.condition.about, []).append(job)
    cost = work.cost()
    lines = [f"{pieces.hours(cost.of(jobs)):7.2f} h  {len(jobs):4d}  {about}" for about, jobs in counts.items()]
    if cost.pyramids:
        lines.append(f"{pieces.hours(cost.pyramids):7.2f} h  {len(work.tiles.trained):4d}  pyramids, one a tile")
    if cost.gpnn:
        lines.append(f"{pieces.hours(cost.gpnn):7.2f} h        pairs of GPNN")
    if PRIMARY[0] not in work.generators:
        lines.append("the primary question stays open: it is asked of nuclei")
    return "\n".join([*lines, f"left: {_left(work)}"])


def _left(work: _Work) -> str:
    left, cost = work.left(), work.cost()
    total = pieces.hours(cost.of(left) + cost.pyramids + cost.gpnn)
    return f"{len(left)} of {len(work.jobs)} pieces, about {total:.1f} hours of {pieces.CORES} cores"


def _do(work: _Work, root: Path, deadline: float, stop: runtime.StopRequest) -> None:
    """Does what the time allows, a piece at a time; a piece that would not be whole in time is not begun."""
    trainer = Trainer(work.study, work.tiles.pairs, work.generators, work.pools)
    slowest, begun = 0.0, False
    for job in work.left():
        now = time.monotonic()
        if ONLY.value and not job.name.startswith(tuple(ONLY.value)):
            continue
        if stop() or (begun and now + slowest > deadline):
            return
        if job.is_threshold:
            tuned = job.condition.name == TUNED_THRESHOLD
            work.results.write(job, thresholds(job.split, work.tiles.pairs, tuned))
            continue
        name = job.condition.generator
        if name in pieces.NEEDS_PYRAMIDS:
            trained = [work.tiles.pairs[one] for one in work.tiles.trained]
            singans.write_tiles(work.sweeps[name], trained, work.study)
        if name and not work.generators[name].prepare(deadline - now):
            return
        now = time.monotonic()
        result = trainer.train(job.condition, job.size, job.split, stop)
        if result is None:
            return
        work.results.write(job, result)
        begun, slowest = True, max(slowest, time.monotonic() - now)
        note(f"{job.name}: {_mean(result, 'dice')} Dice, {time.monotonic() - now:.0f} s; left: {_left(work)}")


def _mean(result: Mapping, metric: str) -> str:
    values = [row[metric] for row in result["patients"].values()]
    return f"{sum(values) / len(values):.3f}"


if __name__ == "__main__":
    cli.run(main)
