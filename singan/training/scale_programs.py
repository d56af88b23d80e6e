"""The compiled programs of one scale: made when it asks for them, or by a thread while the scale below trains."""

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jax

from singan.config import Config
from singan.model import scale_start
from singan.model.spec import ScaleSpec
from singan.model.state import ScaleInputs, ScaleState, TrainedScale
from singan.parallel import cohort, planning
from singan.parallel.processes import ProcessGroup
from singan.shapes import PyTree
from singan.training.ahead import Ahead

POLL = 0.1  # seconds between two looks at whether a stop was asked for, while a program is waited for


class NotCompiled(Exception):
    """A program was not compiled ahead: it is no longer wanted, or it failed where that proves nothing."""


class ScalePrograms:
    """What is compiled for one scale and for so many images; each program is made once, by whoever first asks for it.

    Any thread may ask. Whoever asks for what another thread is making waits for it.
    """

    def __init__(self, spec: ScaleSpec, process_group: ProcessGroup):
        self.spec, self._processes = spec, process_group.processes
        self.mesh, self._own_mesh, self._most = (
            process_group.mesh,
            process_group.own_mesh,
            process_group.assignment.most,
        )
        self.ahead_seconds = 0.0  # that were spent ahead on what `plan` returns
        self._lock, self._made = threading.Lock(), dict[tuple[int, int], Future]()  # by group and steps (0: finish)
        # It may be a context of this thread, which the one that compiles ahead does not see.
        self._x64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
        self._dropped = False

    def serve(self, spec: ScaleSpec, process_group: ProcessGroup) -> bool:
        """Returns whether these are the programs of a scale for a team."""
        own = self.spec, self._most, self.mesh, self._own_mesh
        return own == (spec, process_group.assignment.most, process_group.mesh, process_group.own_mesh)

    @functools.cached_property
    def example(self) -> tuple[ScaleInputs, ScaleState]:
        """Shapes of one image, also where this process has none (left)."""
        return planning.example(self.spec)

    def rows(self, group: int) -> int:
        """Returns how many rows every process has, images and filling."""
        return cohort.padded_size(self._most, self._own_mesh, group)

    def plan(self, waiting: Callable[[], None]) -> planning.Planned:
        """Returns the compiled chunk, its group size and its memory. All processes call it, on the main thread.

        Args:
          waiting: called now and then while this waits for another thread; it may raise.
        """
        return self._plan(lambda group: min(self._processes.all_gather(group)), waiting, ahead=False)

    def plan_ahead(self) -> None:
        """Compiles what `plan` is going to return, as far as this process can know it alone.

        A failure is left to `plan`, which meets it or compiles again.
        """
        self._plan(lambda group: group, lambda: None, ahead=True)

    def chunk(self, group: int, steps: int, ahead: bool = False) -> Any:
        """Returns the compiled chunk of that many steps: (inputs, state) -> (state, metrics)."""
        return self._compiled(group, steps, ahead)

    def finish(self, group: int, ahead: bool = False) -> Any:
        """Returns the compiled program (inputs, state) -> weights as trained.weights_template describes them."""
        return self._compiled(group, 0, ahead)

    def drop(self) -> None:
        """Ends what is compiled ahead, at the next program."""
        self._dropped = True

    def _plan(self, agree: Callable[[int], int], waiting: Callable[[], None], ahead: bool) -> planning.Planned:
        steps = min(self.spec.train.chunk, self.spec.train.steps_per_scale)
        return planning.plan_group(
            -(-self._most // self._own_mesh.size),
            self._device,
            lambda group: self._compiled(group, steps, ahead, waiting),
            self.spec.train.group_size,
            agree=agree,
        )

    @property
    def _device(self) -> Any:
        return self._own_mesh.devices.flat[0]  # of another process' devices the memory is not told

    def _compiled(self, group: int, steps: int, ahead: bool = False, waiting: Callable[[], None] = lambda: None) -> Any:
        while True:
            if ahead and self._dropped:
                raise NotCompiled
            with self._lock:
                future = self._made.get((group, steps))
                if mine := future is None:
                    future = self._made[group, steps] = Future()
            if mine:
                self._make(future, group, steps, ahead)
            try:
                return _wait(future, waiting)
            except NotCompiled:
                if ahead:
                    raise

    def _make(self, future: Future, group: int, steps: int, ahead: bool) -> None:
        started = time.monotonic()
        try:
            compiled = self._compile(group, steps)
        except BaseException as error:
            # A GPU's compiler tries kernels out in memory that the scale below holds most of while it trains.
            if ahead and self._device.platform == "gpu":
                with self._lock:
                    del self._made[group, steps]
                future.set_exception(NotCompiled())
            else:
                future.set_exception(error)
        else:
            self.ahead_seconds += time.monotonic() - started if ahead else 0
            future.set_result(compiled)

    def _compile(self, group: int, steps: int) -> Any:
        if steps:
            program = cohort.chunk_program(self.spec, self.mesh, group, steps)
        else:
            program = finish_program(self.spec, self.mesh, group)
        with jax.enable_x64(self._x64):
            arguments = (self._shapes(tree, group) for tree in self.example)
            name = ("chunk" if steps else "finish", self.spec, group, steps)
            return cohort.compile_program(program, *arguments, precision=self.spec.train.precision, name=name)

    def _shapes(self, tree: PyTree, group: int) -> PyTree:
        return cohort.abstract(tree, self.rows(group) * self._processes.count, self.mesh)


class Compiler:
    """Hands out the programs of a training's scales, and compiles them ahead in one thread where that is wanted.

    As a context: at its end nothing that is compiled is waited for.
    """

    def __init__(self, config: Config, device: Any):
        """Args: device: one of those that are trained on."""
        wanted = config.train.compile_ahead
        self._on = wanted == "on" or (wanted == "auto" and device.platform != "cpu")
        self._thread = Ahead()
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
          group: the size that was planned for the scale that trains.
        """
        if not self._on:
            return
        train = now.spec.train
        if rest := train.steps_per_scale % train.chunk if train.steps_per_scale > train.chunk else 0:
            self._thread.start(lambda: now.chunk(group, rest, ahead=True))
        self._thread.start(lambda: now.finish(group, ahead=True))
        if above is not None:
            self._next = ScalePrograms(above, process_group)
            self._thread.start(self._next.plan_ahead)

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(self, *_: object) -> None:
        if self._next is not None:
            self._next.drop()
        self._thread.close()


def finish_program(spec: ScaleSpec, mesh: Any, group: int) -> Callable[..., Any]:
    """Returns the jitted program (inputs, state) -> weights as trained.weights_template describes them."""

    def finish(inputs: ScaleInputs, state: ScaleState) -> PyTree:
        trained = TrainedScale(state.generator, inputs.amplitude)
        older = tuple(one.generator for one in state.older)
        image = scale_start.reconstruct_through(
            spec,
            (*map(TrainedScale, older, inputs.co_trained_amplitudes), trained),
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

    return cohort.parallel(finish, mesh, group)


def _wait(future: Future, waiting: Callable[[], None]) -> Any:
    while True:
        try:
            return future.result(timeout=POLL)
        except TimeoutError:
            if future.done():  # it is the program's own error
                raise
            waiting()
