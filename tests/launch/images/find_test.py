import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from launch.images.find import group_by_shape, load_images
from launch.images.image_ids import unique_ids
from singan.config import DataConfig
from singan.errors import UserError
from singan.storage.run_record import _check_images, record_of
from singan.storage.workdir import Workdir

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real images of ../shared/data are not here")
RANDOM = np.random.default_rng(0)


def noise(*shape, dtype=np.uint8):
    return RANDOM.integers(0, 250, shape).astype(dtype)


def png(path, *shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise(*(shape or (8, 9, 3)))
    Image.fromarray(pixels).save(path)
    return pixels


def load(path, **data: Any):
    return load_images(DataConfig(path=str(path), **data))


def refusal(path="", **data: Any):
    with pytest.raises(UserError) as error:
        load(path, **data)
    text = str(error.value)
    assert "\n" not in text
    return text


# --- the built-in example


@pytest.mark.parametrize(
    ("num_crops", "crop_size"), [(4, 96), (8, 96), (25, 96), (1, 512), (4, 256), (16, 128), (3, 40)]
)
def test_example_gives_separate_crops_of_the_real_tissue(num_crops, crop_size):
    from skimage.data import immunohistochemistry

    whole = immunohistochemistry()
    images = load_images(DataConfig(num_crops=num_crops, crop_size=crop_size))
    assert len(images) == num_crops
    covered = np.zeros(whole.shape[:2], int)
    for image in images:
        top, bottom, left, right = map(int, re.findall(r"\d+", image.source))
        assert image.source == f"skimage:immunohistochemistry[{top}:{bottom},{left}:{right}]"
        np.testing.assert_array_equal(
            image.value_map.invert(image.pixels, as_stored=True), whole[top:bottom, left:right]
        )
        covered[top:bottom, left:right] += 1
        assert image.pixels.shape == (crop_size, crop_size, 3)
        assert image.channels == ("red", "green", "blue")
    assert covered.max() == 1


def test_example_crops_are_mostly_tissue():
    for image in load_images(DataConfig(num_crops=8)):
        assert (image.pixels.min(axis=-1) > 0.75).mean() < 0.25  # nearly white glass
        assert image.pixels.std() > 0.2


@pytest.mark.parametrize(("num_crops", "crop_size", "fit"), [(26, 96, 25), (2, 300, 1), (1, 513, 0)])
def test_example_crops_that_do_not_fit(num_crops, crop_size, fit):
    text = refusal(num_crops=num_crops, crop_size=crop_size)
    assert f"{num_crops} crops of {crop_size} pixels do not fit" in text
    assert f"({fit} do): lower config.data.num_crops or config.data.crop_size" in text


# --- files, folders, globs


def test_a_folder_is_read_sorted_by_id_and_without_what_is_no_image(tmp_path):
    folder = tmp_path / "scans"
    expected = {name: png(folder / f"{name}.png") for name in ("b", "a10", "a2")}
    expected["c"] = png(folder / "deep" / "er" / "c.png")
    for clutter in ("README.txt", ".DS_Store", "Thumbs.db", "._a2.png", ".hidden/x.png", "deep/.git/y.png", "z"):
        (folder / clutter).parent.mkdir(parents=True, exist_ok=True)
        (folder / clutter).write_bytes(b"no image")
    images = load(folder)
    assert [image.id for image in images] == ["a10", "a2", "b", "c"]
    assert [image.source for image in images] == ["a10.png", "a2.png", "b.png", "deep/er/c.png"]
    for image in images:
        assert image.pixels.dtype == np.float32
        assert np.abs(image.pixels).max() <= 1
        np.testing.assert_array_equal(image.value_map.invert(image.pixels, as_stored=True), expected[image.id])
    assert [image.id for image in load(folder, max_images=2)] == ["a10", "a2"]


def test_max_images_does_not_read_the_others(tmp_path):
    png(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"damaged")
    assert len(load(tmp_path, max_images=1)) == 1


def test_a_single_file_and_a_glob(tmp_path, monkeypatch):
    for name in ("x/a.png", "x/b.png", "y/a.png"):
        png(tmp_path / name)
    (tmp_path / "x" / "b.txt").write_text("no image")
    (only,) = load(tmp_path / "x" / "a.png")
    assert (only.id, only.source) == ("a", "a.png")
    assert [image.source for image in load(tmp_path / "x" / "*")] == ["a.png", "b.png"]
    nested = load(tmp_path / "**" / "a.png")
    assert [(image.id, image.source) for image in nested] == [("x_a_png", "x/a.png"), ("y_a_png", "y/a.png")]
    monkeypatch.chdir(tmp_path / "x")
    assert [image.source for image in load("*.png")] == ["a.png", "b.png"]
    (tmp_path / "odd[1]").mkdir()
    png(tmp_path / "odd[1]" / "c.png")
    assert [image.id for image in load(tmp_path / "odd[1]")] == ["c"]


def test_links_out_of_the_folder_are_left_out(tmp_path):
    png(tmp_path / "elsewhere" / "out.png")
    png(tmp_path / "scans" / "in.png")
    folder = tmp_path / "scans"
    (folder / "file.png").symlink_to(tmp_path / "elsewhere" / "out.png")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "up").symlink_to(folder)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "same.png").symlink_to(folder / "in.png")
    assert [image.id for image in load(folder)] == ["in", "same"]
    (tmp_path / "link").symlink_to(folder)
    assert [image.id for image in load(tmp_path / "link")] == ["in", "same"]
    (folder / "in.png").unlink()
    assert re.search(r"holds no image \(3 symbolic links to elsewhere are left out\): .*\.nii\.gz", refusal(folder))


