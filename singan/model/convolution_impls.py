"""The implementations of a 3x3 convolution and its weight gradient; convolution.py says which is used where.

Each is a pair of functions of ONE image's arrays, x [b, h, w, i]:

    convolve(x, kernel [3, 3, i, o], pad) -> [b, h - 2 + 2 pad, w - 2 + 2 pad, o]
    correlate(x, cotangent [b, h - 2, w - 2, o]) -> [3, 3, i, o]

Under vmap they become operations on N images with weights of their own. Those made of matrix products leave that to
JAX, for batched products are what they should become; others say themselves what they become (`of_images`).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from singan.shapes import Array

CANONICAL = ("NHWC", "HWIO", "NHWC")
# Bits of the mantissa that the operands of a product keep at a default precision of JAX; all of them at any other.
MANTISSA_BITS = {"bfloat16": 7, "tensorfloat32": 10}
LANES = 128  # channels that packing aims at: a side of a TPU's matrix unit, and wide enough for a GPU's tiles


def of_images(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """Returns the function of one image's (x, y) whose vmap is `function` of N images' (x, y), also when nested.

    Args:
      function: (x [n, ...], y [n, ...]) -> [n, ...], whose result m depends on x[m] and y[m] alone.
    """

    @custom_vmap
    def many(x, y):
        return function(x, y)

    @many.def_vmap
    def _(size, batched, x, y):
        arrays = [
            array if is_batched else jnp.broadcast_to(array, (size, *array.shape))
            for array, is_batched in zip((x, y), batched, strict=True)
        ]
        merged = many(*(array.reshape(-1, *array.shape[2:]) for array in arrays))
        return merged.reshape(size, -1, *merged.shape[1:]), True

    return lambda x, y: many(x[None], y[None])[0]


# One convolution in the canonical layout. Under vmap JAX makes it one with a feature group for each image.


def native_convolve(x, kernel, pad):
    return lax.conv_general_dilated(x, kernel, (1, 1), [(pad, pad), (pad, pad)], dimension_numbers=CANONICAL)


def native_correlate(x, cotangent):
    # Input channels take the batch's place, so that this too is a convolution in the canonical layout.
    x, cotangent = x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3)
    return lax.conv_general_dilated(x, cotangent, (1, 1), "VALID", dimension_numbers=CANONICAL).transpose(1, 2, 0, 3)


# The same with operands rounded as an accelerator rounds them: a CPU takes no notice of a precision by itself. Every
# derivative is made of these two functions again, so what enters a product of any order is rounded, and the rounding
# itself is never differentiated. The precision is read while tracing; it is part of JAX's key of what was traced.


def _rounded(array):
    bits = MANTISSA_BITS.get(jax.config.jax_default_matmul_precision)  # pyright: ignore[reportAttributeAccessIssue]
    return array if bits is None else lax.reduce_precision(array, exponent_bits=8, mantissa_bits=bits)


def _rounded_convolve(x, kernel, pad):
    return native_convolve(_rounded(x), _rounded(kernel), pad)


def _rounded_correlate(x, cotangent):
    return native_correlate(_rounded(x), _rounded(cotangent))


# One image's convolution after another, whatever is done together around them.


def _mapped(function):
    return of_images(lambda x, y: lax.map(lambda one: function(*one), (x, y)))


_MAPPED = {pad: _mapped(functools.partial(native_convolve, pad=pad)) for pad in (0, 2)}
_mapped_correlate = _mapped(native_correlate)


def _mapped_convolve(x, kernel, pad):
    return _MAPPED[pad](x, kernel)


# Several images' channels side by side, with their kernels as the blocks of a diagonal: fewer and wider groups.


def _pack(array, together):
    """[n, ..., c] -> [n / together, ..., together * c], filled up with zeros."""
    n, inner = array.shape[0], array.shape[1:]
    array = jnp.pad(array, [(0, -n % together)] + [(0, 0)] * len(inner))
    array = jnp.moveaxis(array.reshape(-1, together, *inner), 1, -2)
    return array.reshape(*array.shape[:-2], together * inner[-1])


def _unpack(array, together, n):
    array = jnp.moveaxis(array.reshape(*array.shape[:-1], together, -1), -2, 1)
    return array.reshape(-1, *array.shape[2:])[:n]


def _block_diagonal_convolve_many(x, kernel, pad):
    n, inputs, outputs = x.shape[0], *kernel.shape[-2:]
    together = max(1, min(n, LANES // max(inputs, outputs)))
    diagonal = jnp.eye(together, dtype=kernel.dtype)
    blocks = jnp.pad(kernel, [(0, -n % together)] + [(0, 0)] * 4).reshape(-1, together, *kernel.shape[1:])
    blocks = jnp.einsum("gmxyio,mk->gxymiko", blocks, diagonal, precision="highest")  # copies, and must be exact
    blocks = blocks.reshape(-1, 3, 3, together * inputs, together * outputs)
    out = jax.vmap(functools.partial(native_convolve, pad=pad))(_pack(x, together), blocks)
    return _unpack(out, together, n)


def _block_diagonal_correlate_many(x, cotangent):
    n, inputs, outputs = x.shape[0], x.shape[-1], cotangent.shape[-1]
    together = max(1, min(n, LANES // max(inputs, outputs)))
    out = jax.vmap(native_correlate)(_pack(x, together), _pack(cotangent, together))
    out = out.reshape(-1, 3, 3, together, inputs, together, outputs)
    own = jnp.moveaxis(jnp.diagonal(out, axis1=3, axis2=5), -1, 1)  # what one image's input makes of its own cotangent
    return own.reshape(-1, 3, 3, inputs, outputs)[:n]


_BLOCK_DIAGONAL = {pad: of_images(functools.partial(_block_diagonal_convolve_many, pad=pad)) for pad in (0, 2)}
_block_diagonal_correlate = of_images(_block_diagonal_correlate_many)


def _block_diagonal_convolve(x, kernel, pad):
    return _BLOCK_DIAGONAL[pad](x, kernel)


# Nine matrix products, of the input shifted nine ways.


def _padded(x, pad):
    return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))) if pad else x


def _windows(x, height, width):
    return [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]


def _shifted_convolve(x, kernel, pad):
    x = _padded(x, pad)
    windows = _windows(x, x.shape[1] - 2, x.shape[2] - 2)
    return sum(jnp.einsum("bhwi,io->bhwo", window, kernel[at // 3, at % 3]) for at, window in enumerate(windows))


def _shifted_correlate(x, cotangent):
    windows = _windows(x, cotangent.shape[1], cotangent.shape[2])
    products = [jnp.einsum("bhwi,bhwo->io", window, cotangent) for window in windows]
    return jnp.stack(products).reshape(3, 3, x.shape[-1], cotangent.shape[-1])


# One matrix product, of the nine shifted inputs side by side in the channels (im2col).


def _im2col(x, height, width):
    return jnp.concatenate(_windows(x, height, width), axis=-1)


def _im2col_convolve(x, kernel, pad):
    x = _padded(x, pad)
    windows = _im2col(x, x.shape[1] - 2, x.shape[2] - 2)
    return jnp.einsum("bhwk,ko->bhwo", windows, kernel.reshape(-1, kernel.shape[-1]))


def _im2col_correlate(x, cotangent):
    windows = _im2col(x, cotangent.shape[1], cotangent.shape[2])
    return jnp.einsum("bhwk,bhwo->ko", windows, cotangent).reshape(3, 3, x.shape[-1], cotangent.shape[-1])


PRIMALS = {
    "direct": (_rounded_convolve, _rounded_correlate),
    "grouped": (native_convolve, native_correlate),
    "mapped": (_mapped_convolve, _mapped_correlate),
    "packed": (_block_diagonal_convolve, _block_diagonal_correlate),
    "shifted": (_shifted_convolve, _shifted_correlate),
    "gathered": (_im2col_convolve, _im2col_correlate),
}
