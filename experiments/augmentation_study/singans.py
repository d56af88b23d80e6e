"""One SinGAN for each training patch and its mask, trained together by launch.train in ROOT/singan."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.augmentation_study.pairs import Pair
from experiments.augmentation_study.settings import Study
from launch.configs import load_config
from launch.images.find import load_images
from launch.sweep import state
from launch.sweep.backends.local import Local
from launch.sweep.plan import Sweep, plan_sweep
from launch.train import run_cohort
from singan import files
from singan.config import DataConfig
from singan.errors import UserError
from singan.model import encodings
from singan.model.pyramid import Pyramid, plan
from singan.storage import workdir as records
from singan.storage.workdir import Workdir, pixel_digest

NAME = "singan"
MASK = {"nuclei": "instance", "tumour": "tumour"}  # name of the mask's channel


def write_patches(folder: Path, patches: Sequence[Pair], study: Study) -> None:
    """Writes FOLDER/<id>.npz: `image` uint8 [H, W, C + 1], the mask drawn as the last channel, and `channels`."""
    files.make_directory(folder)
    for pair in patches:
        image = np.concatenate([pair.pixels, drawn_mask(pair, study)], axis=-1)
        buffer = io.BytesIO()
        np.savez(buffer, image=image, channels=np.array([*pair.channels, MASK[study.task]]))
        files.write_bytes(folder / f"{pair.id}.npz", buffer.getvalue())


def drawn_mask(pair: Pair, study: Study) -> np.ndarray:
    """Returns uint8 [H, W, 1]: nuclei as their distance maps (singan/model/encodings.py), a tumour as 0 or 255."""
    if study.task == "nuclei":
        return encodings.encode_instances(pair.instances)
    return encodings.encode_binary(pair.instances) * np.uint8(255)


def plan_singans(config_file: str, base: Mapping[str, Any], shared: Mapping[str, Any], root: Path) -> Sweep:
    """Returns the one run of the cohort, its images being those of ROOT/patches.

    Args:
      config_file, base, shared: see launch.sweep.plan.plan_sweep; what they say of data is left out.
    """
    default = dataclasses.asdict(DataConfig())
    given = load_config(base).data
    changes = {f"data.{key}": value for key, value in default.items() if getattr(given, key) != value}
    run = {**changes, "data.path": str(root / "patches"), "tracking.name": NAME}
    kept = {key: value for key, value in shared.items() if not key.startswith("data.") and key != "tracking.name"}
    return plan_sweep(config_file, base, kept, [run], str(root))


def pyramid_of(sweep: Sweep, study: Study) -> Pyramid:
    """Returns the scales of the SinGANs. Raises UserError where patches are too small for them."""
    config = sweep.runs[0].config
    return plan(study.patch, study.patch, config.pyramid, str(config.method.resize_border))


def train(sweep: Sweep) -> int:
    """Trains what is not trained yet; returns 0, 1 (failed, the log says why) or 75 (stopped, to be resumed).

    Raises:
      UserError: the run is of other patches, or another process trains it.
    """
    (run,) = sweep.runs
    workdir = Workdir(Path(run.workdir))
    if workdir.config.exists():
        wanted = {image.id: pixel_digest(image.pixels) for image in load_images(run.config.data)}
        if {row.id: row.digest for row in records.read_images(workdir)} != wanted:
            raise UserError(f"{workdir.path} was trained on other patches than this study's: choose another --workdir")
    now = state.read_state(sweep, run)
    if now.state == state.DONE:
        return run_cohort.DONE
    if now.state == state.RUNNING:
        raise UserError(f"{run.workdir} is being trained ({now.note}): wait until it is done")
    return Local(sweep, 1, 1).start([run])
