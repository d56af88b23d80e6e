"""How good are the samples? Trains, samples and measures every variant, each a curve over sampling temperatures.

python -m experiments.sample_quality.run --workdir=runs/quality
python -m experiments.sample_quality.run --workdir=runs/quality_mine --images=a.png,b.npy --seeds=0,1,2 --peer=DIR

Runs are kept in ROOT/<variant>_<image>_seed<n>, what was measured in ROOT/measured, tables and plots in --out. Started
again, it trains and measures what is missing.
"""

import shlex
import sys
from pathlib import Path

from ml_collections import config_flags

from experiments.reporting import official_checkout
from experiments.sample_quality import curves, official, report, sheets
from experiments.sample_quality.frontier import curves_of
from experiments.sample_quality.variants import (
    GPNN,
    OFFICIAL,
    OFFICIAL_CURVE,
    UNTRAINED,
    VARIANTS,
    Group,
    Plan,
    make_plan,
    run_name,
)
from launch import cli, runtime
from launch import command_flags as flags
from launch.evaluate.of_run import note
from launch.results.numbers import counted
from launch.results.run_facts import read_facts
from launch.sweep import state
from launch.sweep.backends.local import Local
from singan import files
from singan.errors import UserError

CONFIG = cli.config_flag("experiments/sample_quality/config.py:small")
WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=ROOT, where all runs are kept.", required=True)
OUT = flags.DEFINE_string("out", "", "Where tables and plots are written; ROOT/tables where not given.")
IMAGES = flags.DEFINE_list("images", [], "Image files, each trained by itself; the configuration's where not given.")
VARIANTS_FLAG = flags.DEFINE_list("variants", ["corrected", "reference", GPNN], "What is compared.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Of trainings: one run of each variant and image for each.")
START_SCALES = flags.DEFINE_list("start_scales", ["0", "1", "2"], "Scales at which fresh noise begins.")
flags.DEFINE_alias("start_scale", "start_scales")
TEMPERATURES = flags.DEFINE_list("temperatures", ["0.4", "0.6", "0.8", "1", "1.5", "2", "3"], "Of the samples.")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 32, "Samples of each image, start scale and seed.", lower_bound=2)
EARLIER = flags.DEFINE_list("earlier", [], "Files table.csv of this study, from other workdirs, to be shown beside.")
PEER = flags.DEFINE_string("peer", "", "A checkout of the official implementation, which trains and samples too.")
PEER_PYTHON = flags.DEFINE_string("peer_python", sys.executable, "The Python that runs the checkout of --peer.")

DONE, RESUMABLE = 0, 75


