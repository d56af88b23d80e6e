"""Brings samples towards the style of their training image, and says what that does to them.

python -m launch.sample --workdir=runs/quickstart --format=npy --out=samples
python -m experiments.baselines.style_effect --config=experiments/quickstart/config.py --samples=samples/start_00 \
    --out=samples_styled

Prints fidelity, diversity and distance of each image's samples before and after; writes the styled ones.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from launch import cli, configs, runtime
from launch import command_flags as flags
from launch.images.find import load_images
from launch.samples import writers
from launch.samples.texture import texture_channels
from singan import files
from singan.errors import UserError
from singan.metrics.diversity import diversity
from singan.metrics.memorisation import memorisation
from singan.metrics.sliced_wasserstein import patch_distribution
from singan.metrics.values import Undefined, Value, summarise
from singan.model.noise import image_key_data
from singan.model.pyramid import pyramid_of
from singan.sampling.style import match_style
from singan.source_image import SourceImage
from singan.storage.run_record import record_of

CONFIG = cli.config_flag()
SAMPLES = flags.DEFINE_string("samples", None, "give --samples=DIR, <id>.npy of --format=npy.", required=True)
OUT = flags.DEFINE_string("out", None, "give --out=DIR, where the styled samples are written.", required=True)
STRENGTH = flags.DEFINE_list("strengths", ["1"], "Shares of the change that are tried, the last one is written.")
STEPS = flags.DEFINE_integer("steps", 50, "Steps of Adam.", lower_bound=1)
LEVELS = flags.DEFINE_integer("levels", 3, "Finest scales whose patches are matched.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the projections.", lower_bound=0, upper_bound=2**32 - 1)
FORMAT = flags.DEFINE_enum("format", "png", list(writers.FORMATS), "As in launch.sample.")

SHOWN = {"swd": "swd", "diversity": "diversity", "ms_ssim": "ms_ssim", "rmse": "rmse", "nearest_patch_ratio": "nearest"}


def main(argv: list[str]) -> int:
    del argv
    runtime.start_jax(1)
    config = configs.load_config(CONFIG.value)
    strengths = _strengths()
    images = [image for image in load_images(config.data) if (Path(SAMPLES.value) / f"{image.id}.npy").is_file()]
    if not images:
        raise UserError(
            f"--samples={SAMPLES.value} holds no <id>.npy of an image of config.data: draw with --format=npy"
        )
    records = [record_of(image) for image in images]
    writers.check_format(FORMAT.value, records)
    out = files.make_directory(OUT.value)
    print(f"{'image':24} {'strength':>8} " + " ".join(f"{title:>10}" for title in SHOWN.values()))
    drawn: np.ndarray | None = None
    for image, record in zip(images, records, strict=True):
        pyramid = pyramid_of(image.pixels.shape, config)
        real = pyramid.level(image.pixels, len(pyramid) - 1)
        drawn = _read(image)
        measured = texture_channels(image)
        _print_row(image.id, 0, drawn[..., measured], real[..., measured])
        styled = drawn
        for strength in strengths:
            styled = style(image, drawn, real, strength)
            _print_row("", strength, styled[..., measured], real[..., measured])
        with writers.open_writer(FORMAT.value, out, [record], len(styled), 0) as writer:
            writer.add([image.id], 0, styled[None])
    print(f"styled samples of {len(images)} image(s) are in {out}")
    return 0


def style(image: SourceImage, samples: np.ndarray, real: np.ndarray, strength: float) -> np.ndarray:
    """Returns an image's samples [n, h, w, C] with its texture; masks and background as they were."""
    key = jax.random.wrap_key_data(jnp.asarray(image_key_data(SEED.value, image.id)), impl="threefry2x32")
    return np.asarray(
        match_style(
            samples,
            real,
            key,
            channels=texture_channels(image),
            background=image.value_map.background_levels,
            steps=STEPS.value,
            levels=LEVELS.value,
            strength=strength,
        )
    )


def _read(image: SourceImage) -> np.ndarray:
    path = Path(SAMPLES.value) / f"{image.id}.npy"
    try:
        samples = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): draw the samples again with --format=npy") from None
    if samples.ndim != 4 or samples.shape[-1] != image.pixels.shape[-1]:
        raise UserError(f"{path} has shape {samples.shape}, not [n, H, W, {image.pixels.shape[-1]}]")
    return image.value_map.apply(samples)


def _strengths() -> list[float]:
    try:
        return [float(text) for text in STRENGTH.value]
    except ValueError:
        raise UserError(f"--strengths={','.join(STRENGTH.value)} must be numbers from 0 to 1") from None


def _print_row(name: str, strength: float, samples: np.ndarray, real: np.ndarray) -> None:
    rows = [
        {**fidelity, **distance}
        for fidelity, distance in zip(patch_distribution(samples, real), memorisation(samples, real), strict=True)
    ]
    means: dict[str, Value] = {
        key: value if isinstance(value, Undefined) else value.mean for key, value in summarise(rows).items()
    }
    means |= diversity(samples, real)
    cells: Sequence[str] = ["-" if isinstance(means[key], Undefined) else f"{means[key]:.4f}" for key in SHOWN]
    print(f"{name:24} {strength:8g} " + " ".join(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    cli.run(main)
