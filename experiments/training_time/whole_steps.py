"""Whole training steps of a cohort, compiled and timed as launch.train runs them, and PyTorch's step beside them.

The draws through the frozen scales are part of both. The images are made by code: what they show does not matter to the
time.
"""

import contextlib
import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from singan.model.spec import ScaleSpec
from singan.model.state import ScaleInputs, ScaleState
from singan.parallel import cohort, costs, executable_cache
from singan.parallel.costs import Operations, matrix_operations
from singan.parallel.device_rates import matmul_rate

CPU_SIDE, SIDE = 1536, 8192  # of the matrices whose product gives the rate: large enough to reach it


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
    inputs, state = costs.example(spec)
    real = synthetic_image(*spec.size, spec.channels)[None]
    previous = np.clip(real + 0.1, -1, 1) if spec.scale else np.zeros_like(real)
    # As small as amplitudes become at fine scales, and so the passes through random generators stay tame.
    trained = tuple(dataclasses.replace(one, amplitude=np.float32(0.1)) for one in inputs.trained)
    amplitude = np.float32(0.1 if spec.scale else 1.0)
    return dataclasses.replace(inputs, real=real, previous=previous, amplitude=amplitude, trained=trained), state


def asked_flops(spec: ScaleSpec) -> float:
    """Returns the FLOPs of a step of one image, as the method asks for them: whatever form the convolutions take."""
    return float(_operations(dataclasses.replace(spec, conv_impl="direct")).every)


def accessed_bytes(compiled: Compiled) -> float:
    """Returns the bytes that a step of one image reads and writes by XLA's cost analysis; 0 where it does not say.

    It counts the operands of every fused operation, whether or not a cache holds them, and a loop's body once; that is
    brought to the step's real length as singan/parallel/costs.py does it.
    """
    operations, analysis = _operations(compiled.spec), compiled.program.cost_analysis() or {}
    return analysis.get("bytes accessed", 0.0) * operations.every / operations.once / compiled.group


@functools.lru_cache  # every cohort size of a scale asks for the same
def _operations(spec: ScaleSpec) -> Operations:
    """Returns the operations of one step of one image."""
    inputs, state = example_of(spec)
    jaxpr = jax.make_jaxpr(lambda inputs, state: cohort.chunk_of_one(spec, 1, False, inputs, state))(inputs, state)
    return matrix_operations(jaxpr)


def compile_chunk(spec: ScaleSpec, images: int, group: int, steps: int, mesh: Mesh) -> Compiled:
    """Returns a scale's chunk of `steps` steps for `images` images on the mesh, at most `group` of a device at once."""
    size = cohort.padded_size(images, mesh, group)
    example = example_of(spec)
    shapes = [cohort.abstract(tree, size, mesh) for tree in example]
    started = time.perf_counter()
    chunk, name = cohort.chunk_program(spec, mesh, group, steps), ("chunk", spec, group, steps)
    program = cohort.compile_program(chunk, *shapes, precision=spec.train.precision, name=name)
    seconds = time.perf_counter() - started
    inputs, state = (cohort.shard(cohort.stack([tree], size), mesh) for tree in example)
    return Compiled(spec, images, group, steps, program, inputs, state, seconds)


