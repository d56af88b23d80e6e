"""One scale of one cohort: restore or start, fit the memory, run the chunks, save, finish."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from singan.config import Config
from singan.errors import UserError
from singan.model.state import ScaleInputs, ScaleState
from singan.parallel import cohort
from singan.parallel.processes import ProcessGroup
from singan.shapes import PyTree
from singan.storage.checkpoints import ScaleCheckpoints, unflatten
from singan.storage.finished_scale import FinishedScale
from singan.storage.origin import Origin
from singan.storage.stored_checkpoints import Expected
from singan.storage.workdir import Workdir
from singan.training.observer import ChunkResult, Observer, ScaleStart
from singan.training.scale_programs import ScalePrograms
from singan.training.scale_setup import ScaleSetup, TrainingImage


class Diverged(RuntimeError):
    """Every image of the cohort has diverged: there is nothing left to train."""


class Stopped(Exception):
    """Training was asked to stop, and has saved its state: the same command resumes."""


class ScaleRun:
    """One scale of one cohort."""

    def __init__(
        self,
        config: Config,
        programs: ScalePrograms,
        images: Sequence[TrainingImage],
        finished: Sequence[FinishedScale],
        workdir: Workdir,
        observer: Observer,
        process_group: ProcessGroup,
        origin: Origin,
    ):
        """Args: images: those of this process, in the order of process_group.assignment.own."""
        self.config, self.spec, self.programs = config, programs.spec, programs
        self.workdir, self.observer, self.process_group = workdir, observer, process_group
        self.mesh, self.processes, self.assignment = (
            process_group.mesh,
            process_group.processes,
            process_group.assignment,
        )
        self.ids = self.assignment.ids
        self.setup = ScaleSetup(config, self.spec, images, finished, process_group.own_mesh)
        self.parent_fingerprint = finished[-1].fingerprint if finished else ""
        self.origin = origin

    def train(self, should_stop: Callable[[], bool], started: Callable[[int], None]) -> FinishedScale:
        """Trains the scale, or goes on with it.

        Args:
          started: called with the group size as training starts.
        """
        directory = self.workdir.checkpoints(self.spec.scale)
        with ScaleCheckpoints(directory, self.observer.warn, self.processes) as checkpoints:
            restored = self._restore(checkpoints)
            step, states = restored if restored else (0, self.setup.states())
            fresh = self.spec.scale == 0 and step == 0
            self.observer.restored(None if fresh else self.spec.steps_before + step)
            inputs = self.setup.inputs()

            def waiting() -> None:
                if self.processes.count == 1 and should_stop():
                    raise Stopped(f"stopped at scale {self.spec.scale}, step {step}")  # there is nothing new to save

            begun = time.monotonic()
            fitted = self.programs.fit(waiting)
            seconds, ahead, group = time.monotonic() - begun, self.programs.ahead_seconds, fitted.group
            self.observer.scale_started(ScaleStart(self.spec, self.ids, step, group, fitted.memory, seconds, ahead))
            started(group)
            placed, state = self._place(inputs, group), self._place(states, group, idle=True)
            state = self._run_chunks(checkpoints, placed, state, step, group, fitted.compiled, should_stop)
            return self._finish(checkpoints, placed, state, group)

    def _restore(self, checkpoints: ScaleCheckpoints) -> tuple[int, list[ScaleState]] | None:
        expected = Expected(self.origin, {"state": self.programs.example[1]})
        checkpoint = checkpoints.latest(self.assignment.own, expected)
        while checkpoint and (
            checkpoint[2].get("kind") != "state" or checkpoint[2].get("below") != self.parent_fingerprint
        ):
            checkpoints.delete(checkpoint[0])  # of another training than the one that is now below
            checkpoint = checkpoints.latest(self.assignment.own, expected)
        if checkpoint is None:
            return None
        step, flat, about = checkpoint
        if tuple(about["images"]) != self.ids:
            raise UserError(
                f"{self.workdir.checkpoints(self.spec.scale)} was trained on other images"
                f" ({', '.join(about['images'][:3])} ...): choose another --workdir"
            )
        stacked = unflatten(self.programs.example[1], flat)
        return step, [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(len(self.assignment.own))]

    def _from(self) -> dict[str, Any]:
        """Returns what a checkpoint says of what it was trained from, and the convolution's form as run.json has it."""
        form = {"device": self.mesh.devices.flat[0].device_kind, "form": self.spec.conv_impl}
        return {"below": self.parent_fingerprint, "trained_from": self.origin.digest, "convolution": form}

    def _place(self, trees: Sequence[PyTree], group: int, idle: bool = False) -> PyTree:
        filling = trees or [self.programs.example[1] if idle else self.programs.example[0]]
        stacked = cohort.stack(filling, self.programs.rows(group))
        if idle:  # what only fills the cohort up is marked as diverged, so that it is passed over
            marked = np.array(stacked.diverged_at)
            marked[len(trees) :] = 0
            stacked = dataclasses.replace(stacked, diverged_at=marked)
        return cohort.shard(stacked, self.mesh)

    def _run_chunks(
        self,
        checkpoints: ScaleCheckpoints,
        inputs: ScaleInputs,
        state: ScaleState,
        step: int,
        group: int,
        chunk: Any,
        should_stop: Callable[[], bool],
    ) -> ScaleState:
        train, last = self.config.train, self.spec.steps
        every = -(-train.checkpoint_every // train.chunk) * train.chunk
        waiting: tuple[int, int, float, Future] | None = None
        ended = 0.0

        def report() -> bool:
            """Tells of the chunk that is waited for; returns whether any process had been asked to stop before it."""
            nonlocal waiting, ended
            if waiting is None:
                return False
            after, steps, sent, future = waiting
            waiting = None
            results, now = future.result()
            seconds, ended = now - max(sent, ended), now
            return self._report(after, steps, results, seconds)

        # One thread waits for each chunk's metrics, so that its end is known to the moment whatever this one does.
        with ThreadPoolExecutor(1) as pool:
            while step < last:
                steps = min(train.chunk, last - step)
                run = chunk
                if steps != min(train.chunk, last):  # the rest at a scale's end
                    run = self.programs.chunk(group, steps)
                asked = self.processes.count > 1 and should_stop()
                sent = time.monotonic()
                state, metrics = run(inputs, state)
                # A copy: the state's buffers are given to the next chunk.
                results = self._everywhere((metrics, jax.numpy.copy(state.diverged_at)), group, asked)
                future = pool.submit(_fetch, results)
                stop = report()
                step += steps
                waiting = step, steps, sent, future
                # Several processes stop where all of them know of it: after the chunk that was sent meanwhile.
                stop = stop if self.processes.count > 1 else should_stop()
                if step < last and (stop or step % every == 0):
                    stop = report() or stop
                    self.observer.checkpointing()
                    checkpoints.save(step, state, self.assignment.own, {"kind": "state", **self._from()})
                    if stop:
                        checkpoints.wait()
                        raise Stopped(f"stopped at scale {self.spec.scale}, step {step}")
            report()
        return state

    def _everywhere(self, results: tuple[PyTree, Any], group: int, asked: bool) -> tuple[PyTree, Any, Any]:
        """Returns the results of all images for every process, and who was asked to stop.

        Sent right behind its chunk and from this thread alone, so that every process sends the same programs in the
        same order; in another one they would wait for each other for ever.
        """
        if self.processes.count == 1:
            return *results, np.zeros(1, bool)
        flags = cohort.shard(np.full(self.programs.rows(group), asked), self.mesh)
        return cohort.replicate((*results, flags), self.mesh)

    def _report(self, step: int, steps: int, results: Any, seconds: float) -> bool:
        metrics, diverged_at, asked = results
        rows = self.assignment.rows(len(diverged_at) // self.processes.count)
        metrics, diverged_at = jax.tree.map(lambda leaf: leaf[rows], (metrics, diverged_at))
        diverged = _diverged(self.ids, diverged_at)
        self.observer.chunk_done(ChunkResult(self.spec, self.ids, step, metrics, diverged, steps, seconds))
        if len(diverged) == len(self.ids):
            raise Diverged(
                f"every image has diverged at scale {self.spec.scale} by step {step}: lower"
                " config.train.generator_learning_rate and critic_learning_rate, or check the images"
            )
        return bool(asked.any())

    def _finish(
        self, checkpoints: ScaleCheckpoints, inputs: ScaleInputs, state: ScaleState, group: int
    ) -> FinishedScale:
        weights = self.programs.finish(group)(inputs, state)
        _, diverged_at, _ = jax.tree.map(np.array, self._everywhere(({}, state.diverged_at), group, False))
        diverged = _diverged(self.ids, diverged_at[self.assignment.rows(self.programs.rows(group))])
        self.observer.checkpointing()
        step = self.spec.steps
        extra = {"kind": "weights", "diverged": diverged, **self._from()}
        digests = checkpoints.save(step, weights, self.assignment.own, extra)
        checkpoints.wait()
        checkpoints.keep_only(step)
        own = jax.tree.map(lambda leaf: cohort.local_rows(leaf)[: len(self.assignment.own)], weights)
        return FinishedScale(self.ids, diverged, own, digests, self.assignment.own)


def _diverged(ids: Sequence[str], diverged_at: np.ndarray) -> dict[str, int]:
    return {name: int(at) for name, at in zip(ids, diverged_at, strict=True) if at >= 0}


def _fetch(results: PyTree) -> tuple[PyTree, float]:
    """Returns host copies of device arrays, and when they were there."""
    host = jax.tree.map(np.array, results)
    return host, time.monotonic()
