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

from jax.sharding import Mesh

from singan.config import Config
from singan.model.pyramid import Pyramid
from singan.model.spec import ScaleSpec, make_spec
from singan.parallel.processes import Processes, ProcessGroup, make_process_group
from singan.storage import workdir as records
from singan.storage.finished_scale import FinishedScale, read_finished
from singan.storage.origin import Origin, origin_of
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
    form: str,
    should_stop: Callable[[], bool] = lambda: False,
    process_group: ProcessGroup | None = None,
) -> tuple[FinishedScale, ...]:
    """Trains or goes on training all scales of all images; returns the finished scales, coarsest first.

    Args:
      images: of one shape; ids are unique. Order does not matter to any image's training. Of several processes, each
        gives its own, which may be none.
      form: of the convolution (convolution.form_for(platform)).
      should_stop: asked after every chunk.
      team: where several processes train; `images` are then those of team.homes.own, in their order.

    Raises:
      Diverged: no image is left.
      Stopped: should_stop said so; the state is saved.
      UserError: files cannot be written or read.
    """
    by_id = {image.id: image for image in images}
    process_group = process_group or make_process_group(Processes(), mesh, [list(by_id)])
    tell = process_group.processes
    channels = max(tell.all_gather(images[0].pixels.shape[-1] if images else 0))
    first = make_spec(config, pyramid, channels, form)
    steps = config.train.steps_per_scale
    origin = _origin(config, images, tell)
    last = tell.broadcast(max((s for s in range(len(pyramid)) if workdir.checkpoints(s).is_dir()), default=0))
    finished: list[FinishedScale] = []
    with Compiler(config, process_group.own_mesh.devices.flat[0]) as compiler:
        for scale in range(len(pyramid)):
            spec = first.at(scale)
            here = process_group.of(finished[-1].surviving) if finished else process_group
            below = finished[-1].fingerprint if finished else ""
            done = read_finished(spec, workdir, origin, below, observer.warn, here, training=True)
            repairing = scale < last
            if done is None:
                if repairing:
                    observer.warn(
                        f"scale {scale} has no whole weights, though later scales are there: it is trained again"
                    )
                told = Repair(observer) if repairing else observer
                own = [by_id[name] for name in here.assignment.own]
                programs = compiler.programs(spec, here)
                # What lies on disk above may be whole, and then is not trained.
                above = first.at(scale + 1) if last <= scale < len(pyramid) - 1 else None
                run = ScaleRun(config, programs, own, finished, workdir, told, here, origin)
                done = run.train(should_stop, functools.partial(compiler.go_on, programs, above, here))
                if repairing and not _is_whole_above(first.at(scale + 1), workdir, origin, done, observer, here):
                    last = scale  # what follows was trained on other weights, or is in progress: it is told of again
            elif scale == last:
                observer.restored((scale + 1) * steps)
            finished.append(done)
            is_marked = tell.broadcast(records.read_done(workdir, scale) == done.digests)
            if not is_marked and not repairing:
                levels = {name: pyramid.level(by_id[name].pixels, scale) for name in here.assignment.own}
                observer.scale_finished(spec, finished, levels)
            if not is_marked or tell.broadcast(records.read_trained_from(workdir, scale) != origin.digest):
                mark = functools.partial(records.write_done, workdir, scale, done.digests, done.diverged, origin.digest)
                tell.run_on_first(mark)
            if not done.surviving:
                raise Diverged(
                    f"every image has diverged by scale {scale}: lower the learning rates or check the images"
                )
    return tuple(finished)


def _origin(config: Config, images: Sequence[TrainingImage], processes: Processes) -> Origin:
    parts = processes.all_gather({image.id: records.pixel_digest(image.pixels) for image in images})
    return origin_of(config, {name: digest for part in parts for name, digest in part.items()})


def _is_whole_above(
    spec: ScaleSpec,
    workdir: Workdir,
    origin: Origin,
    done: FinishedScale,
    observer: Observer,
    process_group: ProcessGroup,
) -> bool:
    here = process_group.of(done.surviving)
    return read_finished(spec, workdir, origin, done.fingerprint, observer.warn, here, training=True) is not None