def test_a_slice_of_a_volume_says_which(tmp_path):
    voxels = np.zeros((8, 9, 5), np.int16)
    voxels[2:6, 2:6, 3] = np.arange(16).reshape(4, 4)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "x.nii.gz")
    (image,) = load(tmp_path)
    assert (image.id, image.source) == ("x", "x.nii.gz[:, :, 3]")
    assert image.channels == ("intensity",)
    assert image.value_map.padding == -1
    assert image.details["affine"] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]]
    # Stored left to right and back to front, as identity says: rows must run from front to back.
    assert image.details["upright"] == {"transpose": True, "flip": [True, True]}


# --- what of a folder is trained on


@pytest.mark.parametrize(
    "names",
    [
        ("Train/Overlay/a.png", "Train/Overlay/b.png"),
        ("a_mask.png", "b-Mask.png", "tumour_SEG.png", "x_segm.png", "case_seg_manual.png", "mask_01.png"),
        ("labelsTr/a.png", "masks2/a.png", "GT/a.png", "Labels/a.png", "InstanceMask/a.png"),
        ("thumbs/a.png", "a_thumb.png", "a_overlay.png", "a_annotation.png"),
    ],
)
def test_likely_masks_and_overlays_are_left_out_and_named_unless_a_glob_asks_for_them(tmp_path, capsys, names):
    for name in ("a.png", "Train/Images/x.png", *names):
        png(tmp_path / name)
    assert [image.source for image in load(tmp_path)] == ["a.png", "Train/Images/x.png"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("note: config.data.path=")
    assert f": 2 files are taken as images, Train/Images/x.png, a.png; {len(names)} files are left out" in said
    shown = re.search(r"thumbnails, (.*?)(?: and (\d+) more)?: to take them too, give a glob such as '(.*)'$", said)
    assert shown
    assert set(shown[1].split(", ")) <= set(names)
    assert len(shown[1].split(", ")) + int(shown[2] or 0) == len(names)
    assert {image.source for image in load(shown[3])} & {Path(name).name for name in names}
    assert len(load(tmp_path / names[0])) == 1


def test_a_folder_of_masks_alone_and_names_that_only_speak_of_masks_are_trained_on(tmp_path, capsys):
    for name in (
        "masks/a_mask.png",
        "masks/b_mask.png",
        "words/label_free.png",
        "words/with_mask.png",
        "words/eggs.png",
    ):
        png(tmp_path / name)
    assert len(load(tmp_path / "masks")) == 2
    assert len(load(tmp_path / "words")) == 3
    assert capsys.readouterr().err == ""


def test_folders_of_systems_are_passed_over(tmp_path):
    png(tmp_path / "a.png")
    for name in ("@eaDir/a.png", "__MACOSX/a.png", "deep/@eaDir/a.png/x.png", "#recycle/b.png", ".thumbnails/a.png"):
        png(tmp_path / name)
    assert [image.source for image in load(tmp_path)] == ["a.png"]
    assert [image.source for image in load(tmp_path / "**" / "*.png")] == ["a.png"]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.dcm", b"x", "1 DICOM file: convert them to .nii.gz with dcm2niix"),
        ("IM000001", b"\0" * 128 + b"DICM", "1 DICOM file: convert"),
        ("1.2.840.10008", b"\0" * 128 + b"DICM", "1 DICOM file: convert"),
        ("a.mha", b"x", "1 MetaImage file: save them as .nii.gz with SimpleITK"),
        ("a.nrrd", b"x", "1 NRRD file: save them"),
        ("a.mgz", b"x", "1 FreeSurfer file: convert them to .nii.gz with mri_convert"),
        ("a.svs", b"x", "1 whole slide file: cut them into patches with OpenSlide or QuPath"),
        ("a.zip", b"x", "1 packed file: unpack them first"),
    ],
)
def test_the_converter_of_formats_that_are_not_read_is_named(tmp_path, capsys, name, content, text):
    (tmp_path / name).write_bytes(content)
    assert f"holds no image, but {text}" in refusal(tmp_path)
    assert f"holds no image, but {text}" in refusal(tmp_path / name)
    png(tmp_path / "b.png")
    assert len(load(tmp_path)) == 1
    assert (f"not read are {text}" in capsys.readouterr().err) == (name != "a.zip")


