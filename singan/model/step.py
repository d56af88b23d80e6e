"""One step of one scale's training for ONE image: critic updates, then generator updates. No vmap, no mesh.

The generators stand here as a tuple, coarsest first. In the sequential schedule it holds one; in the concurrent one the
older generators that train along come before it (concurrent.py).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import no_type_check

import jax
import jax.numpy as jnp
from jax import lax

from singan.model import losses
from singan.model.concurrent import co_trained_noise, generate, make_inputs
from singan.model.condition import in_unit_range
from singan.model.generation import random_previous, with_condition
from singan.model.noise import Purpose, noise_map, scale_key
from singan.model.patch_distance import grid_offset, patch_distance, random_directions
from singan.model.spec import ScaleSpec
from singan.model.state import CoTrainedGenerator, ScaleInputs, ScaleState, adam, alive
from singan.model.window import crop, crop_inputs, random_window
from singan.shapes import Array, Float, Int, PyTree

METRICS = (
    "critic/real",
    "critic/fake",
    "critic/gradient_penalty",
    "critic/gradient_norm",
    "generator/adversarial",
    "generator/reconstruction",
    "generator/gradient_norm",
)


def metric_names(spec: ScaleSpec) -> tuple[str, ...]:
    """Returns the names of a step's metrics."""
    return (*METRICS, "generator/patches") if spec.train.compares_patches else METRICS


@no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepNoise:
    """Everything random in one step, k = critic updates. Given from outside in tests, drawn by `draw` otherwise."""

    noise: Float[Array, "1 h w c"]  # the generator's noise, one draw per step
    previous: Float[Array, "k 1 hh ww c"]  # a fresh pass through the frozen scales for each critic update
    epsilon: Float[Array, "k"]  # where between real and fake the penalty is taken
    older: tuple[Float[Array, "1 ..."], ...] = ()  # the older generators' noise, coarsest first
    # Where the loss compares patches: the directions they are projected on, and where their grid begins.
    patches: tuple[Float[Array, "p c v"], Int[Array, "2"]] | None = None
    layout: Int[Array, ""] | None = None  # of a conditional pyramid: which of the pool is given
    window: Int[Array, "2"] | None = None  # where the part begins that is trained on, where that is not all


def draw(spec: ScaleSpec, inputs: ScaleInputs, step: Array) -> StepNoise:
    """Returns the random numbers of a step, which depend on (seed, image, scale, step) alone."""
    key = lambda purpose: scale_key(inputs.key_data, spec.scale, step, purpose)  # noqa: E731
    updates = jnp.arange(spec.train.critic_updates)
    coarsest = spec.at(spec.scale - len(inputs.co_trained_amplitudes))
    layout = jax.random.randint(key(Purpose.LAYOUT), (), 0, spec.layouts) if spec.condition else None
    conditions = given(inputs, layout)
    epsilon = jax.vmap(lambda u: jax.random.uniform(jax.random.fold_in(key(Purpose.INTERPOLATION), u)))(updates)

    def previous(update):
        own_key = jax.random.fold_in(key(Purpose.PREVIOUS), update)
        return random_previous(coarsest, inputs.trained, inputs.padding, own_key, conditions)

    passes, patches = spec.map(previous, updates), None
    if spec.train.compares_patches:
        directions, offset = jax.random.split(key(Purpose.PATCHES))
        patches = random_directions(directions, spec.channels), grid_offset(offset, spec.window)
    noise = noise_map(spec, key(Purpose.STEP_NOISE))
    window = random_window(spec, key(Purpose.WINDOW)) if spec.window != spec.size else None
    return StepNoise(noise, passes, epsilon, co_trained_noise(spec, inputs, step), patches, layout, window)


def given(inputs: ScaleInputs, layout: Array | int | None) -> tuple[Float[Array, "1 ..."], ...]:
    """Returns what a layout of the pool (0 is the image's own) gives at each scale; () without a condition."""
    return tuple(in_unit_range(pool[layout])[None] for pool in inputs.conditions)


Draw = Callable[[ScaleSpec, ScaleInputs, Array], StepNoise]


def train_step(
    spec: ScaleSpec, inputs: ScaleInputs, state: ScaleState, drawn: Draw = draw
) -> tuple[ScaleState, dict[str, Array]]:
    """Returns the state after one step, and its metrics (METRICS), each [k] with one value per update.

    Args:
      drawn: what is random in a step; fine-tuning has another.

    An image for which anything is not finite keeps the state that it had, marked with the step (`diverged_at`); from
    then on it is passed over. Nothing of this touches another image.
    """
    random = drawn(spec, inputs, state.step)
    if spec.scale == 0 and spec.method.reconstruction_noise == "redrawn":
        key = scale_key(inputs.key_data, 0, state.step, Purpose.RECONSTRUCTION)
        state = dataclasses.replace(state, reconstruction_noise=noise_map(spec, key)[..., :1])
    new, metrics = update_networks(spec, inputs, state, random)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(value)) for value in metrics.values()]))
    kept = alive(state) & finite
    result = jax.tree.map(lambda after, before: jnp.where(kept, after, before), new, state)
    return (
        dataclasses.replace(
            result,
            step=state.step + 1,
            diverged_at=jnp.where(alive(state) & ~finite, state.step, state.diverged_at),
        ),
        metrics,
    )


