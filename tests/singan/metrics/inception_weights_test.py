import os

import jax
import numpy as np
import pytest

from singan.errors import UserError
from singan.metrics.inception import variable_shapes
from singan.metrics.inception_weights import (
    from_state_dict,
    read_inception_weights,
    to_state_dict,
    write_inception_weights,
)


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), variable_shapes())


@pytest.fixture(scope="module")
def state(variables):
    return to_state_dict(variables)


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y), a, b))


def test_names_and_layout_are_pytorchs(state, variables):
    assert len(state) == 94 * 5
    trained = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert trained == 23_834_568 - 1000 * 2049  # torchvision's count without its classifier of 1000 classes
    weight = state["Mixed_6b.branch7x7_2.conv.weight"]
    assert weight.shape == (128, 128, 1, 7)
    np.testing.assert_array_equal(
        variables["params"]["Mixed_6b"]["branch7x7_2"]["conv"]["kernel"], weight.transpose(2, 3, 1, 0)
    )
    assert state["Conv2d_1a_3x3.bn.running_var"].shape == (32,)
    assert state["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)


def test_an_npz_round_trips(tmp_path, variables):
    path = tmp_path / "weights.npz"
    write_inception_weights(path, variables)
    assert os.listdir(tmp_path) == ["weights.npz"]
    assert same(read_inception_weights(path), variables)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pytorch_file_of_either_format_is_read(tmp_path, state, variables, zipped):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    tensors["fc.weight"], tensors["fc.bias"] = torch.zeros(1008, 2048), torch.zeros(1008)
    tensors["Conv2d_1a_3x3.bn.num_batches_tracked"] = torch.tensor(0)
    torch.save(tensors, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_inception_weights(tmp_path / "weights.pth"), variables)


def test_other_networks_weights_are_refused(state):
    name = "Mixed_7c.branch1x1.conv.weight"
    for change, why in (
        ({name: None}, f"{name} is missing"),
        ({name: np.zeros((320, 2048, 3, 3))}, "has another shape"),
        ({name: np.full((320, 2048, 1, 1), np.nan)}, "not finite"),
        ({"layer.weight": np.zeros(3)}, r"1 names left over \(layer.weight\)"),
        ({"AuxLogits.fc.weight": np.zeros(3)}, "torchvision's ImageNet weights"),
        ({name: {"a": 1}}, "no array of numbers"),
    ):
        changed = {key: value for key, value in {**state, **change}.items() if value is not None}
        with pytest.raises(UserError, match=why):
            from_state_dict(changed)
    with pytest.raises(UserError, match="not a state dict"):
        from_state_dict([1, 2])


def test_files_that_are_none_are_named(tmp_path, state):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 but cut short")
    (tmp_path / "b.npz").write_text("text")
    (tmp_path / "c.txt").write_text("text")
    np.savez(tmp_path / "d.npz", x=np.zeros(3))
    np.savez(tmp_path / "e.npz", x=np.array({"a": 1}, dtype=object))
    np.save(tmp_path / "f.npy", np.zeros(3))
    os.rename(tmp_path / "f.npy", tmp_path / "f.npz")
    (tmp_path / "g.pth").write_text("text")
    (tmp_path / "h.npz").write_bytes(b"")
    for name in ("a.npz", "b.npz", "c.txt", "d.npz", "e.npz", "f.npz", "g.pth", "h.npz", "absent.npz"):
        with pytest.raises(UserError, match=name) as error:
            read_inception_weights(tmp_path / name)
        assert "\n" not in str(error.value)
