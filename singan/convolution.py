"""The 3x3 convolution, closed under differentiation, and the form it takes on each platform.

The gradient penalty differentiates the critic twice. Left to itself, automatic differentiation turns the second
derivative of a convolution into convolutions with unusual dimension orders, which XLA runs ten times slower on a CPU.
Here every derivative is again one of the two operations below, so that the whole training step consists of
convolutions of one kind:

    convolve(x, w, pad)          out[p]  = sum_i pad(x)[p + i] w[i]
    correlate(x, g, pad)         out[i]  = sum_p pad(x)[p + i] g[p]        (the gradient of convolve by its weights)

With pad in {0, 2}: the gradient of convolve(x, w, pad) by x is convolve(g, flip(w), 2 - pad).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from singan.shapes import Array, Float

FORMS = ("direct", "shifted")


def form_for(platform: str) -> str:
    """Returns the name of the form that is used on a JAX platform; the one place where this is chosen.

    direct: one lax.conv in the canonical layout, the only layout that XLA:CPU runs fast inside a loop. Images are
      mapped one after another there, so that it never becomes a grouped convolution.
    shifted: nine shifted matrix products, which stay dense batched products when N images with weights of their own
      are vmapped. Of the forms compiled for a TPU v5e it has the lowest estimated cycle count (a grouped convolution
      has 3.6 times as many). Not yet measured on a GPU.
    """
    return "direct" if platform == "cpu" else "shifted"


def conv3x3(
    x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"], form: str = "direct"
) -> Float[Array, "b h-2 w-2 o"]:
    """Returns the valid 3x3 cross-correlation of x with kernel, as torch.nn.Conv2d(kernel_size=3) without bias.

    Differentiable any number of times in reverse mode; equals lax.conv_general_dilated in value and derivatives.
    """
    return _convolve(x, kernel, 0, form)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, pad, form):
    return _PRIMALS[form][0](x, kernel, pad)


def _convolve_fwd(x, kernel, pad, form):
    # Calling the custom operation itself, not its primal, keeps second derivatives inside the closed family.
    return _convolve(x, kernel, pad, form), (x, kernel)


def _convolve_bwd(pad, form, residuals, cotangent):
    x, kernel = residuals
    return _convolve(cotangent, _flip(kernel), 2 - pad, form), _correlate(x, cotangent, pad, form)


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _correlate(x, cotangent, pad, form):
    if pad == 2:  # the smaller array is the padded one: the same sum with the roles exchanged
        return _flip(_PRIMALS[form][1](cotangent, x))
    return _PRIMALS[form][1](x, cotangent)


def _correlate_fwd(x, cotangent, pad, form):
    return _correlate(x, cotangent, pad, form), (x, cotangent)


def _correlate_bwd(pad, form, residuals, kernel_cotangent):
    x, cotangent = residuals
    return (
        _convolve(cotangent, _flip(kernel_cotangent), 2 - pad, form),
        _convolve(x, kernel_cotangent, pad, form),
    )


_correlate.defvjp(_correlate_fwd, _correlate_bwd)


def _flip(kernel):
    """Rotates the 3x3 window by 180 degrees and exchanges input and output channels."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _direct_convolve(x, kernel, pad):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(pad, pad), (pad, pad)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _direct_correlate(x, cotangent):
    # Input channels take the batch's place, so that this too is a convolution in the canonical layout.
    out = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        cotangent.transpose(1, 2, 0, 3),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out.transpose(1, 2, 0, 3)


def _windows(x, height, width):
    return [[x[:, i : i + height, j : j + width] for j in range(3)] for i in range(3)]


def _shifted_convolve(x, kernel, pad):
    if pad:
        x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = _windows(x, x.shape[1] - 2, x.shape[2] - 2)
    return sum(jnp.einsum("bhwi,io->bhwo", windows[i][j], kernel[i, j]) for i in range(3) for j in range(3))


def _shifted_correlate(x, cotangent):
    windows = _windows(x, cotangent.shape[1], cotangent.shape[2])
    rows = [jnp.stack([jnp.einsum("bhwi,bhwo->io", windows[i][j], cotangent) for j in range(3)]) for i in range(3)]
    return jnp.stack(rows)


_PRIMALS = {
    "direct": (_direct_convolve, _direct_correlate),
    "shifted": (_shifted_convolve, _shifted_correlate),
}
