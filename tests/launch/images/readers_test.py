import re
import warnings
import zlib

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from launch.images import readers
from singan.errors import UserError

COLOURS = ("red", "green", "blue")
RANDOM = np.random.default_rng(0)


def noise(*shape, dtype=np.uint8):
    return RANDOM.integers(0, 250, shape).astype(dtype)


def read(path, layout="auto"):
    return readers.read(path, path.name, layout)


def check(picture, pixels, channels):
    assert picture.channels == channels
    assert picture.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif", "tiff"])
@pytest.mark.parametrize("shape", [(8, 9, 3), (8, 9)])
def test_pictures_of_eight_bits(tmp_path, suffix, shape):
    pixels = noise(*shape)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    grey = len(shape) == 2
    check(read(tmp_path / f"a.{suffix}"), pixels[..., None] if grey else pixels, ("intensity",) if grey else COLOURS)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_jpeg(tmp_path, suffix):
    smooth = np.broadcast_to(np.linspace(0, 250, 32).astype(np.uint8)[:, None, None], (32, 40, 3))
    Image.fromarray(smooth).save(tmp_path / f"a.{suffix}", quality=95)
    picture = read(tmp_path / f"a.{suffix}")
    assert picture.channels == COLOURS
    assert np.abs(picture.pixels.astype(int) - smooth).max() <= 6
    Image.fromarray(smooth[..., 0]).save(tmp_path / f"a.{suffix}")
    assert read(tmp_path / f"a.{suffix}").channels == ("intensity",)


def test_jpeg_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.fromarray(noise(16, 32, 3)).save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path / "a.jpg").pixels.shape == (32, 16, 3)


