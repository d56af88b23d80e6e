"""From one scale to the next, for ONE image: its reconstruction, and what the next scale starts with."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from singan.model import losses
from singan.model.generation import run_trained, upsample_to_next_scale
from singan.model.networks import initial_variables
from singan.model.noise import Purpose, noise_map, scale_key, weights_generator
from singan.model.spec import ScaleSpec
from singan.model.state import ScaleState, TrainedScale, fresh_state
from singan.shapes import Array, Float, PyTree, UInt


def reconstruct(
    spec: ScaleSpec,
    trained: TrainedScale,
    reconstruction_noise: Float[Array, "1 h w 1"] | None,
    previous: Float[Array, "1 h w c"],
    padding: Float[Array, "c"],
    condition: Float[Array, "1 h w k"] | None = None,
) -> Float[Array, "1 h w c"]:
    """Returns the image that a trained scale makes of z* (scale 0) or of no noise (above); not clipped."""
    noise = jnp.zeros_like(previous)
    if reconstruction_noise is not None:
        noise = jnp.broadcast_to(reconstruction_noise, previous.shape)
    return run_trained(spec, trained, noise, previous, padding, condition)


def reconstruct_through(
    spec: ScaleSpec,
    trained: tuple[TrainedScale, ...],
    reconstruction_noise: Float[Array, "1 h w 1"] | None,
    previous: Float[Array, "1 hh ww c"],
    padding: Float[Array, "c"],
    conditions: Sequence[Float[Array, "1 ..."]] = (),
) -> Float[Array, "1 H W c"]:
    """Returns the image that several trained scales make without noise (of z* at scale 0); not clipped.

    Args:
      trained: the scales up to `spec.scale`, coarsest first.
      reconstruction_noise: z*, where scale 0 is one of them.
      previous: what enters the coarsest of them.
      conditions: what is given at each scale from 0 to spec.scale; () without.
    """
    first, image = spec.scale - len(trained) + 1, previous
    for scale, one in enumerate(trained, first):
        here = spec.at(scale)
        condition = conditions[scale] if conditions else None
        image = reconstruct(here, one, reconstruction_noise if scale == 0 else None, image, padding, condition)
        image = upsample_to_next_scale(spec.at(scale + 1), image) if scale < spec.scale else image
    return image


def open_scale(
    spec: ScaleSpec,
    reconstruction: Float[Array, "1 h w c"],
    real: Float[Array, "1 hh ww c"],
    noise_weight: Float[Array, ""] | float,
    min_amplitude: Float[Array, ""] | float = 0.0,
) -> tuple[Float[Array, "1 hh ww c"], Float[Array, ""]]:
    """Returns (previous, amplitude) of a scale above 0, from the reconstruction of the scale below it.

    The noise amplitude is noise_weight times the RMSE between the real image and the upsampled reconstruction, fixed
    for the whole scale (SinGAN paper, section 2.2: sigma proportional to that RMSE), but min_amplitude at least.
    """
    previous = upsample_to_next_scale(spec, reconstruction)
    return previous, jnp.maximum(noise_weight * losses.rmse(previous, real), min_amplitude)


def starting_noise(spec: ScaleSpec, key_data: UInt[Array, "2"]) -> Float[Array, "1 h w 1"]:
    """Returns z*, the noise that scale 0 is to turn into the training image."""
    return noise_map(spec, scale_key(key_data, 0, 0, Purpose.RECONSTRUCTION))[..., :1]


def starting_state(
    spec: ScaleSpec,
    seed: int,
    image_id: str,
    reconstruction_noise: np.ndarray | None,
    below: tuple[PyTree, PyTree] | None,
    older: tuple[PyTree, ...] = (),
) -> ScaleState:
    """Returns the NumPy state that an image starts a scale with.

    Args:
      below: (generator, critic) variables of the previous scale; used where the spec says that they are inherited.
      older: variables of the older generators that train on, coarsest first.
    """
    if spec.continues_previous_scale:
        assert below is not None
        generator, critic = below
    else:
        rng = weights_generator(seed, image_id, spec.scale)
        generator = initial_variables(spec.generator, spec.channels, rng)
        critic = initial_variables(spec.critic, spec.channels, rng)
    return fresh_state(spec, generator, critic, reconstruction_noise, older)