def update_networks(
    spec: ScaleSpec, inputs: ScaleInputs, state: ScaleState, random: StepNoise
) -> tuple[ScaleState, dict[str, Array]]:
    """Returns the state after the critic and generator updates of one step with given random numbers, and metrics."""
    hyper = inputs.hyperparameters
    decay = jnp.where(state.step < hyper.decay_step, 1.0, hyper.learning_rate_decay)
    critic_rate = decay * hyper.critic_learning_rate
    generator_rates = decay * hyper.generator_learning_rates
    noises = (*random.older, random.noise)
    generators = (*(one.generator for one in state.older), state.generator)
    generator_adams = (*(one.adam for one in state.older), state.generator_adam)
    conditions, own_conditions = given(inputs, random.layout), given(inputs, 0)
    cut = functools.partial(crop, begin=random.window, size=spec.window)
    real = cut(inputs.real)
    condition, own_condition = (cut(some[-1]) if some else None for some in (conditions, own_conditions))
    judged = with_condition(real, own_condition)

    def inputs_of(noises, previous, conditions):
        return crop_inputs(spec, make_inputs(spec, inputs, noises, previous, conditions), random.window)

    def critic_update(carry, update):
        critic, adam_state, generators = carry
        previous, epsilon = update
        fake, generators = generate(spec, generators, inputs_of(noises, previous, conditions))
        fake = with_condition(lax.stop_gradient(fake), condition)
        (_, (critic, metrics)), gradient = jax.value_and_grad(losses.critic_loss, argnums=1, has_aux=True)(
            spec, critic["params"], critic, judged, fake, epsilon, hyper.gradient_penalty_weight
        )
        critic, adam_state = _descend(spec, critic, adam_state, gradient, critic_rate)
        return (critic, adam_state, generators), {**metrics, "critic/gradient_norm": _norm(gradient)}

    (critic, critic_adam, generators), critic_metrics = lax.scan(
        critic_update,
        (state.critic, state.critic_adam, generators),
        (random.previous, random.epsilon),
        length=spec.train.critic_updates,
    )

    # The generators see the noise and the previous image of the last critic update: nothing new is drawn.
    fake_inputs = inputs_of(noises, random.previous[-1], conditions)
    rec_noises = tuple(jnp.zeros_like(noise) for noise in noises)
    if state.reconstruction_noise is not None:
        rec_noise = jnp.broadcast_to(state.reconstruction_noise, noises[0].shape)
        rec_noises = (rec_noise, *rec_noises[1:])
    rec_inputs = inputs_of(rec_noises, inputs.previous, own_conditions)

    def patch_loss(image):
        assert random.patches is not None
        return hyper.patch_weight * patch_distance(image, real, *random.patches)

    def generator_update(carry, _):
        generators, adam_states, critic = carry
        params = tuple(generator["params"] for generator in generators)
        (_, (generators, critic, metrics)), gradient = jax.value_and_grad(
            losses.generator_loss, argnums=1, has_aux=True
        )(
            spec,
            params,
            generators,
            critic,
            fake_inputs,
            rec_inputs,
            real,
            hyper.reconstruction_weight,
            patch_loss if random.patches is not None else None,
            condition,
        )
        moved = map(functools.partial(_descend, spec), generators, adam_states, gradient, generator_rates)
        generators, adam_states = zip(*moved, strict=True)
        return (generators, adam_states, critic), {**metrics, "generator/gradient_norm": _norm(gradient)}

    (generators, generator_adams, critic), generator_metrics = lax.scan(
        generator_update, (generators, generator_adams, critic), length=spec.train.generator_updates
    )
    new = dataclasses.replace(
        state,
        generator=generators[-1],
        critic=critic,
        generator_adam=generator_adams[-1],
        critic_adam=critic_adam,
        older=tuple(map(CoTrainedGenerator, generators[:-1], generator_adams[:-1])),
    )
    if state.average is not None:
        # Early on, a mean over few steps: the weights that the scale began with are soon forgotten.
        decay = jnp.minimum(hyper.average_decay, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, state.average, new.generator)
        new = dataclasses.replace(new, average=average)
    return new, {**critic_metrics, **generator_metrics}


def _descend(
    spec: ScaleSpec, variables: PyTree, adam_state: PyTree, gradient: PyTree, learning_rate: Array
) -> tuple[PyTree, PyTree]:
    direction, adam_state = adam(spec).update(gradient, adam_state)
    params = jax.tree.map(lambda p, d: p - learning_rate * d, variables["params"], direction)
    return {**variables, "params": params}, adam_state


def _norm(gradient: PyTree) -> Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient)))
