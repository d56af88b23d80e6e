"""Trains a SinGAN for each image of a cohort, all at once; started again with the same --workdir, it resumes.

python -m launch.train --config=experiments/quickstart/config.py --workdir=runs/quickstart

On several hosts, on each of them (a TPU pod and Slurm need no flags):
python -m launch.train --config=... --workdir=SHARED --coordinator=HOST0:8476 --num_processes=2 --process_id=0
"""

import os
import signal

if __name__ == "__main__":  # the imports below take seconds, in which a stop loses nothing
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # launch.sweep starts it blocked

from launch import cli, runtime
from launch import command_flags as flags
from launch.configs import load_config
from launch.multihost import join, peers
from launch.tracking.wandb_mode import check_key
from launch.train import plan, trace
from launch.train.cohorts import load_cohorts
from launch.train.run_cohort import DONE, RESUMABLE, train_cohort
from singan import files

CONFIG = cli.config_flag()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "give --workdir=DIR, where the run is kept and resumed from.", required=True
)
PLAN = flags.DEFINE_boolean("plan", False, "Compile the scales, print what each would take, and train nothing.")
for flag in (
    trace.PROFILE,
    join.COORDINATOR,
    join.NUM_PROCESSES,
    join.PROCESS_ID,
    peers.JOIN_TIMEOUT,
    peers.PEER_TIMEOUT,
):
    flags.declare_key_flag(flag.name)


def main(argv: list[str]) -> int:
    del argv
    config, root = load_config(CONFIG.value), files.as_path(WORKDIR.value)
    if PLAN.value:
        for cohort in load_cohorts(config, root):
            plan.print_plan(config, cohort)
        return DONE
    trace.check(root)
    check_key(config.tracking)
    runtime.use_compilation_cache()
    with join.joined() as (processes, others):
        # Planned before anything is written, so that an image that is too small leaves no run behind.
        cohorts = load_cohorts(config, root, processes)
        mesh = runtime.start_jax(
            max(cohort.most for cohort in cohorts), max(cohort.widest(config) for cohort in cohorts)
        )
        stop = runtime.StopRequest()  # from here on there is something to save
        codes = [train_cohort(config, cohort, mesh, stop, processes, others) for cohort in cohorts]
    return RESUMABLE if RESUMABLE in codes else max(codes)


if __name__ == "__main__":
    cli.run(main)
