"""The ways of making samples that are compared, and the plan of their trainings: all on the same images and steps."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.configs import load_config
from launch.images.find import load_images
from launch.sweep.plan import PlannedRun, Sweep, plan_sweep
from singan.config import nearest, with_overrides
from singan.errors import UserError
from singan.model.pyramid import Pyramid, pyramid_of
from singan.source_image import SourceImage
from singan.storage import workdir as records
from singan.storage.workdir import Workdir, pixel_digest

OFFICIAL, OFFICIAL_CURVE, GPNN = "official", "official_imported", "gpnn"
_REFERENCE = {"preset": "reference", "train.generator_updates": 1, "train.average_decay": 0.99}
_BY_SAMPLE = {  # normalised by the statistics of each sample
    "preset": "corrected",
    "method.reconstruction_noise": "redrawn",
    "train.generator_updates": 1,
    "train.average_decay": 0.99,
}


def _rates(rate: float) -> dict[str, float]:
    return {"train.critic_learning_rate": rate, "train.generator_learning_rate": rate}


_EARLIER: dict[str, Any] = {"preset": "tuned", "train.reconstruction_weight": 10.0, **_rates(5e-4)}
_EARLIER_FAST = {**_EARLIER, "train.recipe": "fast"}
# What each variant sets on top of the configuration.
VARIANTS: dict[str, dict[str, Any]] = {
    "corrected": {"preset": "corrected"},
    "reference": {"preset": "reference"},
    # One generator update in a step, and what was added to that in the search for better samples: first with all else
    # as the reference has it, then as `corrected` has it, with z* redrawn.
    "updates": {"preset": "reference", "train.generator_updates": 1},
    "patches": {"preset": "reference", "train.generator_updates": 1, "train.patch_weight": 1.0},
    "average": {**_REFERENCE, "train.patch_weight": 1.0},
    "patches_5": {**_REFERENCE, "train.patch_weight": 5.0},
    "by_sample": {**_BY_SAMPLE, "train.patch_weight": 1.0},
    "by_sample_3": {**_BY_SAMPLE, "train.patch_weight": 3.0},
    "by_sample_3_last": {**_BY_SAMPLE, "train.patch_weight": 3.0, "train.average_decay": 0.0},
    "by_sample_3_floor": {**_BY_SAMPLE, "train.patch_weight": 3.0, "train.min_noise_amplitude": 0.03},
    # The preset as it first was, changed in one place each.
    "earlier": _EARLIER,
    "more_noise": {**_EARLIER, "train.min_noise_amplitude": 0.1},
    "no_floor": {**_EARLIER, "train.min_noise_amplitude": 0.0},
    "one_and_one": {**_EARLIER, "train.critic_updates": 1},
    "earlier_fast": _EARLIER_FAST,
    "fast_low_floor": {**_EARLIER_FAST, "train.min_noise_amplitude": 0.03},
    "rates_2": {**_EARLIER_FAST, **_rates(1e-3)},
    "generator_rate_2": {**_EARLIER_FAST, "train.generator_learning_rate": 1e-3},
    "weight_30": {**_EARLIER_FAST, "train.reconstruction_weight": 30.0},
    "weight_100": {**_EARLIER_FAST, "train.reconstruction_weight": 100.0},
    "weight_30_rates_4": {**_EARLIER_FAST, "train.reconstruction_weight": 30.0, **_rates(2e-3)},
    # The preset as it is.
    "tuned": {"preset": "tuned"},
    "fast": {"preset": "tuned", "train.recipe": "fast"},
    "concurrent": {"preset": "corrected", "train.schedule": "concurrent"},
}
UNTRAINED = {
    OFFICIAL: "the official implementation: its own training and samples (--peer)",
    OFFICIAL_CURVE: "its networks, sampled by this project (launch.import_pytorch) at every temperature (--peer)",
    GPNN: "patch nearest neighbours (experiments/baselines), no training",
}


@dataclasses.dataclass(frozen=True)
class Group:
    """Images of one shape, which are trained together: those of the configuration, or one file of --images.

    Attributes:
      word: for the names of runs; '' for the configuration's own images.
      data: what is set in the configuration to read them.
    """

    word: str
    data: Mapping[str, Any]
    images: tuple[SourceImage, ...]
    pyramid: Pyramid  # as the reference makes it


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be made: the trainings of `sweep`, one for each variant, group and seed, in `root`."""

    groups: tuple[Group, ...]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    sweep: Sweep | None
    root: Path

    def run(self, variant: str, group: Group, seed: int) -> PlannedRun | None:
        """Returns a training; None where the variant has none."""
        name = run_name(variant, group, seed)
        return next((run for run in self.sweep.runs if run.name == name), None) if self.sweep else None


def run_name(variant: str, group: Group, seed: int) -> str:
    """Returns the name of the directory in ROOT of a variant's run, or of what stands in its place."""
    return "_".join(filter(None, (variant, group.word, f"seed{seed}")))


def make_plan(
    config_file: str,
    base: Mapping[str, Any],
    shared: Mapping[str, Any],
    root: str,
    variants: Sequence[str],
    seeds: Sequence[str],
    images: Sequence[str],
) -> Plan:
    """Returns the plan; images are read, nothing is written.

    Args:
      config_file, base, shared, root: see launch.sweep.plan.plan_sweep.
      variants, seeds: as given on the command line.
      images: files that are each trained by itself; () for the configuration's images.

    Raises:
      UserError: an unknown variant, no such image, a bad configuration, or a run that is there already and was trained
        on other images.
    """
    known = [*VARIANTS, *UNTRAINED]
    for name in variants:
        if name not in known:
            raise UserError(f"--variants: {name!r} is none of {', '.join(known)}{nearest(name, known)}")
    names = tuple(dict.fromkeys(variants))
    numbers = _numbers(seeds)
    groups = tuple(_group(base, file) for file in images or [""])
    words = [group.word for group in groups]
    if twice := {word for word in words if words.count(word) > 1}:
        raise UserError(f"--images: two files are called {sorted(twice)[0]!r}: rename one")
    runs = [
        {**VARIANTS[name], **group.data, "seed": seed, "tracking.name": run_name(name, group, seed)}
        for seed in numbers
        for group in groups
        for name in names
        if name in VARIANTS
    ]
    sweep = plan_sweep(config_file, base, shared, runs, root) if runs else None
    made = Plan(groups, names, numbers, sweep, Path(root))
    _check_images(made)
    return made


def _group(base: Mapping[str, Any], file: str) -> Group:
    data = {"data.source": "", "data.path": str(Path(file).resolve())} if file else {}
    config = load_config(with_overrides(base, {**data, "preset": "reference"}))
    if config.data.group_by_shape:
        raise UserError("config.data.group_by_shape: give the images one by one, with --images=FILE,FILE")
    images = load_images(config.data)
    return Group(Path(file).stem if file else "", data, tuple(images), pyramid_of(images[0].pixels.shape, config))


def _check_images(made: Plan) -> None:
    for group in made.groups:
        wanted = {image.id: pixel_digest(image.pixels) for image in group.images}
        for variant in made.variants:
            for seed in made.seeds:
                run = made.run(variant, group, seed)
                workdir = Workdir(Path(run.workdir)) if run else None
                if workdir and workdir.config.exists():
                    there = {row.id: row.digest for row in records.read_images(workdir)}
                    if there != wanted:
                        raise UserError(f"{workdir.path} was trained on other images: choose another --workdir")


def _numbers(words: Sequence[str]) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in words))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise UserError(f"--seeds={','.join(words)} must be whole numbers, 0 or more, such as 0,1")
    return numbers
