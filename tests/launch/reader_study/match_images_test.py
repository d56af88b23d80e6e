"""What a reader study is made of: which files are one image, what is made alike of both kinds, the choice and order."""

import dataclasses
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest

from launch.images import image_folders
from launch.images.image_folders import Entry, StudyImage
from launch.reader_study import design, levels, match_images
from launch.samples import writers
from singan.errors import UserError
from singan.storage.workdir import ImageRecord
from singan.value_map import fit


def samples(folder: Path, form: str, channels: tuple[str, ...], count: int = 3, scales: tuple[int, ...] = (0, 1)):
    """Writes random samples of two images as launch.sample does."""
    records = []
    for name in ("scan_0001", "scan_0002_t1"):
        pixels = np.linspace(0, 1, 12 * 10 * len(channels)).reshape(12, 10, -1).astype(np.float32)
        details = {"affine": np.diag([1.0, 1.0, 1.0, 1.0]).tolist()}
        value_map = fit(pixels, "auto", "none")
        shape = (12, 10, len(channels))
        records.append(ImageRecord(name, f"{name}.png", shape, channels, value_map, "digest", details))
    for scale in scales:
        drawn = np.random.default_rng(scale).uniform(-1, 1, (2, count, 12, 10, len(channels))).astype(np.float32)
        (folder / f"start_{scale:02d}").mkdir(parents=True)
        with writers.open_writer(form, folder / f"start_{scale:02d}", records, count, scale) as writer:
            writer.add([record.id for record in records], 0, drawn)


@pytest.mark.parametrize("form", ["png", "npy", "nifti"])
@pytest.mark.parametrize("channels", [("intensity",), ("red", "green", "blue"), ("t1", "flair")])
def test_samples_are_found_as_they_are_written(tmp_path, form, channels):
    samples(tmp_path, form, channels)
    entries = image_folders.list_entries(str(tmp_path), "generated")
    assert Counter(entry.start_scale for entry in entries) == {0: 6, 1: 6}
    assert len({entry.source for entry in entries}) == 12
    images = [image_folders.read(entry) for entry in entries]
    turned = (10, 12) if form == "nifti" else (12, 10)  # an identity affine: rows lie from side to side
    assert {(len(image.planes), image.planes[0].shape) for image in images} == {(len(channels), turned)}
    if form != "npy":
        assert {frozenset(image.channels or ()) for image in images} == {frozenset(channels)}


def test_of_samples_only_the_channels_asked_for_are_read(tmp_path):
    samples(tmp_path, "png", ("red", "green", "blue", "nuclei"))
    entries = image_folders.list_entries(str(tmp_path), "generated", ["rgb"])
    assert {entry.words for entry in entries} == {("rgb",)}
    assert image_folders.read(entries[0]).channels == ("red", "green", "blue")


def test_files_of_one_channel_each_become_one_image(tmp_path):
    for patient in ("p1", "p2"):
        for number, word in enumerate(("t1", "T2-w", "seg")):
            np.save(tmp_path / f"{patient}_{word}.npy", np.full((4, 5), number + 10 * int(patient[1])))
    entries = image_folders.list_entries(str(tmp_path), "real", ["t1", "T2-w"])
    assert [entry.source for entry in entries] == ["p1_{T2-w,t1}.npy", "p2_{T2-w,t1}.npy"]
    image = image_folders.read(entries[1])
    assert image.channels == ("T2-w", "t1")
    assert [int(plane[0, 0]) for plane in image.planes] == [21, 20]
    (tmp_path / "p2_t1.npy").unlink()
    with pytest.raises(UserError, match="p2 has no file for the channel t1"):
        image_folders.list_entries(str(tmp_path), "real", ["t1", "T2-w"])


def test_folds_of_pannuke_have_images_only(tmp_path):
    fold = tmp_path / "Fold 1" / "images" / "fold1"
    fold.mkdir(parents=True)
    np.save(fold / "images.npy", np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.float64))
    np.save(fold / "types.npy", np.array(["Breast"] * 3))
    np.save(fold / "masks.npy", np.zeros((3, 8, 8, 6)))
    entries = image_folders.list_entries(str(tmp_path), "real")
    assert [entry.index for entry in entries] == [0, 1, 2]
    with pytest.raises(UserError, match="does not exist"):
        image_folders.list_entries(str(tmp_path / "nowhere"), "real")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--real=.* holds no image"):
        image_folders.list_entries(str(tmp_path / "empty"), "real")


