"""Weights of FID's Inception-v3, read from a file: PyTorch's state dict, or the same arrays as .npz.

    Mixed_5b.branch1x1.conv.weight [O, I, h, w]      params/Mixed_5b/branch1x1/conv/kernel [h, w, I, O]
    Mixed_5b.branch1x1.bn.weight, .bias              params/Mixed_5b/branch1x1/bn/scale, bias
    Mixed_5b.branch1x1.bn.running_mean, .running_var batch_stats/Mixed_5b/branch1x1/bn/mean, var

The classifier (fc.*) and num_batches_tracked are of no use here and left out.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from singan.errors import UserError
from singan.files import write_bytes
from singan.metrics.inception import variable_shapes
from singan.shapes import PyTree

_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


def read_inception_weights(path: str | os.PathLike) -> PyTree:
    """Returns the float32 NumPy variables {params, batch_stats} that a .npz, .pth or .pt file holds.

    Raises:
      UserError: the file is missing or damaged, is of another kind, or holds the weights of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file of Inception weights at {path}")
    if path.suffix == ".npz":
        state = _read_npz(path)
    elif path.suffix in (".pth", ".pt"):
        from singan.pytorch.files import read_pytorch  # here, so that reading a .npz needs nothing of it

        state = read_pytorch(path)
    else:
        raise UserError(f"Inception weights come as .npz, .pth or .pt, not as {path.name}")
    try:
        return from_state_dict(state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def write_inception_weights(path: str | os.PathLike, variables: PyTree) -> None:
    """Writes variables as .npz, atomically, for `read_inception_weights`; raises UserError where it cannot."""
    buffer = io.BytesIO()
    np.savez(buffer, **to_state_dict(variables))  # pyright: ignore[reportArgumentType]
    write_bytes(path, buffer.getvalue())


def from_state_dict(state: Any) -> PyTree:
    """Returns the float32 NumPy variables of a state dict {PyTorch's name: array}.

    Raises:
      UserError: it is no state dict, names are missing or left over, shapes differ, or a weight is not finite.
    """
    if not isinstance(state, Mapping):
        raise UserError("not a state dict: no names with arrays")
    if any(str(name).startswith("AuxLogits.") for name in state):
        raise UserError(
            "these are torchvision's ImageNet weights, whose figures are comparable with no FID:"
            " give those of pt_inception-2015-12-05"
        )
    rest = {name: value for name, value in state.items() if not _unused(name)}
    variables: dict[str, Any] = {}
    for name, ours, shape in _entries():
        if name not in rest:
            raise UserError(f"not the weights of FID's Inception-v3: {name} is missing")
        try:
            array = np.asarray(rest.pop(name), np.float32)
        except (TypeError, ValueError):
            raise UserError(f"not the weights of FID's Inception-v3: {name} is no array of numbers") from None
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        if array.shape != shape:
            raise UserError(
                f"not the weights of FID's Inception-v3: {name} has another shape ({array.shape}, not {shape})"
            )
        if not np.isfinite(array).all():
            raise UserError(f"{name} holds values that are not finite: get the file again")
        *folders, leaf = ours
        tree = variables
        for folder in folders:
            tree = tree.setdefault(folder, {})
        tree[leaf] = np.ascontiguousarray(array)
    if rest:
        names = sorted(map(str, rest))
        raise UserError(f"not the weights of FID's Inception-v3: {len(names)} names left over ({', '.join(names[:3])})")
    return variables


def to_state_dict(variables: PyTree) -> dict[str, np.ndarray]:
    """Returns {PyTorch's name: array} of variables."""
    state = {}
    for name, path, _ in _entries():
        leaf = variables
        for key in path:
            leaf = leaf[key]
        array = np.asarray(leaf, np.float32)
        state[name] = np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if array.ndim == 4 else array
    return state


def _entries() -> Iterator[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """Gives PyTorch's name, our path and our shape of every array of the network."""

    def walk(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], tuple[int, ...]]]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(value, (*path, key))
            else:
                yield ".".join((*path[1:], _NAMES[path[0], key])), (*path, key), value.shape

    return walk(variable_shapes(), ())


def _unused(name: Any) -> bool:
    return str(name).startswith("fc.") or str(name).endswith(".num_batches_tracked")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream):  # NumPy would take a .npy, or a pickle, by any name
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        why = " ".join(str(error).split())[:100]
        raise UserError(f"{path} cannot be read ({why}): it is damaged or no .npz, get it again") from None
