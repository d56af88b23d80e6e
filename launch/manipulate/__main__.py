"""Injects images into a trained run: harmonise, edit, paint, super-resolve, animate.

python -m launch.manipulate --workdir=runs/mine --task=harmonize --images=ID --input=composite.png --mask=mask.png \\
    --start_scales=1,2,3 --out=harmonized
"""

import sys

from launch import cli, runtime, selection
from launch import command_flags as flags
from launch.manipulate import animate_enlarge, inputs, results
from launch.samples import writers
from singan import files
from singan.errors import UserError
from singan.sampling import fine_tuning, manipulation
from singan.sampling.masks import EDIT, HARMONIZE, MaskRule
from singan.storage.run import Run, load_run
from singan.text import print_warning

TASKS = {
    "harmonize": "a composite fitted to the training image around it (--input, --mask)",
    "edit": "the same for a rearranged training image, with a wider mask (--input, --mask)",
    "paint": "a painting turned into an image (--input)",
    "super_resolve": "the image, or --input, made larger by --factor",
    "animate": "the image set in motion, as a GIF",
}
WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=DIR, the directory of a trained run.", required=True)
OUT = flags.DEFINE_string("out", None, "give --out=DIR, where the results are written.", required=True)
TASK = flags.DEFINE_enum(
    "task", None, [*TASKS, "harmonise"], "; ".join(f"{k}: {v}" for k, v in TASKS.items()), required=True
)
IMAGES = flags.DEFINE_list("images", [], "Ids of the pyramids: one for all inputs, or one for each.")
INPUT = flags.DEFINE_list("input", [], "Image files to inject.")
MASK = flags.DEFINE_list(
    "mask",
    [],
    "Mask files of the inputs' sizes: one for all, or one for each. Labels are inside where they are not 0, grey masks"
    " above their middle. Without it, the inputs' alpha channels.",
)
START_SCALES = flags.DEFINE_list("start_scales", ["2"], "Scales at which the input enters, from 1; to animate, from 0.")
flags.DEFINE_alias("start_scale", "start_scales")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1, "Results of each input and start scale.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise.", lower_bound=0, upper_bound=2**32 - 1)
FORMAT = flags.DEFINE_enum("format", "png", ["png", "npy", "nifti"], "As of launch.sample.")
DILATION = flags.DEFINE_float(
    "mask_dilation", None, "Pixels of an image of 250; 7, or 20 to edit, where not given.", lower_bound=0
)
BLUR = flags.DEFINE_float("mask_blur", 5.0, "Standard deviation of the mask's edge, pixels of 250.", lower_bound=0)
WITHIN = flags.DEFINE_boolean("mask_within", False, "Keep the blurred edge inside the dilated mask.")
TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "A factor of the noise that is added on the way; 0 adds none.")
FINE_TUNE = flags.DEFINE_integer(
    "fine_tune_steps", 0, "To harmonise: train the finest scale that much further on the composite.", lower_bound=0
)
QUANTIZE = flags.DEFINE_integer(
    "quantize",
    0,
    "To paint: colours that inputs are reduced to; the scale is trained anew on such images.",
    lower_bound=0,
)
RETRAIN = flags.DEFINE_integer("retrain_steps", 500, "With --quantize: steps of that training.", lower_bound=1)
for flag in (
    animate_enlarge.FACTOR,
    animate_enlarge.TRUTH,
    animate_enlarge.NUM_FRAMES,
    animate_enlarge.BETA,
    animate_enlarge.FPS,
):
    flags.declare_key_flag(flag.name)


def main(argv: list[str]) -> int:
    del argv
    mesh = runtime.start_jax(max(len(INPUT.value), len(IMAGES.value), 1))
    run = load_run(WORKDIR.value, warn=print_warning)
    run.check_unconditional()
    task = TASK.value.replace("harmonise", "harmonize")
    if task == "animate":
        return animate_enlarge.animate(
            run, selection.chosen_images(run, IMAGES.value), START_SCALES.value, SEED.value, OUT.value
        )
    if task == "super_resolve":
        ids = selection.chosen_images(run, IMAGES.value)
        return animate_enlarge.super_resolve(run, ids, INPUT.value, SEED.value, FORMAT.value, OUT.value)
    given, scales = _given(run, task), selection.chosen_scales(run, START_SCALES.value, least=1)
    temperature = selection.chosen_temperature(TEMPERATURE.value, scales)
    writers.check_format(FORMAT.value, [run.record(one.image_id) for one in given])
    default = EDIT if task == "edit" else HARMONIZE
    rule = MaskRule(default.dilation if DILATION.value is None else DILATION.value, BLUR.value, WITHIN.value)
    by_scale = []
    for scale in scales:
        if task == "paint":
            palettes, tuned = _quantized(run, given, scale, mesh)
            made = manipulation.paint(
                run, given, scale, NUM_SAMPLES.value, SEED.value, mesh, tuned, palettes, temperature
            )
        else:
            tuned = None
            if FINE_TUNE.value:
                report_step = _progress(f"start scale {scale}: fine-tuning", FINE_TUNE.value)
                tuned = fine_tuning.fine_tune_to_composites(
                    run, given, scale, FINE_TUNE.value, SEED.value, mesh, report_step
                )
            made = manipulation.harmonize(
                run, given, scale, rule, NUM_SAMPLES.value, SEED.value, mesh, tuned, temperature
            )
        by_scale.append(made)
    out = files.make_directory(OUT.value)  # when all is made: a mask that is refused leaves nothing behind
    for made in by_scale:
        results.write_results(run, out, FORMAT.value, made, rule)
    results.write_comparison(run, out / "comparison.png", by_scale)
    print(f"{len(given)} input(s) at start scale(s) {', '.join(map(str, scales))}: see {out / 'comparison.png'}")
    return 0


def _given(run: Run, task: str) -> list[manipulation.Input]:
    if not INPUT.value:
        raise UserError(f"--task={task} needs an image to work on: give --input=FILE")
    ids = IMAGES.value
    if not ids and len(run.ids) > 1:
        raise UserError(f"this run has {len(run.ids)} pyramids: say with --images=ID which, such as {run.ids[0]}")
    for name in ids:
        selection.chosen_images(run, [name])
    masked = task != "paint"
    given = inputs.read_inputs(run, ids or run.ids, INPUT.value, MASK.value, alpha_is_mask=masked)
    if masked and any(one.mask is None for one in given):
        raise UserError(
            f"--task={task} needs --mask=FILE, which marks what was changed, or an input with that in its alpha channel"
        )
    for one in given:  # before anything is trained for them
        manipulation.check_proportions(one.name, one.pixels.shape, one.image_id, run.record(one.image_id).shape)
    return given


def _quantized(run: Run, given: list[manipulation.Input], scale: int, mesh):
    """Palettes and pyramids trained on them for the inputs, with --quantize; else None and None."""
    if not QUANTIZE.value:
        return None, None
    report_step = _progress(f"start scale {scale}: training on {QUANTIZE.value} colours", RETRAIN.value)
    return fine_tuning.quantize(run, given, QUANTIZE.value, scale, RETRAIN.value, SEED.value, mesh, report_step)


def _progress(what: str, steps: int):
    return lambda step: print(f"{what}: {step} of {steps} steps", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