def test_an_archive_of_arrays_under_the_name_of_an_array_is_one_image(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((8, 8, 3)))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    (entry,) = image_folders.list_entries(str(tmp_path), "real")
    assert entry.index is None
    assert [plane.shape for plane in image_folders.read(entry).planes] == [(8, 8)] * 3


def test_slices_of_volumes_are_turned_upright(tmp_path):
    volume = np.zeros((6, 5, 1), np.int16)
    volume[5, 0] = 7  # with an identity affine: the patient's right to left is the first axis, back to front the second
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "scan.nii")
    image = image_folders.read(image_folders.list_entries(str(tmp_path), "real")[0])
    assert image.planes[0].shape == (5, 6)
    assert np.argwhere(image.planes[0]).tolist() == [[4, 0]]
    stored = image_folders.read(image_folders.list_entries(str(tmp_path), "real")[0], upright=False)
    assert np.argwhere(stored.planes[0]).tolist() == [[5, 0]]


def images(planes: np.ndarray, channels: tuple[str, ...] | None = None) -> list[StudyImage]:
    """[n, H, W, C] as n images."""
    return [
        StudyImage(f"{i}", tuple(np.ascontiguousarray(one[..., c]) for c in range(one.shape[-1])), channels)
        for i, one in enumerate(planes)
    ]


def test_eight_bits_and_floats_get_the_same_levels():
    rng = np.random.default_rng(0)
    photographs = rng.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    floats = rng.uniform(0, 255, (3, 16, 16, 3)).astype(np.float32)
    result = match_images.match_images(images(photographs, ("red", "green", "blue")), images(floats))
    assert result.levels == (256, 256, 256)
    assert np.array_equal(np.stack(result.real), np.moveaxis(photographs, -1, 1))
    assert np.array_equal(np.stack(result.generated), np.moveaxis(np.rint(floats), -1, 1))


def test_neither_gaps_nor_the_number_of_values_tell_the_kinds_apart():
    """Real slices made from integers of two scanners, and floats that can take any value, from one distribution."""
    rng = np.random.default_rng(0)
    values = rng.beta(2, 4, (8, 64, 64, 1))
    values[:, :20] = 0  # background
    real = [np.rint(one * top) / top for one, top in zip(values[:4], (701, 1400, 903, 1201), strict=True)]
    result = match_images.match_images(images(np.stack(real).astype(np.float32)), images(values[4:].astype(np.float32)))
    (count,) = result.levels
    assert count == pytest.approx(702, rel=0.01)  # of the coarsest
    kinds = []
    for side in (result.real, result.generated):
        pooled = np.bincount(np.concatenate([image[image > 0] for image in side]), minlength=count)[20:400]
        # Of smooth densities neighbouring counts differ by chance alone: Poisson counts have a ratio of 1.
        rough = np.square(np.diff(pooled)).sum() / pooled.sum() / 2
        kinds.append(rough)
        assert all((image == 0).sum() >= 20 * 64 for image in side)
    assert kinds == pytest.approx([1, 1], abs=0.25)
    counts = [[len(np.unique(image)) for image in side] for side in (result.real, result.generated)]
    assert max(map(max, counts)) - min(map(min, counts)) < 40


def test_rounding_alone_would_leave_gaps():
    """The test above can fail: without dithering, the histogram of these values is rough."""
    values = np.random.default_rng(0).beta(2, 4, 20000)
    rounded = np.rint(np.rint(values * 903) / 903 * 701).astype(int)
    counts = np.bincount(rounded, minlength=702)[20:400]
    assert np.square(np.diff(counts)).sum() / counts.sum() / 2 > 2