def channel_files(folder, cases=("one", "two"), channels=3, suffix=".nii.gz"):
    """nnU-Net's files: [8, 9, 5] each, filled most in slice 1 of the first channel, and in others of the others."""
    arrays = {}
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        for channel in range(channels):
            array = np.zeros((8, 9, 5), np.int16)
            array[2:6, 2:6, (channel + 1) % 5] = noise(4, 4) + 1
            array[3, 3, :] = channel + 1
            arrays[case, channel] = array
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 3, 1])), folder / f"{case}_{channel:04d}{suffix}")
    return arrays


def test_the_files_of_an_nnunet_case_are_the_channels_of_one_image(tmp_path):
    arrays = channel_files(tmp_path / "imagesTr")
    (tmp_path / "labelsTr").mkdir()
    nibabel.save(nibabel.Nifti1Image(arrays["one", 0], np.eye(4)), tmp_path / "labelsTr" / "one.nii.gz")
    for path in (tmp_path, tmp_path / "imagesTr"):
        images = load(path)
        assert [image.id for image in images] == ["one", "two"]
        for image in images:
            expected = np.stack([arrays[image.id, channel][:, :, 1] for channel in range(3)], -1)
            np.testing.assert_array_equal(image.value_map.invert(image.pixels, as_stored=True), expected)
            assert image.channels == ("channel_0", "channel_1", "channel_2")
            assert image.source.endswith(f"{image.id}_{{0000,0001,0002}}.nii.gz[:, :, 1]")
    described = {"channel_names": {"0": "T1", "1": "T2", "2": "FLAIR"}}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    assert load(tmp_path)[0].channels == ("T1", "T2", "FLAIR")
    (tmp_path / "imagesTr" / "two_0001.nii.gz").unlink()
    assert refusal(tmp_path).startswith(
        "imagesTr/two.nii.gz has no file for the channel _0001, which others have: add it"
    )


