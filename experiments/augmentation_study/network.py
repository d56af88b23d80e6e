"""A small U-Net (Flax) with two heads, inside and distance, and its training step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.augmentation_study.settings import Study
from singan.metrics.nuclei import DARKEST, STAINS

WEIGHT_DECAY = 1e-4
WARM_UP = 20  # steps
GROUPS = 8  # of channels that are normalised together
MIRRORED = ((), (1,), (2,), (1, 2))  # axes of the images that are predicted from
HEADS = 2  # whether a pixel is inside of a nucleus, and how near to its heart
HAEMATOXYLIN = jnp.asarray(jnp.linalg.inv(jnp.asarray(STAINS))[:, :1], jnp.float32)


class Block(nn.Module):
    """Twice: 3x3 convolution, group normalisation, ReLU."""

    features: int

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.Conv(self.features, (3, 3), use_bias=False)(x)
            x = nn.relu(nn.GroupNorm(num_groups=min(GROUPS, self.features))(x))
        return x


class UNet(nn.Module):
    """Four levels; images float32 [b, h, w, C] in [0, 1], sides multiples of 16 -> logits [b, h, w, HEADS].

    The first level is at half the image's resolution: 2x2 pixels come in, and go out, as channels.
    Images in colours (three channels) are seen with their haematoxylin beside them: what a threshold goes by.
    """

    width: int

    @nn.compact
    def __call__(self, x):
        if x.shape[-1] == 3:
            density = -jnp.log10(jnp.maximum(x, DARKEST)) @ HAEMATOXYLIN
            x = jnp.concatenate([x, jnp.clip(density, 0, 3)], -1)
        b, h, w, c = x.shape
        x = (
            (2 * x - 1)
            .reshape(b, h // 2, 2, w // 2, 2, c)
            .transpose(0, 1, 3, 2, 4, 5)
            .reshape(b, h // 2, w // 2, 4 * c)
        )
        skipped = []
        for level in range(3):
            x = Block(self.width * 2**level)(x)
            skipped.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = Block(self.width * 4)(x)
        for level in (2, 1, 0):
            x = jnp.concatenate([skipped[level], jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)], -1)
            x = Block(self.width * 2**level)(x)
        x = nn.Dense(4 * HEADS)(x).reshape(b, h // 2, w // 2, 2, 2, HEADS)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, HEADS)


def loss(logits, targets):
    """Returns cross-entropy of both heads plus one less the soft Dice coefficient of the first, over the batch."""
    inside, wanted = jax.nn.sigmoid(logits[..., 0]), targets[..., 0]
    dice = (2 * jnp.sum(inside * wanted) + 1) / (jnp.sum(inside) + jnp.sum(wanted) + 1)
    return HEADS * jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets)) + 1 - dice


def programs(study: Study) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Returns the compiled start (key, image) -> state, step (state, images, targets) -> (state, loss), and predict.

    A step takes its state over (donation). predict is (state, images [b, h, w, C]) -> float32 [b, h, w, HEADS] in
    [0, 1], the mean over the image and its three mirror images.
    """
    network = UNet(study.width)
    rate = optax.warmup_cosine_decay_schedule(0, study.learning_rate, min(WARM_UP, study.steps // 2), study.steps)
    optimiser = optax.adamw(rate, weight_decay=WEIGHT_DECAY)

    @jax.jit
    def start(key, image):
        params = network.init(key, image)
        return params, optimiser.init(params)

    @partial(jax.jit, donate_argnums=0)
    def step(state, images, targets):
        params, moments = state
        value, grads = jax.value_and_grad(lambda p: loss(network.apply(p, images), targets))(params)
        updates, moments = optimiser.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    @jax.jit
    def predict(state, images):
        turned = [(jnp.asarray(network.apply(state[0], jnp.flip(images, axes))), axes) for axes in MIRRORED]
        return sum(jnp.flip(jax.nn.sigmoid(logits), axes) for logits, axes in turned) / len(MIRRORED)

    return start, step, predict
