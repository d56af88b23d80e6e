"""What must hold on a device before its times mean anything."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.training_time.whole_steps import example_of
from singan.config import parse
from singan.model.convolution import CONV_IMPLS
from singan.model.pyramid import make_pyramid
from singan.model.spec import ScaleSpec, make_spec
from singan.model.step import train_step
from singan.parallel import cohort

TOLERANCE = 2e-3  # of a metric, relative to 1 + its size


def run(mesh: Mesh) -> list[dict[str, Any]]:
    """Returns {'passed': bool, 'text': str} of each check: every form of the convolution, then a cohort.

    An error of the device is an outcome too: none ends the run.
    """
    # Few layers and updates, so that the checks leave the time to the tables.
    network, updates = {"width": 8, "num_layers": 3}, {"critic_updates": 2, "generator_updates": 2}
    config = parse({"pyramid": {"min_size": 15, "max_size": 24}, "network": network, "train": updates})
    spec = make_spec(config, make_pyramid(24, 24, config.pyramid), 3, "grouped", 1)
    conv_impls = [
        _outcome(step_as_on_a_cpu, dataclasses.replace(spec, conv_impl=conv_impl)) for conv_impl in CONV_IMPLS
    ]
    return [*conv_impls, _outcome(images_leave_each_other_alone, spec, mesh)]


def _outcome(check: Any, *arguments: Any) -> dict[str, Any]:
    try:
        return {"passed": True, "text": check(*arguments)}
    except Exception as error:
        return {"passed": False, "text": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}


def step_as_on_a_cpu(spec: ScaleSpec) -> str:
    """A training step of a cohort gives the same losses on the device as on the machine's CPU, in full float32.

    Its second updates use the derivatives of its first.
    """
    here = _losses(spec, jax.devices()[0])
    there = _losses(dataclasses.replace(spec, conv_impl="direct"), jax.devices("cpu")[0])
    worst = max(float(np.max(np.abs(here[name] - there[name]) / (1 + np.abs(there[name])))) for name in here)
    if not worst < TOLERANCE:
        raise AssertionError(f"{spec.conv_impl}: metrics of a step differ from the CPU's by {worst:.2g}")
    return f"{spec.conv_impl}: largest difference of a step's metrics from the CPU's: {worst:.1e}"


@functools.cache  # the CPU's are the same for every form
def _losses(spec: ScaleSpec, device: Any) -> dict[str, np.ndarray]:
    batch = [cohort.stack([tree] * 3, 3) for tree in example_of(spec)]
    step = jax.jit(jax.vmap(lambda inputs, state: train_step(spec, inputs, state)[1]))
    with jax.default_matmul_precision("highest"):
        return jax.tree.map(np.array, step(*jax.device_put(batch, device)))


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
    if not jax.tree.all(jax.tree.map(np.array_equal, beside_itself, beside_others)):
        raise AssertionError("an image's weights depend on its neighbours")
    return "the weights of an image are the same bits, whatever its neighbours"
