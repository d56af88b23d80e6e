"""Images and masks that a command injects into a run: read, brought through that run's value map, and named."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from launch import readers
from launch.image_ids import unique_ids
from singan.errors import UserError
from singan.manipulation import Input
from singan.masks import binary_mask
from singan.run import Run
from singan.value_map import fit
from singan.workdir import ImageRecord


def read_inputs(run: Run, image_ids: Sequence[str], paths: Sequence[str], masks: Sequence[str]) -> list[Input]:
    """Returns the inputs of a manipulation, each named by its file's stem.

    Args:
      image_ids: the pyramid that each goes through: one for all, or one for each.
      paths: image files.
      masks: one for all, one for each, or none.

    Raises:
      UserError: with one line that names the file or the flag and says what to do.
    """
    if len(image_ids) not in (1, len(paths)):
        raise UserError(f"--images names {len(image_ids)} pyramids for {len(paths)} inputs: give one, or one for each")
    if masks and len(masks) not in (1, len(paths)):
        raise UserError(f"--mask names {len(masks)} files for {len(paths)} inputs: give one, or one for each")
    names = unique_ids([Path(path).as_posix().lstrip("./") for path in paths])
    inputs = []
    for index, (path, name) in enumerate(zip(paths, names, strict=True)):
        image_id = image_ids[index % len(image_ids)]
        pixels = read_pixels(path, run.record(image_id))
        mask = read_mask(masks[index % len(masks)], pixels.shape[:2]) if masks else None
        inputs.append(Input(image_id, name, pixels, mask))
    return inputs


def read_pixels(path: str, record: ImageRecord) -> np.ndarray:
    """Returns an image file as float32 [h, w, C] in [-1, 1], as the run sees its own image `record`.

    The run's value map reads values of the type that it was made for. Pictures of another type are taken by the limits
    of their own type (0 .. 255) where the run's image was taken by those of its type.
    """
    picture = readers.read(_existing(path), path)
    pixels, value_map = picture.pixels, record.value_map
    if pixels.shape[-1] != len(record.channels):
        raise UserError(
            f"{path} has {pixels.shape[-1]} channels, {record.id} was trained on {len(record.channels)}"
            f" ({', '.join(record.channels)}): give an image with these"
        )
    as_type = set(value_map.rules) == {"type"}
    # Numbers of 0 to 1 can hardly be meant as values of a scan that go up to hundreds.
    fractions = pixels.dtype.kind == "f" and pixels.max() <= 1 and max(value_map.high) > 2
    if (pixels.dtype == np.uint8) != (value_map.dtype == "uint8") or fractions:
        if not as_type:
            raise UserError(
                f"{path} holds {pixels.dtype} values of {pixels.min():g} to {pixels.max():g}, the run"
                f" {value_map.dtype} of {value_map.low[0]:g} to {value_map.high[0]:g}: give the image in those, as npy"
                " or NIfTI"
            )
        return fit(pixels, "auto", "none").apply(pixels)
    return value_map.apply(pixels)


def read_mask(path: str, size: tuple[int, int]) -> np.ndarray:
    """Returns a mask file as bool [h, w]: above the middle of its values is inside.

    Raises:
      UserError: it is of another size than the image that it belongs to, or empty or full.
    """
    pixels = readers.read(_existing(path), path).pixels
    if pixels.shape[:2] != tuple(size):
        (mask_h, mask_w), (h, w) = pixels.shape[:2], size
        raise UserError(f"the mask {path} is {mask_h}x{mask_w} pixels, its image {h}x{w}: give one of the same size")
    return binary_mask(pixels, f"the mask {path}")


def _existing(path: str) -> Path:
    found = Path(path)
    if not found.is_file():
        raise UserError(f"{path} is no file: give image files, separated by commas")
    if not readers.is_image(found):
        raise UserError(f"{path} is of no format that is read here: {', '.join(sorted(readers.SUFFIXES))}")
    if re.search(r"[\r\n]", path):
        raise UserError("file names with line breaks cannot be given here: rename the file")
    return found