def test_alpha_is_dropped_and_the_colour_below_kept(tmp_path):
    pixels = noise(8, 9, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    check(read(tmp_path / "a.png"), pixels[..., :3], COLOURS)
    np.testing.assert_array_equal(read(tmp_path / "a.png").alpha, pixels[..., 3])
    opaque = np.concatenate([pixels[..., :3], np.full((8, 9, 1), 255, np.uint8)], -1)
    Image.fromarray(opaque).save(tmp_path / "c.png")
    assert read(tmp_path / "c.png").alpha is None
    Image.merge("LA", [Image.fromarray(pixels[..., 0]), Image.fromarray(pixels[..., 1])]).save(tmp_path / "b.png")
    check(read(tmp_path / "b.png"), pixels[..., :1], ("intensity",))


def test_palettes_become_colour(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = (200, 10, 30)
    paletted = Image.fromarray(pixels).quantize(4)
    paletted.save(tmp_path / "a.png")
    check(read(tmp_path / "a.png"), pixels, COLOURS)
    paletted.save(tmp_path / "b.png", transparency=b"\x00\x80")
    check(read(tmp_path / "b.png"), pixels, COLOURS)
    paletted.save(tmp_path / "c.tif")
    check(read(tmp_path / "c.tif"), pixels, COLOURS)


def test_black_and_white(tmp_path):
    pixels = noise(8, 9) > 120
    Image.fromarray(pixels).save(tmp_path / "a.png")
    check(read(tmp_path / "a.png"), pixels[..., None], ("intensity",))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_sixteen_bits_keeps_them(tmp_path, suffix):
    pixels = noise(8, 9, dtype=np.uint16) * 257
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    check(read(tmp_path / f"a.{suffix}"), pixels[..., None], ("intensity",))


def test_colour_of_sixteen_bits_is_not_cut_to_eight_in_silence(tmp_path):
    pixels = noise(8, 9, 3, dtype=np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    check(read(tmp_path / "a.tif"), pixels, COLOURS)
    Image.fromarray(noise(8, 9, 3)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[24] = 16  # as the header of a 16-bit picture says; the refusal comes before its rows are read
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.png: colour of 16 bits is only read from npy or uncompressed tif"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((5, 12, 14), {"photometric": "minisblack", "planarconfig": "separate"}),
        ((5, 12, 14), {"photometric": "minisblack", "metadata": {"axes": "CYX"}}),
        ((5, 12, 14), {"imagej": True}),
        ((5, 12, 14), {"ome": True, "metadata": {"axes": "CYX"}}),
        ((20, 30, 5), {"photometric": "minisblack"}),
        ((20, 30, 5), {"photometric": "minisblack", "planarconfig": "contig"}),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tiff_of_several_channels(tmp_path, shape, options, dtype):
    pixels = noise(*shape, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    one_page = "planarconfig" in options
    names = None if one_page else tuple(f"channel_{c}" for c in range(5))
    check(read(tmp_path / "a.tif"), np.moveaxis(pixels, 0, -1) if shape[0] == 5 else pixels, names)


def test_tiff_alpha_is_dropped_and_planes_are_colours(tmp_path):
    pixels = noise(8, 9, 4)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    check(read(tmp_path / "a.tif"), pixels[..., :3], COLOURS)
    tifffile.imwrite(tmp_path / "b.tif", np.moveaxis(pixels[..., :3], -1, 0), photometric="rgb")
    check(read(tmp_path / "b.tif"), pixels[..., :3], COLOURS)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(tmp_path, compression):
    pixels = noise(8, 9, 3)
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
    check(read(tmp_path / "a.tif"), pixels, COLOURS)


@pytest.mark.parametrize("shape", [(3, 26, 30), (5, 12, 14), (10, 26, 30), (40, 26, 30), (3, 26, 30, 3)])
@pytest.mark.parametrize(
    "options", [{}, {"metadata": None}, {"imagej": True, "metadata": {"axes": "Z"}}, {"compression": "zlib"}]
)
def test_pages_of_a_tiff_are_neither_colours_nor_channels_unless_that_is_said(tmp_path, shape, options):
    pixels = noise(*shape)
    if "imagej" in options:
        options = {**options, "metadata": {"axes": "ZYXS"[: len(shape)]}}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb" if len(shape) == 4 else "minisblack", **options)
    text = rf"^a\.tif: a file of {shape[0]} pages: separate images need separate files; .*data\.layout=chw$"
    with pytest.raises(UserError, match=text):
        read(tmp_path / "a.tif")
    if len(shape) == 3 and shape[0] <= 16:
        names = tuple(f"channel_{c}" for c in range(shape[0]))
        check(read(tmp_path / "a.tif", "chw"), np.moveaxis(pixels, 0, -1), names)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_orientation_of_a_tiff_is_obeyed_however_it_is_stored(tmp_path, orientation, compression, dtype):
    pixels = noise(8, 9, dtype=dtype)
    stored = Image.fromarray(pixels)
    stored.save(tmp_path / "a.tif", compression=compression, tiffinfo={274: orientation})
    turned = {  # where the first row and the first column of what is stored are shown: TIFF 6.0, page 36
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.T,
        6: pixels.T[:, ::-1],
        7: pixels[::-1, ::-1].T,
        8: pixels.T[::-1],
    }[orientation]
    check(read(tmp_path / "a.tif"), turned[..., None], ("intensity",))


def test_of_pages_of_several_sizes_the_largest_is_the_image(tmp_path):
    small, large, mask = noise(6, 8, 3), noise(24, 30, 3), noise(24, 30)
    for marked, compression in ((1, None), (0, None), (0, "lzw")):
        if compression:
            pages = [Image.fromarray(small), Image.fromarray(large)]
            pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
        else:
            with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
                tiff.write(small, photometric="rgb", subfiletype=marked)
                tiff.write(large, photometric="rgb")
        check(read(tmp_path / "a.tif"), large, COLOURS)
    with tifffile.TiffWriter(tmp_path / "b.tif") as tiff:
        tiff.write(large, photometric="rgb")
        tiff.write(mask, photometric="minisblack")
    with pytest.raises(UserError, match=r"^b\.tif: a file of 2 pages: separate images need separate files"):
        read(tmp_path / "b.tif")


@pytest.mark.parametrize(("number", "word"), [(34712, "JPEG2000"), (50000, "ZSTD"), (34887, "LERC")])
def test_the_package_that_reads_a_compression_is_named(tmp_path, number, word):
    Image.fromarray(noise(8, 9, 3)).save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    (at,) = [m.start() for m in re.finditer(re.escape(b"\x03\x01\x03\x00\x01\x00\x00\x00"), bytes(data))]
    data[at + 8 : at + 10] = number.to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(
        UserError, match=rf"^a\.tif: stored with {word} compression, which the package imagecodecs read"
    ):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((20, 30), "auto", (20, 30, 1)),
        ((20, 30, 4), "auto", (20, 30, 4)),
        ((4, 20, 30), "auto", (20, 30, 4)),
        ((16, 20, 17), "auto", (20, 17, 16)),
        ((16, 20, 16), "auto", (16, 20, 16)),
        ((17, 20, 3), "auto", (17, 20, 3)),
        ((12, 20, 14), "hwc", (12, 20, 14)),
        ((12, 20, 3), "chw", (20, 3, 12)),
    ],
)
def test_the_channel_axis_of_an_array(tmp_path, shape, layout, expected):
    pixels = noise(*shape, dtype=np.float32)
    np.save(tmp_path / "a.npy", pixels)
    np.savez(tmp_path / "a.npz", pixels)
    three = pixels.reshape(1, *shape) if len(shape) == 2 else pixels
    moved = three if shape == expected else np.moveaxis(three, 0, -1)
    assert moved.shape == expected
    for name in ("a.npy", "a.npz"):
        check(read(tmp_path / name, layout), moved, None)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", ">i2", "<u2", ">f4", "f2", "f8", "i8"])
def test_array_types_are_kept_in_native_order(tmp_path, dtype):
    pixels = noise(8, 9, 2).astype(dtype)
    np.save(tmp_path / "a.npy", pixels)
    picture = read(tmp_path / "a.npy")
    assert picture.pixels.dtype.isnative
    assert picture.pixels.dtype.name == np.dtype(dtype).name
    np.testing.assert_array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("key", ["image", "img", "pixels", "data"])
def test_npz_takes_the_image_and_its_channel_names(tmp_path, key):
    pixels = noise(2, 20, 30, dtype=np.float32)
    arrays = {"seg": noise(20, 30), key: pixels, "channels": np.array(["t1", "flair"]), "source": np.array("x")}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    check(read(tmp_path / "a.npz"), np.moveaxis(pixels, 0, -1), ("t1", "flair"))


def test_npz_whose_image_is_not_known(tmp_path):
    np.savez(tmp_path / "a.npz", **{f"x{i}": noise(8, 9) for i in range(7)})
    with pytest.raises(UserError, match=r"a\.npz: holds the arrays x0, x1, x2, x3, x4 and 2 more: name .* 'image'"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", channels=np.array(["t1"]))
    with pytest.raises(UserError, match=r"b\.npz: holds the arrays \(none\)"):
        read(tmp_path / "b.npz")


def volume(*filled, shape=(10, 12, 7), axis=2):
    """int16, with this many nonzero voxels in the slices along `axis`."""
    voxels = np.zeros(shape, np.int16)
    for i, count in enumerate(filled):
        one = np.moveaxis(voxels, axis, 0)[i]
        one[np.unravel_index(np.arange(count), one.shape)] = np.arange(1, count + 1)
    return voxels


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize(("filled", "chosen"), [((1, 9, 3), 1), ((5, 1, 2, 1, 1, 5, 5), 5), ((4,) * 7, 3)])
def test_nifti_takes_the_fullest_axial_slice(tmp_path, suffix, filled, chosen):
    voxels = volume(*filled)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1, -1, 2, 1])), tmp_path / f"a.{suffix}")
    picture = read(tmp_path / f"a.{suffix}")
    check(picture, voxels[:, :, chosen, None], ("intensity",))
    assert picture.part == f"[:, :, {chosen}]"


