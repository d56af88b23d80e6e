"""The ways of making samples that are compared, and the plan of their trainings: all on the same images and steps."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.baselines.generator import Settings, check_start
from launch.configs import load_config
from launch.images.find import load_images
from launch.images.source_image import SourceImage
from launch.sweep.plan import PlannedRun, Sweep, plan_sweep
from singan.config import Config, nearest
from singan.errors import UserError
from singan.model.pyramid import Pyramid, plan
from singan.storage import workdir as records
from singan.storage.workdir import Workdir, pixel_digest

GPNN = "gpnn"
# What each sets on top of the configuration, and what it is.
TRAINED: dict[str, dict[str, Any]] = {
    "corrected": {"preset": "corrected", "train.schedule": "sequential"},
    "reference": {"preset": "reference", "train.schedule": "sequential"},
    "concurrent": {"preset": "corrected", "train.schedule": "concurrent"},
}
ABOUT = {
    "corrected": "SinGAN, preset corrected",
    "reference": "SinGAN, preset reference: as the published code trains",
    "concurrent": "preset corrected, the last three generators trained together (ConSinGAN's schedule); as many scales"
    " and steps as the others, so as many updates of each critic; ConSinGAN's spacing makes its middle scales smaller",
    GPNN: "patch nearest neighbours (experiments/baselines), no training",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be made.

    Attributes:
      config: what the variants share.
      images: the training images.
      variants: names, in the order of the tables.
      pyramids: of each variant.
      start_scales: coarsest first; every variant has them.
      sweep: the trainings, one for each trained variant and seed; None where none is trained.
      root: the directory that holds all.
      left_out: start scales that were asked for and that there are not.
    """

    config: Config
    images: tuple[SourceImage, ...]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    start_scales: tuple[int, ...]
    pyramids: Mapping[str, Pyramid]
    sweep: Sweep | None
    root: str
    left_out: tuple[int, ...]

    def run(self, variant: str, seed: int) -> PlannedRun | None:
        """Returns the training of a variant; None for the one that has none."""
        name = run_name(variant, seed)
        return next((run for run in self.sweep.runs if run.name == name), None) if self.sweep else None


def run_name(variant: str, seed: int) -> str:
    """Returns the name of the directory in ROOT that a variant's run, or its samples, are kept in."""
    return f"{variant}_seed{seed}"


def make_plan(
    config_file: str,
    base: Mapping[str, Any],
    shared: Mapping[str, Any],
    root: str,
    variants: Sequence[str],
    seeds: Sequence[str],
    start_scales: Sequence[str],
) -> Plan:
    """Returns the plan; images are read, nothing is written.

    Args:
      config_file, base, shared, root: see launch.sweep.plan.plan_sweep.
      variants, seeds, start_scales: as given on the command line.

    Raises:
      UserError: an unknown variant, a start scale that no variant has, images of several shapes, a bad configuration.
    """
    known = [*TRAINED, GPNN]
    for name in variants:
        if name not in known:
            raise UserError(f"--variants: {name!r} is none of {', '.join(known)}{nearest(name, known)}")
    names = tuple(dict.fromkeys(variants))
    if not names:
        raise UserError(f"--variants names none: give some of {', '.join(known)}")
    numbers = _numbers("seeds", seeds)
    # What the variants share, and what the baseline is made with.
    base_train = {**base["train"], "schedule": "sequential"}
    config = load_config({**base, "preset": "corrected", "train": base_train})
    if config.data.group_by_shape:
        raise UserError("config.data.group_by_shape: a table is of one cohort: crop the images to one shape")
    images = load_images(config.data)
    sequential = _pyramid(config, images[0])
    # Equal work: the concurrent schedule would have scales of its own number.
    equal = {} if config.pyramid.num_scales else {"pyramid.num_scales": len(sequential)}
    overrides = {name: {**TRAINED[name], **(equal if name == "concurrent" else {})} for name in names if name != GPNN}
    runs = [
        {**changes, "seed": seed, "tracking.name": run_name(name, seed)}
        for name, changes in overrides.items()
        for seed in numbers
    ]
    sweep = plan_sweep(config_file, base, shared, runs, root) if runs else None
    pyramids = {GPNN: sequential} if GPNN in names else {}
    for run in sweep.runs if sweep else ():
        pyramids[run.name.rpartition("_seed")[0]] = _pyramid(run.config, images[0])
    wanted = _numbers("start_scales", start_scales)
    there = sorted(scale for scale in wanted if scale < min(map(len, pyramids.values())))
    if not there:
        most = min(map(len, pyramids.values())) - 1
        raise UserError(f"--start_scales={','.join(start_scales)}: these pyramids have scales 0 to {most}")
    for scale in there if GPNN in names else ():
        check_start(sequential, scale, Settings.patch_size)
    left_out = tuple(scale for scale in wanted if scale not in there)
    return Plan(config, tuple(images), names, numbers, tuple(there), pyramids, sweep, root, left_out)


def check_images(plan: Plan) -> None:
    """Raises a UserError where a run that is there already was trained on other images than the plan's."""
    wanted = {image.id: pixel_digest(image.pixels) for image in plan.images}
    for run in plan.sweep.runs if plan.sweep else ():
        workdir = Workdir(Path(run.workdir))
        if workdir.config.exists() and {row.id: row.digest for row in records.read_images(workdir)} != wanted:
            raise UserError(
                f"{run.workdir} was trained on other images than config.data names: choose another --workdir"
            )


def _pyramid(config: Config, image: SourceImage) -> Pyramid:
    height, width = image.pixels.shape[:2]
    return plan(height, width, config.pyramid, str(config.method.resize_border))


def _numbers(flag: str, words: Sequence[str]) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in words))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise UserError(f"--{flag}={','.join(words)} must be whole numbers, 0 or more, such as 0,1")
    return numbers
