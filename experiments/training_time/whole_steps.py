"""Whole training steps of a cohort, compiled and timed as launch.train runs them, draws through frozen scales included.

Needs JAX, Flax, Optax and NumPy alone. The images are made by code: what they show does not matter to the time.
"""

import dataclasses
import functools
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from singan.model.spec import ScaleSpec
from singan.model.state import ScaleInputs, ScaleState
from singan.parallel import cohort, planning
from singan.parallel.flops import Operations, matrix_operations


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A chunk of a scale for N images, ready to run."""

    spec: ScaleSpec
    images: int
    group: int
    steps: int
    program: Any
    inputs: ScaleInputs
    state: ScaleState
    compile_seconds: float


def synthetic_image(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Returns smooth blobs with some grain, float32 [h, w, C] in [-1, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [
        np.sin(2 * np.pi * (rng.uniform(1, 6) * x + rng.uniform(1, 6) * y + rng.uniform())) for _ in range(4 * channels)
    ]
    image = np.stack(waves, -1).reshape(height, width, 4, channels).mean(2) + rng.normal(0, 0.05, (height, width, 1))
    return np.clip(image, -1, 1).astype(np.float32)


def example_of(spec: ScaleSpec) -> tuple[ScaleInputs, ScaleState]:
    """Returns (inputs, state) of one synthetic image at a scale."""
    inputs, state = planning.example(spec)
    real = synthetic_image(*spec.size, spec.channels)[None]
    previous = np.clip(real + 0.1, -1, 1) if spec.scale else np.zeros_like(real)
    # As small as amplitudes become at fine scales, and so the passes through random generators stay tame.
    trained = tuple(dataclasses.replace(one, amplitude=np.float32(0.1)) for one in inputs.trained)
    amplitude = np.float32(0.1 if spec.scale else 1.0)
    return dataclasses.replace(inputs, real=real, previous=previous, amplitude=amplitude, trained=trained), state


def asked_flops(spec: ScaleSpec) -> float:
    """Returns the FLOPs of a step of one image, as the method asks for them: whatever form the convolutions take."""
    return float(_operations(dataclasses.replace(spec, form="direct")).every)


def accessed_bytes(compiled: Compiled) -> float:
    """Returns the bytes that a step of one image reads and writes by XLA's cost analysis; 0 where it does not say.

    It counts the operands of every fused operation, whether or not a cache holds them, and a loop's body once; that is
    brought to the step's real length as singan/parallel/planning.py does it.
    """
    operations, analysis = _operations(compiled.spec), compiled.program.cost_analysis() or {}
    return analysis.get("bytes accessed", 0.0) * operations.every / operations.once / compiled.group


@functools.lru_cache  # every cohort size of a scale asks for the same
def _operations(spec: ScaleSpec) -> Operations:
    """Returns the operations of one step of one image."""
    inputs, state = example_of(spec)
    jaxpr = jax.make_jaxpr(lambda inputs, state: cohort.chunk_of_one(spec, 1, False, inputs, state))(inputs, state)
    return matrix_operations(jaxpr)


def compile_chunk(spec: ScaleSpec, images: int, group: int, steps: int, mesh: Mesh, precision: str) -> Compiled:
    """Returns a scale's chunk of `steps` steps for `images` images on the mesh, at most `group` of a device at once."""
    size = cohort.padded_size(images, mesh, group)
    example = example_of(spec)
    shapes = [cohort.abstract(tree, size, mesh) for tree in example]
    started = time.perf_counter()
    chunk, name = cohort.chunk_program(spec, mesh, group, steps), ("chunk", spec, group, steps)
    program = cohort.compile_program(chunk, *shapes, precision=precision, name=name)
    seconds = time.perf_counter() - started
    inputs, state = (cohort.shard(cohort.stack([tree], size), mesh) for tree in example)
    return Compiled(spec, images, group, steps, program, inputs, state, seconds)


def compile_fitting(spec: ScaleSpec, images: int, steps: int, mesh: Mesh, precision: str) -> Compiled:
    """Returns what compile_chunk does with the group that launch.train takes: as many images as fit the device."""
    chunks: dict[int, Compiled] = {}

    def compile(group: int) -> Any:
        chunks[group] = compile_chunk(spec, images, group, steps, mesh, precision)
        return chunks[group].program

    return chunks[planning.plan_group(-(-images // mesh.size), mesh.devices.flat[0], compile).group]


def measure(compiled: Compiled, seconds: float = 1.0, least: int = 3) -> dict[str, Any]:
    """Returns the median milliseconds of a step per image with what belongs to it; runs for about `seconds`.

    Raises:
      RuntimeError: an image diverged, so that what was timed was not training.
    """
    state, times = compiled.state, []
    state, _ = jax.block_until_ready(compiled.program(compiled.inputs, state))
    while len(times) < least or sum(times) < seconds:
        started = time.perf_counter()
        state, metrics = jax.block_until_ready(compiled.program(compiled.inputs, state))
        times.append(time.perf_counter() - started)
    if (np.array(state.diverged_at) >= 0).any() or not np.isfinite(np.array(metrics["critic/real"])).all():
        raise RuntimeError("the network diverged: its time is not that of training")
    step = sorted(times)[len(times) // 2] / compiled.steps
    memory, analysis = planning.compiled_memory(compiled.program), compiled.program.cost_analysis() or {}
    return {
        "scale": compiled.spec.scale,
        "height": compiled.spec.size[0],
        "width": compiled.spec.size[1],
        "features": compiled.spec.width,
        "form": compiled.spec.form,
        "images": compiled.images,
        "group": compiled.group,
        "ms_per_step_and_image": 1e3 * step / compiled.images,
        "spread": (max(times) - min(times)) / compiled.steps / step,
        "compile_seconds": compiled.compile_seconds,
        "memory_bytes": memory.total,
        "temporary_bytes": memory.temporary,
        "program_bytes_accessed_once": analysis.get("bytes accessed", 0.0),
    }
