"""train.precision: what a CPU rounds, what stays whole at any precision, and that no trace of another one is used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from singan.model.convolution import conv3x3
from singan.model.convolution_impls import CANONICAL
from singan.model.generation import upsample_to_next_scale
from singan.model.step import draw, train_step
from singan.parallel import cohort
from singan.parallel.cohort import PRECISIONS
from singan.parallel.costs import _inner

MANTISSA = {"tf32": 10, "bf16": 7}  # bits
# Sums of at most some hundred products of numbers around 1, in float32.
TOLERANCE = 2e-5
WHOLE = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)


def rounded(array, precision):
    """Returns float64 numbers whose mantissas are rounded to nearest, ties to even."""
    if precision == "highest":
        return array.astype(np.float64)
    dropped = 23 - MANTISSA[precision]
    bits = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
    bits = bits + ((1 << (dropped - 1)) - 1) + ((bits >> dropped) & 1)
    return (bits >> dropped << dropped).astype(np.uint32).view(np.float32).astype(np.float64)


def convolved(x, kernel, pad=0):
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    return np.einsum("bhwixy,xyio->bhwo", windows, kernel)


def correlated(x, cotangent):
    windows = np.lib.stride_tricks.sliding_window_view(x, cotangent.shape[1:3], (1, 2))
    return np.einsum("bxyihw,bhwo->xyio", windows, cotangent)


def flipped(kernel):
    return kernel[::-1, ::-1].swapaxes(2, 3)


def equations(jaxpr, name=""):
    """Yields the equations of a jaxpr and of all that is inside it; of one primitive where a name is given."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if name in ("", equation.primitive.name):
            yield equation
        for inner in _inner(equation):
            yield from equations(inner, name)


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    shapes = (1, 8, 7, 3), (3, 3, 3, 4), (1, 6, 5, 4), (1, 8, 7, 3)
    return tuple(rng.normal(0, 0.7, shape).astype(np.float32) for shape in shapes)


def all_derivatives(x, kernel, cotangent, direction):
    """Returns the value, both gradients of <value, cotangent>, and what <input gradient, direction> has in turn."""
    value, gradients = jax.vjp(conv3x3, x, kernel)

    def along(kernel, cotangent):
        return jnp.vdot(jax.vjp(conv3x3, x, kernel)[1](cotangent)[0], direction, precision="highest")

    return value, gradients(cotangent), jax.grad(along, argnums=(0, 1))(kernel, cotangent)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_cpu_computes_every_derivative_from_rounded_operands(arrays, precision):
    with jax.default_matmul_precision(PRECISIONS[precision]):
        found = jax.jit(all_derivatives)(*arrays)
    x, kernel, cotangent, direction = (rounded(array, precision) for array in arrays)
    expected = (
        convolved(x, kernel),
        (convolved(cotangent, flipped(kernel), 2), correlated(x, cotangent)),
        # <convolved(cotangent, flipped(kernel), 2), direction> = <cotangent, convolved(direction, kernel)>
        (correlated(direction, cotangent), convolved(direction, kernel)),
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, TOLERANCE, TOLERANCE), found, expected)
    if precision != "highest":  # the tolerance tells rounded operands from whole ones
        whole = convolved(*(array.astype(np.float64) for array in arrays[:2]))
        assert np.abs(whole - expected[0]).max() > 20 * TOLERANCE


def test_at_highest_the_operation_is_the_plain_one_to_the_bit(arrays):
    x, kernel, *_ = arrays

    def plain(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=CANONICAL)

    with jax.default_matmul_precision("highest"):
        found, expected = jax.jit(conv3x3)(x, kernel), jax.jit(plain)(x, kernel)
        program = jax.make_jaxpr(all_derivatives)(*arrays)
    assert np.array_equal(found, expected)
    assert not list(equations(program, "reduce_precision"))


def test_no_trace_of_another_precision_is_used(arrays):
    """One jitted program with the step's loops and derivatives, compiled and called at every precision in turn."""
    x, kernel, *_ = arrays

    def loss(x, kernel):
        def body(total, _):
            gradient = jax.grad(lambda image: jnp.sum(jnp.tanh(conv3x3(image, kernel))))(x)
            return total + jnp.sum(jnp.square(gradient)), None

        return lax.scan(body, 0.0, length=2)[0]

    def one(x, kernel):
        return jax.grad(loss, argnums=1)(x, kernel)

    mesh = cohort.image_mesh(jax.devices()[:1])
    program, inputs = cohort.parallel(one, mesh), (x[None], kernel[None])
    fresh = {}
    for name, word in PRECISIONS.items():
        with jax.default_matmul_precision(word):
            fresh[name] = np.asarray(jax.jit(lambda x, kernel: one(x, kernel))(x, kernel))
    assert len({array.tobytes() for array in fresh.values()}) == len(PRECISIONS)
    for name in ("bf16", "highest", "tf32", "bf16"):
        compiled = cohort.compile_program(program, *inputs, precision=name)(*inputs)
        with jax.default_matmul_precision(PRECISIONS[name]):
            called = program(*inputs)
        for found in (compiled, called):
            np.testing.assert_allclose(np.asarray(found)[0], fresh[name], rtol=1e-5, atol=1e-5)
    assert np.abs(fresh["tf32"] - fresh["highest"]).max() > 1e-3


@pytest.mark.slow
def test_only_convolutions_are_rounded_in_a_step_and_all_of_them(tiny_spec, one_image):
    """A step above scale 0: the frozen pass and its resizing, both networks, penalty, normalisation and Adam."""
    spec = tiny_spec(scale=1, num_layers=2)
    inputs, state = one_image(spec)
    with jax.default_matmul_precision(PRECISIONS["bf16"]):
        program = jax.make_jaxpr(lambda inputs, state: train_step(spec, inputs, state, draw))(inputs, state)
    convolutions = list(equations(program, "conv_general_dilated"))
    products = list(equations(program, "dot_general"))
    assert len(convolutions) > 10
    assert products
    assert all(equation.params["precision"] == WHOLE for equation in products)
    assert len(list(equations(program, "reduce_precision"))) == 2 * len(convolutions)
    kinds = {str(v.aval.dtype) for equation in equations(program) for v in equation.outvars if hasattr(v, "aval")}
    assert {kind for kind in kinds if "float" in kind} == {"float32"}


def test_resizing_between_scales_is_whole_at_any_precision(tiny_spec):
    spec = tiny_spec(scale=1, num_layers=2)
    image = np.random.default_rng(0).uniform(-1, 1, (1, *spec.pyramid.sizes[0], spec.channels)).astype(np.float32)
    with jax.default_matmul_precision(PRECISIONS["bf16"]):
        program = jax.make_jaxpr(lambda image: upsample_to_next_scale(spec, image))(image)
    assert [equation.params["precision"] for equation in equations(program, "dot_general")] == [WHOLE, WHOLE]
