import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from singan.model.convolution import CONV_IMPLS, _convolve, conv3x3, conv_impl_for

INPUTS, OUTPUTS = 2, 3
# Float64 tells rounding from error best; the results are sums of some hundred products of numbers around 1.
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
QUICKLY_COMPILED = {"xla_backend_optimization_level": 0}


def plain(x, kernel, pad, _):
    padding = [(pad, pad), (pad, pad)]
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def arrays(*leading, dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = (2, 7, 6, INPUTS), (3, 3, INPUTS, OUTPUTS)
    return tuple(rng.normal(0, 0.5, (*leading, *shape)).astype(dtype) for shape in shapes)


def derivatives(convolution, pad, form):
    """Returns (x, kernel) -> value, first derivatives, and second ones as the gradient penalty has them."""

    def score(x, kernel):
        return jnp.sum(jnp.tanh(convolution(x, kernel, pad, form)))

    def penalty(x, kernel):
        return sum(jnp.sum(jnp.square(g - 1)) for g in jax.grad(score, argnums=(0, 1))(x, kernel))

    def of(x, kernel):
        first = jax.grad(score, argnums=(0, 1))(x, kernel)
        return convolution(x, kernel, pad, form), first, jax.grad(penalty, argnums=(0, 1))(x, kernel)

    return of


def close(result, expected):
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(result))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **TOLERANCE), result, expected)
    assert all(np.abs(leaf).max() > 0.1 for leaf in jax.tree.leaves(expected))


@pytest.mark.parametrize("form", CONV_IMPLS)
@pytest.mark.parametrize("pad", [0, 2])
def test_value_and_derivatives_are_those_of_a_plain_convolution(form, pad):
    """Also of images with weights of their own under vmap."""
    with jax.enable_x64(True):
        ours, expected = derivatives(_convolve, pad, form), derivatives(plain, pad, form)
        expected = jax.jit(expected, compiler_options=QUICKLY_COMPILED)
        close(jax.jit(ours, compiler_options=QUICKLY_COMPILED)(*arrays()), expected(*arrays()))
        many = arrays(3)
        mapped = jax.jit(jax.vmap(ours), compiler_options=QUICKLY_COMPILED)(*many)
        each = [expected(*(array[i] for array in many)) for i in range(3)]
        close(mapped, jax.tree.map(lambda *leaves: np.stack(leaves), *each))


def test_conv3x3_is_the_unpadded_one():
    x, kernel = arrays(dtype=np.float32)
    for form in CONV_IMPLS:
        out = conv3x3(x, kernel, form)
        assert out.shape == (2, 5, 4, OUTPUTS)
        np.testing.assert_allclose(out, plain(x, kernel, 0, form), rtol=1e-5, atol=1e-5)


def test_shape_annotations_are_checked_in_tests():
    x, kernel = arrays(dtype=np.float32)
    with pytest.raises(Exception, match=r"Type-check error"):
        conv3x3(x[0], kernel)


def layouts(convolution, form):
    """The layouts of all convolutions of a loop of first and second derivatives, after XLA's optimisation."""

    def body(carry, _):
        _, first, second = derivatives(convolution, 0, form)(*carry)
        return jax.tree.map(lambda leaf, a, b: leaf - 0.1 * (a + b), carry, first, second), None

    program = jax.jit(lambda *carry: lax.scan(body, carry, length=3)[0])
    text = program.lower(*arrays(dtype=np.float32)).compile().as_text()
    assert "feature_group_count" not in text
    return re.findall(r"dim_labels=([\w>?-]+)", text)


def test_on_a_cpu_every_convolution_of_a_twice_differentiated_loop_has_the_fast_layout():
    found = layouts(_convolve, conv_impl_for("cpu"))
    assert set(found) == {"b01f_01io->b01f"}
    assert len(found) >= 5
    # ... which plain differentiation does not give: otherwise this test could not fail.
    assert set(layouts(plain, "")) - {"b01f_01io->b01f"}


def test_only_cpus_use_the_direct_form():
    assert [conv_impl_for(platform) for platform in ("cpu", "gpu", "tpu")] == ["direct", "gathered", "shifted"]
