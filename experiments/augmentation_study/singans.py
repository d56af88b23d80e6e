"""The SinGANs of a study, one for each training tile, trained together by launch.train.

Those in ROOT/singan know a tile and, as one more channel, its mask; those in ROOT/conditional are given the mask.
"""

import dataclasses
import io
import os
import resource
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
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
from launch.train.run_cohort import DONE, RESUMABLE
from singan import files
from singan.config import DataConfig
from singan.errors import UserError
from singan.model import encodings
from singan.model.pyramid import Pyramid, make_pyramid
from singan.storage import workdir as records
from singan.storage.workdir import Workdir, pixel_digest

STACKED, CONDITIONAL = "singan", "conditional"  # names of the runs
GIVEN = ("binary", "boundary")  # of nuclei: the edge keeps those apart that touch
COARSEST = 3  # a conditional pyramid begins at least at this part of a tile: a nucleus must be some pixels there
MASK = {"nuclei": "instance", "tumour": "tumour"}  # name of the mask's channel


def write_tiles(sweep: Sweep, tiles: Sequence[Pair], study: Study) -> None:
    """Writes what a run trains on: <id>.npz with `image` uint8 [H, W, C] and `channels`, and the masks.

    They are the last channel of the image, or files of their own where the run is given them.
    """
    (run,) = sweep.runs
    folder = Path(run.config.data.path)
    files.make_directory(folder)
    for pair in tiles:
        if run.config.data.condition:
            image, channels = pair.pixels, pair.channels
            masks = Path(run.config.data.masks)
            files.make_directory(masks)
            files.write_bytes(masks / f"{pair.id}.npy", _saved(np.save, pair.instances))
        else:
            image, channels = with_mask(pair, study), (*pair.channels, MASK[study.task])
        files.write_bytes(folder / f"{pair.id}.npz", _saved(np.savez, image=image, channels=np.array(channels)))


def _saved(save: Callable[..., None], *values: np.ndarray, **named: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *values, **named)
    return buffer.getvalue()


def with_mask(pair: Pair, study: Study) -> np.ndarray:
    """Returns uint8 [H, W, C + 1]: a tile and its mask, nuclei as their distance maps, a tumour as 0 or 255."""
    if study.task == "nuclei":
        mask = encodings.encode_instances(pair.instances)
    else:
        mask = encodings.encode_binary(pair.instances) * np.uint8(255)
    return np.concatenate([pair.pixels, mask], axis=-1)


def plan_singans(
    name: str, config_file: str, base: Mapping[str, Any], shared: Mapping[str, Any], root: Path, tile: int
) -> Sweep:
    """Returns the one run of a cohort, which trains on what `write_tiles` writes.

    Args:
      name: STACKED or CONDITIONAL.
      config_file, base, shared: see launch.sweep.plan.plan_sweep; what they say of data is left out.
      tile: pixels of a tile's side.
    """
    default = dataclasses.asdict(DataConfig())
    given = load_config(base)
    run: dict[str, Any] = {f"data.{key}": value for key, value in default.items() if getattr(given.data, key) != value}
    run |= {"data.path": str(root / "tiles"), "tracking.name": name}
    if name == CONDITIONAL:
        folder = root / "conditional_tiles"
        run |= {"data.path": str(folder / "images"), "data.masks": str(folder / "masks"), "data.condition": GIVEN}
        if "pyramid.min_size" not in shared:
            run["pyramid.min_size"] = max(given.pyramid.min_size, tile // COARSEST)
    kept = {key: value for key, value in shared.items() if not key.startswith("data.") and key != "tracking.name"}
    return plan_sweep(config_file, base, kept, [run], str(root))


def pyramid_of(sweep: Sweep, study: Study) -> Pyramid:
    """Returns the scales of the SinGANs. Raises UserError where they would not end at a tile's size."""
    config = sweep.runs[0].config
    pyramid = make_pyramid(study.tile, study.tile, config.pyramid, str(config.method.resize_border))
    if pyramid.sizes[-1] != (study.tile, study.tile):
        raise UserError(
            f"the SinGANs end at {pyramid.sizes[-1][0]} pixels, the tiles have {study.tile}: set"
            f" --config.pyramid.max_size={study.tile}"
        )
    return pyramid


def workdir_of(sweep: Sweep) -> Path:
    """Returns the working directory of the one run."""
    return Path(sweep.runs[0].workdir)


def is_trained(sweep: Sweep) -> bool:
    """Returns whether the SinGANs are there."""
    return state.read_state(sweep, sweep.runs[0]).state == state.DONE


def train(sweep: Sweep, seconds: float) -> bool:
    """Trains what is not trained yet for about so long; returns whether all is. It goes on from its last checkpoint.

    Raises:
      UserError: the run is of other tiles, another process trains it, or it failed.
    """
    (run,) = sweep.runs
    workdir = Workdir(Path(run.workdir))
    if workdir.config.exists():
        wanted = {image.id: pixel_digest(image.pixels) for image in load_images(run.config.data)}
        if {row.id: row.digest for row in records.read_images(workdir)} != wanted:
            raise UserError(f"{workdir.path} was trained on other tiles than this study's: choose another --workdir")
    now = state.read_state(sweep, run)
    if now.state == state.DONE:
        return True
    if now.state == state.RUNNING:
        raise UserError(f"{run.workdir} is being trained ({now.note}): wait until it is done")
    # `start` passes SIGTERM on to the training, which stops with a checkpoint.
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM)) if np.isfinite(seconds) else None
    if timer:
        timer.start()
    before = _children()
    try:
        code = Local(sweep, 1, 1).start([run])
    finally:
        if timer:
            timer.cancel()
        files.write_json(_spent(sweep), {"cpu_seconds": cpu_seconds(sweep) + _children() - before})
    if code not in (DONE, RESUMABLE):
        raise UserError(f"the SinGANs are not trained: see {sweep.log(run)}")
    return code == DONE


def cpu_seconds(sweep: Sweep) -> float:
    """Returns what training the SinGANs took so far."""
    path = _spent(sweep)
    return float(files.read_json(path)["cpu_seconds"]) if path.is_file() else 0.0


def _spent(sweep: Sweep) -> Path:
    return Path(sweep.root) / f"{sweep.runs[0].name}_spent.json"


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
