"""The quality table: trains, samples and measures every variant on the same images, and says what the numbers say.

python -m experiments.paper_tables.run --workdir=runs/tables
python -m experiments.paper_tables.run --workdir=runs/tables_mine --config=experiments/quickstart/config.py \
    --config.data.path=FOLDER --seeds=0,1 --variants=corrected,reference

Runs are kept in ROOT/<variant>_seed<n>, tables in --out. Started again, it trains and measures what is missing.
"""

import shlex
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments.paper_tables import measuring, pictures, table
from experiments.paper_tables.variants import GPNN, TRAINED, Plan, check_images, make_plan, run_name
from experiments.reporting.measuring import measure_run
from launch import cli, runtime
from launch.evaluate.of_run import note
from launch.results.numbers import counted
from launch.sweep import state
from launch.sweep.backends.local import Local
from singan import files
from singan.errors import UserError

CONFIG = cli.config_flag("experiments/paper_tables/config.py:small")
WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=ROOT, where all runs are kept.", required=True)
OUT = flags.DEFINE_string("out", "", "Where the tables are written; ROOT/tables where not given.")
VARIANTS = flags.DEFINE_list("variants", [*TRAINED, GPNN], "What is compared.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Of trainings and samples: one run of each variant for each.")
START_SCALES = flags.DEFINE_list("start_scales", ["0", "1", "2"], "Scales at which fresh noise begins.")
flags.DEFINE_alias("start_scale", "start_scales")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 16, "Samples of each image, start scale and seed.", lower_bound=1)

DONE, FAILED, RESUMABLE = 0, 1, 75


def main(argv: list[str]) -> int:
    del argv
    if CONFIG.value is None:
        raise UserError("--config is needed: give --config=FILE, the config that the variants share")
    holder = flags.FLAGS["config"]
    file, shared = config_flags.get_config_filename(holder), config_flags.get_override_values(holder)
    plan = make_plan(
        file, CONFIG.value.to_dict(), shared, WORKDIR.value, VARIANTS.value, SEEDS.value, START_SCALES.value
    )
    if plan.left_out:
        note(f"note: start scales {list(plan.left_out)} are left out: a variant does not have them")
    check_images(plan)
    code = _train(plan)
    if code == RESUMABLE:
        return RESUMABLE
    # Only now, as training processes and this one would have to share an accelerator's memory.
    mesh = runtime.start_jax(len(plan.images))
    out = files.make_directory(OUT.value or Path(plan.root) / "tables")
    for variant in plan.variants:
        for seed in plan.seeds:
            path = Path(plan.root) / run_name(variant, seed)
            if variant == GPNN:
                measuring.measure_gpnn(plan, path, NUM_SAMPLES.value, seed, note)
            elif _is_done(plan, variant, seed):
                measure_run(path, NUM_SAMPLES.value, plan.start_scales, seed, mesh, note)
    shown = {scale: _shown(plan, scale, mesh) for scale in plan.start_scales}
    for scale, of in shown.items():
        if any(of.values()):
            pictures.write_pictures(out, plan, scale, of)
    command = shlex.join(["python", "-m", "experiments.paper_tables.run", *sys.argv[1:]])
    print(table.write(plan, out, NUM_SAMPLES.value, command))
    print(f"table.md, table.csv, table.json and pictures of samples are in {out}")
    return code


def _train(plan: Plan) -> int:
    """Trains what is not trained yet; returns the exit code of launch.sweep."""
    if plan.sweep is None:
        return DONE
    states = {run.name: state.read_state(plan.sweep, run) for run in plan.sweep.runs}
    left = [run for run in plan.sweep.runs if states[run.name].state != state.DONE]
    for run in left:
        if states[run.name].state == state.RUNNING:
            raise UserError(f"{run.workdir} is being trained ({states[run.name].note}): wait until it is done")
    if not left:
        return DONE
    print(f"{counted(len(plan.sweep.runs), 'training')}, {len(left)} to do", flush=True)
    return Local(plan.sweep, 1, 1).start(left)


def _is_done(plan: Plan, variant: str, seed: int) -> bool:
    run = plan.run(variant, seed)
    return run is not None and plan.sweep is not None and state.read_state(plan.sweep, run).state == state.DONE


def _shown(plan: Plan, scale: int, mesh) -> dict[str, measuring.Shown]:
    """Returns samples of the first seed, by variant."""
    shown: dict[str, measuring.Shown] = {}
    seed = plan.seeds[0]
    for variant in plan.variants:
        path = Path(plan.root) / run_name(variant, seed)
        if variant == GPNN:
            shown[variant] = measuring.shown_of_gpnn(path, [image.id for image in plan.images], scale)
        elif _is_done(plan, variant, seed):
            shown[variant] = measuring.shown_of_run(path, NUM_SAMPLES.value, scale, seed, mesh)
    return shown


if __name__ == "__main__":
    cli.run(main)