def test_nifti_axial_is_what_the_header_says(tmp_path):
    voxels = volume(1, 9, 3, axis=1)
    turned = np.eye(4)[[0, 2, 1, 3]]  # the second axis of the array goes from foot to head
    nibabel.save(nibabel.Nifti1Image(voxels, turned), tmp_path / "a.nii")
    picture = read(tmp_path / "a.nii")
    check(picture, voxels[:, 1, :, None], ("intensity",))
    assert picture.part == "[:, 1, :]"


def test_nifti_of_one_slice_and_scaled_values(tmp_path):
    voxels = volume(30, 30)[..., :1]
    for shape, part in (((10, 12), ""), ((10, 12, 1), ""), ((10, 12, 1, 1), ""), ((1, 10, 12), "[0, :, :]")):
        nibabel.save(nibabel.Nifti1Image(voxels.reshape(shape), np.eye(4)), tmp_path / "a.nii")
        picture = read(tmp_path / "a.nii")
        check(picture, voxels, ("intensity",))
        assert picture.part == part
    image = nibabel.Nifti1Image(voxels[..., 0], np.eye(4))
    image.header.set_slope_inter(0.5, -10)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read(tmp_path / "a.nii").pixels, voxels * 0.5 - 10)


def test_a_series_of_volumes_is_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((6, 6, 6, 3), np.int16), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(UserError, match=r"a\.nii: an array of 4 dimensions \(6, 6, 6, 3\): save one volume a file"):
        read(tmp_path / "a.nii")
    four = noise(8, 9, 5, 3, dtype=np.int16)
    four[:, :, 3] += 1
    four[:, :, :3] = 0
    nibabel.save(nibabel.Nifti1Image(four, np.eye(4)), tmp_path / "a.nii")
    assert read(tmp_path / "a.nii", "hwc").part == "[:, :, 3]"
    check(read(tmp_path / "a.nii", "hwc"), four[:, :, 3], None)
    check(readers.read(tmp_path / "a.nii", "a.nii", "auto", 3), four[:, :, 3], None)


