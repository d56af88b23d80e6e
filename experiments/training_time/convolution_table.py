"""Every form of the convolution, timed at one layer of a scale: value, first and second derivatives in a loop."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.cohort import PRECISIONS
from singan.convolution import FORMS, conv3x3


def batched_forms(images: int) -> list[str]:
    """Returns the forms that differ for this many vmapped images (direct is grouped there; one image has no groups)."""
    return [form for form in FORMS if form != "direct" and (images > 1 or form not in ("mapped", "packed"))]


def measure_form(
    form: str, side: int, features: int, images: int, precision: str, seconds: float = 0.2, loops: int = 4
) -> dict[str, Any]:
    """Returns the milliseconds per image of one layer's convolution with all that the gradient penalty takes of it.

    That is the value, both gradients, and the gradients of those by input, kernel and cotangent: what a layer of the
    critic costs in its most expensive pass. `images` kernels and images are vmapped.
    """

    def score(x, kernel, cotangent):
        return jnp.vdot(conv3x3(x, kernel, form), cotangent)

    def penalty(x, kernel, cotangent):
        gradients = jax.grad(score, argnums=(0, 1))(x, kernel, cotangent)
        return sum(jnp.sum(jnp.square(gradient)) for gradient in gradients)

    def one(x, kernel, cotangent):
        def body(_, carry):
            steps = jax.grad(penalty, argnums=(0, 1, 2))(*carry)
            return jax.tree.map(lambda leaf, step: leaf + 1e-9 * jnp.tanh(step), carry, steps)

        return lax.fori_loop(0, loops, body, (x, kernel, cotangent))

    rng = np.random.default_rng(0)
    shapes = (1, side + 2, side + 2, features), (3, 3, features, features), (1, side, side, features)
    arrays = [jnp.asarray(rng.normal(0, 0.1, (images, *shape)), jnp.float32) for shape in shapes]
    started = time.perf_counter()
    with jax.default_matmul_precision(PRECISIONS[precision]):
        compiled = jax.jit(jax.vmap(one)).lower(*arrays).compile()
    compile_seconds = time.perf_counter() - started
    jax.block_until_ready(compiled(*arrays))
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        started = time.perf_counter()
        jax.block_until_ready(compiled(*arrays))
        times.append(time.perf_counter() - started)
    memory = compiled.memory_analysis()
    return {
        "form": form,
        "side": side,
        "features": features,
        "images": images,
        "precision": precision,
        "ms_per_image": 1e3 * sorted(times)[len(times) // 2] / loops / images,
        "compile_seconds": compile_seconds,
        "temporary_bytes": memory.temp_size_in_bytes,
    }
