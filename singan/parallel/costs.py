"""What fits and what it costs: compiled memory, a device's memory, how many images train at the same time, and FLOPs.

It is the same for a device that is there and for one that is only compiled for (singan/parallel/tpu_topologies.py).

FLOPs are counted where they are written down: in a program's jaxpr, loops and all. XLA's cost analysis counts the body
of a loop once, whatever its length. What it says of a compiled program is brought to the program's real length by the
same two counts of the jaxpr: with every loop's length, and with each body once.
"""

import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from singan.config import parse
from singan.model.networks import initial_variables
from singan.model.noise import image_key_data
from singan.model.scale_start import starting_state
from singan.model.spec import ScaleSpec
from singan.model.state import ScaleInputs, ScaleState, TrainedScale, hyperparameters
from singan.parallel import cohort
from singan.parallel.tpu_topologies import PEAK_RATES, USABLE_MEMORY

PASSES = {"bf16": 1, "tf32": 3, "highest": 6}  # in bf16 on a TPU, of a product at a train.precision
SHARE = 0.9  # of a device's memory that a program may take; the rest is the allocator's
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all", "collective-broadcast")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes per device of a compiled program."""

    arguments: int
    temporary: int
    output: int
    code: int = 0  # the program itself, which lies in a TPU's memory too

    @property
    def total(self) -> int:
        return self.arguments + self.temporary + self.output + self.code


@dataclasses.dataclass(frozen=True)
class FittedChunk:
    """A program compiled for the group size that was chosen."""

    group: int
    compiled: Any
    memory: Memory


@dataclasses.dataclass(frozen=True)
class Operations:
    """FLOPs of the matrix products and convolutions, a multiply-add being two; of one device."""

    every: int  # every pass through every loop
    once: int  # each loop's body once

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.every + other.every, self.once + other.once)


@dataclasses.dataclass(frozen=True)
class ScaleCost:
    """What a scale's chunk takes on each device. FLOPs and bytes are those of one step of all the device's images."""

    scale: int
    size: tuple[int, int]
    width: int
    images: int
    group: int
    memory: Memory
    most: int | None  # images of a device that would fit in one group; None where the device does not say
    asked_flops: float  # of the matrix products and convolutions, as written down
    flops: float  # XLA's cost analysis of what it made of them
    bytes: float  # read and written, likewise
    collectives: int
    compile_seconds: float

    def roofline_seconds(self, device_kind: str, precision: str) -> float | None:
        """Returns the seconds that a step of the device's images takes at least; None where no rates are known.

        Either the products, at a TPU's peak rate (tf32 takes three passes in bf16, float32 six), or the memory.
        """
        if device_kind not in PEAK_RATES:
            return None
        products, memory = PEAK_RATES[device_kind]
        return max(PASSES[precision] * max(self.flops, self.asked_flops) / products, self.bytes / memory)


def compiled_memory(compiled: Any) -> Memory:
    """Returns what XLA's memory analysis says of a compiled program (donated outputs are counted once)."""
    analysis = compiled.memory_analysis()
    aliased = analysis.alias_size_in_bytes
    return Memory(
        analysis.argument_size_in_bytes,
        analysis.temp_size_in_bytes,
        max(analysis.output_size_in_bytes - aliased, 0),
        analysis.generated_code_size_in_bytes,
    )


def memory_budget(device: Any) -> int | None:
    """Returns the bytes that programs may take on a device, or None where the device does not say (CPU)."""
    if device.platform == "cpu":
        return None
    try:
        stats = device.memory_stats()
    except jax.errors.JaxRuntimeError:  # only compiled for
        stats = None
    limit = stats["bytes_limit"] if stats and "bytes_limit" in stats else USABLE_MEMORY.get(device.device_kind)
    return int(SHARE * limit) if limit else None


