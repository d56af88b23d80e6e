"""Training from Python: `singan.train(images, workdir)` leaves a workdir that every command reads."""

import _thread
import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from singan import files, links
from singan.api import TrainedRun, load_run
from singan.config import Config, flatten, parse, with_overrides
from singan.errors import UserError
from singan.model.convolution import conv_impl_for
from singan.model.pyramid import pyramid_of
from singan.model.spec import make_spec
from singan.parallel.cohort import training_mesh
from singan.source_image import SourceImage, default_channels
from singan.storage.finished_scale import image_padding
from singan.storage.json_lines import JsonLines
from singan.storage.run_record import claim_workdir
from singan.storage.workdir import Workdir
from singan.storage.workdir_lock.lock import WorkdirLock
from singan.text import print_warning
from singan.training import trainer
from singan.training.chunk_rows import chunk_row
from singan.training.observer import ChunkResult, Silent
from singan.training.scale_run import Diverged, TrainingImage
from singan.value_map import fit

IMAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclasses.dataclass(frozen=True)
class Progress:
    """What is known after a chunk of steps."""

    scale: int  # that trains; 0 is the coarsest
    scales: int
    step: int  # of this scale's steps
    steps: int
    metrics: Mapping[str, float]  # means over images, by the names of metrics.jsonl


def train(
    images: Mapping[str, np.ndarray] | Sequence[np.ndarray],
    workdir: str | os.PathLike,
    config: Config | Mapping[str, Any] | Any = None,
    progress: Callable[[Progress], Any] | None = None,
) -> TrainedRun:
    """Trains a SinGAN for each image, or goes on with what the workdir holds of it, and returns the run.

    The workdir is what `launch.train` leaves, but for the pictures, the report and wandb: `launch.report` draws the
    report. An interrupted call (KeyboardInterrupt, a killed process) goes on when it is made again.

    Args:
      images: of one shape, [H, W] or [H, W, C] in their own values, of a boolean, integer or float type, finite; by id
        (letters, digits, '_' and '-'), or a list, whose ids are image_0000 and so on. data.value_range, data.background
        and data.channels say how they are read, as of files.
      workdir: a folder, or a bucket's gs:// address.
      config: keys that differ from the defaults: nested, or with dots as in {"train.steps_per_scale": 300}; or a
        Config, or the ConfigDict of launch.configs.default_config().
      progress: called after each chunk. What it raises ends the training, which can go on later.

    Raises:
      UserError: a key or an image is wrong, the workdir holds another run or is in use, or a disk is full.
      Diverged: no image is left; the learning rates are too high.
    """
    given: Any = config.to_dict() if hasattr(config, "to_dict") else config or {}  # pyright: ignore
    parsed = given if isinstance(given, Config) else parse(with_overrides({}, flatten(given)))
    sources = [_source_image(image_id, pixels, parsed) for image_id, pixels in _by_id(images).items()]
    shape = sources[0].pixels.shape
    pyramid = pyramid_of(shape, parsed)
    first = make_spec(parsed, pyramid, shape[2], "direct", len(pyramid) - 1)
    mesh = training_mesh(len(sources), first.width, print_warning)
    place = Workdir(files.absolute(files.make_directory(workdir)))
    # A lock that another process has taken must not be written under; a notebook's kernel is not to be ended for it.
    with WorkdirLock(place.path, end=lambda code: _thread.interrupt_main()):
        links.check_workdir(place.path)
        record = claim_workdir(place, parsed, sources, mesh)
        padding = {image.id: image_padding(parsed, image.value_map) for image in sources}
        own = [TrainingImage(image.id, image.pixels, padding[image.id]) for image in sources]
        observer = _Recorder(parsed, place, len(pyramid), progress)
        status = "stopped"
        try:
            device = mesh.devices.flat[0]
            form = {"form": conv_impl_for(device.platform), "why": "the platform's"}
            conv_impl = record.conv_impl(place, device, lambda: form)
            scales = trainer.train(
                parsed, own, pyramid, place, observer, mesh, conv_impl, lambda: False, None, record.origin
            )
            status = "finished"
            lost = {n: f"scale {i}, step {at}" for i, s in enumerate(scales) for n, at in s.diverged.items()}
            record.update(place, diverged=lost)
        except Diverged:
            status = "diverged"
            raise
        finally:
            with contextlib.suppress(UserError) if status != "finished" else contextlib.nullcontext():
                observer.close()
                record.update(place, status=status)
    return load_run(place.path)


def _by_id(images: Mapping[str, np.ndarray] | Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    named = images if isinstance(images, Mapping) else {f"image_{i:04d}": image for i, image in enumerate(images)}
    if not named:
        raise UserError("no images are given")
    for name in named:
        if not IMAGE_ID.fullmatch(name):
            raise UserError(f"{name!r} is no id of an image: give up to 80 letters, digits, '_' and '-'")
    if len({name.casefold() for name in named}) < len(named):
        raise UserError("ids of images must differ in more than upper and lower case")
    arrays = {name: np.asarray(pixels) for name, pixels in sorted(named.items())}
    arrays = {name: array[..., None] if array.ndim == 2 else array for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.ndim != 3 or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise UserError(f"{name}: give finite numbers, [H, W] or [H, W, C], not {array.dtype} {list(array.shape)}")
    if len(shapes := {array.shape for array in arrays.values()}) > 1:
        raise UserError(
            f"images of one shape train together, not {', '.join(map(str, sorted(shapes)))}: crop them alike"
        )
    return arrays


def _source_image(image_id: str, pixels: np.ndarray, config: Config) -> SourceImage:
    channels = config.data.channels or default_channels(pixels.shape[-1], pixels.dtype)
    if len(channels) != pixels.shape[-1]:
        raise UserError(f"{image_id} has {pixels.shape[-1]} channels, but data.channels names {len(channels)}")
    try:
        value_map = fit(pixels, config.data.value_range, config.data.background)
    except UserError as error:
        raise UserError(f"{image_id}: {error}") from error
    return SourceImage(image_id, value_map.apply(pixels), channels, value_map, "array")


class _Recorder(Silent):
    """Writes metrics.jsonl, and tells the caller."""

    def __init__(self, config: Config, workdir: Workdir, scales: int, progress: Callable[[Progress], Any] | None):
        self._config, self._scales, self._progress = config, scales, progress
        self._lines = JsonLines(workdir.metrics)

    def restored(self, global_step: int | None) -> None:
        self._lines.trim_after(-1 if global_step is None else global_step)

    def chunk_done(self, result: ChunkResult) -> None:
        row = chunk_row(self._config, result)
        self._lines.scalars(row)
        if self._progress is not None:
            metrics = {key: value for key, value in row.items() if "/" in key}
            steps = result.spec.steps
            self._progress(Progress(result.spec.scale, self._scales, result.step, steps, metrics))

    def checkpointing(self) -> None:
        self._lines.sync()

    def warn(self, text: str) -> None:
        print_warning(text)

    def close(self) -> None:
        self._lines.close()
