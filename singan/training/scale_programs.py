"""The compiled programs of one scale: made when it asks for them, or by a thread while the scale below trains."""

import functools
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import jax

from singan.config import Config
from singan.model import scale_start
from singan.model.spec import ScaleSpec
from singan.model.state import ScaleInputs, ScaleState, TrainedScale, final_generator
from singan.model.step import given
from singan.parallel import cohort, costs
from singan.parallel.processes import ProcessGroup
from singan.shapes import PyTree
from singan.training.ahead import AheadThread

POLL = 0.1  # seconds between two looks at whether a stop was asked for, while a program is waited for


class NotCompiled(Exception):
    """A program was not compiled ahead: it is no longer wanted, or it failed where that proves nothing."""


class ScalePrograms:
    """The compiled programs of one scale, for so many images.

    The main thread asks for each of them once. It takes what was begun ahead, waits for it where that is not ready,
    and compiles itself what was not begun.
    """

    def __init__(self, spec: ScaleSpec, process_group: ProcessGroup):
        self.spec, self._processes = spec, process_group.processes
        self.mesh, self._own_mesh = process_group.mesh, process_group.own_mesh
        self._most = process_group.assignment.most
        self.ahead_seconds = 0.0  # that `fit` took ahead
        self._ahead: dict[tuple[int, int] | None, Future] = {}  # by group and steps (0: finish); None: `fit`
        # It may be a context of this thread, which the one that compiles ahead does not see.
        self._x64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
        self._dropped = False

    def serve(self, spec: ScaleSpec, process_group: ProcessGroup) -> bool:
        """Returns whether these are the programs of a scale for a process group."""
        own = self.spec, self._most, self.mesh, self._own_mesh
        return own == (spec, process_group.assignment.most, process_group.mesh, process_group.own_mesh)

    @functools.cached_property
    def example(self) -> tuple[ScaleInputs, ScaleState]:
        """Shapes of one image, also where this process has none (left)."""
        return costs.example(self.spec)

    def rows(self, group: int) -> int:
        """Returns how many rows every process has, images and filling."""
        return cohort.padded_size(self._most, self._own_mesh, group)

    def fit(self, waiting: Callable[[], None]) -> costs.FittedChunk:
        """Returns the compiled chunk, its group size and its memory. All processes call it, on the main thread.

        Args:
          waiting: called now and then while this waits for what is compiled ahead; it may raise.
        """
        fitted = self._get(None, lambda: self._fit(self._compile, self.spec.train.group_size), waiting)
        group = min(self._processes.all_gather(fitted.group))
        return fitted if group == fitted.group else self._fit(self._compile, group)

    def chunk(self, group: int, steps: int) -> Any:
        """Returns the compiled chunk of that many steps: (inputs, state) -> (state, metrics)."""
        return self._get((group, steps), lambda: self._compile(group, steps))

    def finish(self, group: int) -> Any:
        """Returns the compiled program (inputs, state) -> weights as finished_scale.weights_template describes them."""
        return self.chunk(group, 0)

    def fit_ahead(self, thread: AheadThread) -> None:
        """Begins what `fit` is going to return, as far as this process can know it alone."""
        self._ahead[None] = thread.submit(self._timed_fit)

    def compile_ahead(self, thread: AheadThread, group: int, steps: int) -> None:
        """Begins a chunk, or with 0 steps the program that finishes the scale."""
        self._ahead[group, steps] = thread.submit(self._compile_unless_dropped, group, steps)

    def drop(self) -> None:
        """Ends what is compiled ahead, at the next program."""
        self._dropped = True

    def _get(
        self, key: tuple[int, int] | None, compile: Callable[[], Any], waiting: Callable[[], None] = lambda: None
    ) -> Any:
        future = self._ahead.pop(key, None)
        if future is None or future.cancel():  # it had not begun
            return compile()
        while not wait([future], POLL).done:
            waiting()
        try:
            return future.result()
        except NotCompiled:
            return compile()

    def _timed_fit(self) -> costs.FittedChunk:
        started = time.monotonic()
        fitted = self._fit(self._compile_unless_dropped, self.spec.train.group_size)
        self.ahead_seconds = time.monotonic() - started
        return fitted

    def _fit(self, compile: Callable[[int, int], Any], wanted: int) -> costs.FittedChunk:
        steps = min(self.spec.train.chunk, self.spec.steps)
        images = -(-self._most // self._own_mesh.size)
        return costs.fit_group(images, self._device, lambda group: compile(group, steps), wanted)

    @property
    def _device(self) -> Any:
        return self._own_mesh.devices.flat[0]  # of another process' devices the memory is not told

    def _compile_unless_dropped(self, group: int, steps: int) -> Any:
        if self._dropped:
            raise NotCompiled
        try:
            return self._compile(group, steps)
        except Exception as error:
            # A GPU's compiler tries kernels out in memory that the scale below holds most of while it trains.
            if self._device.platform == "gpu":
                raise NotCompiled from error
            raise

    def _compile(self, group: int, steps: int) -> Any:
        if steps:
            program = cohort.chunk_program(self.spec, self.mesh, group, steps)
        else:
            program = finish_program(self.spec, self.mesh, group)
        size = self.rows(group) * self._processes.count
        with jax.enable_x64(self._x64):
            arguments = (cohort.abstract(tree, size, self.mesh) for tree in self.example)
            name = ("chunk" if steps else "finish", self.spec, group, steps)
            return cohort.compile_program(program, *arguments, precision=self.spec.train.precision, name=name)


class Compiler:
    """Hands out the programs of a training's scales, and compiles them ahead in one thread where that is wanted.

    As a context: at its end nothing that is compiled is waited for.
    """

    def __init__(self, config: Config, device: Any):
        """Args: device: one of those that are trained on."""
        wanted = config.train.compile_ahead
        self._on = wanted == "on" or (wanted == "auto" and device.platform != "cpu")
        self._thread = AheadThread()
        self._next: ScalePrograms | None = None

    def programs(self, spec: ScaleSpec, process_group: ProcessGroup) -> ScalePrograms:
        """Returns the programs of a scale: those that were begun, unless they are for another number of images."""
        begun, self._next = self._next, None
        if begun is not None and begun.serve(spec, process_group):
            return begun
        if begun is not None:
            begun.drop()
        return ScalePrograms(spec, process_group)

    def go_on(self, now: ScalePrograms, above: ScaleSpec | None, process_group: ProcessGroup, group: int) -> None:
        """Begins to compile what will be asked for next, while a scale trains.

        Args:
          now: of the scale that trains, whose end is compiled first.
          above: the scale that is trained next, or None.
          group: the size that was fitted for the scale that trains.
        """
        if not self._on:
            return
        steps, chunk = now.spec.steps, now.spec.train.chunk
        if rest := steps % chunk if steps > chunk else 0:
            now.compile_ahead(self._thread, group, rest)
        now.compile_ahead(self._thread, group, 0)
        if above is not None:
            self._next = ScalePrograms(above, process_group)
            self._next.fit_ahead(self._thread)

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(self, *_: object) -> None:
        if self._next is not None:
            self._next.drop()
        self._thread.shutdown(wait=False, cancel_futures=True)


def finish_program(spec: ScaleSpec, mesh: Any, group: int) -> Callable[..., Any]:
    """Returns the jitted program (inputs, state) -> weights as finished_scale.weights_template describes them."""

    def finish(inputs: ScaleInputs, state: ScaleState) -> PyTree:
        trained = TrainedScale(final_generator(state), inputs.amplitude)
        co_trained = tuple(one.generator for one in state.older)
        image = scale_start.reconstruct_through(
            spec,
            (*map(TrainedScale, co_trained, inputs.co_trained_amplitudes), trained),
            state.reconstruction_noise,
            inputs.previous,
            inputs.padding,
            given(inputs, 0),
        )
        return {
            "trained": trained,
            "critic": state.critic,
            "older": co_trained,
            "reconstruction": image,
            "reconstruction_noise": state.reconstruction_noise if spec.scale == 0 else None,
        }

    return cohort.parallel(finish, mesh, group)
