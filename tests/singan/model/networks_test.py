import flax.linen as nn
import jax
import numpy as np
import pytest

from singan.model.networks import EPSILON, MOMENTUM, ConvBlock, Critic, Generator, initial_variables

WIDTH = 6


def make_critic(running=False, conv_bias=False, width=WIDTH):
    return Critic(width, 5, conv_bias, running, "direct")


def make_generator(running=False, conv_bias=False, width=WIDTH):
    return Generator(width, 5, 2, conv_bias, running, "direct")


def image(seed, *shape):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def lively(variables, seed=0):
    """Variables with kernels large enough for every layer to matter."""
    rng = np.random.default_rng(seed)

    def enlarge(path, leaf):
        return rng.normal(0, 0.3, leaf.shape).astype(np.float32) if path[-1].key in ("kernel", "shift") else leaf

    return jax.tree_util.tree_map_with_path(enlarge, variables)


def test_output_sizes():
    critic, generator = make_critic(), make_generator()
    weights = initial_variables(critic, 2, np.random.default_rng(0))
    assert jax.eval_shape(critic.apply, weights, image(0, 1, 25, 19, 2)).shape == (1, 15, 9, 1)
    weights = initial_variables(generator, 2, np.random.default_rng(0))
    x = image(0, 1, 25, 19, 2)
    assert jax.eval_shape(generator.apply, weights, x, x).shape == (1, 15, 9, 2)


def test_a_pixel_reaches_exactly_the_scores_of_the_windows_that_hold_it():
    """The receptive field is 11; fixed statistics, because the sample's own depend on every pixel."""
    critic = make_critic(running=True, conv_bias=True)
    weights = lively(initial_variables(critic, 2, np.random.default_rng(0)))
    x = image(1, 1, 30, 28, 2)
    changed = x.copy()
    changed[0, 14, 12, 1] += 1
    difference = np.asarray(critic.apply(weights, changed, frozen=True) != critic.apply(weights, x, frozen=True))
    expected = np.zeros((1, 20, 18, 1), bool)
    expected[:, 4:15, 2:13] = True  # window p covers the pixels p .. p + 10
    np.testing.assert_array_equal(difference, expected)


@pytest.mark.parametrize("make", [make_critic, make_generator])
def test_every_sample_is_normalised_by_itself(make):
    network = make()
    weights = lively(initial_variables(network, 2, np.random.default_rng(0)))
    x = image(2, 3, 14, 13, 2) * np.float32([1, 5, 0.2])[:, None, None, None]
    apply = lambda some: network.apply(weights, *[some] * (2 if make is make_generator else 1))  # noqa: E731
    together = apply(x)
    for index in range(3):
        np.testing.assert_allclose(together[index], apply(x[index : index + 1])[0], rtol=1e-4, atol=1e-5)


def test_the_generator_adds_the_centre_of_the_image_before():
    generator = make_generator()
    weights = initial_variables(generator, 2, np.random.default_rng(0))
    x, y = image(3, 1, 17, 15, 2), 3 * image(4, 1, 17, 15, 2)
    crop = y[:, 5:-5, 5:-5]
    zero = jax.tree.map(np.zeros_like, weights)
    np.testing.assert_array_equal(generator.apply(zero, x, y), crop)
    learnt = generator.apply(lively(weights), x, 0 * y)
    assert 0.1 < np.abs(learnt).max() <= 1  # tanh, not clamped after the sum
    np.testing.assert_allclose(generator.apply(lively(weights), x, y), learnt + crop, atol=1e-6)


def block_by_hand(x, weights, statistics=None):
    """A ConvBlock in float64. Returns (output, mean, biased variance)."""
    x = x.astype(np.float64)
    h, w = x.shape[1] - 2, x.shape[2] - 2
    y = sum(x[:, i : i + h, j : j + w] @ weights["kernel"][i, j] for i in range(3) for j in range(3))
    y = y + weights.get("bias", 0)
    mean, var = statistics or (y.mean((1, 2), keepdims=True), y.var((1, 2), keepdims=True))
    z = (y - mean) / np.sqrt(var + EPSILON) * weights["scale"] + weights["shift"]
    return np.where(z > 0, z, 0.2 * z), mean, var


