"""Draws random samples of a trained run, in batches on the device.

python -m launch.sample --workdir=runs/quickstart --num_samples=16 --start_scales=0,1 --out=samples
"""

import sys
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from launch import cli, runtime, write_back
from singan import cohort, files
from singan.config import nearest
from singan.errors import UserError
from singan.noise import image_key_data
from singan.run import Run, load_run
from singan.sampling import sample_program

WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=DIR, the directory of a trained run.", required=True)
OUT = flags.DEFINE_string("out", None, "give --out=DIR, where the samples are written.", required=True)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 16, "Samples of each image and start scale.", lower_bound=1)
START_SCALES = flags.DEFINE_list("start_scales", ["0"], "Scales at which fresh noise begins, such as 0,1.")
flags.DEFINE_alias("start_scale", "start_scales")
IMAGES = flags.DEFINE_list("images", [], "Ids of the images to sample; all where not given.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0, upper_bound=2**32 - 1)
BATCH = flags.DEFINE_integer("batch", 16, "Samples of each image drawn in one device call.", lower_bound=1)
FORMAT = flags.DEFINE_enum(
    "format", "png", list(write_back.FORMATS), "; ".join(f"{name}: {text}" for name, text in write_back.FORMATS.items())
)


def main(argv: list[str]) -> int:
    del argv
    mesh = runtime.start_jax(len(IMAGES.value) or 2**16)
    run = load_run(WORKDIR.value, warn=lambda text: print(f"warning: {text}", file=sys.stderr))
    ids = _chosen_images(run)
    scales = _chosen_scales(run)
    records = [run.image(name) for name in ids]
    write_back.check_format(FORMAT.value, records)  # before anything is drawn
    out = files.make_directory(OUT.value)
    for scale in scales:
        folder = files.make_directory(out / f"start_{scale:02d}")
        write_back.write(FORMAT.value, folder, records, _draw(run, ids, scale, mesh), scale)
    print(f"{NUM_SAMPLES.value} samples of each of {len(ids)} image(s) from scale(s) {scales} are in {out}")
    return 0


def _chosen_images(run: Run) -> list[str]:
    for name in IMAGES.value:
        if name not in run.ids:
            known = {record.id for record in run.images}
            why = "has diverged and was left out" if name in known else f"is not in this run{nearest(name, run.ids)}"
            raise UserError(f"--images: {name!r} {why}; it has {', '.join(run.ids[:5])}{' ...' * (len(run.ids) > 5)}")
    if not run.ids:
        raise UserError(f"every image of {WORKDIR.value} has diverged: there is nothing to sample")
    return list(dict.fromkeys(IMAGES.value)) or list(run.ids)


def _chosen_scales(run: Run) -> list[int]:
    try:
        wanted = list(dict.fromkeys(int(text) for text in START_SCALES.value))
    except ValueError:
        raise UserError(f"--start_scales={','.join(START_SCALES.value)} must be whole numbers, such as 0,1") from None
    there = [scale for scale in wanted if 0 <= scale < len(run.scales)]
    if left_out := [scale for scale in wanted if scale not in there]:
        print(f"note: scales {left_out} are left out: the run has 0 to {len(run.scales) - 1}", file=sys.stderr)
    if not there:
        raise UserError(f"--start_scales: none is left; this run has scales 0 to {len(run.scales) - 1}")
    return there


def _draw(run: Run, ids: Sequence[str], start_scale: int, mesh) -> np.ndarray:
    """Returns float32 [n, num_samples, H, W, C] in [-1, 1]."""
    size = cohort.padded_size(len(ids), mesh, 1)
    names = [ids[min(i, len(ids) - 1)] for i in range(size)]
    fixed = (
        run.trained(names),
        run.reconstruction_noise(names),
        run.padding(names),
        np.stack([image_key_data(SEED.value, name) for name in names]),
    )
    placed = cohort.place(fixed, mesh)
    count = min(BATCH.value, NUM_SAMPLES.value)
    program, batches = None, []
    for first in range(0, NUM_SAMPLES.value, count):
        numbers = cohort.place(np.tile(np.arange(first, first + count, dtype=np.int32), (size, 1)), mesh)
        if program is None:
            spec = run.spec.at(len(run.scales) - 1)
            program = cohort.compile_program(
                sample_program(spec, mesh, start_scale), *placed, numbers, precision=run.config.train.precision
            )
        batches.append(np.array(jax.device_get(program(*placed, numbers)))[: len(ids)])
    return np.concatenate(batches, axis=1)[:, : NUM_SAMPLES.value]


if __name__ == "__main__":
    cli.run(main)
