"""Small files that would unpack to much are refused before memory is taken, whatever their values are."""

import tracemalloc
import zipfile

import nibabel
import numpy as np
import pytest
import tifffile

from launch.images import readers, size_limits
from singan.errors import UserError
from tests.fuzz.bombs import nifti, npy_header, zeros

MIB = 2**20


def npz(path, method=zipfile.ZIP_DEFLATED, **arrays):
    """Writes an archive of arrays, each given as (start, MiB of zeros that follow)."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, (start, mebibytes) in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                file.write(start)
                for _ in range(mebibytes):
                    file.write(bytes(MIB))
    return path


LONG_HEADER = b"\x93NUMPY\x02\x00" + (256 * MIB).to_bytes(4, "little")
IMAGE = (npy_header((8, 9), "|u1") + bytes(72), 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.npz", "holds values of type <U67108864: save it as an array of integers or floats"),
        ("bytes.npz", r"holds values of type \|S268435456: save it as an array of integers or floats"),
        ("raw.npz", r"holds values of type \|V268435456: save it as an array of integers or floats"),
        ("complex.npz", "holds values of type complex128: save it as an array of integers or floats"),
        ("doubles.npz", "larger than 512 MiB, with 8 bytes for each value: save it with fewer, or cut it into smaller"),
        ("header.npz", r"cannot be read \(ValueError: a header of 268435456 bytes\): replace the file or take it out"),
        ("names.npz", "the names in its array 'channels' take more than 65536 bytes: give one short name each"),
        ("other.npz", "packed in another way than NumPy does: save it again with numpy.savez_compressed"),
        ("complex.nii.gz", "holds values of type complex128: save it as an array of integers or floats"),
        ("colour.nii.gz", "holds values of type .*: save it as an array of integers or floats"),
        ("doubles.nii.gz", "larger than 512 MiB, with 8 bytes for each value: save it with fewer, or cut it into"),
    ],
)
def test_what_unpacks_to_much_is_refused_before_memory_is_taken(tmp_path, name, message):
    path = tmp_path / name
    match name:
        case "text.npz" | "bytes.npz" | "raw.npz":
            descr = {"text.npz": "<U67108864", "bytes.npz": "|S268435456", "raw.npz": "|V268435456"}[name]
            npz(path, image=(npy_header((1,), descr), 256))
        case "complex.npz" | "doubles.npz":
            shape, descr = ((4096, 4096), "<c16") if name == "complex.npz" else ((2**13, 2**13 + 1), "<f8")
            npz(path, image=(npy_header(shape, descr), 256))
        case "header.npz":
            npz(path, image=(LONG_HEADER, 257))
        case "names.npz":
            npz(path, image=IMAGE, channels=(npy_header((1,), "<U67108864"), 256))
        case "other.npz":
            npz(path, zipfile.ZIP_BZIP2, image=(IMAGE[0], 256))
        case "complex.nii.gz":
            path.write_bytes(zeros(nifti((1024, 1024, 16), code=1792, bits=128), 256))
        case "colour.nii.gz":
            path.write_bytes(zeros(nifti((1024, 1024, 64), code=128, bits=24), 192))
        case "doubles.nii.gz":
            path.write_bytes(zeros(nifti((1024, 1024, 65), code=64, bits=64), 256))
    assert path.stat().st_size < MIB
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"^{name}: {message}"):
            readers.read(path, name)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", ["npy", "npz", "nii", "nii.gz", "tif"])
def test_the_limit_is_one_of_bytes(tmp_path, monkeypatch, suffix):
    pixels, path = np.arange(64 * 48, dtype=np.float64).reshape(64, 48), tmp_path / f"a.{suffix}"
    if suffix in ("npy", "npz"):
        np.save(path, pixels) if suffix == "npy" else np.savez_compressed(path, pixels)
    elif suffix == "tif":
        tifffile.imwrite(path, pixels)
    else:
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), path)
    monkeypatch.setattr(size_limits.check_array, "__defaults__", (pixels.nbytes,))
    assert readers.read(path, path.name).pixels[..., 0].tolist() == pixels.tolist()
    monkeypatch.setattr(size_limits.check_array, "__defaults__", (pixels.nbytes - 1,))
    with pytest.raises(UserError, match=r"larger than 0 MiB, with 8 bytes for each value"):
        readers.read(path, path.name)


def test_scale_factors_count(tmp_path, monkeypatch):
    image = nibabel.Nifti1Image(np.ones((8, 9, 2), np.int16), np.eye(4))
    image.header.set_slope_inter(1, -1024)
    nibabel.save(image, tmp_path / "a.nii")
    monkeypatch.setattr(size_limits, "MAX_SCALED", 8 * 9 * 2 * 8)
    assert readers.read(tmp_path / "a.nii", "a.nii").pixels[0, 0, 0] == -1023
    monkeypatch.setattr(size_limits, "MAX_SCALED", 8 * 9 * 2 * 8 - 1)
    with pytest.raises(UserError, match="larger than 0 MiB, with 8 bytes for each value"):
        readers.read(tmp_path / "a.nii", "a.nii")
