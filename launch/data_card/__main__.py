"""Writes DATA_CARD.md and data_card.json beside samples that are there already; launch.sample writes them by itself.

python -m launch.data_card --workdir=runs/quickstart --samples=samples --licence="CC BY 4.0"
"""

from pathlib import Path

from launch import cli, runtime
from launch import command_flags as flags
from launch.data_card import measure, read_samples, write
from singan import files
from singan.errors import UserError
from singan.storage.run import load_run
from singan.text import print_warning

WORKDIR = flags.DEFINE_string("workdir", None, "give --workdir=DIR, the run that the samples are of.", required=True)
SAMPLES = flags.DEFINE_string("samples", None, "give --samples=DIR, as launch.sample wrote it.", required=True)
LICENCE = flags.DEFINE_string("licence", "", "Licence of the training images, where the source does not tell.")


def main(argv: list[str]) -> int:
    del argv
    runtime.start_jax(1)
    run = load_run(WORKDIR.value, warn=print_warning)
    for folder, scale in read_samples.sets_in(Path(SAMPLES.value)).items():
        samples = read_samples.read_samples(folder, run)
        real = measure.real_images(run, samples.samples)
        measured = measure.measure(
            samples.samples, {name: image[..., samples.channels] for name, image in real.items()}
        )
        drawn = _drawing_settings(folder, scale, run.config.seed, len(samples.owners), samples.total)
        card = write.card_of(run, write.settings_of(run, **drawn), measured, samples.total, LICENCE.value)
        write.write_card(folder, card)
        print(f"{folder}: {write.in_short(card)}")
    return 0


def _drawing_settings(folder: Path, scale: int | None, training_seed: int, images: int, total: int) -> dict:
    """Returns how the set was drawn: as an older card of it says, else what its folder tells."""
    settings = {"training_seed": training_seed, "start_scale": write.NOT_RECORDED if scale is None else scale}
    settings |= dict.fromkeys(("size", "seed", "style"), write.NOT_RECORDED) | {"samples_of_each": total / images}
    try:
        old = files.read_json(folder / write.NAMES[1])["settings"]
    except (UserError, KeyError, TypeError):
        return {**settings, "samples_of_each": f"{total / images:g}"}
    return {key: old.get(key, value) for key, value in settings.items()}


if __name__ == "__main__":
    cli.run(main)
