"""Running trained scales forward: one scale, the hop between scales, and a random pass through many."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from singan.model.noise import noise_map
from singan.model.spec import ScaleSpec
from singan.model.state import TrainedScale
from singan.shapes import Array, Float, Key, PyTree


def pad_border(
    image: Float[Array, "b h w c"], border: int, value: Float[Array, "c"] | float
) -> Float[Array, "b H W c"]:
    """Returns the image with `border` pixels of `value` on every side."""
    b, h, w, c = image.shape
    canvas = jnp.broadcast_to(jnp.asarray(value, image.dtype), (b, h + 2 * border, w + 2 * border, c))
    return canvas.at[:, border : border + h, border : border + w].set(image)


def generator_inputs(
    spec: ScaleSpec,
    noise: Float[Array, "b h w c"],
    previous: Float[Array, "b h w c"],
    amplitude: Float[Array, ""],
    padding: Float[Array, "c"],
    condition: Float[Array, "1 h w k"] | None = None,
) -> tuple[Float[Array, "b H W i"], Float[Array, "b H W c"]]:
    """Returns (x, y) for the generator: x = amplitude * noise + previous, y = previous, both surrounded.

    The noise is surrounded by 0 and the previous image by `padding`. At scale 0 the previous image is all 0, its
    surroundings included, and the amplitude is 1. A condition follows as more channels of x (`with_condition`).
    """
    if spec.scale == 0:
        x = pad_border(noise, spec.border, 0.0)
        return with_condition(x, condition, spec.border), jnp.zeros_like(x)
    y = pad_border(previous, spec.border, padding)
    return with_condition(pad_border(amplitude * noise, spec.border, 0.0) + y, condition, spec.border), y


def with_condition(
    image: Float[Array, "b H W c"], condition: Float[Array, "n h w k"] | None, border: int = 0
) -> Float[Array, "b H W i"]:
    """Returns an image with the given channels behind its own, or the image where none are given.

    Args:
      border: pixels that the image is surrounded with. The condition goes on there as it ends: an object that the
        border cuts is cut, and does not end.
    """
    if condition is None:
        return image
    wide = jnp.pad(condition, [(0, 0), (border, border), (border, border), (0, 0)], mode="edge")
    return jnp.concatenate([image, jnp.broadcast_to(wide, (len(image), *wide.shape[1:]))], axis=-1)


def upsample_to_next_scale(spec: ScaleSpec, image: Float[Array, "b h w c"]) -> Float[Array, "b hh ww c"]:
    """Returns an image of scale - 1 as the previous image of `spec.scale`, in [-1, 1].

    between_scales 'clip' resizes the clipped image; 'uint8' first cuts it down to 8 bits, as the reference does each
    time an image passes through its host-side resizing; 'uint8_rescaled_before_crop' also divides each resized image,
    in [0, 1], by its own maximum, as forks of the reference for more than three channels do. They crop the image after
    that: the maximum may lie in the part that is cut off. 'uint8_rescaled' takes the maximum of the part that is kept.
    """
    rule = spec.method.between_scales
    rows, columns = spec.pyramid.upsampling(spec.scale, cropped=rule != "uint8_rescaled_before_crop")
    image = jnp.clip(image, -1, 1)
    if rule != "clip":
        image = jnp.floor((image + 1) * 127.5) / 127.5 - 1
    # At any train.precision: it costs little, and fewer bits would take grey levels from every scale.
    image = jnp.einsum("ph,bhwc->bpwc", rows, image, precision="highest")
    image = jnp.einsum("qw,bpwc->bpqc", columns, image, precision="highest")
    if rule in ("uint8_rescaled", "uint8_rescaled_before_crop"):
        # From 0 to the largest value of all channels, instead of to 255; a black image stays one.
        image = 2 * (image + 1) / jnp.maximum(jnp.max(image + 1, (1, 2, 3), keepdims=True), 2 / 255) - 1
    height, width = spec.size
    return jnp.clip(image[:, :height, :width], -1, 1)


def run_trained(
    spec: ScaleSpec,
    trained: TrainedScale,
    noise: Float[Array, "b h w c"],
    previous: Float[Array, "b h w c"],
    padding: Float[Array, "c"],
    condition: Float[Array, "1 h w k"] | None = None,
) -> Float[Array, "b h w c"]:
    """Returns the output of the frozen generator of `spec.scale`; not clipped."""
    x, y = generator_inputs(spec, noise, previous, trained.amplitude, padding, condition)
    return apply_generator(spec, trained.generator, x, y, frozen=True)[0]


def apply_generator(
    spec: ScaleSpec, variables: PyTree, x: Float[Array, "b H W i"], y: Float[Array, "b H W c"], frozen: bool
) -> tuple[Float[Array, "b h w c"], PyTree]:
    """Returns (image, variables with updated running statistics, if the method keeps them)."""
    return _apply(spec.generator, variables, frozen, x, y)


def apply_critic(
    spec: ScaleSpec, variables: PyTree, x: Float[Array, "b h w c"]
) -> tuple[Float[Array, "b H W 1"], PyTree]:
    """Returns (scores, variables with updated running statistics, if the method keeps them)."""
    return _apply(spec.critic, variables, False, x)


def _apply(network, variables, frozen, *inputs):
    if frozen or "batch_stats" not in variables:
        return network.apply(variables, *inputs, frozen=frozen), variables
    out, updated = network.apply(variables, *inputs, frozen=False, mutable=["batch_stats"])
    return out, {**variables, **updated}


def random_previous(
    spec: ScaleSpec,
    trained: tuple[TrainedScale, ...],
    padding: Float[Array, "c"],
    key: Key[Array, ""],
    conditions: Sequence[Float[Array, "1 ..."] | None] = (),
) -> Float[Array, "1 h w c"]:
    """Returns a fresh random pass through all scales below `spec.scale`, brought to its size; zeros at scale 0.

    Args:
      conditions: what is given at each of these scales, coarsest first; () without.
    """
    image = jnp.zeros((1, *spec.pyramid.sizes[0], spec.channels), jnp.float32)
    for scale in range(spec.scale):
        here = spec.at(scale)
        noise = noise_map(here, jax.random.fold_in(key, scale))
        made = run_trained(here, trained[scale], noise, image, padding, conditions[scale] if conditions else None)
        image = upsample_to_next_scale(spec.at(scale + 1), made)
    return image
