"""One file -> one image as an array of height, width, channels, in the file's own values and type.

What a format may hold is decided here: which slice of a volume, which axis holds the channels, what the channels are
called. Everything that cannot be read ends in a UserError of one line that names the file.
"""

import dataclasses
import logging
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from launch import bounded, geometry
from singan.errors import UserError
from singan.npy import read_npy

MAX_CHANNELS = 16
COLOURS = ("red", "green", "blue")
GREY = ("intensity",)
# They tell at length what is wrong with a file, and then read it all the same or raise an error.
for _library in ("tifffile", "nibabel.global"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)

LARGEST_PLACE = 1e9  # mm: farther from the origin is no place of a patient
IMAGE_KEYS = ("image", "img", "pixels", "data")  # of an npz file with several arrays, in the order they are looked for


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """What one file holds.

    Attributes:
      pixels: [H, W, C], C from 1 to 16, of a boolean, integer or float type in native byte order; finite.
      channels: their C names, or None where the file does not say.
      part: which part of the file it is, as an index such as '[:, :, 78]', or '' for all of it.
      affine: float64 [4, 4], voxel (row, column, 0) to world in mm, where the file says so.
    """

    pixels: np.ndarray
    channels: tuple[str, ...] | None
    part: str = ""
    affine: np.ndarray | None = None


def read(path: Path, name: str, layout: str = "auto") -> Picture:
    """Returns the image that a file holds.

    Args:
      path: a file whose suffix is among SUFFIXES.
      name: what to call the file in an error.
      layout: 'hwc' or 'chw' says which axis of a three-dimensional npy, npz or tif holds the channels; 'auto' takes
        what a tif says, and else reads the first axis as channels where it is at most 16 and the last is larger.

    Raises:
      UserError: the file cannot be read, is not one image of 1 to 16 channels, or holds NaN or infinite values.
    """
    reader = next(reader for suffix, reader in READERS.items() if path.name.lower().endswith(suffix))
    try:
        with np.errstate(all="ignore"):  # a header may scale values to infinity, which is refused here
            picture = reader(path, layout)
        return dataclasses.replace(picture, pixels=_checked(picture, layout))
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except PermissionError as error:
        raise UserError(f"{name}: no permission to read it: change its permissions or take it out") from error
    except Exception as error:  # the format libraries raise nearly anything on a damaged file
        reason = " ".join(f"{type(error).__name__}: {error}".split()).replace(f"{path}", name)[:200]
        raise UserError(f"{name}: cannot be read ({reason}): replace the file or take it out") from error


def is_image(path: Path) -> bool:
    """Says whether the suffix of a file name is one that `read` understands."""
    return path.name.lower().endswith(SUFFIXES)


