"""Files that are injected: through the run's value map, masks as they were meant, and what is refused."""

import dataclasses

import nibabel
import numpy as np
import pytest
from PIL import Image

from launch import selection
from launch.manipulate.inputs import read_inputs
from singan.errors import UserError
from singan.sampling.manipulation import Input, entering
from singan.value_map import ValueMap


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
        "b": rng.integers(0, 1000, (34, 30, 2)).astype(np.int16),
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
    assert second.pixels.shape == (34, 30, 2)
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


@pytest.fixture
def grey_run(random_run):
    return random_run(channels=1)


def volumes(tmp_path, mask, affine=None, mask_affine=None):
    """brain.nii [17, 15, 6], fullest in slice 2, and seg.nii of the shape and with the labels given."""
    affine = np.diag([1.0, 1, 3, 1]) if affine is None else affine
    brain = np.zeros((17, 15, 6), np.int16)
    for k, side in enumerate((3, 9, 12, 8, 7, 2)):
        brain[2 : 2 + side, 2 : 2 + side, k] = 100 + k
    for name, array, place in (("brain", brain, affine), ("seg", mask, affine if mask_affine is None else mask_affine)):
        nibabel.save(nibabel.Nifti1Image(array, place), tmp_path / f"{name}.nii")
    return brain


def seg(*slices, label=1):
    mask = np.zeros((17, 15, 6), np.uint8)
    for k in slices:
        mask[4:7, 5:7, k] = label
    return mask


@pytest.mark.parametrize(("marked", "taken"), [((4, 5), 4), ((1, 2, 3), 2), ((5,), 5), ((0, 3), 3)])
def test_of_volumes_image_and_mask_are_the_same_slice(grey_run, files, capsys, marked, taken):
    brain = volumes(files, seg(*marked, label=2))
    (one,) = read_inputs(grey_run, ["image0"], ["brain.nii"], ["seg.nii"])
    np.testing.assert_array_equal(one.pixels, grey_run.record("image0").value_map.apply(brain[:, :, taken, None]))
    np.testing.assert_array_equal(one.mask, seg(taken)[:, :, taken] > 0)
    assert capsys.readouterr().err == f"note: of brain.nii and its mask seg.nii the slice [:, :, {taken}] is taken\n"


def test_a_mask_stored_in_another_order_is_brought_onto_its_image_s_grid(grey_run, files):
    affine = np.array([[-1.0, 0, 0, 5], [0, -1, 0, 7], [0, 0, 3, 1], [0, 0, 0, 1]])
    turned = affine.copy()
    turned[0] = [1, 0, 0, 5 - 16]  # stored from the other side
    volumes(files, seg(4)[::-1], affine, turned)
    (one,) = read_inputs(grey_run, ["image0"], ["brain.nii"], ["seg.nii"])
    np.testing.assert_array_equal(one.mask, seg(4)[:, :, 4] > 0)
    turned = affine[:, [2, 0, 1, 3]]
    volumes(files, np.moveaxis(seg(3), 2, 0), affine, turned)
    (one,) = read_inputs(grey_run, ["image0"], ["brain.nii"], ["seg.nii"])
    np.testing.assert_array_equal(one.mask, seg(3)[:, :, 3] > 0)
    shifted = affine.copy()
    shifted[0, 3] += 4
    volumes(files, seg(3), affine, shifted)
    with pytest.raises(
        UserError, match=r"the mask seg\.nii lies elsewhere than brain\.nii, as their affines say: resample"
    ):
        read_inputs(grey_run, ["image0"], ["brain.nii"], ["seg.nii"])
    volumes(files, seg(3)[:, :, :5], affine)
    with pytest.raises(UserError, match=r"seg\.nii is 17x15x5 voxels, its image brain\.nii 17x15x6: give both on one"):
        read_inputs(grey_run, ["image0"], ["brain.nii"], ["seg.nii"])


def test_a_volume_is_no_mask_of_a_picture_and_an_empty_one_is_named(grey_run, files):
    volumes(files, seg(3))
    np.save("flat.npy", np.arange(17 * 15, dtype=np.int16).reshape(17, 15))
    with pytest.raises(UserError, match=r"the mask seg\.nii is a volume of 6 slices, its image flat\.npy a single one"):
        read_inputs(grey_run, ["image0"], ["flat.npy"], ["seg.nii"])
    volumes(files, seg())
    with pytest.raises(UserError, match=r"the mask seg\.nii is empty"):
        read_inputs(grey_run, ["image0"], ["brain.nii"], ["seg.nii"])


