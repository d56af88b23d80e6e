"""The augmentation study: does a segmenter trained on few real patches get better with synthetic ones?

python -m experiments.augmentation_study.run --workdir=runs/study --config.data.path=FOLDER
python -m experiments.augmentation_study.run --workdir=runs/study --config.data.path=FOLDER --study.seeds=8

Everything is kept in --workdir: SinGANs, synthetic pairs with their data cards, a result for each segmenter, the table.
Started again, it does what is missing.
"""

import shlex
import sys
from pathlib import Path

import jax
from ml_collections import config_flags

from experiments.augmentation_study import material, report, segmenters, settings, singans
from experiments.augmentation_study.conditions import conditions, train_sizes
from experiments.augmentation_study.scores import has_stain
from experiments.augmentation_study.segmenters import Job
from launch import cli, runtime
from launch import command_flags as flags
from launch.configs import load_config
from launch.evaluate.of_run import note
from launch.train.run_cohort import DONE, RESUMABLE
from singan import files
from singan.errors import UserError
from singan.storage.workdir_lock.lock import WorkdirLock

CONFIG = cli.config_flag("experiments/augmentation_study/config.py:small")
try:
    settings.refuse_unknown(sys.argv[1:])  # before the flags are defined, which looks at them already
except UserError as unknown:
    print(f"error: {unknown}", file=sys.stderr)
    sys.exit(cli.USER_ERROR)
STUDY = config_flags.DEFINE_config_dict(
    "study", settings.placeholders(), "What is compared, and how large: see experiments/augmentation_study/settings.py."
)
WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=ROOT, where all is kept.", required=True)


def main(argv: list[str]) -> int:
    del argv
    if CONFIG.value is None:
        raise UserError("--config is needed: give --config=FILE, the config of the SinGANs")
    holder = flags.FLAGS["config"]
    file, shared = config_flags.get_config_filename(holder), config_flags.get_override_values(holder)
    study = settings.study_of(file.partition(":")[2], STUDY.value.to_dict())
    data = load_config(CONFIG.value).data
    gathered = material.gather(data, study, note)
    root = files.make_directory(WORKDIR.value)
    scales = list(study.start_scales)
    if not study.inserted:
        singans.write_patches(root / "patches", [gathered.pairs[name] for name in gathered.trained], study)
        sweep = singans.plan_singans(file, CONFIG.value.to_dict(), shared, root)
        scales = material.there(study.start_scales, len(singans.pyramid_of(sweep, study)), note)
        if code := singans.train(sweep):
            print(f"the SinGANs are not trained: see {sweep.log(sweep.runs[0])}", file=sys.stderr)
            return code
    mesh = runtime.start_jax(len(gathered.trained))
    stop = runtime.StopRequest()
    with WorkdirLock(root):
        chosen = conditions(study, scales, all(map(has_stain, gathered.pairs.values())))
        jobs = [
            Job(condition, size, split)
            for condition in chosen
            for size in train_sizes(condition, study)
            for split in gathered.splits
        ]
        synthetic = material.synthetic(data, gathered, jobs, study, root, mesh, stop, note)
        if synthetic is None:
            return _stopped(stop)
        fingerprint, results = synthetic.fingerprint, root / "results"
        done = segmenters.train(
            jobs, study, fingerprint, results, synthetic.bank, synthetic.rows_of, gathered.pairs, stop, note
        )
        if not done:
            return _stopped(stop)
        if study.task == "nuclei" and all(map(has_stain, gathered.pairs.values())):
            segmenters.score_threshold(gathered.splits, study, fingerprint, results, gathered.pairs)
        command = shlex.join(["python", "-m", "experiments.augmentation_study.run", *sys.argv[1:]])
        facts = [*gathered.facts(study), *material.training_facts(root, study, scales)]
        facts.append(f"devices: {jax.devices()[0].device_kind}")
        print(report.write(root, jobs, study, fingerprint, command, facts, gathered.kept_apart))
    print(f"study.md, study.csv, comparisons.csv and study.png are in {Path(root)}")
    return DONE


def _stopped(stop: runtime.StopRequest) -> int:
    print(f"{stop.signal_name}: stopped; the same command goes on", file=sys.stderr)
    return RESUMABLE


if __name__ == "__main__":
    cli.run(main)
