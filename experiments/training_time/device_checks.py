"""What must hold on a device before its times mean anything; each check returns what it found, or raises."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from experiments.training_time.whole_steps import example_of
from singan.model.convolution import FORMS, conv3x3
from singan.model.spec import ScaleSpec
from singan.model.step import train_step
from singan.parallel import cohort


def forms_agree(images: int = 3, side: int = 20, features: int = 8) -> str:
    """Every form equals lax.conv in value, first and second derivatives, vmapped, in full float32."""

    def plain(x, kernel, _):
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def everything(convolution, form):
        def score(x, kernel):
            return jnp.sum(jnp.tanh(convolution(x, kernel, form)))

        def penalty(x, kernel):
            return sum(jnp.sum(jnp.square(g)) for g in jax.grad(score, argnums=(0, 1))(x, kernel))

        def of(x, kernel):
            gradients = jax.grad(score, argnums=(0, 1))(x, kernel)
            return convolution(x, kernel, form), gradients, jax.grad(penalty, argnums=(0, 1))(x, kernel)

        return jax.jit(jax.vmap(of))

    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.5, (images, 1, side, side, features)).astype(np.float32)
    kernel = rng.normal(0, 0.2, (images, 3, 3, features, features)).astype(np.float32)
    worst = {}
    with jax.default_matmul_precision("highest"):
        expected = everything(plain, "")(x, kernel)
        for form in FORMS:
            result = everything(conv3x3, form)(x, kernel)
            errors = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))), result, expected)
            worst[form] = max(jax.tree.leaves(errors))
            if not worst[form] < 1e-4:
                raise AssertionError(f"the form {form} differs from lax.conv by {worst[form]:.2g} of the largest value")
    return "largest relative difference from lax.conv: " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items())


def step_as_on_a_cpu(spec: ScaleSpec) -> str:
    """One training step gives the same losses on the device as on the CPU of the machine, in full float32."""
    inputs, state = example_of(spec)

    def losses(spec, device):
        step = jax.jit(lambda inputs, state: train_step(spec, inputs, state)[1])
        with jax.default_matmul_precision("highest"):
            return jax.tree.map(np.array, step(*jax.device_put((inputs, state), device)))

    here = losses(spec, jax.devices()[0])
    there = losses(dataclasses.replace(spec, form="direct"), jax.devices("cpu")[0])
    worst = max(float(np.max(np.abs(here[name] - there[name]) / (1 + np.abs(there[name])))) for name in here)
    if not worst < 2e-3:
        raise AssertionError(f"losses of a step differ from the CPU's by {worst:.2g}: {here} and {there}")
    return f"largest difference of a step's metrics from the CPU's: {worst:.1e}"


def images_leave_each_other_alone(spec: ScaleSpec, mesh: Mesh) -> str:
    """An image in a cohort of four is trained as it is beside itself: neighbours, one of them NaN, change nothing."""
    inputs, state = example_of(spec)
    others = [dataclasses.replace(inputs, real=np.float32(sign) * inputs.real) for sign in (-1, 0.5, np.nan)]
    program = cohort.chunk_program(spec, mesh, 4 // mesh.size, 2)

    def train(images):
        size = cohort.padded_size(4, mesh, 4 // mesh.size)
        placed = cohort.shard(cohort.stack(images, size), mesh), cohort.shard(cohort.stack([state], size), mesh)
        compiled = cohort.compile_program(program, *placed)
        return jax.tree.map(lambda leaf: np.array(leaf)[0], compiled(*placed)[0].generator)

    beside_itself, beside_others = train([inputs] * 4), train([inputs, *others])
    if not all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (beside_itself, beside_others)), strict=True)
    ):
        raise AssertionError("an image's weights depend on its neighbours")
    return "the weights of an image are the same bits, whatever its neighbours"


def run(checks: list[Callable[[], str]], tell: Callable[[str], None]) -> list[dict[str, str | bool]]:
    """Runs the checks and returns their outcomes; none of them ends the run."""
    outcomes: list[dict[str, str | bool]] = []
    for check in checks:
        try:
            passed, text = True, check()
        except Exception as error:  # an error of the device itself is an outcome too
            passed, text = False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        tell(f"{'ok  ' if passed else 'FAIL'} {text}")
        outcomes.append({"passed": passed, "text": text})
    return outcomes
