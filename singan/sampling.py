"""Random samples of trained pyramids, from any start scale, in batches on the device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from singan.cohort import parallel
from singan.generation import hop, run_trained
from singan.handover import reconstruct
from singan.noise import Purpose, noise_map, scale_key
from singan.shapes import Array, Float, Int, UInt
from singan.spec import ScaleSpec
from singan.state import TrainedScale


def start_image(
    spec: ScaleSpec,
    trained: tuple[TrainedScale, ...],
    reconstruction_noise: Float[Array, "1 h w 1"],
    padding: Float[Array, "c"],
    start_scale: int,
) -> Float[Array, "1 hh ww c"]:
    """Returns what enters `start_scale` as the previous image: the reconstruction of the scales below, or zeros."""
    image = jnp.zeros((1, *spec.pyramid.sizes[0], spec.channels), jnp.float32)
    for scale in range(start_scale):
        noise = reconstruction_noise if scale == 0 else None
        image = reconstruct(spec.at(scale), trained[scale], noise, image, padding)
        image = hop(spec.at(scale + 1), image)
    return image


def sample_from(
    spec: ScaleSpec,
    trained: tuple[TrainedScale, ...],
    image: Float[Array, "1 h w c"],
    padding: Float[Array, "c"],
    start_scale: int,
    key_data: UInt[Array, "2"],
    number: Int[Array, ""],
) -> Float[Array, "hh ww c"]:
    """Returns sample `number` of `spec.scale`'s size, clipped to [-1, 1]: fresh noise at every scale from the start.

    A sample depends on (key, start scale, number) alone, whatever batch it is drawn in.
    """
    key = jax.random.fold_in(scale_key(key_data, start_scale, 0, Purpose.SAMPLE), number)
    for scale in range(start_scale, spec.scale + 1):
        here = spec.at(scale)
        noise = noise_map(here, jax.random.fold_in(key, scale))
        image = run_trained(here, trained[scale], noise, image, padding)
        image = hop(spec.at(scale + 1), image) if scale < spec.scale else jnp.clip(image, -1, 1)
    return image[0]


def sample_program(spec: ScaleSpec, mesh: Mesh, start_scale: int, group: int = 1) -> Callable[..., Any]:
    """Returns the cohort program that draws a batch of samples of every image, through scales start .. spec.scale.

    Its arguments are (trained, reconstruction_noise, padding, key_data, numbers), all with a leading axis of images;
    numbers is int32 [n, k], the samples wanted of each image. It returns float32 [n, k, H, W, C] in [-1, 1].
    """

    def of_one(trained, reconstruction_noise, padding, key_data, numbers):
        image = start_image(spec, trained, reconstruction_noise, padding, start_scale)
        one = lambda number: sample_from(spec, trained, image, padding, start_scale, key_data, number)  # noqa: E731
        # One after another on a CPU, where a batched convolution would round a sample differently in another batch.
        return lax.map(one, numbers) if spec.form == "direct" else jax.vmap(one)(numbers)

    return parallel(of_one, mesh, group)
