"""One file -> one image as an array of height, width, channels, in the file's own values and type.

What a format may hold is decided here: which slice of a volume, which axis holds the channels, what the channels are
called. Everything that cannot be read ends in a UserError of one line that names the file.
"""

import contextlib
import dataclasses
import logging
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from launch.images import nifti_volumes, size_limits, tiff_images
from launch.images.picture import COLOURS, GREY, MAX_CHANNELS, Picture, channels_last, without_alpha
from launch.text import some
from singan.errors import UserError
from singan.npy import read_npy

# They tell at length what is wrong with a file, and then read it all the same or raise an error.
for _library in ("tifffile", "nibabel.global"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)

IMAGE_KEYS = ("image", "img", "pixels", "data")  # of an npz file with several arrays, in the order they are looked for


def read(path: Path, name: str, layout: str = "auto", channels: int = 1) -> Picture:
    """Returns the image that a file holds.

    Args:
      path: a file whose suffix is among SUFFIXES.
      name: what to call the file in an error.
      layout: 'hwc' or 'chw' says which axis of a three-dimensional npy, npz or tif holds the channels; 'auto' takes
        what a tif says, and else reads the first axis as channels where it is at most 16 and the last is larger. 'hwc'
        also reads the fourth axis of a NIfTI file as channels, 'chw' the pages of a tif.
      channels: how many volumes a NIfTI file may hold in its fourth axis without a layout.

    Raises:
      UserError: the file cannot be read, is not one image of 1 to 16 channels, or holds NaN or infinite values.
    """
    reader = next(reader for suffix, reader in READERS.items() if path.name.lower().endswith(suffix))
    with naming_errors(path, name):
        if reader is _read_nifti and layout == "auto" and channels > 1:
            return checked(_read_nifti(path, layout, channels), layout)
        return checked(reader(path, layout), layout)


def read_with_mask(path: Path, name: str, mask_path: Path, mask_name: str) -> tuple[Picture, Picture]:
    """Returns an image and its mask; of volumes the same slice: the image's fullest of those that the mask marks.

    Raises:
      UserError: as `read`; a mask is a volume where its image is none; volumes differ in their grids.
    """
    image, mask = (open_volume(one, called) for one, called in ((path, name), (mask_path, mask_name)))
    if mask is None or (mask.count == 1 and (image is None or image.count > 1)):
        return read(path, name), read(mask_path, mask_name)
    if image is None or image.count == 1 != mask.count:
        raise UserError(
            f"the mask {mask_name} is a volume of {mask.count} slices, its image {name} a single one: give the slice of"
            " the mask that belongs to it"
        )
    mask = nifti_volumes.on_grid_of(mask, image, mask_name, name)
    with naming_errors(mask_path, mask_name):
        held = checked(Picture(mask.voxels.reshape(1, -1, 1), None), "auto").pixels.reshape(mask.voxels.shape)
    marked = np.array([one.any() for one in np.moveaxis(held > 0, image.axis, 0)])
    index = nifti_volumes.fullest(image, marked) if marked.any() else nifti_volumes.fullest(image)
    pictures = []
    for volume, one, called in ((image, path, name), (mask, mask_path, mask_name)):
        with naming_errors(one, called):
            pictures.append(checked(nifti_volumes.slice_of(volume, index), "auto"))
    return pictures[0], pictures[1]


