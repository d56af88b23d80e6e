"""One step of one scale's training for ONE image: critic updates, then generator updates. No vmap, no mesh."""

import dataclasses
from collections.abc import Callable
from typing import no_type_check

import jax
import jax.numpy as jnp
from jax import lax

from singan import losses
from singan.generation import apply_critic, apply_generator, generator_inputs, random_previous
from singan.noise import Purpose, noise_map, scale_key
from singan.shapes import Array, Float, PyTree
from singan.spec import ScaleSpec
from singan.state import ScaleInputs, ScaleState, adam, alive

METRICS = (
    "critic/real",
    "critic/fake",
    "critic/gradient_penalty",
    "critic/gradient_norm",
    "generator/adversarial",
    "generator/reconstruction",
    "generator/gradient_norm",
)


@no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepNoise:
    """Everything random in one step, k = critic updates. Given from outside in tests, drawn by `draw` otherwise."""

    noise: Float[Array, "1 h w c"]  # the generator's noise, one draw per step
    previous: Float[Array, "k 1 h w c"]  # a fresh pass through the frozen scales for each critic update
    epsilon: Float[Array, "k"]  # where between real and fake the penalty is taken


def draw(spec: ScaleSpec, inputs: ScaleInputs, step: Array) -> StepNoise:
    """Returns the random numbers of a step, which depend on (seed, image, scale, step) alone."""
    key = lambda purpose: scale_key(inputs.key_data, spec.scale, step, purpose)  # noqa: E731
    updates = jnp.arange(spec.train.critic_updates)
    epsilon = jax.vmap(lambda u: jax.random.uniform(jax.random.fold_in(key(Purpose.INTERPOLATION), u)))(updates)

    def previous(update):
        return random_previous(spec, inputs.trained, inputs.padding, jax.random.fold_in(key(Purpose.PREVIOUS), update))

    # All passes of a step in one batch on accelerators, one after another where batching buys nothing (CPU).
    passes = lax.map(previous, updates) if spec.form == "direct" else jax.vmap(previous)(updates)
    return StepNoise(noise_map(spec, key(Purpose.STEP_NOISE)), passes, epsilon)


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
    learning_rate = jnp.where(
        state.step < int(spec.train.decay_at * spec.train.steps_per_scale), 1.0, spec.train.learning_rate_decay
    )

    def critic_update(carry, update):
        critic, adam_state, generator = carry
        previous, epsilon = update
        x, y = generator_inputs(spec, random.noise, previous, inputs.amplitude, inputs.padding)
        fake, generator = apply_generator(spec, generator, x, y, frozen=False)
        (_, (critic, metrics)), gradient = jax.value_and_grad(_critic_loss, argnums=1, has_aux=True)(
            spec, critic["params"], critic, inputs.real, lax.stop_gradient(fake), epsilon
        )
        critic, adam_state, norm = _descend(
            spec, critic, adam_state, gradient, learning_rate * spec.train.critic_learning_rate
        )
        return (critic, adam_state, generator), {**metrics, "critic/gradient_norm": norm}

    (critic, critic_adam, generator), critic_metrics = lax.scan(
        critic_update,
        (state.critic, state.critic_adam, state.generator),
        (random.previous, random.epsilon),
        length=spec.train.critic_updates,
    )

    # The generator sees the noise and the previous image of the last critic update: nothing new is drawn.
    x, y = generator_inputs(spec, random.noise, random.previous[-1], inputs.amplitude, inputs.padding)
    if state.reconstruction_noise is None:
        z_star = jnp.zeros_like(random.noise)
    else:
        z_star = jnp.broadcast_to(state.reconstruction_noise, random.noise.shape)
    x_star, y_star = generator_inputs(spec, z_star, inputs.previous, inputs.amplitude, inputs.padding)

    def generator_update(carry, _):
        generator, adam_state, critic = carry
        (_, (generator, critic, metrics)), gradient = jax.value_and_grad(_generator_loss, argnums=1, has_aux=True)(
            spec, generator["params"], generator, critic, (x, y), (x_star, y_star), inputs.real
        )
        generator, adam_state, norm = _descend(
            spec, generator, adam_state, gradient, learning_rate * spec.train.generator_learning_rate
        )
        return (generator, adam_state, critic), {**metrics, "generator/gradient_norm": norm}

    (generator, generator_adam, critic), generator_metrics = lax.scan(
        generator_update, (generator, state.generator_adam, critic), length=spec.train.generator_updates
    )
    new = dataclasses.replace(
        state, generator=generator, critic=critic, generator_adam=generator_adam, critic_adam=critic_adam
    )
    return new, {**critic_metrics, **generator_metrics}


def _critic_loss(spec, params, variables, real, fake, epsilon):
    """-mean D(real) + mean D(fake) + weight * penalty; the running statistics, if kept, see the three in this order."""
    score_real, variables = apply_critic(spec, {**variables, "params": params}, real)
    score_fake, variables = apply_critic(spec, {**variables, "params": params}, fake)
    mixed = losses.interpolate(real, fake, epsilon)
    current = {**variables, "params": params}
    gradient = losses.input_gradient(lambda image: apply_critic(spec, current, image)[0], mixed)
    if "batch_stats" in variables:
        variables = lax.stop_gradient(apply_critic(spec, current, mixed)[1])
    penalty = spec.train.gradient_penalty_weight * losses.gradient_penalty(gradient)
    real_term, fake_term = -jnp.mean(score_real), jnp.mean(score_fake)
    metrics = {"critic/real": real_term, "critic/fake": fake_term, "critic/gradient_penalty": penalty}
    return real_term + fake_term + penalty, (variables, metrics)


def _generator_loss(spec, params, variables, critic, inputs, star_inputs, real):
    """-mean D(fake) + weight * MSE(reconstruction, real)."""
    fake, variables = apply_generator(spec, {**variables, "params": params}, *inputs, frozen=False)
    scores, critic = apply_critic(spec, critic, fake)
    adversarial = -jnp.mean(scores)
    image, variables = apply_generator(spec, {**variables, "params": params}, *star_inputs, frozen=False)
    reconstruction = spec.train.reconstruction_weight * losses.reconstruction_mse(image, real)
    metrics = {"generator/adversarial": adversarial, "generator/reconstruction": reconstruction}
    return adversarial + reconstruction, (variables, critic, metrics)


def _descend(
    spec: ScaleSpec, variables: PyTree, adam_state: PyTree, gradient: PyTree, learning_rate: Array
) -> tuple[PyTree, PyTree, Array]:
    direction, adam_state = adam(spec).update(gradient, adam_state)
    params = jax.tree.map(lambda p, d: p - learning_rate * d, variables["params"], direction)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    return {**variables, "params": params}, adam_state, norm
