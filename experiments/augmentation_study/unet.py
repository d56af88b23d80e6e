"""A small U-Net (Flax), and many trainings of it in one program.

Convolutions are products with the nine shifted copies of their input: on a CPU three to five times as fast as XLA's own
at these sizes inside a loop, and under vmap, where every run has kernels of its own, plain batched products.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from experiments.augmentation_study.settings import Study

EPSILON = 1e-5
WEIGHT_DECAY = 1e-4
GAIN, OFFSET = 0.2, 0.1  # largest changes of colour, each channel its own, of values in [0, 1]


class Runs(NamedTuple):
    """What differs between trainings; every array has a leading axis of runs."""

    rows: Any  # int32 [r, steps, batch], of the bank
    tests: Any  # int32 [r, t], of the test images
    augmented: Any  # bool [r]
    seeds: Any  # uint32 [r]: the start, and what augmentation draws


class Block(nn.Module):
    """Twice: 3x3 convolution, normalisation over each image, ReLU."""

    features: int

    @nn.compact
    def __call__(self, x):
        for number in range(2):
            kernel = self.param(
                f"kernel{number}", nn.initializers.he_normal(), (9 * x.shape[-1], self.features), jnp.float32
            )
            y = _shifted(x) @ kernel
            mean = jnp.mean(y, axis=(1, 2), keepdims=True)
            variance = jnp.mean(jnp.square(y - mean), axis=(1, 2), keepdims=True)
            shift = self.param(f"shift{number}", nn.initializers.zeros, (self.features,))
            x = nn.relu((y - mean) * lax.rsqrt(variance + EPSILON) + shift)
        return x


class UNet(nn.Module):
    """Three levels, the first at half the image's resolution (2x2 pixels as channels); returns logits [b, h, w]."""

    width: int

    @nn.compact
    def __call__(self, x):
        fine = Block(self.width)(_to_depth(x))
        middle = Block(2 * self.width)(_halved(fine))
        coarse = Block(4 * self.width)(_halved(middle))
        middle = Block(2 * self.width)(jnp.concatenate([middle, _doubled(coarse)], -1))
        fine = Block(self.width)(jnp.concatenate([fine, _doubled(middle)], -1))
        logits = nn.Dense(4)(fine)
        b, h, w, _ = logits.shape
        return logits.reshape(b, h, w, 2, 2).transpose(0, 1, 3, 2, 4).reshape(b, 2 * h, 2 * w)


def training_program(study: Study, vectorised: bool) -> Callable[..., Any]:
    """Returns the jitted program (images, targets, tests, Runs) -> probabilities uint8 [r, t, h, w], 255 for 1.

    Args of the program: images [m, h, w, C] and targets [m, h, w], the bank, and tests [k, h, w, C], all uint8.

    Args:
      vectorised: all runs at the same time (vmap), as accelerators want it; else one after another in one program.
    """
    network = UNet(study.width)
    schedule = optax.cosine_decay_schedule(study.learning_rate, study.steps)
    optimiser = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)

    def train(images, targets, tests, run: Runs):
        start, drawn = jax.random.split(jax.random.key(run.seeds))
        params: Any = network.init(start, jnp.zeros((1, *images.shape[1:]), jnp.float32))

        def step(carry, step_input):
            params, state = carry
            rows, number = step_input
            shown, wanted = images[rows] / 255.0, targets[rows] / 255.0
            keys = jax.random.split(jax.random.fold_in(drawn, number), rows.shape[0])
            turned = jax.vmap(augment)(keys, shown, wanted)
            shown, wanted = (jnp.where(run.augmented, a, b) for a, b in zip(turned, (shown, wanted), strict=True))
            grads = jax.grad(lambda p: loss(network.apply(p, 2 * shown - 1), wanted))(params)
            updates, state = optimiser.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        steps = (run.rows, jnp.arange(run.rows.shape[0]))
        (params, _), _ = lax.scan(step, (params, optimiser.init(params)), steps)
        predict = lambda row: network.apply(params, 2 * (tests[row] / 255.0)[None] - 1)[0]  # noqa: E731
        return jnp.rint(jax.nn.sigmoid(lax.map(predict, run.tests)) * 255).astype(jnp.uint8)

    def every(images, targets, tests, runs: Runs):
        one = partial(train, images, targets, tests)
        return jax.vmap(one)(runs) if vectorised else lax.map(one, runs)

    return jax.jit(every)


def augment(key, image, target):
    """Returns an image [h, w, C] in [0, 1] and its target [h, w], turned by a random symmetry of the square.

    Its colours are changed by a random gain and offset of each channel.
    """
    flips, transpose, gain, offset = jax.random.split(key, 4)
    channels = image.shape[-1]
    both = jnp.concatenate([image, target[..., None]], -1)
    down, across = jax.random.bernoulli(flips, shape=(2,))
    both = jnp.where(down, both[::-1], both)
    both = jnp.where(across, both[:, ::-1], both)
    both = jnp.where(jax.random.bernoulli(transpose), both.transpose(1, 0, 2), both)
    gains = jax.random.uniform(gain, (channels,), minval=1 - GAIN, maxval=1 + GAIN)
    offsets = jax.random.uniform(offset, (channels,), minval=-OFFSET, maxval=OFFSET)
    return jnp.clip(both[..., :channels] * gains + offsets, 0, 1), both[..., channels]


def loss(logits, targets):
    """Returns binary cross-entropy plus one less the soft Dice coefficient of the batch."""
    probability = jax.nn.sigmoid(logits)
    overlap = 2 * jnp.sum(probability * targets) + 1
    return (
        jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets))
        + 1
        - overlap / (jnp.sum(probability) + jnp.sum(targets) + 1)
    )


def _shifted(x):
    """Returns the nine copies of x [b, h, w, c], shifted by up to a pixel, as channels; outside is 0."""
    _, h, w, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], -1)


def _to_depth(x):
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4 * c)


def _halved(x):
    b, h, w, c = x.shape
    return jnp.max(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))


def _doubled(x):
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