def _read_pillow(path: Path, layout: str) -> Picture:
    """Reads what Pillow reads at full depth. Alpha is dropped, also where it hides colour; palettes become RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it finds odd and reads all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=("PNG", "JPEG", "BMP", "TIFF")) as image:
                _refuse_lost_depth(path, image)
                image.load()
                # Cameras store a picture lying on its side and note that: other viewers turn it upright too.
                upright = ImageOps.exif_transpose(image)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise UserError(f"larger than {Image.MAX_IMAGE_PIXELS} pixels: cut it into smaller images") from error
        except Image.UnidentifiedImageError as error:
            raise UserError(
                "not a PNG, JPEG, BMP or TIFF image, or a damaged one: replace it or take it out"
            ) from error
    if upright.mode in ("1", "L", "I", "F") or upright.mode.startswith("I;16"):
        return Picture(np.asarray(upright)[..., None], GREY)
    if upright.mode in ("LA", "La"):
        return Picture(np.asarray(upright)[..., :1], GREY)
    # By way of RGBA, because Pillow warns when it takes a palette with transparency straight to RGB.
    target = "RGBA" if upright.mode in ("P", "PA", "RGBA", "RGBa") else "RGB"
    return Picture(np.asarray(upright.convert(target))[..., :3], COLOURS)


def _refuse_lost_depth(path: Path, image: Image.Image) -> None:
    """Pillow opens colour of 16 bits as 8 bits without a word."""
    if image.mode not in ("RGB", "RGBA", "LA"):
        return
    if image.format == "PNG":
        with path.open("rb") as file:
            bits = file.read(25)[24]  # in IHDR, always the first chunk
    else:
        bits = max(image.tag_v2.get(258, (8,))) if hasattr(image, "tag_v2") else 8  # type: ignore[attr-defined]
    if bits > 8:
        raise UserError(f"colour of {bits} bits is only read from npy or uncompressed tif files: convert it")


def _read_tiff(path: Path, layout: str) -> Picture:
    import tifffile  # here and not above: most images are no TIFF files

    with tifffile.TiffFile(path, _multifile=False) as tiff:  # else its text may name other files to be read
        series, page = tiff.series[0], tiff.pages.first
        if page.imagewidth * page.imagelength > (Image.MAX_IMAGE_PIXELS or np.inf):
            raise UserError(f"larger than {Image.MAX_IMAGE_PIXELS} pixels: cut it into smaller images")
        bounded.check_tiff(tiff)
        plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        single = len(tiff.pages) == 1
        try:
            if not plain and single:  # palettes, inverted grey, print colours
                return _read_pillow(path, layout)
            pixels, axes = series.asarray(), series.axes
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            if single:  # Pillow knows LZW and JPEG by itself
                return _read_pillow(path, layout)
            raise UserError(
                f"stored with {tifffile.COMPRESSION(page.compression).name} compression: save it uncompressed"
            ) from error
    kept = [i for i, n in enumerate(pixels.shape) if n > 1 or axes[i] in "YX"]
    pixels, axes = pixels.reshape([pixels.shape[i] for i in kept]), "".join(axes[i] for i in kept)
    if layout == "auto" and pixels.ndim == 3:
        if axes[0] in "ZT":
            raise UserError(f"a stack of {len(pixels)} slices: save one slice a file, or use --config.data.layout=chw")
        # C and S are named channels. Other letters only say that nobody named the axis: the rule for arrays decides.
        layout = "chw" if axes[0] in "CS" else "hwc" if axes[2] in "CS" else "auto"
    pixels = channels_last(pixels, layout)
    if page.photometric == tifffile.PHOTOMETRIC.RGB:
        alphas = sum(extra in (1, 2) for extra in page.extrasamples)
        if pixels.shape[-1] == 3 + alphas:
            return Picture(pixels[..., :3], COLOURS)
    return Picture(pixels, GREY if pixels.shape[-1] == 1 else None)


def _read_numpy(path: Path, layout: str) -> Picture:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return Picture(channels_last(read_npy(file, path.stat().st_size, bounded.MAX_VALUES), layout), None)
        try:
            with zipfile.ZipFile(file) as archive:
                keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
                array = bounded.read_npz_array(archive, _image_key(keys))
                names = bounded.read_npz_array(archive, "channels") if "channels" in keys else np.empty(0)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise UserError("a damaged npz file: replace it or take it out") from error
    return Picture(channels_last(array, layout), tuple(map(_text, names.ravel()[: MAX_CHANNELS + 1])) or None)


def _image_key(keys: list[str]) -> str:
    arrays = [key for key in keys if key != "channels"]
    found = [key for key in IMAGE_KEYS if key in arrays] or arrays
    if not arrays or (len(arrays) > 1 and found == arrays and arrays[0] not in IMAGE_KEYS):
        more = f" and {len(arrays) - 5} more" if len(arrays) > 5 else ""
        raise UserError(f"holds the arrays {', '.join(arrays[:5]) or '(none)'}{more}: name the image's array 'image'")
    return found[0]


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _read_nifti(path: Path, layout: str) -> Picture:
    """Reads a 2-D image, or of a volume the axial slice with the most nonzero voxels (of several the middlemost).

    Rows and columns are the array's remaining axes in their order, so that a slice can be put back where it was.
    """
    volume = bounded.open_nifti(path)
    shape = volume.shape
    voxels = np.asanyarray(volume.dataobj).reshape(_without_trailing_ones(shape))
    affine = np.asarray(volume.affine, np.float64)
    if not np.isfinite(affine).all() or np.abs(affine).max() > LARGEST_PLACE:
        raise UserError("its affine has infinite or impossible values: save it again with a right one")
    if voxels.ndim == 2:
        return Picture(voxels[..., None], GREY, affine=affine)
    if voxels.ndim != 3:
        raise UserError(f"an array of {voxels.ndim} dimensions {shape}: save one volume a file")
    codes = geometry.axis_codes(affine)
    axis = next((i for i, code in enumerate(codes) if code in ("S", "I")), 2)
    if 1 in voxels.shape:  # a single slice, whichever way it was cut
        axis = voxels.shape.index(1)
    slices = np.moveaxis(voxels, axis, 0)
    filled = np.array([np.count_nonzero(one) for one in slices])
    fullest = np.flatnonzero(filled == filled.max())
    chosen = int(fullest[np.abs(fullest - (len(slices) - 1) / 2).argmin()])
    index = [":", ":", ":"]
    index[axis] = str(chosen)
    return Picture(
        slices[chosen][..., None], GREY, f"[{', '.join(index)}]", geometry.slice_affine(affine, axis, chosen)
    )


def _without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def channels_last(array: np.ndarray, layout: str) -> np.ndarray:
    """Returns a two- or three-dimensional array as [H, W, C].

    Raises:
      UserError: the array has another number of dimensions.
    """
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise UserError(
            f"an array of {array.ndim} dimensions {array.shape}: an image has 2 (height, width) or 3 with its channels;"
            " save one image a file"
        )
    first, _, last = array.shape
    if layout == "chw" or (layout == "auto" and first <= MAX_CHANNELS and last > first):
        return np.moveaxis(array, 0, -1)
    return array


def _checked(picture: Picture, layout: str) -> np.ndarray:
    pixels = picture.pixels
    if pixels.dtype.kind not in "buif":
        raise UserError(f"holds values of type {pixels.dtype}: save it as an array of integers or floats")
    height, width, channels = pixels.shape
    if 0 in pixels.shape:
        raise UserError(f"holds no pixels: its shape is {pixels.shape}: replace it or take it out")
    if channels > MAX_CHANNELS:
        raise UserError(
            f"read as {height}x{width} pixels with {channels} channels, but 1 to {MAX_CHANNELS} are understood:"
            f" save one slice a file, or say where the channels are with --config.data.layout=hwc or chw (now {layout})"
        )
    if pixels.dtype.kind == "f":
        bad = int(pixels.size - np.count_nonzero(np.isfinite(pixels)))
        if bad:
            raise UserError(f"holds NaN or infinite values ({bad} of {pixels.size}): replace them with numbers")
        if pixels.dtype.itemsize > 8:
            pixels = pixels.astype(np.float64)
    # Copied: a slice would keep its whole volume in memory.
    return np.array(pixels, dtype=pixels.dtype.newbyteorder("="), order="C")


READERS: dict[str, Callable[[Path, str], Picture]] = {
    ".png": _read_pillow,
    ".jpg": _read_pillow,
    ".jpeg": _read_pillow,
    ".bmp": _read_pillow,
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".npy": _read_numpy,
    ".npz": _read_numpy,
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
}
SUFFIXES = tuple(READERS)
