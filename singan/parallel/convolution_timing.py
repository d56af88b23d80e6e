"""The convolution's form chosen by measurement: every form timed at one layer, on the device that will train."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.model.convolution import FORMS, conv3x3
from singan.model.spec import ScaleSpec
from singan.parallel.cohort import PRECISIONS
from singan.parallel.device_rates import median_seconds


@dataclasses.dataclass(frozen=True)
class FormTime:
    """What one layer takes in a form, with all that the gradient penalty takes of it."""

    form: str
    side: int
    features: int
    images: int
    precision: str
    ms_per_image: float
    compile_seconds: float
    temporary_bytes: int


def vmapped_forms(images: int) -> tuple[str, ...]:
    """Returns the forms that differ where this many images are vmapped (direct is grouped there)."""
    alone = ("direct", "mapped", "packed") if images == 1 else ("direct",)
    return tuple(form for form in FORMS if form not in alone)


def time_form(
    form: str, side: int, features: int, images: int, precision: str, seconds: float = 0.2, loops: int = 4
) -> FormTime:
    """Times the value, both gradients, and the gradients of those by input, kernel and cotangent, `images` vmapped."""

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
    ms = 1e3 * median_seconds(compiled, tuple(arrays), seconds) / loops / images
    memory = compiled.memory_analysis()
    temporary = memory.temp_size_in_bytes if memory else 0
    return FormTime(form, side, features, images, precision, ms, compile_seconds, temporary)


def time_forms(spec: ScaleSpec, images: int) -> list[FormTime]:
    """Returns the times of the forms at a scale's widest layer, fastest first, without those that do not compile."""
    side, rows = round((spec.size[0] * spec.size[1]) ** 0.5), []
    for form in vmapped_forms(images):
        try:
            rows.append(time_form(form, side, spec.width, images, spec.train.precision))
        except jax.errors.JaxRuntimeError:  # too large, or more than the device's libraries know
            continue
    return sorted(rows, key=lambda row: row.ms_per_image)


def as_mapping(rows: list[FormTime]) -> list[dict[str, Any]]:
    """Returns the times for a JSON file."""
    return [dataclasses.asdict(row) for row in rows]
