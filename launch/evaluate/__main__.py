"""Measures what a run's samples are worth, or a folder of generated images against a folder of real ones.

python -m launch.evaluate --workdir=runs/quickstart --num_samples=16 --start_scales=0,1
python -m launch.evaluate --real=FOLDER --generated=samples --out=evaluation.json

Fidelity, diversity and distance to the training image, always together, for each image and start scale, with their
definitions, in WORKDIR/evaluation.json, metrics.jsonl and wandb. What is there of the same settings is kept.
"""

from launch import cli, runtime, selection
from launch import command_flags as flags
from launch.evaluate import image_metrics as metrics
from launch.evaluate import of_folders as evaluation_folders
from launch.evaluate import of_run as evaluation_runs
from launch.evaluate import table
from launch.evaluate.evaluation_file import Evaluation
from launch.evaluate.of_run import note
from launch.report.page import try_write_report
from singan import files
from singan.errors import UserError
from singan.storage.run import load_run
from singan.storage.workdir_lock.lock import WorkdirLock

WORKDIR = flags.DEFINE_string("workdir", "", "The directory of a trained run.")
REAL = flags.DEFINE_string("real", "", "In place of --workdir: the folder of real images.")
GENERATED = flags.DEFINE_string("generated", "", "With --real: the folder of generated images.")
OUT = flags.DEFINE_string("out", "evaluation.json", "With --real: the file to write.")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 16, "Samples of each image and start scale.", lower_bound=1)
START_SCALES = flags.DEFINE_list("start_scales", [], "Where fresh noise begins, such as 0,1; not given: four or fewer.")
flags.DEFINE_alias("start_scale", "start_scales")
IMAGES = flags.DEFINE_list("images", [], "Ids of the images to measure; all where not given.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0, upper_bound=2**32 - 1)
BATCH = flags.DEFINE_integer("batch", 64, "Samples drawn in one device call; what bounds the memory.", lower_bound=1)
TEMPERATURE = flags.DEFINE_float(
    "temperature", 1.0, "Of the samples: 0 gives the reconstruction, 1 samples as in training, more goes beyond it."
)
INCEPTION = flags.DEFINE_string(
    "inception_weights", "", "Weights of FID's Inception: FILE, download, or none; not given: the cached ones, if any."
)
METRICS = flags.DEFINE_list("metrics", [], f"Of {', '.join(metrics.FAMILIES)}; all that apply where not given.")
LAYOUT = flags.DEFINE_enum("layout", "auto", ("auto", "hwc", "chw"), "With --real: which axis of an array is channels.")


def main(argv: list[str]) -> int:
    del argv
    folders = bool(REAL.value) + bool(GENERATED.value)
    if bool(WORKDIR.value) + bool(folders) != 1 or folders == 1:
        raise UserError("give --workdir=DIR, a trained run, or both --real=FOLDER and --generated=FOLDER")
    return of_folders() if folders else of_run()


def of_run() -> int:
    """Writes WORKDIR/evaluation.json, tells metrics.jsonl and wandb, and prints the table."""
    families = metrics.chosen_families(METRICS.value)
    mesh = runtime.start_jax(len(IMAGES.value) or 2**16)
    run = load_run(WORKDIR.value, warn=lambda text: note(f"warning: {text}"))
    ids = selection.chosen_images(run, IMAGES.value)
    wanted = START_SCALES.value or [str(scale) for scale in evaluation_runs.default_scales(len(run.scales))]
    scales = selection.chosen_scales(run, wanted)
    inception = metrics.load_inception(INCEPTION.value, note) if "inception" in families else None
    temperature = selection.chosen_temperature(TEMPERATURE.value, scales)
    settings = evaluation_runs.settings(run, NUM_SAMPLES.value, SEED.value, families, inception, temperature)
    # A training of this run would cut metrics.jsonl back while it is written here.
    with WorkdirLock(run.workdir.path):
        evaluation = Evaluation(run.workdir.path / "evaluation.json", settings, lambda text: note(f"note: {text}"))
        evaluation_runs.evaluate(run, evaluation, ids, scales, BATCH.value, mesh, families, inception, note)
        evaluation_runs.tell(run, evaluation)
        try_write_report(run.workdir.path, lambda text: note(f"warning: {text}"))
    _show(
        evaluation, f"{NUM_SAMPLES.value} samples of each of {len(evaluation.images)} image(s), means over the images"
    )
    return 0


def of_folders() -> int:
    """Writes --out and prints the table."""
    for flag in ("images", "start_scales", "num_samples", "seed", "batch", "temperature"):
        if flags.FLAGS[flag].present:
            raise UserError(f"--{flag} belongs to --workdir: all images of the folders are compared")
    families = metrics.chosen_families(METRICS.value)
    runtime.start_jax(1)
    comparison = evaluation_folders.compare(REAL.value, GENERATED.value, LAYOUT.value, note)
    inception = metrics.load_inception(INCEPTION.value, note) if "inception" in families else None
    out = files.as_path(OUT.value)
    files.make_directory(out.parent)
    evaluation = Evaluation(out, comparison.settings(families, inception), lambda text: note(f"note: {text}"))
    comparison.evaluate(evaluation, families, inception, note)
    _show(evaluation, f"{comparison.summary}; means over the real images")
    return 0


def _show(evaluation: Evaluation, what: str) -> None:
    print(table.table(evaluation.cohort()))
    print(f"{what}; definitions, p10 and p90, and each image are in {evaluation.path}")


if __name__ == "__main__":
    cli.run(main)
