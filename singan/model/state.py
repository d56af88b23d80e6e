"""What is learnt, as trees of arrays for ONE image. A cohort's trees have the same leaves with a leading axis n.

The classes are no_type_check because JAX makes such trees of shapes, shardings and placeholders too.
"""

import dataclasses
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
import optax

from singan.config import TrainConfig
from singan.model.spec import ScaleSpec
from singan.shapes import Array, Bool, Float, Int, PyTree, UInt


@no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainedScale:
    """A frozen scale: all that drawing images through it needs."""

    generator: PyTree  # variables
    amplitude: Float[Array, ""]


@no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """What only scales numbers in a step: learning rates and loss weights, as float32 scalars of each image."""

    critic_learning_rate: Float[Array, ""]
    generator_learning_rates: Float[Array, "k"]  # of the generators that train together, coarsest first
    learning_rate_decay: Float[Array, ""]  # factor of all learning rates from `decay_step` on
    decay_step: Int[Array, ""]
    gradient_penalty_weight: Float[Array, ""]
    reconstruction_weight: Float[Array, ""]
    patch_weight: Float[Array, ""]
    average_decay: Float[Array, ""]


@no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScaleInputs:
    """What a scale's training reads and never changes."""

    real: Float[Array, "1 h w c"]
    # The reconstruction of the frozen scales, brought to the coarsest scale that trains; zeros where that is scale 0.
    previous: Float[Array, "1 hh ww c"]
    padding: Float[Array, "c"]
    amplitude: Float[Array, ""]
    key_data: UInt[Array, "2"]
    trained: tuple[TrainedScale, ...]  # the frozen scales: 0 .. scale - 1 - len(older_amplitudes)
    hyperparameters: Hyperparameters
    guide: PyTree = None  # what fine-tuning draws its previous images from, instead of noise alone
    co_trained_amplitudes: tuple[Float[Array, ""], ...] = ()  # of the older scales that train, coarsest first
    # Of a conditional pyramid: the layouts of the pool at scales 0 .. scale, the image's own first (condition.py).
    conditions: tuple[UInt[Array, "p ..."], ...] = ()


@no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CoTrainedGenerator:
    """The generator of a scale below that trains on together with the scale's own (concurrent schedule)."""

    generator: PyTree  # variables
    adam: PyTree


@no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScaleState:
    """What a scale's training changes."""

    generator: PyTree  # variables
    critic: PyTree  # variables
    generator_adam: PyTree
    critic_adam: PyTree
    reconstruction_noise: Float[Array, "1 h w 1"] | None  # z* of scale 0; None where scale 0 does not train
    step: Int[Array, ""]
    diverged_at: Int[Array, ""]  # the step at which something was not finite; -1 while all is well
    older: tuple[CoTrainedGenerator, ...] = ()  # coarsest first
    average: PyTree = None  # of the generator's variables over the steps, where the training keeps one


def hyperparameters(train: TrainConfig, generators: int, steps: int) -> Hyperparameters:
    """Returns the learning rates and loss weights of a scale's training.

    Args:
      generators: how many train together: the scale's own, and the older ones of the concurrent schedule.
      steps: of the scale.
    """
    ages = np.arange(generators)[::-1]
    return Hyperparameters(
        np.float32(chosen(train.critic_learning_rate)),
        np.float32(chosen(train.generator_learning_rate) * np.float64(train.concurrent_learning_rate) ** ages),
        np.float32(train.learning_rate_decay),
        np.int32(int(train.decay_at * steps)),
        np.float32(train.gradient_penalty_weight),
        np.float32(chosen(train.reconstruction_weight)),
        np.float32(chosen(train.patch_weight)),
        np.float32(chosen(train.average_decay)),
    )


def chosen(value: float | None) -> float:
    """Returns a value that the preset decides. Raises ValueError where `parse` has not filled it in."""
    if value is None:
        raise ValueError("the preset's values are not filled in: make the configuration with singan.config.parse")
    return value


def adam(spec: ScaleSpec) -> optax.GradientTransformation:
    """Returns Adam's direction; the learning rate, which changes once, is applied by the step."""
    return optax.scale_by_adam(spec.train.adam_b1, spec.train.adam_b2, eps=1e-8)


def fresh_state(
    spec: ScaleSpec,
    generator: PyTree,
    critic: PyTree,
    reconstruction_noise: Array | None,
    older: tuple[PyTree, ...] = (),
) -> ScaleState:
    """Returns the state that a scale starts from, given all networks' variables; Adam starts at zero.

    Args:
      older: variables of the older generators that train, coarsest first.
    """
    zeros = lambda tree: jax.tree.map(np.zeros_like, tree)  # noqa: E731

    def fresh_adam(variables: PyTree) -> PyTree:
        params = variables["params"]
        return optax.ScaleByAdamState(np.zeros((), np.int32), zeros(params), zeros(params))

    return ScaleState(
        generator,
        critic,
        fresh_adam(generator),
        fresh_adam(critic),
        reconstruction_noise,
        np.zeros((), np.int32),
        np.full((), -1, np.int32),
        tuple(CoTrainedGenerator(variables, fresh_adam(variables)) for variables in older),
        generator if spec.train.averages else None,
    )


def final_generator(state: ScaleState) -> PyTree:
    """Returns the variables of the generator that a scale leaves: the average over its steps, where it keeps one."""
    return state.generator if state.average is None else state.average


def alive(state: ScaleState) -> Bool[Array, "*n"]:
    """Returns whether training goes on: nothing has been other than finite so far."""
    return jnp.asarray(state.diverged_at) < 0