@pytest.mark.parametrize("name", ["plain.nii.gz", "packed.nii"])
def test_nifti_is_read_by_its_content_and_not_by_its_name(tmp_path, name, capfd):
    voxels = volume(1, 9, 3)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / ("x.nii" if name == "plain.nii.gz" else "x.nii.gz"))
    next(tmp_path.glob("x.*")).rename(tmp_path / name)
    check(read(tmp_path / name), voxels[:, :, 1, None], ("intensity",))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("outside", [-1.0, -0.777, 7.0])
def test_the_fullest_slice_is_counted_from_the_background_of_the_volume(tmp_path, outside):
    voxels = volume(5, 9, 30, 3).astype(np.float32)
    shown = np.pad(np.where(voxels == 0, np.float32(outside), voxels + 20), 1, constant_values=np.float32(outside))
    nibabel.save(nibabel.Nifti1Image(shown, np.eye(4)), tmp_path / "a.nii")
    assert read(tmp_path / "a.nii").part == "[:, :, 3]"


def test_a_flat_image_without_a_third_direction_gets_one(tmp_path):
    affine = np.array([[-2.0, 0, 0, 39], [0, -3, 0, 43], [0, 0, 0, -30], [0, 0, 0, 1]])
    for shape in ((10, 12), (10, 12, 1)):
        image = nibabel.Nifti1Image(noise(*shape), None)
        image.set_sform(affine, 2)
        nibabel.save(image, tmp_path / "a.nii")
        picture = read(tmp_path / "a.nii")
        np.testing.assert_array_equal(picture.affine[:, [0, 1, 3]], affine[:, [0, 1, 3]])
        np.testing.assert_array_equal(picture.affine[:3, 2], [0, 0, 1])
        assert {form: found["code"] for form, found in picture.forms.items()} == {"sform": 2}
    for shape, sform in (((10, 12, 3), affine), ((10, 12), np.diag([1.0, 0, 1, 1])), ((9, 9), np.ones((4, 4)))):
        image = nibabel.Nifti1Image(noise(*shape), None)
        image.header["sform_code"] = 1
        for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
            image.header[name] = sform[row]
        nibabel.save(image, tmp_path / "a.nii")
        with pytest.raises(UserError, match=r"^a\.nii: its affine makes a plane or a line of a volume: save it again"):
            read(tmp_path / "a.nii")


