"""Times every implementation of the convolution at one layer, on the device that will train."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.model.convolution import CONV_IMPLS, conv3x3
from singan.model.spec import ScaleSpec
from singan.parallel.cohort import PRECISIONS
from singan.parallel.device_rates import median_seconds

LOOPS = 4  # in a program


def vmapped_impls(images: int) -> tuple[str, ...]:
    """Returns the implementations that differ where this many images are vmapped (direct is grouped there)."""
    alone = ("direct", "mapped", "packed") if images == 1 else ("direct",)
    return tuple(name for name in CONV_IMPLS if name not in alone)


def time_conv_impl(
    conv_impl: str, side: int, features: int, images: int, precision: str, seconds: float = 0.2
) -> dict[str, Any]:
    """Times the value, both gradients, and the gradients of those by input, kernel and cotangent, `images` vmapped.

    Returns what was timed, with ms_per_image, compile_seconds and temporary_bytes, as run.json records it.
    """

    def score(x, kernel, cotangent):
        return jnp.vdot(conv3x3(x, kernel, conv_impl), cotangent)

    def penalty(x, kernel, cotangent):
        gradients = jax.grad(score, argnums=(0, 1))(x, kernel, cotangent)
        return sum(jnp.sum(jnp.square(gradient)) for gradient in gradients)

    def one(x, kernel, cotangent):
        def body(_, carry):
            steps = jax.grad(penalty, argnums=(0, 1, 2))(*carry)
            return jax.tree.map(lambda leaf, step: leaf + 1e-9 * jnp.tanh(step), carry, steps)

        return lax.fori_loop(0, LOOPS, body, (x, kernel, cotangent))

    rng = np.random.default_rng(0)
    shapes = (1, side + 2, side + 2, features), (3, 3, features, features), (1, side, side, features)
    arrays = [jnp.asarray(rng.normal(0, 0.1, (images, *shape)), jnp.float32) for shape in shapes]
    started = time.perf_counter()
    with jax.default_matmul_precision(PRECISIONS[precision]):
        compiled = jax.jit(jax.vmap(one)).lower(*arrays).compile()
    compile_seconds = time.perf_counter() - started
    ms = 1e3 * median_seconds(compiled, tuple(arrays), seconds) / LOOPS / images
    memory = compiled.memory_analysis()
    return {
        "form": conv_impl,
        "side": side,
        "features": features,
        "images": images,
        "precision": precision,
        "ms_per_image": ms,
        "compile_seconds": compile_seconds,
        "temporary_bytes": memory.temp_size_in_bytes if memory else 0,
    }


def time_conv_impls(spec: ScaleSpec, images: int) -> list[dict[str, Any]]:
    """Returns the times at a scale's widest layer, fastest first, without implementations that do not compile."""
    side, rows = round((spec.size[0] * spec.size[1]) ** 0.5), []
    for name in vmapped_impls(images):
        try:
            rows.append(time_conv_impl(name, side, spec.width, images, spec.train.precision))
        except jax.errors.JaxRuntimeError:  # too large, or more than the device's libraries know
            continue
    return sorted(rows, key=lambda row: row["ms_per_image"])
