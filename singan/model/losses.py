"""The losses of SinGAN (paper section 2; Wasserstein GAN with gradient penalty), as pure functions of arrays."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from singan.shapes import Array, Float


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
