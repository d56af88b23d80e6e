"""Draws random samples of a trained run, in batches on the device.

python -m launch.sample --workdir=runs/quickstart --num_samples=16 --start_scales=0,1 --out=samples
"""

import numpy as np

from launch import cli, runtime, selection
from launch import command_flags as flags
from launch.data_card import measure, write
from launch.samples import texture, writers
from launch.samples.given_layouts import given_layouts
from singan import files
from singan.model.layouts import Rule
from singan.parallel.costs import Memory
from singan.sampling import samples as sampling
from singan.storage.run import load_run
from singan.text import print_warning

WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=DIR, the directory of a trained run.", required=True)
OUT = flags.DEFINE_string("out", None, "give --out=DIR, where the samples are written.", required=True)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 16, "Samples of each image and start scale.", lower_bound=1)
START_SCALES = flags.DEFINE_list("start_scales", ["0"], "Scales at which fresh noise begins, such as 0,1.")
flags.DEFINE_alias("start_scale", "start_scales")
SIZE = flags.DEFINE_list("size", ["1"], "Height,width of the samples in multiples of the image's, such as 1.0,1.5.")
IMAGES = flags.DEFINE_list("images", [], "Ids of the images to sample; all where not given.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0, upper_bound=2**32 - 1)
BATCH = flags.DEFINE_integer("batch", 64, "Samples drawn in one device call; what bounds the memory.", lower_bound=1)
STYLE = flags.DEFINE_float(
    "style", 0.0, "Share of the training image's texture given to samples afterwards.", lower_bound=0, upper_bound=1
)
TEMPERATURE = flags.DEFINE_float(
    "temperature",
    1.0,
    "Faithful or various: 0 gives the reconstruction, 1 samples as trained, more goes beyond.",
)
MASKS = flags.DEFINE_string(
    "masks",
    "",
    "Of a conditional run, what samples show: permute (new layouts of the image's objects), source (its own), or a"
    " folder of label maps. Where not given: permute at start scale 0, source above.",
)
DENSITY = flags.DEFINE_float(
    "density", 1.0, "Of new layouts: objects per area, in multiples of the image's.", lower_bound=0.01
)
OVERLAP = flags.DEFINE_boolean("overlap", False, "Of new layouts: objects may cover others.")
CARD = flags.DEFINE_boolean("card", True, "Write DATA_CARD.md and data_card.json beside the samples.")
LICENCE = flags.DEFINE_string("licence", "", "Licence of the training images, where the source tells none.")
FORMAT = flags.DEFINE_enum(
    "format", "png", list(writers.FORMATS), "; ".join(f"{name}: {text}" for name, text in writers.FORMATS.items())
)


def main(argv: list[str]) -> int:
    del argv
    mesh = runtime.start_jax(len(IMAGES.value) or 2**16)
    run = load_run(WORKDIR.value, warn=print_warning)
    ids = selection.chosen_images(run, IMAGES.value)
    scales = selection.chosen_scales(run, START_SCALES.value)
    size = selection.chosen_size(SIZE.value)
    temperature = selection.chosen_temperature(TEMPERATURE.value, scales, size)
    records = [run.record(name) for name in ids]
    writers.check_format(FORMAT.value, records, size)  # before anything is drawn
    rule = Rule(DENSITY.value, overlap=OVERLAP.value)
    given = {scale: given_layouts(run, MASKS.value, rule, SEED.value, size, scale) for scale in scales}
    height, width = sampling.resized_spec(run.spec.at(len(run.scales) - 1), size).size
    out = files.make_directory(OUT.value)
    for scale in scales:
        folder = files.make_directory(out / f"start_{scale:02d}")
        measured = measure.Collector(ids if CARD.value else ())
        with writers.open_writer(FORMAT.value, folder, records, NUM_SAMPLES.value, scale) as writer:
            log_memory, count = _memory_logger(scale), NUM_SAMPLES.value
            source = given[scale].source
            batches = sampling.draw(
                run, ids, count, scale, size, SEED.value, BATCH.value, mesh, log_memory, temperature, source
            )
            for batch in batches:
                pairs = zip(batch.ids, batch.pixels, strict=True)
                pixels = [texture.styled(run, name, drawn, STYLE.value, SEED.value) for name, drawn in pairs]
                writer.add(batch.ids, batch.first, np.stack(pixels), batch.layouts)
                measured.add(batch.ids, batch.first, pixels)
        if CARD.value:
            drawn = {"training_seed": run.config.seed, "start_scale": scale, "size": size, "seed": SEED.value}
            drawn |= {"style": STYLE.value, "samples_of_each": NUM_SAMPLES.value}
            drawn |= {"temperature": temperature} if temperature != 1 else {}
            drawn |= {"masks": given[scale].about} if given[scale].about else {}
            settings, total = write.settings_of(run, **drawn), NUM_SAMPLES.value * len(ids)
            write.write_card(folder, write.make_card(run, settings, measured.samples, total, LICENCE.value))
    what = f"{NUM_SAMPLES.value} samples, {height}x{width} pixels, of each of {len(ids)} image(s)"
    print(f"{what} from scale(s) {', '.join(map(str, scales))} are in {out}")
    return 0


def _memory_logger(scale: int):
    def log_memory(samples: int, memory: Memory) -> None:
        print(f"start scale {scale}: {samples} samples a call, {memory.total / 2**20:.0f} MiB on each device")

    return log_memory


if __name__ == "__main__":
    cli.run(main)