def main(argv: list[str]) -> int:
    del argv
    if CONFIG.value is None:
        raise UserError("--config is needed: give --config=FILE, the config that the variants share")
    holder = flags.FLAGS["config"]
    file, shared = config_flags.get_config_filename(holder), config_flags.get_override_values(holder)
    variants = [*VARIANTS_FLAG.value, *([OFFICIAL, OFFICIAL_CURVE] if PEER.value else [])]
    earlier = [report.read_csv(path) for path in EARLIER.value]
    if not variants and not earlier:
        raise UserError(f"--variants names none: give some of {', '.join((*VARIANTS, *UNTRAINED))}")
    plan = make_plan(file, CONFIG.value.to_dict(), shared, WORKDIR.value, variants, SEEDS.value, IMAGES.value)
    asked = curves.Asked(_numbers("start_scales", int), _numbers("temperatures", float), NUM_SAMPLES.value)
    if PEER.value:
        official_checkout.check(PEER.value, PEER_PYTHON.value)
    code = _train(plan)
    if code == RESUMABLE:
        return RESUMABLE
    for group, seed in ((group, seed) for seed in plan.seeds for group in plan.groups if PEER.value):
        folder, train = plan.root / run_name(OFFICIAL, group, seed), CONFIG.value.train
        width = CONFIG.value.network.width
        official.train(PEER.value, PEER_PYTHON.value, folder, group, seed, train.steps_per_scale, width, asked, note)
        official.imported(folder, group.images[0].id, note)
    # Only now, as training processes and this one would have to share an accelerator's memory.
    mesh = runtime.start_jax(max(len(group.images) for group in plan.groups))
    measured_curves: dict[str, dict] = {}
    seconds: dict[str, list[float]] = {}
    for variant in plan.variants:
        for seed in plan.seeds:
            for group in plan.groups:
                measured = _measure(plan, variant, group, seed, asked, mesh)
                if measured is None:
                    continue
                for (image, start), curve in curves_of(measured.rows, curves.MEASURED).items():
                    measured_curves.setdefault(variant, {}).setdefault(start, {})[image, seed] = curve
                seconds.setdefault(variant, []).extend(_seconds(plan, variant, group, seed))
    for variant, start, key, curve in (
        (variant, start, key, curve)
        for table in earlier
        for variant, by_start in table.items()
        for start, of in by_start.items()
        for key, curve in of.items()
    ):
        measured_curves.setdefault(variant, {}).setdefault(start, {}).setdefault(key, curve)
    out = files.make_directory(OUT.value or plan.root / "tables")
    means = {variant: sum(each) / len(each) for variant, each in seconds.items() if each}
    command = shlex.join(["python", "-m", "experiments.sample_quality.run", *sys.argv[1:]])
    there = [start for start in asked.start_scales if any(start in of for of in measured_curves.values())]
    if left_out := [start for start in asked.start_scales if start not in there]:
        note(f"note: start scales {left_out} are left out: no variant has them")
    text = report.markdown(measured_curves, there, _facts(plan, command), means)
    files.write_text(out / "table.md", text)
    files.write_text(out / "table.csv", report.csv_text(measured_curves))
    shown = {image for of in measured_curves.values() for each in of.values() for image, _ in each}
    images = [image.id for group in plan.groups for image in group.images if image.id in shown]
    images += sorted(shown - set(images))
    for start in there:
        files.write_bytes(out / f"frontier_start_{start:02d}.png", report.plot(measured_curves, start, images))
    sheets.write_sheets(out, plan, measured_curves, asked, mesh)
    print(text)
    print(f"table.md, table.csv, frontier_start_NN.png and a sheet of each image are in {out}")
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


def _measure(plan: Plan, variant: str, group: Group, seed: int, asked: curves.Asked, mesh) -> curves.Measured | None:
    name = run_name(variant, group, seed)
    path = plan.root / "measured" / f"{name}.json"
    if variant == GPNN:
        return curves.measure_gpnn(path, group, asked, note) if seed == plan.seeds[0] else None
    if variant == OFFICIAL:
        return curves.measure_samples(plan.root / name, path, group, asked)
    if variant == OFFICIAL_CURVE:
        workdir = plan.root / run_name(OFFICIAL, group, seed) / "imported"
        return curves.measure_run(workdir, path, asked, mesh, note) if workdir.exists() else None
    run = plan.run(variant, group, seed)
    if run is None or plan.sweep is None or state.read_state(plan.sweep, run).state != state.DONE:
        note(f"note: {name} is not trained: see {name}.log")
        return None
    return curves.measure_run(Path(run.workdir), path, asked, mesh, note)


def _seconds(plan: Plan, variant: str, group: Group, seed: int) -> list[float]:
    if variant in VARIANTS:
        return [read_facts(plan.root / run_name(variant, group, seed)).seconds / len(group.images)]
    return [sum(official.seconds(plan.root / run_name(variant, group, seed)))] if variant == OFFICIAL else []


def _facts(plan: Plan, command: str) -> list[str]:
    train = CONFIG.value.train
    images = [f"{i.id} {'x'.join(map(str, i.pixels.shape))}" for group in plan.groups for i in group.images]
    sizes = sorted({" ".join(f"{h}x{w}" for h, w in group.pyramid.sizes) for group in plan.groups})
    return [
        f"`{command}`",
        f"{counted(len(images), 'image')}: {', '.join(images)}",
        f"{train.steps_per_scale} steps a scale; scales of {' | '.join(sizes)} pixels",
        f"{NUM_SAMPLES.value} samples of each image, start scale and temperature",
        f"seeds {', '.join(map(str, plan.seeds))}",
        *(f"{name}: {VARIANTS.get(name) or UNTRAINED[name]}" for name in plan.variants),
    ]


def _numbers(flag: str, kind: type) -> tuple:
    words: list[str] = flags.FLAGS[flag].value or []
    try:
        numbers = tuple(sorted({kind(word) for word in words}))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise UserError(f"--{flag}={','.join(words)} must be numbers, 0 or more, such as 0,1")
    return numbers


if __name__ == "__main__":
    cli.run(main)
