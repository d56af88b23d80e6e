import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from singan.errors import UserError
from singan.storage.checkpoints import KEPT, ScaleCheckpoints, digests, flatten, unflatten

IDS = ("a", "b")

# Orbax drops coroutines of its own where its files are damaged; Python says so whenever it collects them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tree:
    """A state in small: nested, of several types, with an absent leaf."""

    weights: dict
    absent: None
    step: np.ndarray


def tree(value=0.0, images=2):
    weights = {"kernel": np.arange(images * 600, dtype=np.float32).reshape(images, 3, 200) + np.float32(value)}
    return Tree(
        {"block_0": weights, "bias": np.full((images, 5), value, np.float32)}, None, np.arange(images, dtype=np.int32)
    )


def template():
    return jax.tree.map(lambda leaf: leaf[0], tree())


def equal(result, expected):
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_flatten_and_unflatten_are_inverse():
    flat = flatten(tree())
    assert sorted(flat) == ["step", "weights/bias", "weights/block_0/kernel"]
    back = unflatten(template(), flat)
    assert isinstance(back, Tree)
    equal(back, tree())
    assert back.step.dtype == np.int32


def test_flatten_copies():
    original = tree()
    flat = flatten(original)
    original.weights["bias"][:] = 9
    assert (flat["weights/bias"] == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flat: flat.pop("step"), "step"),
        (lambda flat: flat.update(more=np.zeros(2)), "more"),
        (lambda flat: flat.update(step=np.zeros(2, np.int64)), "step is int64"),
        (lambda flat: flat.update({"weights/bias": np.zeros((2, 6), np.float32)}), "weights/bias is float32"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    flat = flatten(tree())
    change(flat)
    with pytest.raises(ValueError, match=message):
        unflatten(template(), flat)


def test_any_flipped_bit_changes_the_digest_of_its_image_alone():
    flat = flatten(tree())
    before = digests(flat, IDS)
    assert all(len(digest) == 32 for digest in before.values())
    for path, leaf in flat.items():
        for index in range(2):
            changed = {**flat, path: leaf.copy()}
            raw = changed[path][index : index + 1].view(np.uint8).reshape(-1)
            raw[-1] ^= 1
            after = digests(changed, IDS)
            assert [after[name] != before[name] for name in IDS] == [index == 0, index == 1]


def test_digests_tell_names_types_and_signed_zeros_apart():
    of = lambda **flat: digests(flat, ("a",))["a"]  # noqa: E731
    zero = np.zeros((1, 2), np.float32)
    found = [of(x=zero), of(y=zero), of(x=-zero), of(x=zero.view(np.int32)), of(x=zero.reshape(1, 1, 2))]
    assert len(set(found)) == 5
    assert of(x=zero, y=zero) == of(y=zero, x=zero)


def save(directory, steps, warn=None):
    told = []
    with ScaleCheckpoints(directory, warn or told.append) as checkpoints:
        for step in steps:
            sums = checkpoints.save(step, tree(step, images=3), IDS, {"kind": "state"})
            assert sums == digests(flatten(tree(step)), IDS)  # what fills the cohort up is not saved
    assert told == []


def latest(directory):
    told = []
    with ScaleCheckpoints(directory, told.append) as checkpoints:
        return checkpoints.latest(), told


def test_the_newest_checkpoint_comes_back_whole(tmp_path):
    assert latest(tmp_path / "scale") == (None, [])
    save(tmp_path / "scale", [10, 20, 30])
    (step, flat, about), told = latest(tmp_path / "scale")
    assert (step, told) == (30, [])
    equal(unflatten(template(), flat), tree(30))
    assert about["kind"] == "state"
    assert about["images"] == list(IDS)
    kept = [path.name for path in (tmp_path / "scale").iterdir() if path.name.isdigit()]
    assert sorted(kept) == ["20", "30"]
    assert len(kept) == KEPT


def data_files(directory):
    return sorted((p for p in Path(directory).rglob("*") if p.is_file()), key=lambda p: p.stat().st_size, reverse=True)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_returned(tmp_path, damage):
    save(tmp_path, [10, 20])
    for file in (tmp_path / "20").glob("arrays/**/d/*"):  # which of them is read differs from save to save
        damage(file)
    (step, flat, _), told = latest(tmp_path)
    assert step == 10
    equal(unflatten(template(), flat), tree(10))
    assert len(told) == 1
    assert told[0].startswith(f"checkpoint {tmp_path / '20'} is damaged and passed over: ")
    assert "\n" not in told[0]
    assert not (tmp_path / "20").exists()
    (step, _, _), told = latest(tmp_path)
    assert (step, told) == (10, [])
    save(tmp_path, [20])  # the same step can be saved again
    assert latest(tmp_path)[0][0] == 20


def test_no_damage_to_any_file_goes_unnoticed(tmp_path):
    """Each file of a checkpoint in turn: what comes back is the saved arrays or those before, never others."""
    for number in range(len(_files_of_one(tmp_path))):
        directory = tmp_path / f"copy{number}"
        save(directory, [10, 20])
        files = data_files(directory / "20")
        empty(files[min(number, len(files) - 1)])  # their number differs from save to save
        (step, flat, _), told = latest(directory)
        assert (step, len(told)) in ((20, 0), (10, 1))
        equal(unflatten(template(), flat), tree(step))


def _files_of_one(tmp_path):
    save(tmp_path / "example", [10, 20])
    return data_files(tmp_path / "example" / "20")


def test_all_damaged_means_none(tmp_path):
    save(tmp_path, [10, 20])
    for step in ("10", "20"):
        for file in (tmp_path / step).glob("arrays/**/d/*"):
            empty(file)
    found, told = latest(tmp_path)
    assert found is None
    assert len(told) == 2


def test_deleting_and_keeping_only_one(tmp_path):
    save(tmp_path, [10, 20])
    with ScaleCheckpoints(tmp_path, print) as checkpoints:
        checkpoints.keep_only(10)
        assert checkpoints.latest()[0] == 10
        checkpoints.delete(10)
        assert checkpoints.latest() is None


def test_a_full_disk_is_the_users_error(tmp_path, monkeypatch):
    with ScaleCheckpoints(tmp_path, print) as checkpoints:

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoints._manager, "save", full)
        with pytest.raises(UserError, match="disk full"):
            checkpoints.save(10, tree(), IDS, {})
