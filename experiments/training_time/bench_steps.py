"""What the benchmark measures of one scale: this project's step with its program, and PyTorch's step beside it."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from experiments.training_time import whole_steps
from experiments.training_time.whole_steps import Compiled
from singan.model.spec import ScaleSpec
from singan.parallel import executable_cache
from singan.parallel.device_rates import matmul_rate

CPU_SIDE, SIDE = 1536, 8192  # of the matrices whose product gives the rate: large enough to reach it


@contextlib.contextmanager
def empty_cache() -> Iterator[Callable[[], int]]:
    """Keeps compiled programs in a new temporary folder, so that the first compilation of each is a cold one.

    Yields a function that returns how many programs have been read from it.
    """
    hits = 0

    def note(event: str, **_: Any) -> None:
        nonlocal hits
        hits += event == executable_cache.LOADED

    settings = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in settings}
    with tempfile.TemporaryDirectory() as folder:
        for name, value in zip(settings, (folder, 0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # JAX opens its cache once
        jax.monitoring.register_event_listener(note)
        try:
            yield lambda: hits
        finally:
            jax.monitoring.unregister_event_listener(note)
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def best_rate(precision: str, tiny: bool = False) -> float:
    """Returns the FLOP/s of a matrix product on the first device, right now: what a step can reach at best."""
    side = 256 if tiny else CPU_SIDE if jax.default_backend() == "cpu" else SIDE
    return matmul_rate(precision, side, 0.3)


def compile_for(
    spec: ScaleSpec, images: int, mesh: Mesh, precision: str, seconds: float, rate: float
) -> tuple[Compiled, float]:
    """Returns (the chunk of a scale, the FLOPs asked of a step and image).

    Args:
      seconds: the chunk has as many steps as fit a third of them at half of `rate`, the device's FLOP/s; 100 at most.
    """
    flops = whole_steps.asked_flops(spec)
    steps = int(np.clip(seconds / 3 / (2 * flops * images / rate), 1, 100))
    return whole_steps.compile_fitting(spec, images, steps, mesh, precision), flops


def measure(
    spec: ScaleSpec,
    images: int,
    mesh: Mesh,
    precision: str,
    seconds: float,
    rate: float,
    cache_hits: Callable[[], int],
) -> dict[str, Any]:
    """Returns a row of the benchmark: what whole_steps.measure returns, with rates and compilation.

    Args:
      seconds: least time spent on the figure.
      rate: FLOP/s of a matrix product at the same precision, measured in the same run.
      cache_hits: of `empty_cache`; warm_compile_seconds is None where the second compilation did not read the first.
    """
    compiled, flops = compile_for(spec, images, mesh, precision, seconds, rate)
    hits = cache_hits()
    again = whole_steps.compile_chunk(spec, images, compiled.group, compiled.steps, mesh, precision)
    warm = again.compile_seconds if cache_hits() > hits else None
    del again
    row = whole_steps.measure(compiled, seconds)
    per_second = flops / row["ms_per_step_and_image"] * 1e3
    return {
        **row,
        "precision": precision,
        "warm_compile_seconds": warm,
        "asked_flops_per_image": flops,
        "bytes_per_image": whole_steps.accessed_bytes(compiled),
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
        inputs, _ = whole_steps.example_of(spec)
        real = torch.from_numpy(np.ascontiguousarray(inputs.real.transpose(0, 3, 1, 2))).to(device)
        frozen = [(*spec.at(scale).size, spec.at(scale).width) for scale in range(spec.scale)]
        return 1e3 * seconds_per_step(real, (real + 0.1).clamp(-1, 1), spec.width, seconds, frozen=frozen)

    return timed


def pytorch_version() -> str:
    """Returns the version of torch that is installed, with its threads."""
    import torch  # pyright: ignore[reportMissingImports]

    return f"torch {torch.__version__} with {torch.get_num_threads()} threads"
