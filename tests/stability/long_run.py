"""Ten thousand steps of a tiny cohort through the real trainer and writers: does memory or speed drift?

python -m tests.stability.long_run [--steps=10000] [--first=1000] [--workdir=DIR]

Prints the host's resident memory, the bytes of live arrays and the milliseconds per step after --first and after
--steps, and exits with 1 where memory has grown by 2 % or more in between.
"""

import dataclasses
import gc
import os
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import psutil
from absl import app, flags, logging

from launch import runtime
from launch.images.find import load_images
from launch.tracking.writer import open_writer
from singan import files
from singan.config import parse, to_mapping
from singan.model.convolution import conv_impl_for
from singan.model.pyramid import make_pyramid
from singan.parallel.processes import Processes, make_process_group
from singan.storage.finished_scale import image_padding
from singan.storage.run_record import claim_workdir
from singan.storage.workdir import Workdir
from singan.training import trainer
from singan.training.observer import ChunkResult
from singan.training.scale_run import Stopped, TrainingImage

LARGEST_GROWTH = 0.02
CHUNK = 100


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the process holds at a step: bytes of resident host memory, of live arrays, their number, and speed."""

    step: int
    host: int
    device: int
    arrays: int
    milliseconds: float  # per step, median of the ten chunks before


class Watched(Progress):
    """The observer of launch.train, which also reads the process's memory after chosen steps."""

    def __init__(self, *arguments, at: tuple[int, ...]):
        super().__init__(*arguments)
        self.readings: list[Reading] = []
        self.every: list[tuple[int, int]] = []
        self._at, self._times = at, []

    def chunk_done(self, result: ChunkResult) -> None:
        super().chunk_done(result)
        self._times.append(result.seconds / result.steps * 1000)
        self.every.append((result.step, resident()))
        if result.step in self._at:
            gc.collect()
            live = jax.live_arrays()
            size = sum(array.nbytes for array in live)
            self.readings.append(Reading(result.step, resident(), size, len(live), float(np.median(self._times[-10:]))))


def resident() -> int:
    return psutil.Process(os.getpid()).memory_info().rss


def measure(workdir: Path, first: int, steps: int, wandb: str = "offline") -> Watched:
    """Trains scale 0 of two images for `steps` steps; returns its observer, with readings at `first` and `steps`."""
    config = parse(
        {
            "data": {"num_crops": 2, "crop_size": 16},
            "pyramid": {"min_size": 12, "max_size": 16},
            "network": {"width": 4},
            "train": {"steps_per_scale": steps + CHUNK, "chunk": CHUNK, "checkpoint_every": 1000},
            "tracking": {"wandb": wandb},
        }
    )
    images = load_images(config.data)
    mesh = runtime.start_jax(1)
    pyramid = make_pyramid(16, 16, config.pyramid, str(config.method.resize_border))
    directory = Workdir(files.make_directory(workdir))
    record = claim_workdir(directory, config, images, mesh)
    padding = {image.id: image_padding(config, image.value_map) for image in images}

    def writer(step: int | None):
        return open_writer(config.tracking, workdir, record.id, to_mapping(config), step)

    process_group = make_process_group(Processes(), mesh, [[image.id for image in images]])
    report = Watched(config, directory, process_group, images[0].channels, padding, writer, at=(first, steps))
    cohort = [TrainingImage(image.id, image.pixels, padding[image.id]) for image in images]
    try:
        form = conv_impl_for(mesh.devices.flat[0].platform)
        # Asked after a chunk has been sent: the one that is then told of is the one before it.
        trainer.train(config, cohort, pyramid, directory, report, mesh, form, lambda: len(report.readings) == 2)
    except Stopped:
        pass
    finally:
        report.close(0)
    return report


def growth(before: float, after: float) -> float:
    return after / before - 1


def main(argv: list[str]) -> int:
    del argv
    logging.set_verbosity(logging.FATAL)  # as launch.cli does: Orbax tells its every step
    first, steps, started = FIRST.value, STEPS.value, time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        report = measure(Path(WORKDIR.value or temporary) / "run", first, steps, WANDB.value)
        rows = len((report._workdir.metrics).read_bytes().splitlines())
    print("step     host MiB   live arrays KiB   number   ms per step")
    for reading in report.readings:
        print(
            f"{reading.step:<8} {reading.host / 2**20:<10.1f} {reading.device / 2**10:<17.1f} {reading.arrays:<8}"
            f" {reading.milliseconds:.2f}"
        )
    print("host MiB every thousand steps: " + ", ".join(f"{h / 2**20:.1f}" for s, h in report.every if s % 1000 == 0))
    one, other = report.readings
    grown = {name: growth(getattr(one, name), getattr(other, name)) for name in ("host", "device", "milliseconds")}
    print("grown by " + ", ".join(f"{name} {100 * value:+.2f} %" for name, value in grown.items()), end="")
    print(f"; {rows} rows of metrics, {time.monotonic() - started:.0f} s")
    return int(grown["host"] >= LARGEST_GROWTH or grown["device"] >= LARGEST_GROWTH)


if __name__ == "__main__":
    STEPS = flags.DEFINE_integer("steps", 10_000, "Steps of scale 0.", lower_bound=2 * CHUNK)
    FIRST = flags.DEFINE_integer("first", 1_000, "When memory is read first.", lower_bound=CHUNK)
    WORKDIR = flags.DEFINE_string("workdir", "", "Where the run is kept; else it is thrown away.")
    WANDB = flags.DEFINE_enum("wandb", "offline", ("offline", "off"), "Whether the rows go to wandb too.")
    app.run(lambda argv: sys.exit(main(argv)))
