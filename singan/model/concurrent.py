"""The generators that train together at one scale, for ONE image: what enters them, and a pass through all of them.

The concurrent schedule (train.schedule) is ConSinGAN's (Hinz, Fisher, Wang and Wermter, "Improved techniques for
training single-image GANs", WACV 2021): few scales; at each of them the generators of the last few scales train
together (ScaleSpec.older), the older ones with a smaller learning rate; the critic is that of the scale.

Unlike ConSinGAN, whose stages hand *features* on to the next, images are handed on here, through the same hop as in
SinGAN. So a trained scale stays what it is, a generator of images of its size, and sampling, manipulation and
checkpoints are the same code for both schedules. Noise enters at every scale, with the amplitude that was fixed when
that scale started; the losses are those of the scale being trained, and an older generator learns from them alone. z*
of scale 0 stays what it was when scale 0 was done, also where the method redraws it until then.

In the sequential schedule all this is of one generator, and costs nothing.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from singan.model.generation import (
    apply_generator,
    generator_inputs,
    pad_border,
    upsample_to_next_scale,
    with_condition,
)
from singan.model.noise import Purpose, noise_map, scale_key
from singan.model.spec import ScaleSpec
from singan.model.state import ScaleInputs
from singan.shapes import Array, Float, PyTree


class GeneratorInputs(NamedTuple):
    """What enters the generators of a pass, all of it known before the pass; b is 1, or the passes side by side."""

    x: Float[Array, "b H W i"]  # the coarsest generator's inputs
    y: Float[Array, "b H W c"]
    noises: tuple[Float[Array, "b ..."], ...] = ()  # the later generators' noise, times its amplitude and surrounded
    padding: Float[Array, "c"] | float = 0.0  # what surrounds the later generators' previous images
    conditions: tuple[Float[Array, "b ..."], ...] = ()  # what the later generators are given; () without


def co_trained_noise(spec: ScaleSpec, inputs: ScaleInputs, step: Array) -> tuple[Array, ...]:
    """Returns the noise of a step for the older generators, coarsest first, each [1, h, w, C] of its scale.

    A generator's draws go on where its training at the scale before left off: they are those of its own step
    `step`, after all steps of the scales that it has trained at since its own began, and never the same twice.
    """
    noises = []
    for age in range(len(inputs.co_trained_amplitudes), 0, -1):
        here = spec.at(spec.scale - age)
        own_step = step + sum(spec.at(scale).steps for scale in range(here.scale, spec.scale))
        noises.append(noise_map(here, scale_key(inputs.key_data, here.scale, own_step, Purpose.STEP_NOISE)))
    return tuple(noises)


def make_inputs(
    spec: ScaleSpec,
    inputs: ScaleInputs,
    noises: tuple[Array, ...],
    previous: Float[Array, "1 h w c"],
    conditions: Sequence[Float[Array, "1 ..."]] = (),
) -> GeneratorInputs:
    """Returns what enters the generators that train at `spec.scale`.

    Args:
      noises: one for each generator, coarsest first.
      previous: the image that enters the coarsest of them.
      conditions: what is given at each scale from 0 to spec.scale; () without.
    """
    amplitudes = (*inputs.co_trained_amplitudes, inputs.amplitude)
    coarsest = spec.at(spec.scale - len(inputs.co_trained_amplitudes))
    own = tuple(conditions[coarsest.scale :])
    x, y = generator_inputs(coarsest, noises[0], previous, amplitudes[0], inputs.padding, own[0] if own else None)
    later = zip(amplitudes[1:], noises[1:], strict=True)
    wide = tuple(pad_border(a * noise, spec.border, 0.0) for a, noise in later)
    return GeneratorInputs(x, y, wide, inputs.padding, own[1:])


def side_by_side(*passes: GeneratorInputs) -> GeneratorInputs:
    """Returns the inputs of several passes made at once, with the padding of the first."""
    rows = [(one.x, one.y, one.noises, one.conditions) for one in passes]
    x, y, noises, conditions = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)
    return GeneratorInputs(x, y, noises, passes[0].padding, conditions)


def generate(
    spec: ScaleSpec, generators: tuple[PyTree, ...], inputs: GeneratorInputs
) -> tuple[Float[Array, "b h w c"], tuple[PyTree, ...]]:
    """Returns (image, variables with updated running statistics) of a pass through generators that train.

    Args:
      generators: variables of the generators up to `spec.scale`, coarsest first.

    The image is of `spec.scale`'s size and not clipped. Gradients flow through the hops to all generators.
    """
    first = spec.scale - len(generators) + 1
    image, variables = apply_generator(spec.at(first), generators[0], inputs.x, inputs.y, frozen=False)
    updated = [variables]
    later = enumerate(zip(inputs.noises, generators[1:], strict=True))
    for index, (noise, generator) in later:
        here = spec.at(first + 1 + index)
        y = pad_border(differentiable_upsample(here, image), spec.border, inputs.padding)
        x = with_condition(noise + y, inputs.conditions[index] if inputs.conditions else None, spec.border)
        image, variables = apply_generator(here, generator, x, y, frozen=False)
        updated.append(variables)
    return image, tuple(updated)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def differentiable_upsample(spec: ScaleSpec, image: Float[Array, "b h w c"]) -> Float[Array, "b hh ww c"]:
    """Returns hop(spec, image), with the derivative of between_scales 'clip': rounding to 8 bits has none."""
    return upsample_to_next_scale(spec, image)


@differentiable_upsample.defjvp
def _smooth_hop_jvp(spec, primals, tangents):
    method = dataclasses.replace(spec.method, between_scales="clip")
    smooth = functools.partial(upsample_to_next_scale, dataclasses.replace(spec, method=method))
    return upsample_to_next_scale(spec, *primals), jax.jvp(smooth, primals, tangents)[1]
