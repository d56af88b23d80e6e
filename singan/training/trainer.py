"""Training a cohort coarse to fine: restore or start, chunks, log, checkpoint, freeze.

The order of the loop is law:
  1. a scale that is finished is read; one that has a whole checkpoint goes on from it; else it starts afresh
  2. chunk k + 1 is sent to the device, then chunk k's metrics are fetched and told, while k + 1 runs
  3. a checkpoint is due after a chunk: the metrics up to it are told first, then the state is saved
  4. the scale ends: reconstruction, weights saved, the observer draws its pictures, DONE is written last
Several processes do all of this in step: what is read from disk to decide on is read by one, or gathered.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jax.sharding import Mesh

from singan.config import Config
from singan.model.condition import condition_level, in_unit_range
from singan.model.pyramid import Pyramid
from singan.model.spec import make_spec
from singan.parallel.processes import Processes, ProcessGroup, make_process_group
from singan.storage import workdir as records
from singan.storage.finished_scale import FinishedScale, read_finished
from singan.storage.origin import Origin, origin_of_pixels
from singan.storage.workdir import Workdir
from singan.training.observer import Observer, Repair
from singan.training.scale_programs import Compiler
from singan.training.scale_run import Diverged, ScaleRun, TrainingImage


def train(
    config: Config,
    images: Sequence[TrainingImage],
    pyramid: Pyramid,
    workdir: Workdir,
    observer: Observer,
    mesh: Mesh,
    conv_impl: str,
    should_stop: Callable[[], bool] = lambda: False,
    process_group: ProcessGroup | None = None,
    origin: Origin | None = None,
) -> tuple[FinishedScale, ...]:
    """Trains or goes on training all scales of all images; returns the finished scales, coarsest first.

    Args:
      images: of one shape; ids are unique. Order does not matter to any image's training. Of several processes, each
        gives its own, which may be none.
      conv_impl: how the convolution is computed (convolution.conv_impl_for(platform)).
      should_stop: asked after every chunk.
      process_group: where several processes train; `images` are then those of assignment.own, in their order.
      origin: which the checkpoints say that they are of; None: that of these pixels, whose source values are not known.

    Raises:
      Diverged: no image is left.
      Stopped: should_stop said so; the state is saved.
      UserError: files cannot be written or read.
    """
    process_group = process_group or make_process_group(Processes(), mesh, [[image.id for image in images]])
    origin = origin or _origin(config, images, process_group.processes)
    training = _Training(config, images, pyramid, workdir, observer, conv_impl, should_stop, process_group, origin)
    finished: list[FinishedScale] = []
    with Compiler(config, process_group.own_mesh.devices.flat[0]) as compiler:
        for scale in range(len(pyramid)):
            here = process_group.of(finished[-1].surviving) if finished else process_group
            repairing = scale < training.last
            done = training.read(scale, finished, here)
            if done is None:
                done = training.train_scale(scale, finished, here, compiler, repairing)
            elif scale == training.last:
                observer.restored(training.spec.at(scale + 1).steps_before)
            finished.append(done)
            training.mark_done(scale, finished, here, draw=not repairing)
            if not done.surviving:
                raise Diverged(
                    f"every image has diverged by scale {scale}: lower the learning rates or check the images"
                )
    return tuple(finished)


class _Training:
    """What all scales of a training share, and what is done with each of them."""

    def __init__(
        self,
        config: Config,
        images: Sequence[TrainingImage],
        pyramid: Pyramid,
        workdir: Workdir,
        observer: Observer,
        conv_impl: str,
        should_stop: Callable[[], bool],
        process_group: ProcessGroup,
        origin: Origin,
    ):
        self.config, self.pyramid, self.workdir, self.observer, self.origin = config, pyramid, workdir, observer, origin
        self.should_stop, self.processes = should_stop, process_group.processes
        self.images = {image.id: image for image in images}
        channels = max(self.processes.all_gather(images[0].pixels.shape[-1] if images else 0))
        pools = [image.layouts for image in images if image.layouts is not None]
        condition = max(self.processes.all_gather(pools[0].shape[-1] if pools else 0))
        self.spec = make_spec(config, pyramid, channels, conv_impl, condition=condition)
        # The last scale that was begun: one below it that is trained again is repaired.
        begun = (scale for scale in range(len(pyramid)) if workdir.checkpoints(scale).is_dir())
        self.last = self.processes.broadcast(max(begun, default=0))

    def read(self, scale: int, finished: Sequence[FinishedScale], here: ProcessGroup) -> FinishedScale | None:
        """Returns the scale as it lies on disk, or None where it is not finished, damaged, or of other scales below."""
        parent_fingerprint = finished[-1].fingerprint if finished else ""
        return read_finished(
            self.spec.at(scale), self.workdir, self.origin, parent_fingerprint, self.observer.warn, here, training=True
        )

    def train_scale(
        self,
        scale: int,
        finished: Sequence[FinishedScale],
        here: ProcessGroup,
        compiler: Compiler,
        repairing: bool,
    ) -> FinishedScale:
        """Trains a scale, or goes on with it; the observer hears only warnings of a scale that is repaired."""
        observer = self.observer
        if repairing:
            observer.warn(f"scale {scale} has no whole weights, though later scales are there: it is trained again")
            observer = Repair(observer)
        own = [self.images[name] for name in here.assignment.own]
        programs = compiler.programs(self.spec.at(scale), here)
        # What lies on disk above may be whole, and then is not trained.
        above = self.spec.at(scale + 1) if self.last <= scale < len(self.pyramid) - 1 else None
        run = ScaleRun(self.config, programs, own, finished, self.workdir, observer, here, self.origin)
        done = run.train(self.should_stop, functools.partial(compiler.go_on, programs, above, here))
        if repairing and self.read(scale + 1, [*finished, done], here.of(done.surviving)) is None:
            self.last = scale  # what follows was trained on other weights, or is in progress: it is told of again
        return done

    def level(self, name: str, scale: int) -> np.ndarray:
        """Returns a training image at a scale, float32 [h, w, C], with what a conditional pyramid is given behind."""
        image = self.images[name]
        level = self.pyramid.level(image.pixels, scale)
        if image.layouts is None:
            return level
        given = in_unit_range(condition_level(self.pyramid, scale, image.layouts[0]))
        return np.concatenate([level, np.asarray(given)], axis=-1)

    def mark_done(self, scale: int, finished: Sequence[FinishedScale], here: ProcessGroup, draw: bool) -> None:
        """Writes DONE of a finished scale where it is not there yet, once the observer has drawn its pictures."""
        done, workdir = finished[-1], self.workdir
        is_marked = self.processes.broadcast(records.read_done(workdir, scale) == done.digests)
        if draw and not is_marked:
            levels = {name: self.level(name, scale) for name in here.assignment.own}
            self.observer.scale_finished(self.spec.at(scale), finished, levels)
        if is_marked and self.processes.broadcast(records.read_trained_from(workdir, scale) == self.origin.digest):
            return
        mark = functools.partial(records.write_done, workdir, scale, done.digests, done.diverged, self.origin.digest)
        self.processes.run_on_first(mark)


def _origin(config: Config, images: Sequence[TrainingImage], processes: Processes) -> Origin:
    parts = processes.all_gather({image.id: records.pixel_digest(image.pixels) for image in images})
    return origin_of_pixels(config, {name: digest for part in parts for name, digest in part.items()})