def largest_group(images: int, budget: int | None, memory_of: Callable[[int], Memory]) -> int:
    """Returns how many of a device's images to train at the same time, in as few and as even groups as fit.

    Args:
      images: images of one device.
      budget: bytes; None for no limit.
      memory_of: compiles the program for a group size and returns its memory; asked as rarely as possible. What is
        not temporary (weights of images that wait for their turn) stays on the device whatever the group.

    Returns 1 even when a single image does not fit: the device will say so itself, with its own numbers.
    """
    group = images
    while budget is not None and group > 1:
        memory = memory_of(group)
        if memory.total <= budget:
            break
        fits = int(group * max(budget - memory.total + memory.temporary, 0) / max(memory.temporary, 1))
        group = max(1, min(fits, group - 1))
        group = -(-images // -(-images // group))  # even groups: 10 images at most 6 at a time are 5 and 5
    return group


def fit_group(images: int, device: Any, compile: Callable[[int], Any], wanted: int = 0) -> FittedChunk:
    """Returns the program for the largest group that fits a device, or for the wanted one.

    Args:
      images: images of one device.
      compile: compiles the program for a group size.
      wanted: 0 for the largest that fits; on a CPU that is 1 (images one after another).
    """
    budget = memory_budget(device)
    compiled: dict[int, Any] = {}

    def memory_of(group: int) -> Memory:
        try:
            compiled[group] = compile(group)
        except jax.errors.JaxRuntimeError as error:  # a TPU's compiler refuses what is larger than the TPU
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return Memory(0, _refused_bytes(str(error)) or 2 * (budget or 0), 0)
        return compiled_memory(compiled[group])

    group = min(wanted, images)
    if group == 0:
        group = 1 if device.platform == "cpu" else largest_group(images, budget, memory_of)
    if group not in compiled:
        compiled[group] = compile(group)
    return FittedChunk(group, compiled[group], compiled_memory(compiled[group]))


def example(spec: ScaleSpec) -> tuple[ScaleInputs, ScaleState]:
    """Returns (inputs, state) of one image at a scale with the right shapes and types, and placeholder values."""
    rng = np.random.default_rng(0)
    variables = lambda network: initial_variables(network, spec.channels, rng)  # noqa: E731
    coarsest = spec.at(spec.scale - len(spec.co_trained))
    one = np.ones((), np.float32)
    given = spec.pyramid.sizes[: spec.scale + 1] if spec.condition else ()
    inputs = ScaleInputs(
        np.zeros((1, *spec.size, spec.channels), np.float32),
        np.zeros((1, *coarsest.size, spec.channels), np.float32),
        np.zeros(spec.channels, np.float32),
        one,
        image_key_data(0, ""),
        tuple(TrainedScale(variables(spec.at(scale).generator), one) for scale in range(coarsest.scale)),
        hyperparameters(parse({}).train, len(spec.co_trained) + 1, spec.steps),
        co_trained_amplitudes=(one,) * len(spec.co_trained),
        conditions=tuple(np.zeros((spec.layouts, *size, spec.condition), np.uint8) for size in given),
    )
    noise = np.zeros((1, *coarsest.size, 1), np.float32) if coarsest.scale == 0 else None
    inherited = (variables(spec.generator), variables(spec.critic)) if spec.continues_previous_scale else None
    co_trained = tuple(variables(spec.at(scale).generator) for scale in spec.co_trained)
    return inputs, starting_state(spec, 0, "", noise, inherited, co_trained)


def scale_cost(spec: ScaleSpec, mesh: Mesh, images: int) -> ScaleCost:
    """Compiles a scale's chunk for a cohort of `images` images on the mesh's devices, and returns what it costs."""
    train, device, shapes = spec.train, mesh.devices.flat[0], example(spec)
    steps, per_device = min(train.chunk, spec.steps), -(-images // mesh.size)
    seconds = 0.0

    @functools.lru_cache
    def program(group: int) -> tuple[Any, list[Any]]:
        size = cohort.padded_size(images, mesh, group)
        return cohort.chunk_program(spec, mesh, group, steps), [cohort.abstract(one, size, mesh) for one in shapes]

    def compile(group: int) -> Any:
        nonlocal seconds
        started = time.monotonic()
        chunk, arguments = program(group)
        compiled = cohort.compile_program(chunk, *arguments, precision=train.precision)
        seconds = time.monotonic() - started
        return compiled

    fitted = fit_group(per_device, device, compile, train.group_size)
    chunk, arguments = program(fitted.group)
    asked = matrix_operations(cohort.trace_program(chunk, *arguments, precision=train.precision).jaxpr)
    analysis = fitted.compiled.cost_analysis() or {}
    passes = asked.every / asked.once / steps  # of an operation of the program, on average, in a step
    return ScaleCost(
        spec.scale,
        spec.size,
        spec.width,
        per_device,
        fitted.group,
        fitted.memory,
        _most(fitted, per_device, memory_budget(device)),
        asked.every / steps,
        analysis.get("flops", 0.0) * passes,
        analysis.get("bytes accessed", 0.0) * passes,
        count_collectives(fitted.compiled.as_text()),
        seconds,
    )


def asked_flops(spec: ScaleSpec, mesh: Mesh) -> float:
    """Returns the FLOPs of all of a scale's steps for one image, in matrix products; nothing is compiled for it."""
    program = cohort.chunk_program(spec, mesh, 1, 1)
    arguments = [cohort.abstract(one, mesh.size, mesh) for one in example(spec)]
    traced = cohort.trace_program(program, *arguments, precision=spec.train.precision)
    return float(matrix_operations(traced.jaxpr).every) * spec.steps


def matrix_operations(jaxpr: Any) -> Operations:
    """Returns the operations of a jaxpr (closed or not); of a condition's branches, those of the longest."""
    total = Operations(0, 0)
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, inside = equation.primitive.name, [matrix_operations(inner) for inner in _inner(equation)]
        if name == "dot_general":
            ((contracted, _), _), left = equation.params["dimension_numbers"], equation.invars[0].aval
            own = 2 * _elements(equation.outvars[0]) * math.prod(left.shape[axis] for axis in contracted)
            total += Operations(own, own)
        elif name == "conv_general_dilated":
            kernel, axes = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
            own = 2 * _elements(equation.outvars[0]) * math.prod(kernel) // kernel[axes.rhs_spec[0]]
            total += Operations(own, own)
        elif name == "cond":
            total += max(inside, key=lambda branch: branch.every)
        else:
            length = equation.params["length"] if name == "scan" else 1
            for body in inside:
                total += Operations(body.every * length, body.once)
    return total


def _elements(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _inner(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for one in value if isinstance(value, list | tuple) else (value,):
            if hasattr(one, "eqns") or hasattr(getattr(one, "jaxpr", None), "eqns"):
                yield one


def count_collectives(text: str) -> int:
    """Returns how many operations of a compiled program, given as HLO text, have devices talk to each other."""
    return len(re.findall(rf"[ )](?:{'|'.join(COLLECTIVES)})(?:-start)?\(", text))


def _most(fitted: FittedChunk, images: int, budget: int | None) -> int | None:
    """Returns how many images of a device would fit in one group, memory being linear in them."""
    if budget is None:
        return None
    memory = fitted.memory
    each = (memory.arguments + memory.output) / images + memory.temporary / fitted.group
    return max(int((budget - memory.code) / each), 0)


def _refused_bytes(text: str) -> int | None:
    """Returns the memory that a program would have needed, from the text of the compiler that refused it."""
    size = re.search(r"(?:Used |required for HLO temporaries \()([\d.]+)([KMGT])", text)
    return int(float(size[1]) * 1024 ** ("KMGT".index(size[2]) + 1)) if size else None