def read_channels(paths: Sequence[Path], names: Sequence[str], layout: str = "auto") -> Picture:
    """Returns one image of several files, a channel each; of volumes the first one's slice.

    Raises:
      UserError: as `read`; a file has several channels, or they differ in size or in their grid.
    """
    volumes = [open_volume(path, name) for path, name in zip(paths, names, strict=True)]
    first, index = volumes[0], nifti_volumes.fullest(volumes[0]) if volumes[0] is not None else 0
    pictures = []
    for path, name, volume in zip(paths, names, volumes, strict=True):
        with naming_errors(path, name):
            if first is None or volume is None:
                picture = checked(READERS[split_suffix(path.name)[1].lower()](path, layout), layout)
            elif not nifti_volumes.together(volume, first):
                raise UserError(f"lies otherwise in space than {names[0]} or is of another size: resample them alike")
            else:
                picture = checked(nifti_volumes.slice_of(volume, index), layout)
            if picture.pixels.shape[-1] != 1 or (pictures and picture.pixels.shape != pictures[0].pixels.shape):
                raise UserError(f"is no channel of the size of {names[0]}: give files of one channel and one size")
        pictures.append(picture)
    pixels = np.concatenate([picture.pixels for picture in pictures], axis=-1)
    return dataclasses.replace(pictures[0], pixels=pixels, channels=None)


def open_volume(path: Path, name: str) -> nifti_volumes.Volume | None:
    """Returns the volume of a NIfTI file, None of other files; raises UserError as `read`."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    with naming_errors(path, name):
        return nifti_volumes.open_volume(path)


@contextlib.contextmanager
def naming_errors(path: Path, name: str) -> Iterator[None]:
    """Turns whatever goes wrong with a file into a UserError of one line that names it."""
    try:
        with np.errstate(all="ignore"):  # a header may scale values to infinity, which is refused here
            yield
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


def split_suffix(name: str) -> tuple[str, str]:
    """Returns a file name as its stem and that of SUFFIXES in which it ends ('' where it ends in none)."""
    suffix = max((one for one in SUFFIXES if name.lower().endswith(one)), key=len, default="")
    return name[: len(name) - len(suffix)], name[len(name) - len(suffix) :]


def _read_pillow(path: Path, layout: str) -> Picture:
    return read_page(path, 0)


def read_page(path: Path, page: int) -> Picture:
    """Reads what Pillow reads at full depth. Alpha is taken off, also where it hides colour; palettes become RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it finds odd and reads all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=("PNG", "JPEG", "BMP", "TIFF")) as image:
                if page:
                    image.seek(page)
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
        return without_alpha(np.asarray(upright), GREY)
    # By way of RGBA, because Pillow warns when it takes a palette with transparency straight to RGB.
    target = "RGBA" if upright.mode in ("P", "PA", "RGBA", "RGBa") else "RGB"
    return without_alpha(np.asarray(upright.convert(target)), COLOURS)


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
    return tiff_images.read(path, layout, read_page)


def _read_numpy(path: Path, layout: str) -> Picture:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return Picture(channels_last(read_npy(file, path.stat().st_size, size_limits.check_array), layout), None)
        try:
            with zipfile.ZipFile(file) as archive:
                keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
                array = size_limits.read_npz_array(archive, _image_key(keys))
                names = size_limits.read_npz_array(archive, "channels") if "channels" in keys else np.empty(0)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise UserError("a damaged npz file: replace it or take it out") from error
    return Picture(channels_last(array, layout), tuple(map(_text, names.ravel()[: MAX_CHANNELS + 1])) or None)


def _image_key(keys: list[str]) -> str:
    arrays = [key for key in keys if key != "channels"]
    candidates = [key for key in IMAGE_KEYS if key in arrays] or arrays
    if not arrays or (len(arrays) > 1 and candidates == arrays and arrays[0] not in IMAGE_KEYS):
        raise UserError(f"holds the arrays {some(arrays, 5) or '(none)'}: name the image's array 'image'")
    return candidates[0]


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _read_nifti(path: Path, layout: str, channels: int = 1) -> Picture:
    """Reads a 2-D image, or of a volume its fullest axial slice (nifti_volumes.fullest)."""
    volume = nifti_volumes.open_volume(path, 0 if layout == "hwc" else channels)
    return nifti_volumes.slice_of(volume, nifti_volumes.fullest(volume))


def checked(picture: Picture, layout: str) -> Picture:
    """Returns a picture whose pixels are what Picture says of them. Raises UserError where they cannot be."""
    return dataclasses.replace(picture, pixels=_checked(picture, layout))


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