def test_steps_are_found():
    rng = np.random.default_rng(0)
    integers = rng.integers(0, 1500, (64, 64))
    step = {
        "eight bits": levels.Fill(rng.integers(0, 256, (32, 32)) / 255, 0).step * 255,
        "floats of integers": levels.Fill((integers / 1733).astype(np.float32), 0).step * 1733,
        "steps of 16": levels.Fill(integers // 16 * 16 / 1733, 0).step * 1733 / 16,
        "rounded stretch": levels.Fill(np.rint(rng.integers(0, 180, (64, 64)) * 1.417) / 255, 0).step * 255 / 1.417,
    }
    assert step == {name: pytest.approx(1, rel=0.05) for name in step}
    assert levels.Fill(rng.random((64, 64)).astype(np.float32), 0).step < 1 / 65536
    assert levels.Fill(np.where(integers > 700, rng.random((64, 64)), 0.5), 0).step < 1e-4  # a constant background


def test_integers_of_one_scanner_keep_their_steps():
    rng = np.random.default_rng(0)
    real = rng.integers(0, 1000, (2, 16, 16, 1)).astype(np.int16)
    real[0, 0, 0] = 999
    floats = rng.uniform(-0.5, 998, (2, 16, 16, 1)).astype(np.float32)
    floats[0, 0, 0] = -0.5
    result = match_images.match_images(images(real), images(floats))
    assert result.levels == (1001,)  # -1 to 999
    assert np.array_equal(result.real[0][0], real[0, ..., 0] + 1)
    assert np.array_equal(result.generated[1][0], np.rint(floats[1, ..., 0] + 1))


def test_units_that_differ_are_refused_or_mapped_image_by_image():
    rng = np.random.default_rng(0)
    scans = images(rng.integers(0, 3000, (2, 16, 16, 1)).astype(np.int16))
    drawn = images(rng.integers(0, 256, (2, 16, 16, 1)).astype(np.uint8))
    with pytest.raises(UserError, match=r"not in the same units.*--scaling=image"):
        match_images.match_images(scans, drawn)
    result = match_images.match_images(scans, drawn, scaling="image")
    assert result.levels == (256,)
    assert {(int(i.min()), int(i.max())) for i in (*result.real, *result.generated)} == {(0, 255)}


def test_sizes_that_differ_are_refused_cropped_or_resized():
    ramp = np.tile(np.linspace(0, 255, 40).round().astype(np.uint8), (40, 1))[None, ..., None]
    small = np.zeros((1, 20, 20, 1), np.uint8)
    with pytest.raises(UserError, match=r"20x20, 40x40.*--fit=crop"):
        match_images.match_images(images(ramp), images(small))
    cropped = match_images.match_images(images(ramp), images(small), fit="crop").real[0][0]
    assert np.array_equal(cropped, ramp[0, 10:30, 10:30, 0])
    resized = match_images.match_images(images(ramp), images(small), fit="resize").real[0][0]
    halves = ramp[0, ..., 0].reshape(20, 2, 20, 2).mean((1, 3))
    assert np.abs(resized[2:-2, 2:-2] - halves[2:-2, 2:-2]).max() <= 1
    with pytest.raises(UserError, match="differ in shape"):
        match_images.match_images(images(ramp), images(small[:, :10]), fit="resize")


def test_channels_are_matched_by_name_or_place():
    planes = np.arange(3, dtype=np.uint8) * np.ones((1, 8, 8, 3), np.uint8)
    real, drawn = images(planes, ("t1", "t2", "flair")), images(planes[..., ::-1], ("flair", "t2", "t1"))
    result = match_images.match_images(real, drawn)
    assert result.channels == ("t1", "t2", "flair")
    assert result.generated[0][:, 0, 0].tolist() == [0, 1, 2]
    assert match_images.match_images(real, drawn, ("FLAIR", "t1")).real[0][:, 0, 0].tolist() == [2, 0]
    assert match_images.match_images(real, images(planes)).generated[0][:, 0, 0].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="has the channels t1, t2, flair, not t1ce"):
        match_images.match_images(real, drawn, ("t1ce",))
    with pytest.raises(UserError, match="differ in channels"):
        match_images.match_images(real, images(planes[..., :2]))


