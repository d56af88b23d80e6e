"""Trains the runs of a sweep: here, as SkyPilot jobs, on GKE or TPU VMs; started again, it does what is left.

python -m launch.sweep --config=experiments/quickstart/config.py --sweep=experiments/quickstart/sweep.py \
    --workdir=runs/ablations [--backend=local|skypilot|gke|tpu_vm] [--dry_run] [--status] [-- --config.data.path=DIR]
"""

import sys

from ml_collections import config_flags

from launch import cli
from launch import command_flags as flags
from launch.sweep import state
from launch.sweep.backends import choice
from launch.sweep.backends.runner import Runner
from launch.sweep.files import load_sweep
from launch.sweep.plan import PlannedRun, Sweep, plan_sweep
from launch.sweep.wandb_file import wandb_sweep
from launch.tracking.wandb_mode import check_key, wandb_mode
from singan import files
from singan.config import nearest
from singan.errors import UserError
from singan.files import is_bucket

CONFIG = cli.config_flag()
SWEEP = flags.DEFINE_string(
    "sweep",
    None,
    "give --sweep=FILE, whose get_sweep() returns the runs, or a study's name; FILE:ARGUMENT hands it an argument.",
    required=True,
)
WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=ROOT: each run is kept in ROOT/NAME.", required=True)
GROUP = flags.DEFINE_string("group", "", "Name of the sweep in wandb; else config.tracking.group or ROOT's last part.")
ONLY = flags.DEFINE_multi_string("only", [], "Name or id of a run that is meant; may be repeated. Else all of them.")
DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Print the runs and every command and file; start and read nothing.")
STATUS = flags.DEFINE_boolean("status", False, "Print where each run stands.")
LOGS = flags.DEFINE_boolean("logs", False, "Print the end of each run's output.")
DELETE = flags.DEFINE_boolean("delete", False, "Give the cloud's machines back; the workdirs stay.")
WANDB_SWEEP = flags.DEFINE_string(
    "wandb_sweep", "", "Write a wandb sweep of the same runs to this file, for its agents."
)
choice.define_flags()

DONE = 0


def main(argv: list[str]) -> int:
    del argv
    if CONFIG.value is None:
        raise UserError("--config is needed: give --config=FILE, the config that the sweep varies")
    runs, cloud = load_sweep(SWEEP.value)
    backend = flags.FLAGS.backend
    root, settings = choice.chosen_root(WORKDIR.value, backend, cloud)
    shared = config_flags.get_override_values(flags.FLAGS["config"])
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    sweep = plan_sweep(file, CONFIG.value.to_dict(), shared, runs, root, GROUP.value)
    chosen = _chosen(sweep)
    if WANDB_SWEEP.value:
        own = [f"--config={file}", f"--sweep={SWEEP.value}", f"--workdir={root}", f"--group={sweep.group}"]
        files.write_text(WANDB_SWEEP.value, wandb_sweep(sweep, [*own, *_shared_flags()]))
        print(f"wrote {WANDB_SWEEP.value}: wandb sweep {WANDB_SWEEP.value}, then wandb agent on each machine")
        return DONE
    if STATUS.value:
        print(state.table({run.name: state.read_state(sweep, run) for run in chosen}))
        return DONE
    where = choice.make_backend(backend, sweep, settings, Runner())
    if not DRY_RUN.value:
        where.require()
    if LOGS.value:
        return where.logs(chosen)
    if DELETE.value:
        return where.delete(chosen)
    if DRY_RUN.value and is_bucket(root):
        print(_overview(sweep, chosen), where.describe(chosen), sep="\n\n")
        return DONE
    states = {run.name: state.read_state(sweep, run) for run in chosen}
    # What runs on this machine is waited for; what runs on others is left alone.
    left_alone = (state.DONE,) if backend == "local" and not DRY_RUN.value else (state.DONE, state.RUNNING)
    left = [run for run in chosen if states[run.name].state not in left_alone]
    if DRY_RUN.value:
        print(_overview(sweep, chosen), where.describe(left), sep="\n\n")
        return DONE
    if backend == "local" and left:
        check_key(left[0].config.tracking)
    print(f"{len(chosen)} runs of {sweep.group}, {len(left)} of them to do", flush=True)
    code = where.start(left) if left else DONE
    if backend == "local":
        print(state.table({run.name: state.read_state(sweep, run) for run in chosen}))
        print(f"side by side: python -m launch.compare {root}{_report_flag(sweep)}")
    return code


def _chosen(sweep: Sweep) -> list[PlannedRun]:
    names = [*(run.name for run in sweep.runs), *(run.id for run in sweep.runs)]
    for name in ONLY.value:
        if name not in names:
            raise UserError(f"--only={name}: the sweep has no run of that name{nearest(name, names)}")
    return [run for run in sweep.runs if not ONLY.value or {run.name, run.id} & set(ONLY.value)]


def _report_flag(sweep: Sweep) -> str:
    tracking = sweep.runs[0].config.tracking
    return f" --wandb_report={tracking.project}" if wandb_mode(tracking) == "online" else ""


def _overview(sweep: Sweep, runs: list[PlannedRun]) -> str:
    lines = [f"{len(runs)} runs, wandb group {sweep.group}"]
    return "\n".join([*lines, *(f"  {run.id}  {run.workdir}" for run in runs)])


def _shared_flags() -> list[str]:
    return [argument for argument in sys.argv[1:] if argument.lstrip("-").startswith(("config.", "noconfig."))]


if __name__ == "__main__":
    # Flags of the config may stand behind a --, as they do where one command hands them to another.
    sys.argv = [argument for argument in sys.argv if argument != "--"]
    cli.run(main)
