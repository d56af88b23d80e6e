"""The losses of SinGAN (paper section 2; Wasserstein GAN with gradient penalty), as pure functions of arrays."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from singan.model.concurrent import GeneratorInputs, generate, side_by_side
from singan.model.generation import apply_critic, with_condition
from singan.model.spec import ScaleSpec
from singan.shapes import Array, Float, PyTree


def gradient_penalty(gradient: Float[Array, "1 h w c"]) -> Float[Array, ""]:
    """Returns the mean over pixels of (||gradient over the channels|| - 1)^2.

    Pixelwise, unlike WGAN-GP's norm over the whole image: the reference's calc_gradient_penalty takes the norm over
    the channel axis. A pixel with a zero gradient counts as 1 and passes no gradient on (torch's subgradient).
    """
    squared = jnp.sum(jnp.square(gradient), axis=-1)
    positive = squared > 0
    norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
    return jnp.mean(jnp.square(norm - 1.0))


def input_gradient(score: Callable[[Array], Array], image: Float[Array, "1 h w c"]) -> Float[Array, "1 h w c"]:
    """Returns the gradient by the image of the sum of the critic's scores of it."""
    return jax.grad(lambda x: jnp.sum(score(x)))(image)


def interpolate(
    real: Float[Array, "1 h w c"], fake: Float[Array, "1 h w c"], epsilon: Float[Array, ""]
) -> Float[Array, "1 h w c"]:
    """Returns epsilon * real + (1 - epsilon) * fake, where the penalty is taken; one epsilon for the whole image."""
    return epsilon * real + (1 - epsilon) * fake


def reconstruction_mse(image: Float[Array, "1 h w c"], real: Float[Array, "1 h w c"]) -> Float[Array, ""]:
    """Returns the mean squared difference over pixels and channels."""
    return jnp.mean(jnp.square(image - real))


def rmse(image: Float[Array, "1 h w c"], real: Float[Array, "1 h w c"]) -> Float[Array, ""]:
    """Returns the root mean squared difference, in units of the [-1, 1] range."""
    return jnp.sqrt(reconstruction_mse(image, real))


def critic_loss(
    spec: ScaleSpec,
    params: PyTree,
    variables: PyTree,
    real: Float[Array, "1 h w c"],
    fake: Float[Array, "1 h w c"],
    epsilon: Float[Array, ""],
    weight: Float[Array, ""] | float,
) -> tuple[Float[Array, ""], tuple[PyTree, dict[str, Array]]]:
    """Returns -mean D(real) + mean D(fake) + weight * penalty, and (the critic's variables, the three terms).

    Running statistics, where the critic keeps any, see real, fake and the mixed image in this order. In a conditional
    pyramid both images come with their given channels, by which the penalty is taken too: it is the pair that is
    judged.

    Args:
      params: the critic's parameters, by which the loss is differentiated; its other `variables` follow along.
      epsilon: in [0, 1], where between fake and real the gradient penalty is taken.
      weight: of the gradient penalty (train.gradient_penalty_weight).
    """
    if spec.batches_passes:
        scores, _ = apply_critic(spec, {**variables, "params": params}, jnp.concatenate([real, fake]))
        score_real, score_fake = scores[:1], scores[1:]
    else:
        score_real, variables = apply_critic(spec, {**variables, "params": params}, real)
        score_fake, variables = apply_critic(spec, {**variables, "params": params}, fake)
    mixed = interpolate(real, fake, epsilon)
    current = {**variables, "params": params}
    gradient = input_gradient(lambda image: apply_critic(spec, current, image)[0], mixed)
    if "batch_stats" in variables:
        variables = lax.stop_gradient(apply_critic(spec, current, mixed)[1])
    penalty = weight * gradient_penalty(gradient)
    real_term, fake_term = -jnp.mean(score_real), jnp.mean(score_fake)
    metrics = {"critic/real": real_term, "critic/fake": fake_term, "critic/gradient_penalty": penalty}
    return real_term + fake_term + penalty, (variables, metrics)


def generator_loss(
    spec: ScaleSpec,
    params: tuple[PyTree, ...],
    generators: tuple[PyTree, ...],
    critic: PyTree,
    fake_inputs: GeneratorInputs,
    rec_inputs: GeneratorInputs,
    real: Float[Array, "1 h w c"],
    weight: Float[Array, ""] | float,
    patch_loss: Callable[[Array], Array] | None = None,
    condition: Float[Array, "1 h w k"] | None = None,
) -> tuple[Float[Array, ""], tuple[tuple[PyTree, ...], PyTree, dict[str, Array]]]:
    """Returns -mean D(fake) + weight * MSE(reconstruction, real), and (generators, critic, the terms).

    All terms are of this scale's image alone; all generators that train together learn from them.

    Args:
      params: the generators' parameters, coarsest first, by which the loss is differentiated.
      fake_inputs: with the step's noise. rec_inputs: with z* (no noise above scale 0), for the reconstruction.
      weight: of the reconstruction (train.reconstruction_weight).
      patch_loss: a third term, of the fake image (train.patch_weight).
      condition: what the fake image was made of, which the critic sees behind it.
    """
    with_params = lambda: tuple({**g, "params": p} for g, p in zip(generators, params, strict=True))  # noqa: E731
    if spec.batches_passes:
        images, _ = generate(spec, with_params(), side_by_side(fake_inputs, rec_inputs))
        fake, image = images[:1], images[1:]
        scores, _ = apply_critic(spec, critic, with_condition(fake, condition))
    else:
        fake, generators = generate(spec, with_params(), fake_inputs)
        scores, critic = apply_critic(spec, critic, with_condition(fake, condition))
        image, generators = generate(spec, with_params(), rec_inputs)
    adversarial = -jnp.mean(scores)
    reconstruction = weight * reconstruction_mse(image, real)
    metrics = {"generator/adversarial": adversarial, "generator/reconstruction": reconstruction}
    if patch_loss is None:
        return adversarial + reconstruction, (generators, critic, metrics)
    patches = patch_loss(fake)
    return adversarial + reconstruction + patches, (generators, critic, {**metrics, "generator/patches": patches})
