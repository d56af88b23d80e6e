"""One scale of one cohort: restore or start, plan, run the chunks, save, finish."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from singan import cohort, handover, planning
from singan.checkpoints import ScaleCheckpoints, unflatten
from singan.config import Config
from singan.errors import UserError
from singan.observer import ChunkResult, Observer, ScaleStart
from singan.opening import Opening, TrainingImage
from singan.shapes import PyTree
from singan.spec import ScaleSpec
from singan.state import ScaleInputs, ScaleState, TrainedScale
from singan.trained import FinishedScale
from singan.workdir import Workdir


class Diverged(RuntimeError):
    """Every image of the cohort has diverged: there is nothing left to train."""


class Stopped(Exception):
    """Training was asked to stop, and has saved its state: the same command resumes."""


class ScaleRun:
    """One scale of one cohort."""

    def __init__(
        self,
        config: Config,
        spec: ScaleSpec,
        images: Sequence[TrainingImage],
        finished: Sequence[FinishedScale],
        workdir: Workdir,
        observer: Observer,
        mesh: Mesh,
    ):
        self.config, self.spec = config, spec
        self.workdir, self.observer, self.mesh = workdir, observer, mesh
        self.ids = tuple(image.id for image in images)
        self.opening = Opening(config, spec, images, finished, mesh)
        self.below = finished[-1].fingerprint if finished else ""

    def train(self, should_stop: Callable[[], bool]) -> FinishedScale:
        directory = self.workdir.checkpoints(self.spec.scale)
        with ScaleCheckpoints(directory, self.observer.warn) as checkpoints:
            found = self._restore(checkpoints)
            step, states = found if found else (0, self.opening.states())
            fresh = self.spec.scale == 0 and step == 0
            self.observer.restored(None if fresh else self.spec.scale * self.config.train.steps_per_scale + step)
            inputs = self.opening.inputs()
            started = time.monotonic()
            group, chunk, memory = self._plan(inputs, states)
            seconds = time.monotonic() - started
            self.observer.scale_started(ScaleStart(self.spec, self.ids, step, group, memory, seconds))
            placed, state = self._place(inputs, group), self._place(states, group, idle=True)
            state = self._run_chunks(checkpoints, placed, state, step, group, chunk, should_stop)
            return self._finish(checkpoints, placed, state, group)

    def _restore(self, checkpoints: ScaleCheckpoints) -> tuple[int, list[ScaleState]] | None:
        found = checkpoints.latest()
        while found and (found[2].get("kind") != "state" or found[2].get("below") != self.below):
            checkpoints.delete(found[0])  # of another training than the one that is now below
            found = checkpoints.latest()
        if found is None:
            return None
        step, flat, about = found
        if tuple(about["images"]) != self.ids:
            raise UserError(
                f"{self.workdir.checkpoints(self.spec.scale)} was trained on other images"
                f" ({', '.join(about['images'][:3])} ...): choose another --workdir"
            )
        stacked = unflatten(self.opening.state(0), flat)
        return step, [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(len(self.ids))]

    def _place(self, trees: Sequence[PyTree], group: int, idle: bool = False) -> PyTree:
        size = cohort.padded_size(len(trees), self.mesh, group)
        stacked = cohort.stack(trees, size)
        if idle:  # what only fills the cohort up is marked as diverged, so that it is passed over
            marked = np.array(stacked.diverged_at)
            marked[len(trees) :] = 0
            stacked = dataclasses.replace(stacked, diverged_at=marked)
        return cohort.place(stacked, self.mesh)

    def _plan(self, inputs: Sequence[ScaleInputs], states: Sequence[ScaleState]) -> tuple[int, Any, planning.Memory]:
        """Returns the group size, the compiled chunk of that size, and its memory."""
        per_device = -(-len(self.ids) // self.mesh.size)
        device = self.mesh.devices.flat[0]
        compiled: dict[int, Any] = {}

        def memory_of(group: int) -> planning.Memory:
            steps = min(self.config.train.chunk, self.config.train.steps_per_scale)
            arguments = self._shapes(inputs[0], group), self._shapes(states[0], group)
            compiled[group] = self._compile(group, steps, arguments)
            return planning.compiled_memory(compiled[group])

        group = min(self.config.train.group_size, per_device)
        if group == 0 and device.platform == "cpu":
            group = 1
        elif group == 0:
            group = planning.largest_group(per_device, planning.memory_budget(device), memory_of)
        memory = memory_of(group) if group not in compiled else planning.compiled_memory(compiled[group])
        return group, compiled[group], memory

    def _shapes(self, tree: PyTree, group: int) -> PyTree:
        size = cohort.padded_size(len(self.ids), self.mesh, group)
        return cohort.abstract(tree, size, self.mesh)

    def _compile(self, group: int, steps: int, arguments: tuple[PyTree, PyTree]) -> Any:
        program = cohort.chunk_program(self.spec, self.mesh, group, steps)
        return cohort.compile_program(program, *arguments, precision=self.config.train.precision)

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
        train = self.config.train
        every = -(-train.checkpoint_every // train.chunk) * train.chunk
        waiting: tuple[int, int, float, Future] | None = None
        ended = 0.0

        def tell() -> None:
            nonlocal waiting, ended
            if waiting is not None:
                after, steps, sent, future = waiting
                waiting = None
                results, now = future.result()
                seconds, ended = now - max(sent, ended), now
                self._tell(after, steps, results, seconds)

        # One thread waits for each chunk's metrics, so that its end is known to the moment whatever this one does.
        with ThreadPoolExecutor(1) as pool:
            while step < train.steps_per_scale:
                steps = min(train.chunk, train.steps_per_scale - step)
                run = chunk
                if steps != min(train.chunk, train.steps_per_scale):  # the rest at a scale's end
                    run = self._compile(group, steps, (inputs, state))
                sent = time.monotonic()
                state, metrics = run(inputs, state)
                # A copy: the state's buffers are given to the next chunk.
                diverged_at = jax.numpy.copy(state.diverged_at)
                future = pool.submit(_fetch, (metrics, diverged_at))
                tell()
                step += steps
                waiting = step, steps, sent, future
                stop = should_stop()
                if step < train.steps_per_scale and (stop or step % every == 0):
                    tell()
                    self.observer.checkpointing()
                    checkpoints.save(step, state, self.ids, {"kind": "state", "below": self.below})
                    if stop:
                        checkpoints.wait()
                        raise Stopped(f"stopped at scale {self.spec.scale}, step {step}")
            tell()
        return state

    def _tell(self, step: int, steps: int, results: Any, seconds: float) -> None:
        metrics, diverged_at = jax.tree.map(lambda leaf: leaf[: len(self.ids)], results)
        diverged = {name: int(at) for name, at in zip(self.ids, diverged_at, strict=True) if at >= 0}
        self.observer.chunk_done(ChunkResult(self.spec, self.ids, step, metrics, diverged, steps, seconds))
        if len(diverged) == len(self.ids):
            raise Diverged(
                f"every image has diverged at scale {self.spec.scale} by step {step}: lower"
                " config.train.generator_learning_rate and critic_learning_rate, or check the images"
            )

    def _finish(
        self, checkpoints: ScaleCheckpoints, inputs: ScaleInputs, state: ScaleState, group: int
    ) -> FinishedScale:
        spec = self.spec

        def finish(inputs, state):
            trained = TrainedScale(state.generator, inputs.amplitude)
            older = tuple(one.generator for one in state.older)
            image = handover.reconstruct_through(
                spec,
                (*map(TrainedScale, older, inputs.older_amplitudes), trained),
                state.reconstruction_noise,
                inputs.previous,
                inputs.padding,
            )
            return {
                "trained": trained,
                "critic": state.critic,
                "older": older,
                "reconstruction": image,
                "reconstruction_noise": state.reconstruction_noise if spec.scale == 0 else None,
            }

        program = cohort.parallel(finish, self.mesh, group)
        weights = cohort.compile_program(program, inputs, state, precision=self.config.train.precision)(inputs, state)
        weights = jax.tree.map(lambda leaf: np.array(leaf)[: len(self.ids)], weights)
        at = np.array(state.diverged_at)[: len(self.ids)]
        diverged = {name: int(step) for name, step in zip(self.ids, at, strict=True) if step >= 0}
        self.observer.checkpointing()
        step = self.config.train.steps_per_scale
        extra = {"kind": "weights", "diverged": diverged, "below": self.below}
        digests = checkpoints.save(step, weights, self.ids, extra)
        checkpoints.wait()
        checkpoints.keep_only(step)
        return FinishedScale(self.ids, diverged, weights, digests)


def _fetch(results: PyTree) -> tuple[PyTree, float]:
    """Returns host copies of device arrays, and when they were there."""
    host = jax.tree.map(np.array, results)
    return host, time.monotonic()