def block_weights(running):
    rng = np.random.default_rng(5)
    params = {"kernel": rng.normal(0, 0.5, (3, 3, 2, WIDTH)), "scale": rng.normal(1, 0.3, WIDTH)}
    params["shift"] = rng.normal(0, 0.3, WIDTH)
    if running:
        params["bias"] = rng.normal(0, 0.5, WIDTH)
    return jax.tree.map(np.float32, params)


def test_a_block_normalises_with_the_samples_statistics():
    params, x = block_weights(False), image(6, 2, 9, 8, 2)
    expected, mean, var = block_by_hand(x, params)
    for frozen in (False, True):  # nothing else is known: frozen or not makes no difference
        out = ConvBlock(WIDTH, False, False, "direct").apply({"params": params}, x, frozen)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert mean.shape == var.shape == (2, 1, 1, WIDTH)


def test_running_statistics_are_torchs():
    """new = 0.9 old + 0.1 sample, the variance unbiased; used once frozen, and not updated then."""
    params, x = block_weights(True), image(7, 1, 9, 8, 2)
    old = {"mean": image(8, WIDTH), "var": np.square(image(9, WIDTH))}
    block = ConvBlock(WIDTH, True, True, "direct")
    out, updated = block.apply({"params": params, "batch_stats": old}, x, False, mutable=["batch_stats"])
    expected, mean, var = block_by_hand(x, params)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    pixels = 7 * 6
    new = updated["batch_stats"]
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + MOMENTUM * mean.ravel(), rtol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + MOMENTUM * var.ravel() * pixels / (pixels - 1), rtol=1e-5)

    frozen, same = block.apply({"params": params, "batch_stats": old}, x, True, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, dict(same["batch_stats"]), old)
    np.testing.assert_allclose(frozen, block_by_hand(x, params, (old["mean"], old["var"]))[0], rtol=1e-4, atol=1e-5)


def leaves(tree, kind):
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [leaf for path, leaf in found if path[-1].key == kind]


@pytest.mark.parametrize("make", [make_critic, make_generator])
def test_initial_weights_have_the_references_distributions(make):
    network: nn.Module = make(running=True, conv_bias=True, width=32)
    variables = initial_variables(network, 2, np.random.default_rng(1))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))
    assert sorted(variables["params"]) == ["bias", "block_0", "block_1", "block_2", "block_3", "kernel"]
    for kernel in leaves(variables["params"], "kernel"):
        spread = 0.02 / np.sqrt(kernel.size)
        assert abs(kernel.mean()) < 4 * spread
        assert abs(kernel.std() - 0.02) < 4 * spread
    scales = np.concatenate(leaves(variables["params"], "scale"))
    assert abs(scales.mean() - 1) < 0.008
    assert abs(scales.std() - 0.02) < 0.006
    for name in ("block_0", "block_2"):
        bias = variables["params"][name]["bias"]
        bound = 1 / np.sqrt(9 * (2 if name == "block_0" else 32))
        assert 0.8 * bound < np.abs(bias).max() <= bound
        assert abs(bias.mean()) < 0.45 * bound
    assert np.abs(variables["params"]["bias"]).max() <= 1 / np.sqrt(9 * 32)
    for kind, value in (("shift", 0), ("mean", 0), ("var", 1)):
        found = leaves(variables, kind)
        assert len(found) == 4
        assert all((leaf == value).all() for leaf in found)


def test_initial_weights_follow_their_generator_alone():
    draw = lambda seed: initial_variables(make_critic(), 2, np.random.default_rng(seed))  # noqa: E731
    jax.tree.map(np.testing.assert_array_equal, draw(3), draw(3))
    assert (draw(3)["params"]["kernel"] != draw(4)["params"]["kernel"]).all()


@pytest.mark.parametrize("make", [make_critic, make_generator])
def test_no_bias_before_a_normalisation_unless_asked_for(make):
    """The normalisation cancels it out: it would only drift in Adam's noise."""
    without = initial_variables(make(), 2, np.random.default_rng(0))["params"]
    assert len(leaves(without, "bias")) == 1
    assert "bias" in without
    having = initial_variables(make(conv_bias=True), 2, np.random.default_rng(0))["params"]
    assert len(leaves(having, "bias")) == 5


def test_only_the_running_kind_keeps_statistics():
    assert set(initial_variables(make_critic(), 2, np.random.default_rng(0))) == {"params"}
    assert set(initial_variables(make_critic(running=True), 2, np.random.default_rng(0))) == {"params", "batch_stats"}
