"""What a device can do at best, measured: the rates that training is compared with."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from singan.parallel.cohort import PRECISIONS


def matmul_rate(precision: str, side: int = 4096, seconds: float = 0.5) -> float:
    """Returns the FLOP/s of a square matrix product on the first device, at a precision of training."""
    a = jax.random.normal(jax.random.key(0), (side, side)) / side**0.5
    with jax.default_matmul_precision(PRECISIONS[precision]):
        program = jax.jit(lambda a: jax.lax.fori_loop(0, 8, lambda _, y: a @ y, a)).lower(a).compile()
    return 8 * 2 * side**3 / median_seconds(program, (a,), seconds)


def copy_rate(mebibytes: int = 256) -> float:
    """Returns the bytes per second that an elementwise operation reads and writes on the first device."""
    x = jnp.ones(mebibytes * 2**18, jnp.float32)
    return 2 * x.nbytes / median_seconds(jax.jit(lambda x: x * 1.0001 + 1.0), (x,), 0.3)


def median_seconds(program: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> float:
    """Returns the median time of a call, in seconds, of at least three calls and `seconds` of them."""
    jax.block_until_ready(program(*arguments))
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        started = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]
