"""Tracing a few steady chunks of each scale while it trains (launch.train --profile)."""

from pathlib import Path
from typing import Any

import jax

from launch import command_flags as flags
from singan.errors import UserError
from singan.files import AnyPath
from singan.parallel import trace
from singan.training.observer import ChunkResult, ScaleStart

PROFILE = flags.DEFINE_boolean("profile", False, "Trace a few chunks of each scale into WORKDIR/profile, and print.")

BEFORE, DURING = 2, 2  # chunks of a scale that pass before its trace, and that are traced


def check(workdir: AnyPath) -> None:
    """Raises UserError where --profile is asked for and the workdir is no folder of this machine: traces need one."""
    if PROFILE.value and not isinstance(workdir, Path):
        raise UserError(
            f"--profile writes into a folder of this machine, and {workdir} is none: give another --workdir"
        )


def profiled(observer: Any, workdir: AnyPath, first: bool) -> Any:
    """Returns the observer, or where --profile asks for it (of the first process) one that also takes traces."""
    return ProfilingObserver(observer, Path(workdir) / "profile") if PROFILE.value and first else observer


class ProfilingObserver:
    """The observer it is given, and a trace of each scale in `directory`/<scale>, told of when it is taken.

    Chunk k is told of while chunk k + 1 runs: what is traced are whole chunks, and nothing of compiling. A scale of
    fewer chunks is traced from its start.
    """

    def __init__(self, observer: Any, directory: Path):
        self._observer, self._directory = observer, directory
        self._from, self._to, self._chunks_done, self._tracing = 0, 0, 0, False

        self.restored, self.warn = observer.restored, observer.warn
        self.checkpointing, self.scale_finished = observer.checkpointing, observer.scale_finished

    def scale_started(self, start: ScaleStart) -> None:
        self._observer.scale_started(start)
        train = start.spec.train
        chunks = -(-(start.spec.steps - start.step) // train.chunk)
        self._from = max(0, min(BEFORE, chunks - DURING))
        self._to, self._chunks_done = min(self._from + DURING, chunks), 0
        self._step(start.spec.scale)

    def chunk_done(self, result: ChunkResult) -> None:
        self._observer.chunk_done(result)
        self._chunks_done += 1
        self._step(result.spec.scale)

    def close(self, *arguments: Any) -> None:
        """Closes the observer, after a trace that is still taken where training has ended otherwise."""
        self._end()
        self._observer.close(*arguments)

    def _end(self) -> None:
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False

    def _step(self, scale: int) -> None:
        directory = self._directory / f"{scale:02d}"
        if self._chunks_done == self._from < self._to and not self._tracing:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # the device's operations are asked for, not Python's calls
            jax.profiler.start_trace(directory, profiler_options=options)
            self._tracing = True
        elif self._chunks_done == self._to and self._tracing:
            self._end()
            rows = trace.operations(directory)
            chunks = self._to - self._from
            head = f"scale {scale}: the longest operations of about {chunks} chunks (trace: {directory})"
            print(f"{head}\n{trace.table(rows)}", flush=True)