def test_an_array_file_with_a_damaged_header_says_no_more_than_that(tmp_path):
    np.save(tmp_path / "bad.npy", np.zeros((9, 9)))
    good = (tmp_path / "bad.npy").read_bytes()
    for now, then in ((b"False", b"F:lse"), (b" False", b"+False"), (b" False", b"\xffFalse"), (b"(9, 9)", b"(9, -)")):
        (tmp_path / "bad.npy").write_bytes(good.replace(now, then))
        with pytest.raises(UserError, match=r"^bad\.npy: cannot be read \(.*a damaged header\): replace the file"):
            read(tmp_path / "bad.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2, 2, 2)), r"an array of 5 dimensions \(2, 2, 2, 2, 2\): .* save one image a file"),
        (np.zeros(9), "an array of 1 dimensions"),
        (np.array([[{"a": 1}]]), "holds Python objects, not numbers"),
        (np.array([["a", "b"]]), "holds values of type <U1: save it as an array of integers or floats"),
        (np.zeros((8, 9), complex), "holds values of type complex128"),
        (np.zeros((0, 9)), "holds no pixels"),
        (
            np.zeros((30, 30, 17)),
            r"read as 30x30 pixels with 17 channels, but 1 to 16 are understood: .*data\.layout=hwc or chw",
        ),
        (np.array([[0, np.nan, np.inf]]), r"holds NaN or infinite values \(2 of 3\)"),
    ],
)
def test_arrays_that_are_no_image(tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=rf"^bad\.npy: {message}"):
        read(tmp_path / "bad.npy")
    np.savez(tmp_path / "bad.npz", image=array)
    with pytest.raises(UserError, match=rf"^bad\.npz: {message}"):
        read(tmp_path / "bad.npz")


def written(tmp_path, suffix):
    path = tmp_path / f"good.{suffix}"
    pixels = noise(64, 64, 3)
    if suffix in ("npy", "npz"):
        np.save(path, pixels) if suffix == "npy" else np.savez(path, pixels)
    elif suffix.startswith("nii"):
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), path)
    else:
        Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("suffix", [suffix[1:] for suffix in readers.SUFFIXES])
@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_a_damaged_file_is_named(tmp_path, suffix, damage):
    data = written(tmp_path, suffix).read_bytes()
    assert read(tmp_path / f"good.{suffix}").pixels.shape[:2] == (64, 64)
    bad = tmp_path / f"bad.{suffix}"
    bad.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "text": b"not an image, only text" * 40}[damage])
    with pytest.raises(UserError, match=rf"^bad\.{re.escape(suffix)}: .*(replace|save it again)") as error:
        read(bad)
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("limit", [4095, 2000])  # Pillow only warns up to twice its limit
def test_a_picture_beyond_the_size_limit_is_refused(tmp_path, monkeypatch, suffix, limit):
    path = written(tmp_path, suffix)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the refusal must not rest on the warnings being errors in tests
        with pytest.raises(UserError, match=rf"larger than {limit} pixels: cut it into smaller images"):
            read(path)


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = written(tmp_path, "npy")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(path), "open", refuse)  # taking the permission away would not stop an administrator
    with pytest.raises(UserError, match=r"^good\.npy: no permission to read it"):
        read(path)


def test_one_slice_does_not_keep_its_volume(tmp_path):
    nibabel.save(nibabel.Nifti1Image(volume(1, 9, 3), np.eye(4)), tmp_path / "a.nii")
    assert read(tmp_path / "a.nii").pixels.base is None
