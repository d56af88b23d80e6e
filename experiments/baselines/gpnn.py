"""Draws samples without training (GPNN) of the images that a configuration names, in the formats of launch.sample.

python -m experiments.baselines.gpnn --config=experiments/quickstart/config.py --num_samples=4 --out=samples_gpnn
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.baselines.generator import Settings, check_start, generate
from launch import cli, configs, runtime
from launch import command_flags as flags
from launch.images.find import group_by_shape, load_images
from launch.samples import writers
from singan import files
from singan.config import Config, nearest
from singan.errors import UserError
from singan.model.pyramid import Pyramid, pyramid_of
from singan.source_image import SourceImage
from singan.storage.run_record import record_of

BATCH = 16  # samples of an image that are made in one call

CONFIG = cli.config_flag()
OUT = flags.DEFINE_string("out", None, "give --out=DIR, where the samples are written.", required=True)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 4, "Samples of each image and start scale.", lower_bound=1)
START_SCALES = flags.DEFINE_list("start_scales", ["0"], "Scales at which noise comes in, such as 0,1.")
flags.DEFINE_alias("start_scale", "start_scales")
IMAGES = flags.DEFINE_list("images", [], "Ids of the images to sample; all where not given.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0, upper_bound=2**32 - 1)
FORMAT = flags.DEFINE_enum("format", "png", list(writers.FORMATS), "As in launch.sample.")
ALPHA = flags.DEFINE_float(
    "alpha",
    None,
    "Of the completeness score; small uses more of the image. By default 0.005, and 1 beside a background.",
)
NOISE = flags.DEFINE_float("noise", Settings.noise, "Standard deviation, for values in [0, 1].", lower_bound=0)
ITERATIONS = flags.DEFINE_integer("iterations", Settings.iterations, "Replacements at a scale.", lower_bound=1)
HOLD = flags.DEFINE_boolean("hold_background", True, "Keep what surrounds the subject, where images have such.")


def main(argv: list[str]) -> int:
    del argv
    runtime.start_jax(1)
    config = configs.load_config(CONFIG.value)
    settings = _settings()
    images = _chosen(load_images(config.data))
    groups = group_by_shape(images) if config.data.group_by_shape else {"": images}
    records = {name: [record_of(image) for image in members] for name, members in groups.items()}
    for members in records.values():
        writers.check_format(FORMAT.value, members)  # before anything is drawn
    pyramids = {image.id: _pyramid(config, image) for image in images}
    out = files.make_directory(OUT.value)
    for name, members in groups.items():
        for scale in _start_scales():
            folder = files.make_directory(out / name / f"start_{scale:02d}")
            with writers.open_writer(FORMAT.value, folder, records[name], NUM_SAMPLES.value, scale) as writer:
                for image in members:
                    for first, samples in _batches(image, pyramids[image.id], scale, settings):
                        writer.add([image.id], first, samples[None])
    print(f"{NUM_SAMPLES.value} samples of each of {len(images)} image(s) are in {out}")
    return 0


def _settings() -> Settings:
    settings = Settings(noise=NOISE.value, iterations=ITERATIONS.value)
    if ALPHA.value is None:
        return settings
    if ALPHA.value <= 0:
        raise UserError(f"--alpha={ALPHA.value:g} must be above 0: 0.005 is the paper's, 1000 the plain search")
    return dataclasses.replace(settings, alpha=ALPHA.value, alpha_beside_background=ALPHA.value)


def _chosen(images: Sequence[SourceImage]) -> list[SourceImage]:
    by_id = {image.id: image for image in images}
    for name in IMAGES.value:
        if name not in by_id:
            raise UserError(f"--images: {name!r} is not in config.data{nearest(name, by_id)}")
    return [by_id[name] for name in dict.fromkeys(IMAGES.value)] or list(images)


def _start_scales() -> list[int]:
    try:
        return list(dict.fromkeys(int(text) for text in START_SCALES.value))
    except ValueError:
        raise UserError(f"--start_scales={','.join(START_SCALES.value)} must be whole numbers, such as 0,1") from None


def _pyramid(config: Config, image: SourceImage) -> Pyramid:
    try:
        pyramid = pyramid_of(image.pixels.shape, config)
        for scale in _start_scales():
            check_start(pyramid, scale, Settings.patch_size)
    except UserError as error:
        raise UserError(f"{image.id}: {error}") from error
    return pyramid


def _batches(
    image: SourceImage, pyramid: Pyramid, start_scale: int, settings: Settings
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (number of the first, samples [k, h, w, C])."""
    total = NUM_SAMPLES.value
    count = -(-total // -(-total // BATCH))  # batches as even as can be: each size is compiled
    for first in range(0, total, count):
        samples = generate(
            image.pixels,
            pyramid,
            SEED.value,
            min(count, total - first),
            first=first,
            start_scale=start_scale,
            background=image.value_map.background_levels if HOLD.value else None,
            image_id=image.id,
            settings=settings,
        )
        yield first, samples


if __name__ == "__main__":
    cli.run(main)
