"""TIFF files: which of their pages is the image, which axis holds the channels, and which way is up."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from launch.images import size_limits
from launch.images.picture import COLOURS, GREY, MAX_CHANNELS, Picture, channels_last, without_alpha
from singan.errors import UserError

if TYPE_CHECKING:
    import tifffile

SMALLER, MASK = 1, 4  # bits of NewSubfileType: a reduced version of another page, a transparency mask of it
# What brings rows and columns upright, by the number of the orientation tag (TIFF 6.0, page 36).
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: functools.partial(np.rot90, k=2),
    4: np.flipud,
    5: lambda pixels: np.swapaxes(pixels, 0, 1),
    6: functools.partial(np.rot90, k=-1),
    7: lambda pixels: np.swapaxes(np.rot90(pixels, 2), 0, 1),
    8: np.rot90,
}


def read(path: Path, layout: str, by_pillow: Callable[[Path, int], Picture]) -> Picture:
    """Returns the image of a TIFF file: its largest page, or its pages as channels where they are named so.

    Args:
      layout: 'chw' says that the pages of a stack are the channels of one image, 'hwc' that they are its rows.
      by_pillow: reads a page by its number with Pillow, which knows some compressions by itself.

    Raises:
      UserError: it holds several images of one size, is too large, or needs a package that is not here.
    """
    import tifffile  # here and not above: most images are no TIFF files

    with tifffile.TiffFile(path, _multifile=False) as tiff:  # else its text may name other files to be read
        series = _largest(tiff)
        page: Any = series.keyframe
        if page.imagewidth * page.imagelength > (Image.MAX_IMAGE_PIXELS or np.inf):
            raise UserError(f"larger than {Image.MAX_IMAGE_PIXELS} pixels: cut it into smaller images")
        axes = series.axes
        count = math.prod(series.shape) // max(math.prod(page.shape), 1)
        # An array [height, width, channels] may have been saved row by row; no image is so narrow.
        rows = layout == "auto" and page.imagewidth <= MAX_CHANNELS < count
        if count > 1 and layout == "auto" and axes[0] != "C" and not rows:
            raise _several(count)
        size_limits.check_tiff(tiff, series)
        plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        try:
            if not plain and count == 1:  # palettes, inverted grey, print colours
                return by_pillow(path, page.index)
            pixels = series.asarray()
        except (ValueError, ImportError) as error:  # ImportError: of what later Pythons decompress themselves
            if isinstance(error, ValueError) and "imagecodecs" not in str(error):
                raise
            return _by_pillow_alone(path, page, count, by_pillow)
    kept = [i for i, n in enumerate(pixels.shape) if n > 1 or axes[i] in "YX"]
    pixels, axes = pixels.reshape([pixels.shape[i] for i in kept]), "".join(axes[i] for i in kept)
    if layout == "auto" and pixels.ndim == 3:
        # C and S are named channels. Other letters only say that nobody named the axis: the rule for arrays decides.
        layout = "chw" if axes[0] in "CS" else "hwc" if axes[2] in "CS" else "auto"
    pixels = channels_last(pixels, layout)
    orientation = page.tags.get(274)
    pixels = UPRIGHT.get(int(orientation.value) if orientation else 1, np.asarray)(pixels)
    if page.photometric == tifffile.PHOTOMETRIC.RGB:
        alphas = sum(extra in (1, 2) for extra in page.extrasamples)
        if pixels.shape[-1] == 3 + alphas:
            return without_alpha(pixels, COLOURS)
    if pixels.shape[-1] == 1:
        return Picture(pixels, GREY)
    # Pages are no colours, also where there are three of them.
    return Picture(pixels, tuple(f"channel_{c}" for c in range(pixels.shape[-1])) if count > 1 else None)


def _largest(tiff: "tifffile.TiffFile") -> Any:
    """Returns the series of pages with the largest images: others are thumbnails, labels and masks of it."""
    own = [one for one in tiff.series if not int(one.keyframe.subfiletype) & (SMALLER | MASK)] or list(tiff.series)
    sizes = [one.keyframe.imagewidth * one.keyframe.imagelength for one in own]
    if sizes.count(max(sizes)) > 1:
        raise _several(len(tiff.pages))
    return own[sizes.index(max(sizes))]


def _several(count: int) -> UserError:
    return UserError(
        f"a file of {count} pages: separate images need separate files; where the pages are the channels of one image,"
        " say so with --config.data.layout=chw"
    )


def _by_pillow_alone(path: Path, page: Any, count: int, by_pillow: Callable[[Path, int], Picture]) -> Picture:
    """Reads a page whose compression tifffile needs another package for: Pillow knows LZW, JPEG and some more."""
    try:
        if count == 1:
            return by_pillow(path, page.index)
    except UserError as error:
        if "bits" in str(error):
            raise
    except (OSError, ValueError, RuntimeError):
        pass  # it cannot either
    name = getattr(page.compression, "name", str(page.compression))
    raise UserError(
        f"stored with {name} compression, which the package imagecodecs reads: pip install imagecodecs, or save it"
        " uncompressed"
    )
