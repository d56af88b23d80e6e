"""Trains one cohort for launch.train: claims its workdir, trains, reports, and returns an exit code."""

import contextlib
import sys

import jax
import numpy as np
from jax.sharding import Mesh

from launch.cli import DONE, FAILED, INTERRUPTED, RESUMABLE
from launch.multihost.peers import Peers, is_of_another
from launch.report.page import try_write_report
from launch.runtime import StopRequest
from launch.tracking.sent import Sent
from launch.tracking.writer import open_writer
from launch.train.cohorts import Cohort
from launch.train.convolution_choice import conv_impl_of_run
from launch.train.progress import Follower, Progress
from launch.train.trace import ProfilingObserver, profiled
from singan import links
from singan.config import Config, to_mapping
from singan.errors import UserError
from singan.model.condition import make_pool
from singan.model.convolution import conv_impl_for
from singan.model.spec import make_spec
from singan.parallel.processes import Processes, ProcessGroup, make_process_group
from singan.source_image import SourceImage
from singan.storage.finished_scale import all_whole, image_padding
from singan.storage.run_record import RunRecord, claim_workdir
from singan.storage.workdir import Workdir
from singan.storage.workdir_lock.lock import WorkdirLock
from singan.text import print_warning
from singan.training import trainer
from singan.training.scale_run import Diverged, Stopped, TrainingImage


def train_cohort(
    config: Config, cohort: Cohort, mesh: Mesh, stop: StopRequest, processes: Processes, peers: Peers | None
) -> int:
    """Trains a cohort, or goes on with it, and returns the exit code. All processes call it."""
    if any(processes.all_gather(stop())):
        if processes.first:
            print(f"stopped before {cohort.workdir.path}; the same command goes on", file=sys.stderr)
        return RESUMABLE
    workdir, scales = cohort.workdir, len(cohort.pyramid)
    with contextlib.ExitStack() as stack:
        lock = WorkdirLock(workdir.path)
        processes.run_on_first(lambda: stack.enter_context(lock))
        processes.run_on_first(lambda: links.check_workdir(workdir.path))
        record = claim_workdir(workdir, config, cohort.images, mesh, processes, cohort.rows)
        process_group = make_process_group(processes, mesh, cohort.by_process)
        if processes.broadcast(record.is_finished(workdir, scales)) and _is_whole(
            config, cohort, process_group, record
        ):
            print(f"the run in {workdir.path} is finished\n{_where(config, workdir, scales)}")
            return DONE
        if peers is not None and processes.first:
            peers.at_end(
                lambda code: record.update(workdir, status="stopped" if code in (RESUMABLE, INTERRUPTED) else "failed"),
                lambda _: lock.__exit__(None, None, None),
            )
        code = _train(config, cohort, process_group, record, stop)
        if peers is not None:
            peers.at_end()
        processes.barrier()  # the lock is held until no process is at work any more
    if code == DONE:
        print(f"done\n{_where(config, workdir, scales)}")
    return code


def _is_whole(config: Config, cohort: Cohort, process_group: ProcessGroup, record: RunRecord) -> bool:
    """Returns whether a finished run's weights are whole; all processes read them together."""
    conv_impl = conv_impl_for(process_group.mesh.devices.flat[0].platform)
    first = make_spec(config, cohort.pyramid, cohort.generated, conv_impl, condition=cohort.given)
    warn = print_warning if process_group.processes.first else lambda _: None
    return all_whole(first, cohort.workdir, record.origin, warn, process_group)


def _train(config: Config, cohort: Cohort, process_group: ProcessGroup, record: RunRecord, stop: StopRequest) -> int:
    workdir, images = cohort.workdir, cohort.images
    padding = {image.id: image_padding(config, image.value_map)[: cohort.generated] for image in images}
    layouts = {image.id: pool for image in images if (pool := _layouts(config, cohort, image)) is not None}
    observer: Progress | Follower | ProfilingObserver = Follower(config, process_group, padding, layouts)
    if process_group.processes.first:
        observer = Progress(
            config,
            workdir,
            process_group,
            cohort.channels,
            padding,
            layouts,
            lambda step: open_writer(config.tracking, workdir.path, record.id, to_mapping(config), step),
        )
    own = [
        TrainingImage(image.id, image.pixels[..., : cohort.generated], padding[image.id], layouts.get(image.id))
        for image in images
    ]
    code, status = FAILED, "failed"
    try:
        observer = profiled(observer, workdir.path, process_group.processes.first)
        conv_impl = conv_impl_of_run(record, config, cohort, process_group.mesh)
        scales = trainer.train(
            config,
            own,
            cohort.pyramid,
            workdir,
            observer,
            process_group.mesh,
            conv_impl,
            stop,
            process_group,
            record.origin,
        )
        code, status = DONE, "finished"
        lost = {n: f"scale {i}, step {at}" for i, s in enumerate(scales) for n, at in s.diverged.items()}
        record.update(workdir, diverged=lost)
    except Stopped as stopped:
        code, status = RESUMABLE, "stopped"
        if process_group.processes.first or stop():
            who = _who_stopped(process_group.processes, stop)
            print(f"{who}: {stopped}; the same command resumes", file=sys.stderr)
        else:
            _who_stopped(process_group.processes, stop)
    except Diverged as diverged:
        status = "diverged"
        if process_group.processes.first:
            print(f"error: {diverged}", file=sys.stderr)
    except jax.errors.JaxRuntimeError as error:
        status = "stopped" if process_group.processes.count > 1 and is_of_another(error) else status
        raise
    finally:
        # Neither may hide what ended the training, such as a full disk.
        with contextlib.suppress(UserError) if code == FAILED else contextlib.nullcontext():
            observer.close(code)
        with contextlib.suppress(UserError) if code == FAILED else contextlib.nullcontext():
            record.update(workdir, status=status)
        if process_group.processes.first:
            try_write_report(workdir.path, observer.warn)
    return code


def _layouts(config: Config, cohort: Cohort, image: SourceImage) -> np.ndarray | None:
    """Returns the layouts that the training of an image draws from, where it is conditional."""
    if image.layout is None:
        return None
    words, classes = config.data.condition, cohort.rows[0].condition_classes
    return make_pool(image.layout, words, classes, cohort.pyramid, config.seed, image.id, config.data.layouts)


def _who_stopped(processes: Processes, stop: StopRequest) -> str:
    """Returns the signal that ended the training, and whom it reached where there are several processes."""
    if processes.count == 1:
        return stop.signal_name
    names = processes.all_gather(stop.signal_name)
    return ", ".join(f"{name} on {processes.name(index)}" for index, name in enumerate(names) if name)


def _where(config: Config, workdir: Workdir, scales: int) -> str:
    wandb = workdir.path / "wandb"
    lines = [
        f"  samples   {workdir.scale_samples(scales - 1) / 'grid.png'} (finest scale; each scale has one)",
        f"  report    {workdir.path / 'report.html'}",
        f"  metrics   {workdir.metrics}",
    ]
    if wandb.is_dir():
        sent = Sent.of(config.tracking).said()
        lines.append(f"  wandb     {wandb} (look at it: wandb leet {wandb}; upload it: wandb sync {wandb})")
        lines.append(f"            an upload sends {sent}")
    lines.append(f"  more      python -m launch.sample --workdir={workdir.path} --out=samples --start_scales=0,1")
    return "\n".join(lines)