@pytest.mark.parametrize("suffix", ["png", "npy", "nii.gz"])
@pytest.mark.parametrize("labels", [(2, 4), tuple(range(1, 11))])
def test_all_labels_of_a_mask_are_inside(run, files, suffix, labels):
    mask = np.zeros((17, 15), np.uint8)
    for number, label in enumerate(labels):
        mask[number + 2, 3:12] = label
    if suffix == "png":
        Image.fromarray(mask).save("labels.png")
    elif suffix == "npy":
        np.save("labels.npy", mask)
    else:
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), "labels.nii.gz")
    (one,) = read_inputs(run, ["image0"], ["a.npy"], [f"labels.{suffix}"])
    np.testing.assert_array_equal(one.mask, mask > 0)


def test_a_mask_in_an_alpha_channel_is_read_as_one(grey_run, files, capsys):
    expected = np.zeros((17, 15), bool)
    expected[5:9, 5:9] = True
    alpha = np.where(expected, 250, 3).astype(np.uint8)
    colours = np.random.default_rng(0).integers(0, 255, (17, 15, 3)).astype(np.uint8)
    Image.fromarray(np.concatenate([colours, alpha[..., None]], -1)).save("rgba.png")
    (one,) = read_inputs(grey_run, ["image0"], [_grey("x.npy")], ["rgba.png"])
    np.testing.assert_array_equal(one.mask, expected)
    assert capsys.readouterr().err == "note: the mask rgba.png is taken from its alpha channel, not from its colours\n"


def test_an_input_brings_its_mask_in_its_alpha_channel(random_run, files, capsys):
    run = random_run(channels=3)
    run = dataclasses.replace(run, images=tuple(_as_picture(record) for record in run.images))
    alpha = np.zeros((17, 15, 1), np.uint8)
    alpha[5:9, 5:9] = 255
    colours = np.random.default_rng(0).integers(0, 255, (17, 15, 3)).astype(np.uint8)
    Image.fromarray(np.concatenate([colours, alpha], -1)).save("rgba.png")
    (one,) = read_inputs(run, ["image0"], ["rgba.png"], [], alpha_is_mask=True)
    np.testing.assert_array_equal(one.mask, alpha[..., 0] > 0)
    assert one.pixels.shape == (17, 15, 3)
    assert capsys.readouterr().err == "note: the mask of rgba.png is taken from its alpha channel\n"
    assert read_inputs(run, ["image0"], ["rgba.png"], [])[0].mask is None


def _as_picture(record):
    channels = len(record.channels)
    limits = ((0.0,) * channels, (255.0,) * channels, (None,) * channels)
    return dataclasses.replace(record, value_map=ValueMap(*limits, "uint8", ("type",) * channels))


def _grey(name):
    np.save(name, np.random.default_rng(0).integers(0, 1000, (17, 15)).astype(np.int16))
    return name


def test_a_mask_of_most_of_the_image_is_warned_of(run, files, capsys):
    mask = np.full((17, 15), 255, np.uint8)
    mask[5:9, 5:9] = 0
    Image.fromarray(mask).save("most.png")
    (one,) = read_inputs(run, ["image0"], ["a.npy"], ["most.png"])
    assert one.mask.sum() == 17 * 15 - 16
    said = "note: the mask most.png marks 94% of the image: if it marks what is to be kept, invert it\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("values", [(0, 200, np.int32), (0, 200, np.float32), (0, 0.78, np.float32)])
def test_pictures_stored_as_other_types_keep_their_brightness(random_run, files, values):
    low, high, dtype = values
    run = random_run()
    run = dataclasses.replace(run, images=tuple(_as_picture(record) for record in run.images))
    pixels = np.linspace(low, high, 17 * 15 * 2).reshape(17, 15, 2).astype(dtype)
    np.save("x.npy", pixels)
    (one,) = read_inputs(run, ["image0"], ["x.npy"], [])
    np.testing.assert_allclose(one.pixels, 2 * (pixels / (255 if high > 1 else 1)) - 1, atol=1e-6)


def test_inputs_of_other_proportions_are_refused_and_roundings_are_not(run):
    for size in ((17, 15), (34, 30), (8, 7), (9, 8), (170, 151), (1700, 1499)):
        entered = entering(run, Input("image0", "x", np.zeros((*size, 2), np.float32)), 1)
        assert entered.shape == (*run.spec.at(0).size, 2)
    for size in ((20, 20), (15, 17), (34, 34), (170, 160)):
        with pytest.raises(
            UserError, match=rf"x is {size[0]}x{size[1]} pixels \(height x width\), image0 is 17x15: it"
        ):
            entering(run, Input("image0", "x", np.zeros((*size, 2), np.float32)), 1)


def test_the_converter_of_a_format_that_is_not_read_is_named(run, files):
    (files / "a.dcm").write_bytes(b"x")
    (files / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    for name, text in (("a.dcm", "dcm2niix"), ("IM0001", "dcm2niix")):
        with pytest.raises(UserError, match=rf"{name} is of no format that is read here: 1 DICOM file: .*{text}"):
            read_inputs(run, ["image0"], [name], [])


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
