import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.model.step import train_step
from singan.parallel.costs import Operations, matrix_operations


def test_products_and_convolutions_are_counted_and_loops_are_gone_through():
    def function(image, kernel, matrix):
        image = lax.conv_general_dilated(image, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        matrix = lax.scan(lambda one, _: (jnp.tanh(one @ one), None), matrix, length=7)[0]
        return image, lax.cond(matrix[0, 0] > 0, lambda one: one @ one @ one, lambda one: one, matrix)

    arguments = np.ones((2, 9, 8, 3)), np.ones((3, 3, 3, 5)), np.ones((10, 10))
    convolution, product = 2 * (2 * 7 * 6 * 5) * (3 * 3 * 3), 2 * 10**3
    expected = Operations(convolution + 9 * product, convolution + 3 * product)
    assert matrix_operations(jax.make_jaxpr(function)(*arguments)) == expected
    assert matrix_operations(jax.make_jaxpr(jax.jit(function))(*arguments)) == expected


def test_a_vmapped_program_asks_for_as_many_times_more():
    program = lambda a, b: a @ b  # noqa: E731
    count = lambda function, *shape: matrix_operations(jax.make_jaxpr(function)(*[np.ones(shape)] * 2)).every  # noqa: E731
    assert count(program, 4, 4) == 2 * 4**3
    assert count(jax.vmap(program), 6, 4, 4) == 6 * 2 * 4**3


def test_a_training_step_costs_what_its_networks_passes_cost(tiny_spec, one_image):
    """Critic update: F(G) + real 3, fake 3, penalty 6 F(D); generator update: 6 F(G) + 2 F(D). Without borders."""
    spec = tiny_spec(0, num_layers=3, critic_updates=2, generator_updates=5)
    counted = matrix_operations(jax.make_jaxpr(lambda *trees: train_step(spec, *trees))(*one_image(spec)))
    pixels, w, c = np.prod(spec.size), spec.width, spec.channels
    generator, critic = (2 * 9 * pixels * (c * w + w * w + w * out) for out in (c, 1))
    expected = 2 * (generator + 12 * critic) + 5 * (6 * generator + 2 * critic)
    assert 0.6 < counted.every / expected < 1.6
    once = generator + 12 * critic + 6 * generator + 2 * critic
    assert 0.6 < counted.once / once < 1.6
