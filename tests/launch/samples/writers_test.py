import contextlib
import json
import sys

import nibabel
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from datasets.brats import make_dummy_data as brats
from datasets.build import build
from datasets.pannuke import make_dummy_data as pannuke
from launch.images import geometry
from launch.images.find import load_images
from launch.samples import pannuke as pannuke_writer
from launch.samples import writers
from singan import files
from singan.config import DataConfig
from singan.errors import UserError
from singan.storage.run_record import record_of
from singan.storage.workdir import ImageRecord, image_from_json, image_to_json
from singan.value_map import fit


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A prepared BraTS of two patients and a fold of PanNuke."""
    root = tmp_path_factory.mktemp("prepared")
    brats.write_layout(root / "in" / "brats", "2021")
    pannuke.write_fold(root / "in" / "pannuke", 1, *pannuke.patches(0, 3, 64))
    build("brats", root / "in" / "brats", data_dir=root)
    build("pannuke", root / "in" / "pannuke", data_dir=root)
    return root


@pytest.fixture
def slices(data_dir):
    """Two slices with their labels: (records, images [2, 20, 18, 7])."""
    data = DataConfig("tfds:brats/slices", str(data_dir), channels=("t1", "t1ce", "t2", "flair", "seg"), first_slice=5)
    return records_and_pixels(load_images(data)[:2])


def patches(data_dir, *channels):
    data = DataConfig("tfds:pannuke", str(data_dir), channels=("rgb", *channels))
    return records_and_pixels(load_images(data))


def records_and_pixels(images):
    return [record_of(image) for image in images], np.stack([image.pixels for image in images])


def half_size(images):
    """[n, H, W, C] -> [n, H / 2, W / 2, C]: what a run with a smaller finest scale makes."""
    return np.clip(
        images.reshape(len(images), images.shape[1] // 2, 2, images.shape[2] // 2, 2, -1).mean((2, 4)), -1, 1
    )


def written_as(form, folder, records, samples, start_scale):
    with writers.open_writer(form, folder, records, samples.shape[1], start_scale) as writer:
        for first in range(samples.shape[1]):  # one by one: the files do not tell how they were drawn
            writer.add([record.id for record in records], first, samples[:, first : first + 1])


def stored_examples(data_dir, split):
    folder = next(data_dir.glob("1.*"))
    return list(tfds.builder_from_directory(folder).as_data_source(split))


# --- NIfTI


def test_a_slice_written_as_it_is_equals_the_source_s_file(data_dir, slices, tmp_path):
    records, images = slices
    written_as("nifti", tmp_path, records, images[:, None], 1)
    assert len(list(tmp_path.iterdir())) == 2 * 5
    for record in records:
        patient, z = record.details["patient"], record.details["slice_index"]
        for name in ("t1", "t1ce", "t2", "flair", "seg"):
            volume = nibabel.load(data_dir / "in" / "brats" / patient / f"{patient}_{name}.nii.gz")
            written = nibabel.load(tmp_path / f"{record.id}_0000_{name}.nii.gz")
            expected = np.clip(volume.get_fdata()[:, :, z], 0, None)
            np.testing.assert_array_equal(written.get_fdata()[..., 0], expected)
            assert written.get_data_dtype() == (np.uint8 if name == "seg" else np.int16)
            voxel = [3, 5, 0, 1]
            np.testing.assert_allclose(written.affine @ voxel, volume.affine @ [3, 5, z, 1])
            np.testing.assert_allclose(written.get_sform(), written.affine, atol=1e-5)
            np.testing.assert_allclose(written.affine, record.details["affine"])
            assert written.header.get_xyzt_units()[0] == "mm"
            assert bytes(written.header["descrip"].item()).startswith(b"SinGAN sample 0 from scale 1")


def test_smaller_samples_are_brought_to_the_slice_s_grid(slices, tmp_path):
    records, images = slices
    written_as("nifti", tmp_path, records[:1], half_size(images)[:1, None], 0)
    written = nibabel.load(tmp_path / f"{records[0].id}_0000_t1.nii.gz")
    assert written.shape == (20, 18, 1)
    np.testing.assert_allclose(written.affine, records[0].details["affine"])
    assert b"resized from 10x9" in written.header["descrip"].item()
    values, high = np.asanyarray(written.dataobj), records[0].value_map.high[0]
    assert values.min() == 0
    assert values.max() <= high
    assert values[0, 0, 0] == 0  # black stays black
    seg = np.asanyarray(nibabel.load(tmp_path / f"{records[0].id}_0000_seg.nii.gz").dataobj)
    assert set(np.unique(seg)) <= {0, 1, 2, 4}


def test_equal_samples_are_equal_files(slices, tmp_path):
    records, images = slices
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written_as("nifti", tmp_path / folder, records, images[:, None], 1)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


CASES = {  # name -> labels in its segmentation, and how their numbering was asked for
    "BraTS-PED-00002-000": ((1, 2, 4), ""),
    "BraTS-MET-00002-000": ((2, 3), ""),
    "BraTS-SSA-00002-000": ((1, 3), ""),
    "BraTS-GLI-00002-000": ((1, 4), ""),  # numbered as until 2021
    "BraTS-GLI-00002-101": ((2, 4), ""),  # 4 is the resection cavity
    "BraTS2021_00002": ((1, 2, 4), ""),
    "scan": ((1, 2, 3), "MSD"),
    "plain": ((1, 2, 3), "as_stored"),
}


@pytest.mark.parametrize("name", CASES)
def test_labels_mean_the_same_when_samples_are_built_again(tmp_path, name):
    labels, asked = CASES[name]
    naming = "from_2023" if name.startswith("BraTS-") else "until_2021"
    brats.write_patient(tmp_path / "in", name, brats.volumes(1, labels), naming)
    build("brats", tmp_path / "in", data_dir=tmp_path / "first", labels=asked)
    records, images = records_and_pixels(
        load_images(DataConfig("tfds:brats/slices", str(tmp_path / "first"), channels=("t1", "seg"), has_tumour="yes"))
    )
    written_as("nifti", tmp_path, records, images[:, None], 0)
    (tmp_path / "samples").mkdir()
    for file in tmp_path.glob("*.nii.gz"):
        file.rename(tmp_path / "samples" / file.name)
    build("brats", tmp_path / "samples", data_dir=tmp_path / "second")
    before, after = (
        [
            (record["label_table"], [record["label_names"][label] for label in record["seg"].ravel()])
            for record in stored_examples(tmp_path / folder / "brats" / "slices", "train")
            if (record["seg"] > 0).any()
        ]
        for folder in ("first", "second")
    )
    assert len(before) > 0
    assert after == before


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_a_slice_of_a_nifti_file_goes_back_too(tmp_path, dtype):
    voxels = np.zeros((6, 10, 8), dtype)
    voxels[3, 2:8, 2:6] = np.arange(1, 25).reshape(6, 4)
    affine = np.array([[0, -2.0, 0, 5], [0, 0, 1.5, -3], [3.0, 0, 0, 7], [0, 0, 0, 1]])  # the first axis is foot-head
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "scan.nii.gz")
    records, images = records_and_pixels(load_images(DataConfig(path=str(tmp_path / "scan.nii.gz"))))
    assert records[0].details["orientation"] == "LAS"
    written_as("nifti", tmp_path, records, images[:, None], 0)
    written = nibabel.load(tmp_path / "scan_0000_intensity.nii.gz")
    np.testing.assert_allclose(written.get_fdata()[..., 0], voxels[3], atol=1e-4)
    np.testing.assert_allclose(written.affine @ [4, 2, 0, 1], affine @ [3, 4, 2, 1])


@pytest.mark.parametrize("codes", [(1, 0), (0, 2), (1, 4), (3, 1)])
def test_forms_and_their_codes_go_back_as_they_were(tmp_path, codes):
    voxels = np.zeros((6, 10, 8), np.int16)
    voxels[1:5, 2:8, 5] = np.arange(1, 25).reshape(4, 6)
    matrices = [np.diag([2.0, 1.5, 3, 1]) + np.pad([[n + 7.0], [n], [5]], [(0, 1), (3, 0)]) for n in (0, 20)]
    image = nibabel.Nifti1Image(voxels, None)
    image.set_qform(matrices[0], codes[0])
    image.set_sform(matrices[1], codes[1])
    nibabel.save(image, tmp_path / "scan.nii.gz")
    records, images = records_and_pixels(load_images(DataConfig(path=str(tmp_path / "scan.nii.gz"))))
    records = [image_from_json(json.loads(json.dumps(files.plain(image_to_json(record))))) for record in records]
    writers.check_format("nifti", records)
    written_as("nifti", tmp_path, records, images[:, None], 0)
    written = nibabel.load(tmp_path / "scan_0000_intensity.nii.gz")
    for form, code, matrix in zip(("qform", "sform"), codes, matrices, strict=True):
        found, stored = getattr(written, f"get_{form}")(coded=True)
        assert stored == code
        if code:
            np.testing.assert_allclose(found @ [3, 4, 0, 1], matrix @ [3, 4, 5, 1], atol=1e-5)


def test_nifti_is_refused_where_the_source_does_not_say_where_it_lies(tmp_path):
    voxels = np.zeros((6, 10, 8), np.int16)
    voxels[1:5, 2:8, 5] = np.arange(1, 25).reshape(4, 6)
    nibabel.save(nibabel.Nifti1Image(voxels, None), tmp_path / "scan.nii.gz")
    image = nibabel.load(tmp_path / "scan.nii.gz")
    assert image.header["qform_code"] == image.header["sform_code"] == 0
    records, _ = records_and_pixels(load_images(DataConfig(path=str(tmp_path / "scan.nii.gz"))))
    with pytest.raises(UserError, match=r"--format=nifti: the source of scan does not say where it lies \(qform and"):
        writers.check_format("nifti", records)
    writers.check_format("npy", records)


def test_a_flat_image_without_a_third_direction_is_written(tmp_path):
    affine = np.array([[-2.0, 0, 0, 39], [0, -2, 0, 43], [0, 0, 0, -30], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(np.arange(120, dtype=np.int16).reshape(10, 12), None)
    image.set_sform(affine, 1)
    nibabel.save(image, tmp_path / "flat.nii.gz")
    records, images = records_and_pixels(load_images(DataConfig(path=str(tmp_path / "flat.nii.gz"))))
    written_as("nifti", tmp_path, records, images[:, None], 0)
    written = nibabel.load(tmp_path / "flat_0000_intensity.nii.gz")
    np.testing.assert_allclose(written.affine @ [4, 5, 0, 1], affine @ [4, 5, 0, 1])


# --- PanNuke


@pytest.mark.parametrize("channels", [("instance",), ("binary",), ("class",), ("class", "instance")])
def test_a_written_fold_is_built_again_with_the_same_counts(data_dir, tmp_path, channels):
    records, images = patches(data_dir, *channels)
    samples = np.stack([images, images[:, ::-1]], axis=1)
    written_as("pannuke", tmp_path / "out", records, samples, 0)
    folder, built = build("pannuke", tmp_path / "out", data_dir=tmp_path / "again")
    assert built
    examples = list(tfds.builder_from_directory(folder).as_data_source("fold1"))
    rows = json.loads((tmp_path / "out" / "patches.json").read_text())
    assert [(row["image"], row["sample"]) for row in rows] == [(r.id, k) for r in records for k in (0, 1)]
    sources = stored_examples(data_dir / "pannuke", "fold1")
    for number, (row, example) in enumerate(zip(rows, examples, strict=True)):
        source = sources[number // 2]
        assert example["num_nuclei"] == row["num_nuclei"] == source["num_nuclei"]
        assert example["class_counts"].tolist() == row["class_counts"]
        if "class" in channels:
            assert row["class_counts"] == source["class_counts"].tolist()
        assert example["tissue"] == source["tissue"]
        if number % 2 == 0:
            np.testing.assert_array_equal(example["image"], source["image"])
            np.testing.assert_array_equal(example["instance_map"] > 0, source["instance_map"] > 0)
        assert example["overlap_pixels"] == 0


def test_a_fold_is_as_pannuke_stores_it(data_dir, tmp_path):
    records, images = patches(data_dir, "instance")
    written_as("pannuke", tmp_path, records, half_size(images)[:, None], 0)
    folder = tmp_path / "Fold 1"
    arrays = [np.load(folder / kind / "fold1" / f"{kind}.npy") for kind in ("images", "masks")]
    assert [(array.shape, array.dtype) for array in arrays] == [((3, 64, 64, 3), float), ((3, 64, 64, 6), float)]
    masks = arrays[1]
    np.testing.assert_array_equal((masks > 0).sum(-1), 1)  # each pixel is of one class, or background
    np.testing.assert_array_equal(np.unique(masks[..., 5]), [0, 1])
    types = np.load(folder / "images" / "fold1" / "types.npy")
    assert types.tolist() == [record.details["tissue"] for record in records]
    assert not [file for file in tmp_path.rglob("*") if file.name.startswith(".tmp")]


def test_nothing_half_written_is_left(data_dir, tmp_path, monkeypatch):
    records, images = patches(data_dir, "instance")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pannuke_writer, "pannuke_masks", fail)
    with pytest.raises(OSError, match="No space"):
        written_as("pannuke", tmp_path, records, images[:, None], 0)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


# --- which format suits


def test_formats_that_do_not_suit_are_refused(data_dir, slices, tmp_path):
    mri = slices[0]
    colour, _ = patches(data_dir)
    nuclei, _ = patches(data_dir, "instance")
    for form, records in (("png", mri), ("npy", colour), ("nifti", mri), ("pannuke", nuclei)):
        writers.check_format(form, records)
    with pytest.raises(UserError, match="--format=nifti needs images from NIfTI or BraTS, fold1_00000 is none"):
        writers.check_format("nifti", nuclei)
    for records in (mri, colour):
        with pytest.raises(UserError, match=r"--format=pannuke needs colour and nuclei, \w+ has .*rgb,instance"):
            writers.check_format("pannuke", records)


def test_pictures_are_upright_and_arrays_as_stored(slices, tmp_path):
    records, images = slices
    written_as("png", tmp_path, records[:1], images[:1, None], 0)
    written_as("npy", tmp_path, records[:1], images[:1, None], 0)
    with Image.open(tmp_path / f"{records[0].id}_0000_t1.png") as picture:
        shown = np.asarray(picture)
    # Stored right to left and front to back: the transpose has the front above and the right on the left.
    np.testing.assert_array_equal(shown, np.rint((images[0, ..., 0].T + 1) * 127.5).astype(np.uint8))
    array = np.load(tmp_path / f"{records[0].id}.npy")
    np.testing.assert_allclose(array, records[0].value_map.invert(images[:1]))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SLA"])
def test_slices_of_any_orientation_are_shown_the_same(codes, axis):
    # A volume whose value says where it is in the world, stored in one of many ways.
    world = np.arange(4 * 5 * 6, dtype=float).reshape(4, 5, 6)
    straight = nibabel.Nifti1Image(world, np.eye(4))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    stored = straight.as_reoriented(turn)
    where = {"L": 0, "R": 0, "A": 1, "P": 1, "S": 2, "I": 2}[codes[axis]]
    details = geometry.of_slice(geometry.slice_affine(stored.affine, axis, 1))
    image = np.take(stored.get_fdata(), 1, axis)[..., None]
    shown = geometry.upright(image, details)[..., 0]
    place = 1 if codes[axis] in "RAS" else world.shape[where] - 2
    flat = np.take(world, place, where)
    # Axes of `flat`: of left-right, back-front, foot-head the two that remain, each growing to R, A, S.
    expected = flat.T[::-1, ::-1]
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_tfds_data_set_is_read_back_without_tensorflow(tmp_path, dtype):
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 200, (6, 5, 2)).astype(dtype) for _ in range(2)]
    maps = [fit(image, (0, 200)) for image in values]
    records = [ImageRecord(f"i{n}", f"i{n}.npy", (6, 5, 2), ("t1", "t2"), of, "") for n, of in enumerate(maps)]
    for _ in range(2):  # a second call replaces the first
        with writers.open_writer("tfds", tmp_path, records, 3, 1) as writer:
            for first, count in ((0, 2), (2, 1)):
                pixels = [np.stack([of.apply(image)] * count) for of, image in zip(maps, values, strict=True)]
                writer.add(["i0", "i1"], first, np.stack(pixels))
    (folder,) = tmp_path.iterdir()
    builder = tfds.builder_from_directory(folder / "1.0.0")
    source = builder.as_data_source("train")
    assert [(e["id"], int(e["sample"]), int(e["start_scale"])) for e in source] == [
        (f"i{n}".encode(), k, 1) for n in range(2) for k in range(3)
    ]
    assert source[5]["image"].dtype == dtype
    np.testing.assert_allclose(source[5]["image"], values[1], rtol=1e-5)
    assert builder.info.metadata["channels"] == ["t1", "t2"]
    assert "tensorflow" not in sys.modules


def test_a_tfds_data_set_that_is_not_finished_leaves_nothing(tmp_path):
    value_map = fit(np.arange(16.0).reshape(4, 4, 1))
    record = ImageRecord("a", "a.npy", (4, 4, 1), ("c",), value_map, "")
    with contextlib.suppress(KeyboardInterrupt), writers.open_writer("tfds", tmp_path, [record], 2, 0) as writer:
        writer.add(["a"], 0, np.zeros((1, 1, 4, 4, 1), np.float32))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