def entries(count: int, scales: tuple[int | None, ...] = (None,)) -> list[Entry]:
    return [Entry(f"s{i}", (), (), None, scales[i % len(scales)]) for i in range(count)]


def study(mode: design.Mode, count: int = 12, channels: tuple[str, ...] = ("t1", "t2"), split: bool = False):
    """A study whose images say what they are: real is 1, generated 0."""
    choice = design.choose(entries(count), entries(30, (0, 1, 2)), mode, 0, 4, seed=1)
    planes = [np.full((len(channels), 4, 4), value, np.uint16) for value in (1, 0)]
    made = match_images.MatchedImages(
        [planes[0]] * len(choice.real), [planes[1]] * len(choice.real), channels, (256, 256), ""
    )
    return design.arrange(choice, made, mode, b"secret", split)


def test_a_study_of_single_images_is_balanced_in_each_half():
    result = study("single")
    assert [item.practice for item in result.items] == [True] * 4 + [False] * 20
    scored = [item.answer for item in result.items if not item.practice]
    assert Counter(scored[:10]) == Counter(scored[10:]) == {"real": 5, "generated": 5}
    assert scored != sorted(scored)
    for item in result.items:
        assert (item.images[0][0, 0, 0] == 1) == (item.answer == "real")
        assert (item.start_scale is None) == (item.answer == "real")
        assert bool(item.real) == (item.answer == "real") != bool(item.generated)
    scales = Counter(item.start_scale for item in result.items if not item.practice and item.generated)
    assert sorted(scales.values()) == [3, 3, 4]
    assert len({item.real for item in result.items} - {""}) == 12


def test_pairs_have_the_real_one_on_each_side_equally_often():
    result = study("pairs")
    assert Counter(item.answer for item in result.items) == {"left": 6, "right": 6}
    for item in result.items:
        assert item.images[("left", "right").index(item.answer)][0, 0, 0] == 1
        assert sum(int(image[0, 0, 0]) for image in item.images) == 1


def test_split_channels_are_shown_equally_often_and_alike_for_both_kinds():
    result = study("single", split=True)
    shown = Counter((item.answer, item.groups) for item in result.items if not item.practice)
    assert max(shown.values()) - min(shown.values()) <= 2
    assert {n for (answer, g), n in shown.items() if g == (0,)} == {shown["real", (0,)]} == {shown["generated", (0,)]}
    assert {item.images[0].shape for item in result.items} == {(1, 4, 4)}


def test_the_order_hangs_on_the_files_contents(tmp_path):
    """Whoever knows the seed, the code and the number of images cannot work out the order."""
    found = []
    for content in (b"one", b"two"):
        (tmp_path / "a.png").write_bytes(content)
        there = [dataclasses.replace(entry, paths=(tmp_path / "a.png",)) for entry in entries(12)]
        found.append(design.digest(design.Choice(there, there, 10), {"seed": 1}))
    assert found[0] != found[1]
    choice = design.choose(entries(12), entries(12), "single", 0, 0, seed=1)
    made = match_images.MatchedImages(
        [np.ones((1, 2, 2), np.uint16)] * 12, [np.zeros((1, 2, 2), np.uint16)] * 12, ("x",), (256,), ""
    )
    orders = [[i.answer for i in design.arrange(choice, made, "single", secret).items] for secret in found]
    assert orders[0] != orders[1]


def test_too_few_images_and_odd_numbers_are_refused():
    with pytest.raises(UserError, match="--num_items=3 must be even"):
        design.choose(entries(9), entries(9), "single", 3, 0, 0)
    with pytest.raises(UserError, match="--practice=1 must be even"):
        design.choose(entries(9), entries(9), "single", 4, 1, 0)
    with pytest.raises(UserError, match=r"12 real and as many generated.*there are 9 and 11"):
        design.choose(entries(9), entries(11), "pairs", 8, 4, 0)
    assert len(design.choose(entries(9), entries(11), "pairs", 0, 4, 0).real) == 9
    assert design.choose(entries(9), entries(11), "single", 6, 2, 0).main == 3
