"""What a person sees of a training: progress on the terminal, rows in metrics.jsonl and wandb, pictures per scale."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from launch.images import geometry
from launch.report.page import try_write_report
from launch.samples import pictures
from launch.tracking.sent import Sent
from launch.tracking.writer import Writer
from launch.train import scale_samples
from singan import files
from singan.config import Config
from singan.model.spec import ScaleSpec
from singan.parallel.processes import ProcessGroup
from singan.storage.finished_scale import FinishedScale
from singan.storage.workdir import Workdir, read_images
from singan.training.chunk_rows import chunk_row, step_row
from singan.training.observer import ChunkResult, ScaleStart, Silent

PLAIN_LINE_EVERY = 10.0  # seconds, when the output is not a terminal


class Progress:
    """The trainer's observer for a run of launch.train."""

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        process_group: ProcessGroup,
        channels: Sequence[str],
        padding: Mapping[str, np.ndarray],
        layouts: Mapping[str, np.ndarray],
        open_writer: Callable[[int | None], Writer],
    ):
        """Args:
        padding, layouts: of the images that this process trains (the latter of a conditional run alone).
        open_writer: given the restored global step, or None for a run that starts.
        """
        self._config, self._workdir, self._process_group = config, workdir, process_group
        self._channels, self._padding, self._layouts = channels, padding, layouts
        self._open_writer = open_writer
        self._writer: Writer | None = None
        self._last_step_written = -1  # the last global step with a row
        self._bar: tqdm | None = None
        self._line_at = 0.0
        self._start: ScaleStart | None = None
        self._chunk_clock: list[tuple[int, float]] = []

    def restored(self, global_step: int | None) -> None:
        step = -1 if global_step is None else global_step
        if self._writer is not None and self._last_step_written <= step:
            return
        if self._writer is not None:
            self._writer.close(0)
        self._writer, self._last_step_written = self._open_writer(global_step), step
        if global_step is not None:
            self._print(f"resuming after {global_step} steps")

    def scale_started(self, start: ScaleStart) -> None:
        self._start, self._chunk_clock = start, []
        height, width = start.spec.size
        memory = f"{max(start.memory.total / 2**20, 0.1):.{0 if start.memory.total > 2**23 else 1}f} MiB per device"
        ahead = f" ahead, waited for {start.compile_seconds:.1f} s" if start.ahead_seconds else ""
        self._print(
            f"scale {start.spec.scale} of {len(start.spec.pyramid) - 1}: {height}x{width} pixels, width"
            f" {start.spec.width}, {len(start.ids)} images on {self._devices()}, {start.group} at a time on"
            f" each, precision {self._config.train.precision}, {memory}, compiled in"
            f" {start.ahead_seconds or start.compile_seconds:.1f} s{ahead}"
        )
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=start.spec.steps,
                initial=start.step,
                desc=f"scale {start.spec.scale}/{len(start.spec.pyramid) - 1}",
                unit="step",
                leave=False,
            )
        self._line_at = time.monotonic()

    def chunk_done(self, result: ChunkResult) -> None:
        self._chunk_clock.append((result.steps, result.seconds))
        row = chunk_row(self._config, result)
        self._write(row)
        speed, rmse = row["image_steps_per_second"], row.get("generator/reconstruction_rmse")
        if self._bar is not None:
            self._bar.update(result.steps)
            self._bar.set_postfix_str(f"{speed:.1f} image-steps/s")
        elif time.monotonic() - self._line_at >= PLAIN_LINE_EVERY:
            self._line_at = time.monotonic()
            total = result.spec.steps
            left = (total - result.step) / row["steps_per_second"]
            text = f", reconstruction RMSE {rmse:.3f}" if rmse is not None else ""
            self._print(
                f"scale {result.spec.scale}, step {result.step}/{total}: {speed:.1f} image-steps/s{text},"
                f" {left:.0f} s left for this scale"
            )

    def checkpointing(self) -> None:
        if self._writer is not None:
            self._writer.sync()

    def scale_finished(
        self, spec: ScaleSpec, scales: Sequence[FinishedScale], images: Mapping[str, np.ndarray]
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        finished = scales[-1]
        end = scale_samples.measure_scale(
            self._config, spec, scales, images, self._padding, self._process_group, self._layouts
        )
        rows, quality = end.rows, end.quality
        for name, step in finished.diverged.items():
            self.warn(f"image {name} diverged at step {step} of scale {spec.scale}: it is left out from here on")
        row = step_row(spec, spec.steps)
        row |= {
            "end/reconstruction_rmse": [r["reconstruction_rmse"] for r in rows],
            "end/noise_amplitude": [r["noise_amplitude"] for r in rows],
        }
        if quality is not None:
            row |= {f"end/{metric}": [r[metric] for r in rows] for metric in scale_samples.METRICS}
            row["end/metrics_seconds"] = quality.seconds
        self._write(row)
        assert self._writer is not None
        self._writer.table(f"scale_{spec.scale:02d}", rows)
        if quality is not None:
            path = self._draw_grid(spec, end.pictures)
            self._writer.pictures(row, {"samples": path})
        self._writer.weights(spec.scale)
        if spec.scale == len(spec.pyramid) - 1:
            self._writer.summary(_final(row))
        speed = ""
        if self._chunk_clock:
            # The first chunk of a process may still warm up; it counts only where there is no other.
            counted = self._chunk_clock[1:] or self._chunk_clock
            rate = sum(s for s, _ in counted) / max(sum(t for _, t in counted), 1e-9) * len(finished.surviving)
            speed = f"; {rate:.1f} image-steps/s"
        mean = np.mean([r["reconstruction_rmse"] for r in rows])
        samples = scale_samples.in_words(quality)
        self._print(f"scale {spec.scale} done: reconstruction RMSE {mean:.3f}{samples}{speed}")
        try_write_report(self._workdir.path, self.warn)

    def warn(self, text: str) -> None:
        self._print(f"warning: {text}")

    def close(self, exit_code: int) -> None:
        """Ends the progress bar and the writer; nothing is told afterwards."""
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close(exit_code)

    def _write(self, row: dict) -> None:
        assert self._writer is not None
        self._writer.scalars(row)
        self._last_step_written = row["global_step"]

    def _draw_grid(self, spec: ScaleSpec, shown: Mapping[str, np.ndarray]):
        details = {record.id: record.details for record in read_images(self._workdir)}
        rows = []
        sent = Sent.of(self._config.tracking, list(details))
        for name, images in shown.items():
            turned = [geometry.upright(image, details[name]) for image in images]
            rows += pictures.image_rows(sent.image(name), turned, self._channels)
        columns = [
            "training image",
            "reconstruction",
            *(f"sample {i}" for i in range(self._config.tracking.num_samples)),
        ]
        directory = files.make_directory(self._workdir.scale_samples(spec.scale))
        path = directory / "grid.png"
        files.write_bytes(path, pictures.encode_png(pictures.grid(rows, columns)))
        return path

    def _devices(self) -> str:
        count, of = self._process_group.mesh.size, self._process_group.processes.count
        return f"{count} device(s)" + (f" of {of} processes" if of > 1 else "")

    def _print(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr) if self._bar is not None else print(text, file=sys.stderr, flush=True)


class Follower(Silent):
    """The observer in all processes but the first: it has its part in what Progress tells, and tells nothing."""

    def __init__(
        self,
        config: Config,
        process_group: ProcessGroup,
        padding: Mapping[str, np.ndarray],
        layouts: Mapping[str, np.ndarray],
    ):
        self._config, self._process_group, self._padding = config, process_group, padding
        self._layouts = layouts

    def scale_finished(
        self, spec: ScaleSpec, scales: Sequence[FinishedScale], images: Mapping[str, np.ndarray]
    ) -> None:
        scale_samples.measure_scale(
            self._config, spec, scales, images, self._padding, self._process_group, self._layouts
        )

    def close(self, exit_code: int) -> None: ...


def _final(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the means over images of what the finest scale ends with, under names that no pyramid changes.

    Its samples are from noise at every scale, as those of start scale 0 in launch.evaluate.
    """
    names = {f"end/{metric}": f"final/start_0/{metric}" for metric in scale_samples.METRICS}
    names["end/reconstruction_rmse"] = "final/reconstruction_rmse"
    known = {name: [v for v in row.get(key, ()) if v is not None] for key, name in names.items()}
    return {name: float(np.mean(values)) for name, values in known.items() if values}
