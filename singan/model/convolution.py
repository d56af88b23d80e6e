"""The 3x3 convolution, closed under differentiation, and its implementation on each platform.

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

from singan.model.convolution_impls import PRIMALS
from singan.shapes import Array, Float

CONV_IMPLS = tuple(PRIMALS)


def conv_impl_for(platform: str) -> str:
    """Returns the name of the implementation used on a JAX platform where none was timed (convolution_timing.py).

    The names are those that run.json records and --form of launch.aot takes.

    direct: one convolution in the canonical layout, the only one that XLA:CPU runs fast inside a loop. With it, and
      with it alone, images are mapped one after another, so that it never becomes a grouped convolution.
    grouped: the same operation of images that are vmapped, which makes it a grouped convolution.
    mapped: images are vmapped, and only their convolutions made one after another.
    packed: a grouped convolution of wider groups, several images' kernels being blocks of one kernel's diagonal.
    shifted: nine shifted matrix products, which are dense batched products when images are vmapped.
    gathered: one matrix product of nine times the channels (im2col), which takes the most memory.

    For a TPU v5e the compiler's estimate is lowest for `shifted` (cycles of a step with one update of each network, 8
    images of 25 px, bf16: shifted 4.1e6, gathered 4.2e6, grouped 8.1e6, direct 14e6, and 5.8e6 for one convolution
    with the images as a third spatial dimension, 8.0e6 for the nine products in a loop).
    """
    return {"cpu": "direct", "gpu": "gathered"}.get(platform, "shifted")


def conv3x3(
    x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"], conv_impl: str = "direct"
) -> Float[Array, "b h-2 w-2 o"]:
    """Returns the valid 3x3 cross-correlation of x with kernel, as torch.nn.Conv2d(kernel_size=3) without bias.

    Differentiable any number of times in reverse mode; equals lax.conv_general_dilated in value and derivatives.
    """
    return _convolve(x, kernel, 0, conv_impl)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, pad, conv_impl):
    return PRIMALS[conv_impl][0](x, kernel, pad)


def _convolve_fwd(x, kernel, pad, conv_impl):
    # Calling the custom operation itself, not its primal, keeps second derivatives inside the closed family.
    return _convolve(x, kernel, pad, conv_impl), (x, kernel)


def _convolve_bwd(pad, conv_impl, residuals, cotangent):
    x, kernel = residuals
    return _convolve(cotangent, _flip(kernel), 2 - pad, conv_impl), _correlate(x, cotangent, pad, conv_impl)


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _correlate(x, cotangent, pad, conv_impl):
    if pad == 2:  # the smaller array is the padded one: the same sum with the roles exchanged
        return _flip(PRIMALS[conv_impl][1](cotangent, x))
    return PRIMALS[conv_impl][1](x, cotangent)


def _correlate_fwd(x, cotangent, pad, conv_impl):
    return _correlate(x, cotangent, pad, conv_impl), (x, cotangent)


def _correlate_bwd(pad, conv_impl, residuals, kernel_cotangent):
    x, cotangent = residuals
    return (
        _convolve(cotangent, _flip(kernel_cotangent), 2 - pad, conv_impl),
        _convolve(x, kernel_cotangent, pad, conv_impl),
    )


_correlate.defvjp(_correlate_fwd, _correlate_bwd)


def _flip(kernel):
    """Rotates the 3x3 window by 180 degrees and exchanges input and output channels."""
    return kernel[::-1, ::-1].swapaxes(2, 3)
