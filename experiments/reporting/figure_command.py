"""What the studies' analysis.py share: samples of a run from several start scales, as figures and as numbers."""

from collections.abc import Sequence

import numpy as np

from experiments.reporting import figures
from launch import command_flags as flags
from launch import runtime, selection
from launch.images.channels import file_word
from launch.samples import pictures
from singan import files
from singan.metrics.diversity import diversity
from singan.metrics.memorisation import memorisation
from singan.metrics.values import Undefined, Value, mean
from singan.sampling import samples as sampling
from singan.storage.run import Run, load_run
from singan.text import print_warning

flags.disclaim_key_flags()  # they belong to the command that asks for them, so that its --help lists them

FLAGS = flags.FLAGS
COLUMNS = {
    "diversity": "diversity",
    "ms_ssim": "MS-SSIM",
    "rmse": "RMSE",
    "nearest_patch": "nearest patch",
    "nearest_patch_ratio": "ratio",
    "copied": "copied",
}


def define_flags() -> None:
    """Defines the flags of an analysis."""
    flags.DEFINE_string("workdir", None, "give --workdir=DIR, the directory of a trained run.", required=True)
    flags.DEFINE_string("out", None, "give --out=DIR, where figures and analysis.json are written.", required=True)
    flags.DEFINE_list("images", [], "Ids of the images; all where not given.")
    flags.DEFINE_list("start_scales", ["0", "1", "2", "3"], "Scales at which fresh noise begins.")
    flags.DEFINE_integer("num_samples", 4, "Samples of each image and start scale.", lower_bound=2)
    flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0, upper_bound=2**32 - 1)


def main(figure: str, shown_scale: int) -> int:
    """Writes <id>_figure_<figure>.png, <id>_start_scales_<view>.png and analysis.json; prints a table per image.

    Args:
      figure: of the paper.
      shown_scale: the start scale of the samples in it; the nearest of --start_scales is taken.
    """
    mesh = runtime.start_jax(len(FLAGS.images) or 2**16)
    run = load_run(FLAGS.workdir, warn=print_warning)
    ids = selection.chosen_images(run, FLAGS.images)
    scales = selection.chosen_scales(run, FLAGS.start_scales)
    out = files.make_directory(FLAGS.out)
    count, rows = FLAGS.num_samples, []
    for name in ids:
        by_scale: dict[int, np.ndarray] = {}
        for scale in scales:
            drawn = sampling.draw(run, [name], count, scale, seed=FLAGS.seed, mesh=mesh)
            by_scale[scale] = np.concatenate([batch.pixels[0] for batch in drawn])
        table = [measured(run, name, scale, samples) for scale, samples in by_scale.items()]
        print(lines(name, table), flush=True)
        rows += [{"image": name, "num_samples": count, **row} for row in table]
        shown = min(scales, key=lambda scale: abs(scale - shown_scale))
        for word, picture in drawn_figures(run, name, by_scale, figure, shown):
            files.write_bytes(out / f"{name}_{word}.png", pictures.encode_png(picture))
    files.write_json(out / "analysis.json", {"seed": FLAGS.seed, "rows": rows})
    print(f"figures of {len(ids)} image(s) and analysis.json are in {out}")
    return 0


def measured(run: Run, name: str, scale: int, samples: np.ndarray) -> dict[str, float | int | None]:
    """Returns the means over the samples [k, h, w, C] of a start scale, by the names of COLUMNS; None: undefined."""
    image = run.finest(name)
    values: dict[str, Value] = dict(diversity(samples, image, run.record(name).channels))
    each = memorisation(samples, image)
    values |= {key: mean([row[key] for row in each]) for key in each[0]}
    return {"start_scale": scale, **{k: None if isinstance(v, Undefined) else float(v) for k, v in values.items()}}


def lines(name: str, table: Sequence[dict[str, float | int | None]]) -> str:
    """Returns a table of one image as text: a line for each start scale."""
    text = [f"{name}: means over the samples of each start scale"]
    text.append("start scale" + "".join(f"{title:>15}" for title in COLUMNS.values()))
    for row in table:
        cells = (row.get(key) for key in COLUMNS)
        text.append(
            f"{row['start_scale']:>11}" + "".join("              -" if c is None else f"{c:15.3f}" for c in cells)
        )
    return "\n".join(text)


def drawn_figures(
    run: Run, name: str, by_scale: dict[int, np.ndarray], figure: str, shown: int
) -> list[tuple[str, np.ndarray]]:
    """Returns (word for a file name, picture): the paper's figure, and the effect of the start scale by view."""
    record, image = run.record(name), run.finest(name)
    size = f"{image.shape[0]}x{image.shape[1]} pixels"
    note = f"Random samples of one trained pyramid, {size}, fresh noise from scale {shown} of {len(run.scales) - 1} on."
    made = [
        (
            f"figure_{figure}",
            figures.training_and_samples(f"{name}: samples from scale {shown}", record, image, by_scale[shown], note),
        )
    ]
    note = (
        f"Below its start scale a sample keeps the training image, {size}. Deviation: the standard deviation of"
        f" each pixel over these {len(by_scale[shown])} samples, in units of the [-1, 1] range."
    )
    for view in figures.views(record, image):
        if view.name == "nuclei":
            continue  # decoded: its pixels have no deviation
        title = f"{name}: effect of the start scale, {view.title}"
        picture = figures.start_scale_effect(title, view, record, image, by_scale, note)
        made.append((f"start_scales_{file_word(view.name)}", picture))
    return made
