import jax
import numpy as np
import pytest

from singan.errors import UserError
from singan.model.generation import apply_critic, apply_generator
from singan.model.networks import initial_variables
from singan.pytorch.weights import from_state_dict, to_state_dict

NETWORKS = {"netG": "generator", "netD": "critic"}


def state_dict(network, width=4, channels=2, statistics=True, seed=0):
    """Random weights under PyTorch's names, and what they mean: {name: array}."""
    rng = np.random.default_rng(seed)
    state = {}
    for block, inputs in (("head", channels), ("body.block1", width), ("body.block2", width), ("body.block3", width)):
        state[f"{block}.conv.weight"] = rng.normal(0, 0.3, (width, inputs, 3, 3))
        for name in ("conv.bias", "norm.weight", "norm.bias"):
            state[f"{block}.{name}"] = rng.normal(0, 1, width)
        if statistics:
            state[f"{block}.norm.running_mean"] = rng.normal(0, 1, width)
            state[f"{block}.norm.running_var"] = rng.uniform(0.5, 2, width)
            state[f"{block}.norm.num_batches_tracked"] = np.array(7, np.int64)
    tail, outputs = ("tail.0", channels) if network == "netG" else ("tail", 1)
    state[f"{tail}.weight"] = rng.normal(0, 0.3, (outputs, width, 3, 3))
    state[f"{tail}.bias"] = rng.normal(0, 1, outputs)
    return {name: value if value.dtype == np.int64 else value.astype(np.float32) for name, value in state.items()}


def by_hand(state, network, x):
    """The frozen network on x [C, H, W] in float64, from the definitions of PyTorch's layers."""

    def convolve(x, name):
        weight, bias = state[f"{name}.weight"].astype(np.float64), state[f"{name}.bias"]
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        return np.einsum("ihwkl,oikl->ohw", windows, weight) + bias[:, None, None]

    x = x.astype(np.float64)
    for block in ("head", "body.block1", "body.block2", "body.block3"):
        mean, var, weight, bias = (
            state[f"{block}.norm.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = (convolve(x, f"{block}.conv") - mean) / np.sqrt(var + 1e-5) * weight + bias
        x = np.where(x > 0, x, 0.2 * x)
    return np.tanh(convolve(x, "tail.0")) if network == "netG" else convolve(x, "tail")


@pytest.mark.parametrize("network", NETWORKS)
def test_mapped_weights_compute_what_pytorchs_layers_do(tiny_spec, network):
    spec = tiny_spec(1, preset="reference")
    state = state_dict(network)
    variables = from_state_dict(state)
    x = np.random.default_rng(1).normal(0, 1, (2, 15, 14)).astype(np.float32)
    ours = x.transpose(1, 2, 0)[None]
    if network == "netG":
        out, _ = apply_generator(spec, variables, ours, 0 * ours, frozen=True)
    else:
        out = spec.critic.apply(variables, ours, frozen=True)
    np.testing.assert_allclose(out[0], by_hand(state, network, x).transpose(1, 2, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_mapped_weights_have_the_tree_of_the_reference_preset(tiny_spec, network):
    spec = tiny_spec(1, preset="reference")
    expected = initial_variables(getattr(spec, NETWORKS[network]), 2, np.random.default_rng(0))
    variables = from_state_dict(state_dict(network))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), expected
    )
    if network == "netD":
        assert apply_critic(spec, variables, np.zeros((1, 14, 13, 2), np.float32))[0].shape == (1, 4, 3, 1)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("statistics", [True, False])
def test_there_and_back(network, statistics):
    state = state_dict(network, statistics=statistics)
    back = to_state_dict(from_state_dict(state), network)
    kept = {name: value for name, value in state.items() if "num_batches" not in name}
    assert set(back) == set(kept)
    for name, value in kept.items():
        np.testing.assert_array_equal(back[name], value)
        assert back[name].flags.c_contiguous


def test_a_cancelled_bias_comes_back_as_zeros(tiny_spec):
    variables = initial_variables(tiny_spec(0).critic, 2, np.random.default_rng(0))
    state = to_state_dict(variables, "netD")
    np.testing.assert_array_equal(state["body.block2.conv.bias"], np.zeros(4))
    assert "head.norm.running_mean" not in state
    again = from_state_dict(state)
    np.testing.assert_array_equal(again["params"]["block_2"]["kernel"], variables["params"]["block_2"]["kernel"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("body.block2.conv.weight"), r"body\.block2\.conv\.weight is missing"),
        (lambda state: state.pop("tail.weight"), r"tail\.weight is missing"),
        (lambda state: state.pop("head.norm.running_var"), r"head\.norm\.running_var is missing"),
        (lambda state: state.update({"extra.weight": np.zeros(1)}), r"extra\.weight left over"),
        (lambda state: state.update({"head.conv.weight": np.zeros((4, 2, 5, 5))}), "only 3x3"),
    ],
)
def test_other_state_dicts_are_refused(change, message):
    state = state_dict("netD")
    change(state)
    with pytest.raises(UserError, match=message):
        from_state_dict(state)
