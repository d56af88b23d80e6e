"""Trains a SinGAN for each image of a cohort, all at once; started again with the same --workdir, it resumes.

python -m launch.train --config=experiments/quickstart/config.py --workdir=runs/quickstart
"""

import contextlib
import sys

from absl import flags

from launch import cli, runtime
from launch.configs import load_config
from launch.lock import WorkdirLock
from launch.records import claim_workdir
from launch.report.page import try_write_report
from launch.reporting import Report
from launch.sources import SourceImage, group_by_shape, load_images
from launch.tracking import open_writer
from singan import files, trainer
from singan.config import Config, to_mapping
from singan.convolution import form_for
from singan.errors import UserError
from singan.pyramid import Pyramid, plan
from singan.scale_run import Diverged, Stopped, TrainingImage
from singan.trained import image_padding
from singan.workdir import Workdir

CONFIG = cli.config_flag()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "give --workdir=DIR, where the run is kept and resumed from.", required=True
)
PLAN = flags.DEFINE_boolean("plan", False, "Print the scales that would be trained, and train nothing.")

DONE, FAILED, RESUMABLE = 0, 1, 75


def main(argv: list[str]) -> int:
    del argv
    config = load_config(CONFIG.value)
    images = load_images(config.data)
    root = files.as_path(WORKDIR.value)
    if not config.data.group_by_shape:
        cohorts = {root: images}
    else:
        cohorts = {root / shape: group for shape, group in group_by_shape(images).items()}
    # Planned before anything is written, so that an image that is too small leaves no run behind.
    plans = {path: _plan(config, group) for path, group in cohorts.items()}
    if PLAN.value:
        for path, group in cohorts.items():
            print(_describe(config, plans[path], group))
        return DONE
    mesh = runtime.start_jax(max(len(group) for group in cohorts.values()))
    stop = runtime.StopRequest()
    codes = [_train_cohort(config, group, plans[path], Workdir(path), mesh, stop) for path, group in cohorts.items()]
    return RESUMABLE if RESUMABLE in codes else max(codes)


def _train_cohort(
    config: Config, images: list[SourceImage], pyramid: Pyramid, workdir: Workdir, mesh, stop: runtime.StopRequest
) -> int:
    if stop():
        return RESUMABLE
    with WorkdirLock(workdir.path):
        record = claim_workdir(workdir, config, images, mesh)
        if record.is_finished(workdir, len(pyramid)):
            print(f"the run in {workdir.path} is finished\n{_where(workdir, len(pyramid))}")
            return DONE
        padding = {image.id: image_padding(config, image.value_map) for image in images}
        report = Report(
            config,
            workdir,
            mesh,
            images[0].channels,
            padding,
            lambda step: open_writer(config.tracking, workdir.path, record.id, to_mapping(config), step),
        )
        cohort = [TrainingImage(image.id, image.pixels, padding[image.id]) for image in images]
        form = form_for(mesh.devices.flat[0].platform)
        code, status = FAILED, "failed"
        try:
            scales = trainer.train(config, cohort, pyramid, workdir, report, mesh, form, stop)
            code, status = DONE, "finished"
            lost = {n: f"scale {i}, step {at}" for i, s in enumerate(scales) for n, at in s.diverged.items()}
            record.update(workdir, diverged=lost)
        except Stopped as stopped:
            code, status = RESUMABLE, "stopped"
            print(f"{stop.signal_name}: {stopped}; the same command resumes", file=sys.stderr)
        except Diverged as diverged:
            status = "diverged"
            print(f"error: {diverged}", file=sys.stderr)
        finally:
            # Neither may hide what ended the training, such as a full disk.
            with contextlib.suppress(UserError) if code == FAILED else contextlib.nullcontext():
                report.close(code)
            with contextlib.suppress(UserError) if code == FAILED else contextlib.nullcontext():
                record.update(workdir, status=status)
            try_write_report(workdir.path, report.warn)
    if code == DONE:
        print(f"done\n{_where(workdir, len(pyramid))}")
    return code


def _plan(config: Config, images: list[SourceImage]) -> Pyramid:
    height, width = images[0].pixels.shape[:2]
    return plan(height, width, config.pyramid, str(config.method.resize_border))


def _describe(config: Config, pyramid: Pyramid, images: list[SourceImage]) -> str:
    sizes = " ".join(f"{h}x{w}" for h, w in pyramid.sizes)
    channels = ", ".join(images[0].channels)
    steps = config.train.steps_per_scale
    return f"{len(images)} images, channels {channels}; {len(pyramid)} scales of {steps} steps: {sizes}"


def _where(workdir: Workdir, scales: int) -> str:
    wandb = workdir.path / "wandb"
    lines = [
        f"  samples   {workdir.scale_samples(scales - 1) / 'grid.png'} (finest scale; each scale has one)",
        f"  report    {workdir.path / 'report.html'}",
        f"  metrics   {workdir.metrics}",
    ]
    if wandb.is_dir():
        lines.append(f"  wandb     {wandb} (look at it: wandb leet {wandb}; upload it: wandb sync {wandb})")
    lines.append(f"  more      python -m launch.sample --workdir={workdir.path} --out=samples --start_scales=0,1")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