def test_channels_on_other_grids_are_refused(tmp_path):
    channel_files(tmp_path / "imagesTr")
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 9, 5)), np.eye(4)), tmp_path / "imagesTr" / "one_0002.nii.gz")
    assert refusal(tmp_path).startswith(
        "one_0002.nii.gz: lies otherwise in space than one_0000.nii.gz or is of another"
    )


def test_numbered_files_that_only_look_like_channels_are_images_with_a_note(tmp_path, capsys):
    channel_files(tmp_path / "scans")
    assert len(load(tmp_path)) == 6
    said = capsys.readouterr().err
    assert (
        "note: one_0000.nii.gz, one_0001.nii.gz, one_0002.nii.gz and the like are taken as images of their own" in said
    )


def test_a_task_of_the_msd_has_its_channels_in_the_fourth_axis(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    array = noise(8, 9, 5, 2, dtype=np.int16) + np.int16(1)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "imagesTr" / "BRATS_001.nii.gz")
    assert "save one volume a file; where the last axis holds the channels" in refusal(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": {"0": "FLAIR", "1": "T1w"}}))
    (image,) = load(tmp_path)
    assert image.channels == ("FLAIR", "T1w")
    np.testing.assert_array_equal(image.value_map.invert(image.pixels, as_stored=True), array[:, :, 2])


def test_alpha_that_is_dropped_is_said_and_read_where_it_is_named(tmp_path, capsys):
    for name in ("a.png", "b.png"):
        pixels = png(tmp_path / name, 8, 9, 4)
    images = load(tmp_path)
    assert [image.pixels.shape for image in images] == [(8, 9, 3)] * 2
    assert capsys.readouterr().err == (
        "note: the alpha channel of a.png, b.png is left out: where it is a mask to be trained on, name it with"
        " --config.data.channels=red,green,blue,mask\n"
    )
    image = load(tmp_path, channels=("red", "green", "blue", "mask"))[1]
    np.testing.assert_array_equal(image.value_map.invert(image.pixels, as_stored=True), pixels)
    assert capsys.readouterr().err == ""


def test_a_run_that_noted_less_of_its_images_goes_on(tmp_path):
    nibabel.save(nibabel.Nifti1Image(noise(8, 9, 5, dtype=np.int16), np.eye(4)), tmp_path / "x.nii")
    (now,) = map(record_of, load(tmp_path))
    assert "forms" in now.details
    before = dataclasses.replace(now, details={k: v for k, v in now.details.items() if k != "forms"})
    _check_images(Workdir(tmp_path), [before], [now])
    moved = dataclasses.replace(before, details={**before.details, "affine": [[0.0] * 4] * 4})
    with pytest.raises(UserError, match=r"was started with other images \(changed: x\)"):
        _check_images(Workdir(tmp_path), [moved], [now])


def test_little_contrast_is_said(tmp_path, capsys):
    array = noise(20, 20, dtype=np.int16)
    array[5, 5] = 30000
    np.save(tmp_path / "clip.npy", array)
    Image.fromarray(noise(20, 20) // 25).save(tmp_path / "dark.png")
    load(tmp_path, channels=("t1",))
    said = capsys.readouterr().err
    assert said.startswith("note: clip.npy, dark.png use less than 10% of their value range (t1 of clip.npy from ")
    assert said.endswith("give the range that matters as --config.data.value_range=LOW,HIGH\n")
    np.save(tmp_path / "clip.npy", np.linspace(0, 0.003, 400, dtype=np.float32).reshape(20, 20))
    (image,) = load(tmp_path / "clip.npy")
    assert (image.pixels.min(), image.pixels.max()) == (-1, 1)
    assert capsys.readouterr().err == ""


# --- ids


def test_repeated_stems_get_suffix_folder_and_hash(tmp_path):
    names = [
        "a.png",
        "a.bmp",
        "one/b.png",
        "two/b.png",
        "c d.png",
        "c_d.png",
        "c,d.png",
        "free.png",
        "A-PNG.png",
        "A_PNG.bmp",
    ]
    for name in names:
        png(tmp_path / name)
    ids = {image.source: image.id for image in load(tmp_path)}
    assert ids["free.png"] == "free"
    assert (ids["a.png"], ids["a.bmp"]) == ("a_png", "a_bmp")
    assert (ids["one/b.png"], ids["two/b.png"]) == ("one_b_png", "two_b_png")
    for name in ("c d.png", "c_d.png", "c,d.png"):
        assert re.fullmatch(r"c_d_png_[0-9a-f]{8}", ids[name])
    assert len({image_id.casefold() for image_id in ids.values()}) == len(names)


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("Gewebe ä.png", "Gewebe_a"),
        ("a\nb.png", "a_b"),
        ("脳.png", "image"),
        ("CON.png", "image_CON"),
        ("LPT1.png", "image_LPT1"),
        ("-rf.png", "rf"),
        ("a. .png", "a"),
        ("x" * 200 + ".png", "x" * 80),
        ("scan.v2.nii.gz", "scan_v2"),
    ],
)
def test_ids_can_be_file_names(name, image_id):
    assert unique_ids([name]) == [image_id]


