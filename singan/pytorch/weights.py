"""Weights of the reference implementation (PyTorch state dicts of netG and netD) as this project's variables, and back.

PyTorch's names for five layers, and ours:

    head.conv.weight         [O, I, 3, 3]   params/block_0/kernel   [3, 3, I, O]   (OIHW -> HWIO)
    head.conv.bias                          params/block_0/bias
    head.norm.weight, .bias                 params/block_0/scale, shift
    head.norm.running_mean, .running_var    batch_stats/block_0/mean, var
    body.block1 .. body.block3              the same under block_1 .. block_3
    tail.0.weight, .bias (netG)             params/kernel, bias
    tail.weight, .bias (netD)               params/kernel, bias

Both kernels are cross-correlations, so nothing is flipped. num_batches_tracked is of no use here and left out.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from singan.errors import UserError
from singan.shapes import PyTree

_TAILS = {"netG": "tail.0", "netD": "tail"}
_PARAMS = {"conv.bias": "bias", "norm.weight": "scale", "norm.bias": "shift"}
_STATISTICS = {"norm.running_mean": "mean", "norm.running_var": "var"}


def from_state_dict(state: Mapping[str, Any]) -> PyTree:
    """Returns the NumPy variables of a generator or critic from a state dict of netG or netD.

    Args:
      state: PyTorch's names -> arrays, or whatever numpy.asarray takes.

    Raises:
      UserError: names are missing or left over, or a convolution is not 3x3.
    """
    rest = {name: np.asarray(value) for name, value in state.items() if not name.endswith(".num_batches_tracked")}

    def take(name: str) -> np.ndarray:
        if name not in rest:
            raise UserError(f"not a state dict of netG or netD: {name} is missing")
        return np.array(rest.pop(name), np.float32)

    def take_kernel(name: str) -> np.ndarray:
        weight = take(name)
        if weight.ndim != 4 or weight.shape[2:] != (3, 3):
            raise UserError(f"{name} has shape {weight.shape}: only 3x3 convolutions are supported")
        return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))

    count = 1 + len({name.split(".")[1] for name in rest if name.startswith("body.")})
    tail = _TAILS["netG" if f"{_TAILS['netG']}.weight" in rest else "netD"]
    has_statistics = f"{_block(0)}.norm.running_mean" in rest
    params: dict[str, Any] = {}
    statistics: dict[str, Any] = {}
    for index in range(count):
        block = _block(index)
        params[f"block_{index}"] = {
            "kernel": take_kernel(f"{block}.conv.weight"),
            **{ours: take(f"{block}.{name}") for name, ours in _PARAMS.items()},
        }
        if has_statistics:
            statistics[f"block_{index}"] = {ours: take(f"{block}.{name}") for name, ours in _STATISTICS.items()}
    params["kernel"], params["bias"] = take_kernel(f"{tail}.weight"), take(f"{tail}.bias")
    if rest:
        raise UserError(f"not a state dict of netG or netD: {', '.join(sorted(rest))} left over")
    return {"params": params, "batch_stats": statistics} if has_statistics else {"params": params}


def to_state_dict(variables: PyTree, network: str) -> dict[str, np.ndarray]:
    """Returns PyTorch's names -> arrays for a generator's ('netG') or critic's ('netD') variables.

    A convolution that has no bias, because a normalisation follows that cancels it out, gets one of zeros.
    """
    state: dict[str, np.ndarray] = {}
    params, statistics = variables["params"], variables.get("batch_stats", {})
    for index in range(sum(name.startswith("block_") for name in params)):
        ours, block = params[f"block_{index}"], _block(index)
        state[f"{block}.conv.weight"] = _weight(ours["kernel"])
        for name, key in _PARAMS.items():
            state[f"{block}.{name}"] = np.array(ours.get(key, np.zeros_like(ours["shift"])), np.float32)
        if statistics:
            for name, key in _STATISTICS.items():
                state[f"{block}.{name}"] = np.array(statistics[f"block_{index}"][key], np.float32)
    state[f"{_TAILS[network]}.weight"] = _weight(params["kernel"])
    state[f"{_TAILS[network]}.bias"] = np.array(params["bias"], np.float32)
    return state


def _block(index: int) -> str:
    return "head" if index == 0 else f"body.block{index}"


def _weight(kernel: Any) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(kernel, np.float32).transpose(3, 2, 0, 1))
