"""Training a cohort coarse to fine: restore or start, chunks, log, checkpoint, freeze.

The order of the loop is law:
  1. a scale that is finished is read; one that has a whole checkpoint goes on from it; else it starts afresh
  2. chunk k + 1 is sent to the device, then chunk k's metrics are fetched and told, while k + 1 runs
  3. a checkpoint is due after a chunk: the metrics up to it are told first, then the state is saved
  4. the scale ends: reconstruction, weights saved, the observer draws its pictures, DONE is written last
"""

from collections.abc import Callable, Sequence

from jax.sharding import Mesh

from singan import workdir as records
from singan.config import Config
from singan.observer import Observer, Repair
from singan.pyramid import Pyramid
from singan.scale_run import Diverged, ScaleRun, TrainingImage
from singan.spec import make_spec
from singan.trained import FinishedScale, read_finished
from singan.workdir import Workdir


def train(
    config: Config,
    images: Sequence[TrainingImage],
    pyramid: Pyramid,
    workdir: Workdir,
    observer: Observer,
    mesh: Mesh,
    form: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[FinishedScale, ...]:
    """Trains or goes on training all scales of all images; returns the finished scales, coarsest first.

    Args:
      images: of one shape; ids are unique. Order does not matter to any image's training.
      form: of the convolution (convolution.form_for(platform)).
      should_stop: asked after every chunk.

    Raises:
      Diverged: no image is left.
      Stopped: should_stop said so; the state is saved.
      UserError: files cannot be written or read.
    """
    first = make_spec(config, pyramid, images[0].pixels.shape[-1], form)
    by_id = {image.id: image for image in images}
    steps = config.train.steps_per_scale
    last = max((s for s in range(len(pyramid)) if workdir.checkpoints(s).is_dir()), default=0)
    finished: list[FinishedScale] = []
    for scale in range(len(pyramid)):
        spec = first.at(scale)
        ids = finished[-1].surviving if finished else tuple(by_id)
        below = finished[-1].fingerprint if finished else ""
        done = read_finished(spec, workdir, below, observer.warn)
        repairing = scale < last
        if done is None:
            if repairing:
                observer.warn(f"scale {scale} has no whole weights, though later scales are there: it is trained again")
            told = Repair(observer) if repairing else observer
            run = ScaleRun(config, spec, [by_id[name] for name in ids], finished, workdir, told, mesh)
            done = run.train(should_stop)
            if repairing and read_finished(first.at(scale + 1), workdir, done.fingerprint, observer.warn) is None:
                last = scale  # what follows was trained on other weights, or is in progress: it is told of again
        elif scale == last:
            observer.restored((scale + 1) * steps)
        finished.append(done)
        if records.read_done(workdir, scale) != done.digests:
            if not repairing:
                levels = {name: pyramid.level(by_id[name].pixels, scale) for name in ids}
                observer.scale_finished(spec, finished, levels)
            records.write_done(workdir, scale, done.digests, done.diverged)
        if not done.surviving:
            raise Diverged(f"every image has diverged by scale {scale}: lower the learning rates or check the images")
    return tuple(finished)