@given(st.lists(st.text(st.characters(blacklist_characters="/\0"), min_size=1), unique=True, max_size=6))
def test_ids_are_safe_unique_and_do_not_depend_on_the_order(stems):
    names = [f"{stem}.png" for stem in stems]
    ids = unique_ids(names)
    assert len({image_id.casefold() for image_id in ids}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", image_id) for image_id in ids)
    assert unique_ids(names[::-1]) == ids[::-1]


def test_odd_names_are_one_line_of_text_everywhere(tmp_path):
    odd = os.fsdecode(b"a\n\xff.png")
    png(tmp_path / odd)
    (image,) = load(tmp_path)
    assert image.source == r"a\n\udcff.png"
    assert image.id == "a"
    (tmp_path / odd).write_bytes(b"damaged")
    assert refusal(tmp_path).startswith(r"a\n\udcff.png: not a PNG")


# --- channels


def test_channel_names(tmp_path):
    def names(array, **data):
        np.save(tmp_path / "a.npy", array)
        return load(tmp_path / "a.npy", **data)[0].channels

    assert names(noise(8, 9, 3)) == ("red", "green", "blue")
    assert names(noise(8, 9, 3, dtype=np.float32)) == ("channel_0", "channel_1", "channel_2")
    assert names(noise(8, 9)) == ("channel_0",)
    assert names(noise(2, 8, 9), channels=("t1", "flair")) == ("t1", "flair")
    np.savez(tmp_path / "b.npz", image=noise(2, 8, 9), channels=np.array(["t1", "t2"]))
    assert load(tmp_path / "b.npz")[0].channels == ("t1", "t2")
    assert load(tmp_path / "b.npz", channels=("x", "y"))[0].channels == ("x", "y")
    png(tmp_path / "c.png", 8, 9)
    assert load(tmp_path / "c.png")[0].channels == ("intensity",)


def test_channels_that_a_file_names_are_chosen_and_put_in_order(tmp_path):
    pixels = noise(3, 8, 9)
    np.savez(tmp_path / "a.npz", image=pixels, channels=np.array(["T2w", "t1c", "flair"]))
    (image,) = load(tmp_path, channels=("flair", "t2"), value_range=(0.0, 255.0))
    assert image.channels == ("flair", "t2")
    np.testing.assert_allclose(image.value_map.invert(image.pixels), np.moveaxis(pixels[[2, 0]], 0, -1), atol=1e-4)
    assert "has 3 channels, but config.data.channels names 2 (t1, t2)" in refusal(tmp_path, channels=("t1", "t2"))


def test_files_win_over_a_tfds_source_and_what_chooses_among_its_records(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", image=noise(2, 8, 9), channels=np.array(["flair", "t1"]))
    given = {"source": "tfds:brats/slices", "channels": ("t1", "flair"), "has_tumour": "no", "first_slice": 60}
    for path in (tmp_path / "a.npz", tmp_path / "*.npz"):
        (image,) = load(path, **given)
        assert (image.id, image.channels) == ("a", ("t1", "flair"))
        note = "config.data.source=tfds:brats/slices is not used, nor are config.data.first_slice, has_tumour"
        assert note in capsys.readouterr().err
    assert "does not exist" in refusal(tmp_path / "b.npz", **given)
    assert "no prepared data set in" in refusal(tmp_path, **given)


def test_channel_names_that_do_not_fit(tmp_path):
    png(tmp_path / "a.png")
    text = refusal(tmp_path, channels=("t1", "t2"))
    assert text.startswith("a.png: has 3 channels, but config.data.channels names 2 (t1, t2): name as many")
    assert "must be different names" in refusal(tmp_path, channels=("t1", "t1", "t2"))
    np.savez(tmp_path / "b.npz", image=noise(2, 8, 9), channels=np.array(["t1"]))
    text = refusal(tmp_path / "b.npz")
    assert text == "b.npz: has 2 channels, but its own names for them are t1: set --config.data.channels"


def test_layout_range_and_background_reach_the_file(tmp_path):
    array = noise(12, 8, 9, dtype=np.int16)
    np.save(tmp_path / "a.npy", array)
    (image,) = load(tmp_path, layout="hwc", value_range=(0.0, 500.0), background=250.0)
    assert image.pixels.shape == (12, 8, 9)
    np.testing.assert_allclose(image.pixels, array / 250.0 - 1, atol=1e-6)
    np.testing.assert_array_equal(image.value_map.padding, np.zeros(9))
    assert image.value_map.background == (250.0,) * 9


# --- images that do not go together


def test_different_shapes_are_named_and_can_be_grouped(tmp_path):
    for i in range(5):
        png(tmp_path / f"big{i}.png", 12, 9, 3)
    png(tmp_path / "a.png", 8, 9, 3)
    assert refusal(tmp_path) == (
        "the images differ in shape: 12x9 (height x width): big0.png, big1.png, big2.png and 2 more;"
        " 8x9 (height x width): a.png: crop them alike, or train each shape as its own cohort with"
        " --config.data.group_by_shape=true"
    )
    groups = group_by_shape(load(tmp_path, group_by_shape=True))
    assert {key: [image.id for image in images] for key, images in groups.items()} == {
        "8x9": ["a"],
        "12x9": ["big0", "big1", "big2", "big3", "big4"],
    }
    assert list(groups) == ["8x9", "12x9"]


@pytest.mark.parametrize("grouped", [False, True])
def test_different_channels_are_refused(tmp_path, grouped):
    png(tmp_path / "colour.png", 8, 9, 3)
    png(tmp_path / "grey.png", 8, 9)
    text = refusal(tmp_path, group_by_shape=grouped)
    assert "differ in number of channels: 3 channels: colour.png; 1 channel: grey.png: give each kind a run" in text
    (tmp_path / "colour.png").unlink()
    np.save(tmp_path / "array.npy", noise(8, 9))
    text = refusal(tmp_path, group_by_shape=grouped)
    assert "differ in channels: channel_0: array.npy; intensity: grey.png: " in text
    assert len(load(tmp_path, channels=("t1",))) == 2


# --- bad input


def test_paths_that_hold_nothing(tmp_path):
    assert re.search(r"config\.data\.path=.*missing' does not exist: give a folder", refusal(tmp_path / "missing"))
    assert "does not exist" in refusal(tmp_path / "missing" / "a.png")
    assert "does not exist" in refusal("null\0character")
    assert "does not exist" in refusal("x" * 5000)
    (tmp_path / "empty").mkdir()
    assert re.search(
        r"holds no image: files that are understood end in \.png .* \.nii\.gz$", refusal(tmp_path / "empty")
    )
    assert "holds no image: files" in refusal(tmp_path / "*.png")
    (tmp_path / "notes.txt").write_text("x")
    assert "notes.txt' holds no image: files that" in refusal(tmp_path / "notes.txt")
    assert "does not exist" in refusal(tmp_path / "notes.txt" / "a.png")


def test_bad_images_are_named(tmp_path):
    np.save(tmp_path / "flat.npy", np.full((8, 9, 2), 7.0))
    assert refusal(tmp_path).startswith("flat.npy: holds the same value at every pixel")
    np.save(tmp_path / "flat.npy", np.full((8, 9), np.nan))
    assert refusal(tmp_path).startswith("flat.npy: holds NaN or infinite values (72 of 72)")
    np.save(tmp_path / "flat.npy", noise(8, 9))
    assert refusal(tmp_path, value_range=(5.0, 1.0)).startswith("flat.npy: config.data.value_range=(5.0, 1.0) must be")


def test_no_permission(tmp_path, monkeypatch):
    png(tmp_path / "scans" / "a.png")
    denied = PermissionError(13, "Permission denied", "scans")

    def refuse(*args, **kwargs):
        raise denied

    # Taking the permission away would not stop an administrator.
    with monkeypatch.context() as patch:
        patch.setattr(os, "walk", lambda folder, onerror: onerror(denied))
        assert refusal(tmp_path / "scans").endswith("no permission to read scans: change its permissions")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", refuse)
        text = refusal(tmp_path / "scans")
    assert text.endswith("no permission to read scans: change its permissions")


def test_sources_that_are_not_there():
    assert "did you mean 'immunohistochemistry'?" in refusal(source="imunohistochemistry")
    text = refusal(source="brats")
    assert text.startswith("config.data.source='brats' is not one of immunohistochemistry, tfds:brats/slices, tfds:pan")
    assert text.endswith("images of your own are given with --config.data.path=FOLDER")


def test_keys_that_choose_records_need_a_source_that_has_some(tmp_path):
    png(tmp_path / "a.png")
    assert refusal(tmp_path, every=2).startswith("config.data.every chooses among the records of a TFDS source")
    assert "config.data.patients chooses" in refusal(patients=("a",), every=2)


# --- real images


@needs_shared
@pytest.mark.shared
def test_paper_mri_is_black_around():
    (image,) = load(SHARED / "medisingan_paper" / "t1t2fl.npy")
    assert image.pixels.shape == (240, 240, 3)
    assert image.value_map.background == (0, 0, 0)
    np.testing.assert_array_equal(image.value_map.padding, [-1, -1, -1])


@needs_shared
@pytest.mark.shared
def test_real_folders():
    histology = load(SHARED / "histology" / "monuseg" / "images")
    assert [image.pixels.shape for image in histology] == [(256, 256, 3)] * 6
    assert not any(any(image.value_map.padding) for image in histology)
    slices = load(SHARED / "mri_slices" / "du*.npz")
    assert [image.channels for image in slices] == [("t1", "t1c", "t2", "flair")] * 3
    assert all((image.value_map.padding == -1).all() for image in slices)
    volumes = load(SHARED / "brats_like")
    assert {image.pixels.shape for image in volumes} == {(240, 240, 1)}
    assert all(image.value_map.background == (0,) for image in volumes)
    assert all(re.fullmatch(r".*/.*\.nii\.gz\[:, :, \d+\]", image.source) for image in volumes)


@needs_shared
@pytest.mark.shared
def test_real_pictures_with_alpha_by_shape():
    groups = group_by_shape(load(SHARED / "singan_inputs", group_by_shape=True))
    assert sum(map(len, groups.values())) == 14  # three masks are left out
    assert {image.pixels.shape[-1] for images in groups.values() for image in images} == {3}
    assert [image.id for image in groups["529x622"]] == ["polyp_rgba_mask_in_alpha"]