def compile_fitting(spec: ScaleSpec, images: int, mesh: Mesh, seconds: float, rate: float) -> Compiled:
    """Returns the chunk that compile_chunk does with the group that launch.train takes: as many images as fit a device.

    Args:
      seconds: the chunk has as many steps as fit a third of them at half of `rate`, the devices' FLOP/s; 100 at most.
    """
    steps = int(np.clip(seconds / 3 / (2 * asked_flops(spec) * images / rate), 1, 100))
    chunks: dict[int, Compiled] = {}

    def compile(group: int) -> Any:
        chunks[group] = compile_chunk(spec, images, group, steps, mesh)
        return chunks[group].program

    return chunks[costs.fit_group(-(-images // mesh.size), mesh.devices.flat[0], compile).group]


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
    memory = costs.compiled_memory(compiled.program)
    return {
        "scale": compiled.spec.scale,
        "height": compiled.spec.size[0],
        "width": compiled.spec.size[1],
        "features": compiled.spec.width,
        "form": compiled.spec.conv_impl,
        "images": compiled.images,
        "group": compiled.group,
        "ms_per_step_and_image": 1e3 * step / compiled.images,
        "spread": (max(times) - min(times)) / compiled.steps / step,
        "compile_seconds": compiled.compile_seconds,
        "memory_bytes": memory.total,
        "temporary_bytes": memory.temporary,
        "precision": compiled.spec.train.precision,
    }


@contextlib.contextmanager
def empty_cache() -> Iterator[Callable[[], int]]:
    """Keeps compiled programs in a new temporary folder, so that the first compilation of each is a cold one.

    Yields a function that returns how many programs have been read from it.
    """
    hits = 0

    def count(event: str, **_: Any) -> None:
        nonlocal hits
        hits += event == executable_cache.LOADED

    settings = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in settings}
    with tempfile.TemporaryDirectory() as folder:
        for name, value in zip(settings, (folder, 0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # JAX opens its cache once
        jax.monitoring.register_event_listener(count)
        try:
            yield lambda: hits
        finally:
            jax.monitoring.unregister_event_listener(count)
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def best_rate(precision: str, tiny: bool = False) -> float:
    """Returns the FLOP/s of a matrix product on the first device, right now: what a step can reach at best."""
    side = 256 if tiny else CPU_SIDE if jax.default_backend() == "cpu" else SIDE
    return matmul_rate(precision, side, 0.3)


def row(
    spec: ScaleSpec, images: int, mesh: Mesh, seconds: float, rate: float, cache_hits: Callable[[], int]
) -> dict[str, Any]:
    """Returns a row of the benchmark: what `measure` returns, with rates and compilation.

    Args:
      seconds: least time spent on the figure.
      rate: FLOP/s of a matrix product at the same precision, measured in the same run.
      cache_hits: of `empty_cache`; warm_compile_seconds is None where the second compilation did not read the first.
    """
    compiled, flops, hits = compile_fitting(spec, images, mesh, seconds, rate), asked_flops(spec), cache_hits()
    again = compile_chunk(spec, images, compiled.group, compiled.steps, mesh)
    warm = again.compile_seconds if cache_hits() > hits else None
    del again
    measured = measure(compiled, seconds)
    per_second = flops / measured["ms_per_step_and_image"] * 1e3
    return {
        **measured,
        "warm_compile_seconds": warm,
        "asked_flops_per_image": flops,
        "bytes_per_image": accessed_bytes(compiled),
        "flops_per_second": per_second,
        "matmul_rate": rate,
        "share_of_matmul": per_second / rate,
    }


def pytorch_timer(seconds: float) -> Callable[[ScaleSpec], float] | None:
    """Returns a function that gives PyTorch's milliseconds of a step at a scale, or None where torch is missing.

    It trains on the image that this project's side has, and draws through generators of the same sizes and widths.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return None
    from experiments.training_time.pytorch_peer import seconds_per_step

    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"

    def timed(spec: ScaleSpec) -> float:
        inputs, _ = example_of(spec)
        real = torch.from_numpy(np.ascontiguousarray(inputs.real.transpose(0, 3, 1, 2))).to(device)
        frozen = [(*spec.at(scale).size, spec.at(scale).width) for scale in range(spec.scale)]
        return 1e3 * seconds_per_step(real, (real + 0.1).clamp(-1, 1), spec.width, seconds, frozen=frozen)

    return timed


def pytorch_version() -> str:
    """Returns the version of torch that is installed, with its threads."""
    import torch  # pyright: ignore[reportMissingImports]

    return f"torch {torch.__version__} with {torch.get_num_threads()} threads"
