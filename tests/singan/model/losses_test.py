import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singan.model import losses, step
from singan.model.concurrent import GeneratorInputs
from singan.model.convolution import conv3x3
from singan.model.generation import apply_critic, apply_generator, generator_inputs

QUICKLY_COMPILED = {"xla_backend_optimization_level": 0}


def image(seed, *shape):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def test_penalty_of_a_linear_critic():
    """Its gradient is the same known vector over the channels at every pixel."""
    for weights in ([0.3, -0.4], [3.0, 4.0], [0.6, 0.8]):
        gradient = losses.input_gradient(lambda x, w=weights: x @ jnp.array(w), image(0, 1, 5, 4, 2))
        np.testing.assert_allclose(gradient, np.broadcast_to(np.float32(weights), (1, 5, 4, 2)))
        np.testing.assert_allclose(losses.gradient_penalty(gradient), (np.hypot(*weights) - 1) ** 2, atol=1e-6)


def test_penalty_is_pixelwise():
    """A quadratic critic's gradient is the image itself: the norm is over a pixel's channels, the mean over pixels."""
    x = image(1, 1, 6, 5, 3)
    gradient = losses.input_gradient(lambda x: jnp.square(x) / 2, x)
    expected = np.mean((np.sqrt((x.astype(np.float64) ** 2).sum(-1)) - 1) ** 2)
    np.testing.assert_allclose(losses.gradient_penalty(gradient), expected, rtol=1e-6)


def test_the_penaltys_gradient_agrees_with_finite_differences():
    with jax.enable_x64(True):
        x = jnp.asarray(image(2, 1, 7, 6, 2), jnp.float64)
        kernel = jnp.asarray(image(3, 3, 3, 2, 3), jnp.float64)

        @jax.jit
        def penalty(kernel):
            return losses.gradient_penalty(losses.input_gradient(lambda x: jnp.tanh(conv3x3(x, kernel)), x))

        gradient = np.asarray(jax.grad(penalty)(kernel))
        steps = 1e-6 * np.eye(kernel.size).reshape(-1, *kernel.shape)
        differences = [(penalty(kernel + d) - penalty(kernel - d)) / 2e-6 for d in steps]
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(gradient.ravel(), np.array(differences), rtol=1e-6, atol=1e-8)


def test_a_zero_gradient_counts_as_one_and_passes_none_on():
    value, gradient = jax.value_and_grad(losses.gradient_penalty)(jnp.zeros((1, 4, 3, 2)))
    assert value == 1
    np.testing.assert_array_equal(gradient, 0)
    one_pixel = jnp.zeros((1, 4, 3, 2)).at[0, 1, 1].set(jnp.array([3.0, 4.0]))
    value, gradient = jax.value_and_grad(losses.gradient_penalty)(one_pixel)
    np.testing.assert_allclose(value, (11 + 16) / 12, rtol=1e-6)
    np.testing.assert_allclose(gradient[0, 1, 1], 2 * 4 * np.array([0.6, 0.8]) / 12, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_interpolation_goes_from_fake_to_real():
    real, fake = image(4, 1, 2, 3, 1), image(5, 1, 2, 3, 1)
    np.testing.assert_array_equal(losses.interpolate(real, fake, jnp.float32(1)), real)
    np.testing.assert_array_equal(losses.interpolate(real, fake, jnp.float32(0)), fake)
    np.testing.assert_allclose(losses.interpolate(real, fake, jnp.float32(0.25)), 0.25 * real + 0.75 * fake, rtol=1e-5)


def test_reconstruction_errors():
    a, b = np.zeros((1, 2, 2, 2), np.float32), np.full((1, 2, 2, 2), 0.5, np.float32)
    assert losses.reconstruction_mse(a, b) == 0.25
    assert losses.rmse(a, b) == 0.5


@pytest.fixture(scope="module")
def without_penalty(tiny_spec, one_image):
    """One critic and one generator update with the penalty's weight at 0."""
    spec = tiny_spec(critic_updates=1, generator_updates=1)
    inputs, state = one_image(spec, gradient_penalty_weight=0.0)
    random = step.StepNoise(image(6, 1, *spec.size, 2), np.zeros((1, 1, *spec.size, 2), np.float32), np.float32([0.3]))
    update = jax.jit(lambda *a: step.update_networks(spec, *a), compiler_options=QUICKLY_COMPILED)
    return spec, inputs, state, random, *update(inputs, state, random)


def test_the_critic_learns_without_the_penalty(without_penalty):
    """The port that the paper came with failed this: its critic's loss depended on its weights by the penalty alone."""
    *_, state, _, new, metrics = without_penalty
    assert metrics["critic/gradient_penalty"] == 0
    assert metrics["critic/gradient_norm"] > 0.1
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), new.critic["params"], state.critic["params"])
    moved["bias"] = 1.0  # shifts both scores alike
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_the_critics_gradient_is_that_of_the_two_scores(without_penalty):
    spec, inputs, state, random, new, metrics = without_penalty

    def scores(params, fake):
        variables = {"params": params}
        return jnp.mean(apply_critic(spec, variables, fake)[0]) - jnp.mean(
            apply_critic(spec, variables, inputs.real)[0]
        )

    x, y = generator_inputs(spec, random.noise, random.previous[0], inputs.amplitude, inputs.padding)
    fake, _ = apply_generator(spec, state.generator, x, y, frozen=False)
    program = jax.jit(jax.value_and_grad(scores), compiler_options=QUICKLY_COMPILED)
    value, gradient = program(state.critic["params"], fake)
    ours = jax.tree.map(lambda mean: mean / (1 - spec.train.adam_b1), new.critic_adam.mu)  # Adam's first mean
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, gradient)
    np.testing.assert_allclose(metrics["critic/real"][0] + metrics["critic/fake"][0], value, rtol=1e-4)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(metrics["critic/gradient_norm"][0], norm, rtol=1e-5)


def test_the_generator_wants_a_high_score_and_a_faithful_reconstruction(without_penalty):
    spec, inputs, state, _, _, metrics = without_penalty
    assert metrics["generator/gradient_norm"] > 0.1
    x = np.pad(image(8, 1, *spec.size, 2), ((0, 0), (5, 5), (5, 5), (0, 0)))
    zero = jax.tree.map(np.zeros_like, state.generator)
    loss, (_, _, metrics) = losses.generator_loss(
        spec,
        (zero["params"],),
        (zero,),
        state.critic,
        GeneratorInputs(x, 0 * x),
        GeneratorInputs(x, 0 * x),
        inputs.real,
        7.0,
    )
    np.testing.assert_allclose(metrics["generator/reconstruction"], 7 * np.mean(inputs.real**2), rtol=1e-5)
    score = np.mean(apply_critic(spec, state.critic, np.zeros_like(inputs.real))[0])
    np.testing.assert_allclose(metrics["generator/adversarial"], -score, rtol=1e-5)
    np.testing.assert_allclose(loss, sum(metrics.values()), rtol=1e-6)
