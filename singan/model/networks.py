"""Generator and critic of one scale (Flax Linen; the only file that imports it).

Both are five 3x3 convolutions without padding, with normalisation and LeakyReLU between them; the caller pads.
Arrays are NHWC with a leading batch axis b of samples *of one image*: every sample is normalised with its own
statistics, as the reference's BatchNorm does with its batch of one.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from singan.model.convolution import conv3x3
from singan.shapes import Array, Float, PyTree

EPSILON = 1e-5
LEAK = 0.2
MOMENTUM = 0.1  # torch's: new = 0.9 old + 0.1 batch


class ConvBlock(nn.Module):
    """Convolution -> normalisation -> LeakyReLU."""

    features: int
    conv_bias: bool
    running: bool  # keep running statistics, as the reference's BatchNorm does
    conv_impl: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"], frozen: bool) -> Float[Array, "b h-2 w-2 o"]:
        kernel = self.param("kernel", nn.initializers.normal(0.02), (3, 3, x.shape[-1], self.features))
        y = conv3x3(x, kernel, self.conv_impl)
        if self.conv_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        shift = self.param("shift", nn.initializers.zeros, (self.features,))
        # Normalising is one multiply-add per value, and what autodiff makes of this form stays a multiply-add per value
        # in the first and second derivatives too.
        if self.running:
            mean_state = self.variable("batch_stats", "mean", jnp.zeros, (self.features,))
            var_state = self.variable("batch_stats", "var", jnp.ones, (self.features,))
        if self.running and frozen:
            mean, var = mean_state.value, var_state.value
        else:
            mean = jnp.mean(y, axis=(1, 2), keepdims=True)
            if self.running:
                var = jnp.mean(jnp.square(y - mean), axis=(1, 2), keepdims=True)
            else:  # in one pass, which makes a step up to a third faster; `centre` keeps it from cancelling
                square = jnp.mean(jnp.square(y), axis=(1, 2), keepdims=True)
                var = jnp.maximum(square - jnp.square(mean), 0)
            if self.running and not self.is_initializing():
                n = y.shape[1] * y.shape[2]
                new_mean, new_var = mean[0, 0, 0], var[0, 0, 0] * (n / (n - 1))  # torch keeps the unbiased variance
                mean_state.value = (1 - MOMENTUM) * mean_state.value + MOMENTUM * jax.lax.stop_gradient(new_mean)
                var_state.value = (1 - MOMENTUM) * var_state.value + MOMENTUM * jax.lax.stop_gradient(new_var)
        gain = scale * jax.lax.rsqrt(var + EPSILON)
        z = y * gain + (shift - mean * gain)
        return jnp.where(z > 0, z, LEAK * z)


def centre(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Returns x without its mean in each channel, for the first convolution of a network that normalises by sample.

    The normalisation takes any constant out again, so the output and its derivatives are the same, and none passes
    through the mean. But with it the first layer's values can lie a hundred standard deviations from 0, where the
    difference of mean square and squared mean loses float32's digits. (Deeper layers' values do not.)
    """
    return x - jax.lax.stop_gradient(jnp.mean(x, axis=(1, 2), keepdims=True))


class Critic(nn.Module):
    """Patch critic: one score for every 11x11 window (with five layers) of its input."""

    width: int
    num_layers: int
    conv_bias: bool
    running: bool
    conv_impl: str
    condition: int = 0  # channels of x that are given, behind the image's

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], frozen: bool = False) -> Float[Array, "b hh ww 1"]:
        x = x if self.running else centre(x)
        for i in range(self.num_layers - 1):
            x = ConvBlock(self.width, self.conv_bias, self.running, self.conv_impl, name=f"block_{i}")(x, frozen)
        kernel = self.param("kernel", nn.initializers.normal(0.02), (3, 3, self.width, 1))
        return conv3x3(x, kernel, self.conv_impl) + self.param("bias", nn.initializers.zeros, (1,))


class Generator(nn.Module):
    """Adds what a scale knows to the image of the scale before: tanh(net(x)) + centre crop of y."""

    width: int
    num_layers: int
    channels: int
    conv_bias: bool
    running: bool
    conv_impl: str
    condition: int = 0  # channels of x that are given, behind the image's

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], y: Float[Array, "b h w c"], frozen: bool = False
    ) -> Float[Array, "b hh ww c"]:
        border = self.num_layers
        skip = y[:, border:-border, border:-border]
        x = x if self.running else centre(x)
        for i in range(self.num_layers - 1):
            x = ConvBlock(self.width, self.conv_bias, self.running, self.conv_impl, name=f"block_{i}")(x, frozen)
        kernel = self.param("kernel", nn.initializers.normal(0.02), (3, 3, self.width, self.channels))
        x = conv3x3(x, kernel, self.conv_impl) + self.param("bias", nn.initializers.zeros, (self.channels,))
        return jnp.tanh(x) + skip


def initial_variables(network: "Generator | Critic", channels: int, rng: np.random.Generator) -> PyTree:
    """Returns fresh NumPy variables of a Generator or Critic for images of `channels` channels, given ones left out.

    Convolution weights are N(0, 0.02), convolution biases uniform within 1 / sqrt(fan in), normalisation scales
    N(1, 0.02) and shifts 0 (the reference's weights_init and torch's default bias). Drawn with NumPy, which gives the
    same weights on every platform and needs no compilation (drawing them under jit is the slowest compile of all).
    """
    side = 2 * network.num_layers + 1
    image = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
    x = jax.ShapeDtypeStruct((1, side, side, channels + network.condition), np.float32)
    inputs = (x, image) if isinstance(network, Generator) else (x,)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct, siblings: dict[str, Any]) -> np.ndarray:
        kind = path[-1]
        if kind == "kernel":
            value = rng.normal(0, 0.02, leaf.shape)
        elif kind == "bias":
            bound = 1 / math.sqrt(math.prod(siblings["kernel"].shape[:3]))
            value = rng.uniform(-bound, bound, leaf.shape)
        elif kind == "scale":
            value = rng.normal(1, 0.02, leaf.shape)
        else:
            value = np.full(leaf.shape, 1.0 if kind == "var" else 0.0)
        return value.astype(np.float32)

    def walk(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        return {
            key: walk(value, path + (key,)) if isinstance(value, dict) else fill(path + (key,), value, tree)
            for key, value in sorted(tree.items())
        }

    return walk(shapes, ())
