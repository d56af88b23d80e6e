"""Files that are injected: through the run's value map, masks as they were meant, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from launch import selection
from launch.inputs import read_inputs
from singan.errors import UserError


@pytest.fixture
def run(random_run):
    return random_run()  # two images of two channels, int16 values of 0 to 1000


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    mask = np.zeros((17, 15), np.uint8)
    mask[5:9, 5:9] = 255
    for name, array in {
        "a": rng.integers(0, 1000, (17, 15, 2)).astype(np.int16),
        "b": rng.integers(0, 1000, (20, 20, 2)).astype(np.int16),
        "three": rng.integers(0, 1000, (17, 15, 3)).astype(np.int16),
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
    noisy = np.clip(mask + rng.normal(0, 9, mask.shape), 0, 255).astype(np.uint8)
    pictures = {"mask": mask, "empty": 0 * mask, "full": 0 * mask + 9, "small": mask[:10], "noisy": noisy}
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    Image.fromarray(np.stack([mask] * 2 + [0 * mask], -1)).save(tmp_path / "colour.jpg", quality=60)
    return tmp_path


def test_inputs_go_through_their_pyramid_s_value_map(run, files):
    first, second = read_inputs(run, ["image0", "image1"], ["a.npy", "b.npy"], [])
    assert [(one.name, one.image_id, one.mask) for one in (first, second)] == [
        ("a", "image0", None),
        ("b", "image1", None),
    ]
    np.testing.assert_array_equal(first.pixels, run.record("image0").value_map.apply(np.load("a.npy")))
    assert second.pixels.shape == (20, 20, 2)
    assert [one.image_id for one in read_inputs(run, ["image1"], ["a.npy", "b.npy"], [])] == ["image1"] * 2


@pytest.mark.parametrize("name", ["mask.png", "noisy.png", "colour.jpg"])
def test_masks_are_read_as_they_were_meant(run, files, name):
    (one,) = read_inputs(run, ["image0"], ["a.npy"], [name])
    expected = np.zeros((17, 15), bool)
    expected[5:9, 5:9] = True
    assert np.mean(one.mask != expected) < (0.05 if name.endswith("jpg") else 1e-9)


@pytest.mark.parametrize(
    ("paths", "masks", "text"),
    [
        (["a.npy"], ["empty.png"], "the mask empty.png is empty"),
        (["a.npy"], ["full.png"], "the mask full.png is full"),
        (["a.npy"], ["small.png"], "the mask small.png is 10x15 pixels, its image 17x15: give one of the same size"),
        (["three.npy"], [], "three.npy has 3 channels, image0 was trained on 2"),
        (["none.npy"], [], "none.npy is no file: give image files"),
        (["a.npy", "b.npy", "a.npy"], ["mask.png", "mask.png"], "--mask names 2 files for 3 inputs"),
    ],
)
def test_what_cannot_be_used_is_named(run, files, paths, masks, text):
    with pytest.raises(UserError, match=text):
        read_inputs(run, ["image0"], paths, masks)


def test_values_of_another_type_are_not_guessed_at(run, files):
    Image.fromarray(np.zeros((17, 15), np.uint8)).save("grey.png")
    with pytest.raises(UserError, match="1 channels, image0 was trained on 2"):
        read_inputs(run, ["image0"], ["grey.png"], [])
    rng = np.random.default_rng(0)
    np.save("bytes.npy", rng.integers(0, 255, (17, 15, 2)).astype(np.uint8))
    np.save("fractions.npy", rng.uniform(0, 1, (17, 15, 2)).astype(np.float32))
    for name, dtype in (("bytes", "uint8"), ("fractions", "float32")):
        with pytest.raises(UserError, match=rf"{name}\.npy holds {dtype} values of 0.* the run int16 of 0 to 1000"):
            read_inputs(run, ["image0"], [f"{name}.npy"], [])


def test_scales_and_sizes_of_flags(run, capsys):
    assert selection.chosen_scales(run, ["1", "3", "9", "1"], least=1) == [1, 3]
    assert capsys.readouterr().err == "note: scales [9] are left out: this can start at 1 to 3\n"
    for wanted, text in (
        ([], "can only start at scales 0 to 3"),
        (["7"], "can only start at scales 0 to 3"),
        (["x"], "whole numbers"),
    ):
        with pytest.raises(UserError, match=text):
            selection.chosen_scales(run, wanted)
    assert capsys.readouterr().err == ""
    assert selection.chosen_size(["2"]) == (2.0, 2.0)
    assert selection.chosen_size(["1.0", "1.5"]) == (1.0, 1.5)
    for wanted in (["a"], ["1", "2", "3"], []):
        with pytest.raises(UserError, match="--size="):
            selection.chosen_size(wanted)
    for size in ((0.0, 1.0), (1.0, float("nan")), (0.1, 0.1)):
        with pytest.raises(UserError, match="a size of"):
            run.spec.pyramid.scaled(*size)
    with pytest.raises(UserError, match=r"'imag0' is not in this run \(did you mean 'image0'\?\)"):
        selection.chosen_images(run, ["imag0"])
