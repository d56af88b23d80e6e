"""Images and masks that a command injects into a run: read, brought through that run's value map, and named."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from launch.images import foreign_formats, readers
from launch.images.image_ids import unique_ids
from launch.images.picture import Picture
from launch.text import print_note
from singan.errors import UserError
from singan.sampling.manipulation import Input
from singan.sampling.masks import binary_mask
from singan.storage.run import Run
from singan.storage.workdir import ImageRecord
from singan.value_map import type_range, volume_map

MOST = 0.5  # of an image: a mask that marks more is likely to be inverted


def read_inputs(
    run: Run, image_ids: Sequence[str], paths: Sequence[str], masks: Sequence[str], alpha_is_mask: bool = False
) -> list[Input]:
    """Returns the inputs of a manipulation, each named by its file's stem; tells which slice is taken of volumes.

    Args:
      image_ids: the pyramid that each goes through: one for all, or one for each.
      paths: image files.
      masks: one for all, one for each, or none.
      alpha_is_mask: whether, without masks, an image's alpha channel is its mask.

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
        record = run.record(image_id)
        if masks:
            picture, mask = read_pair(path, masks[index % len(masks)], record)
        else:
            picture = _read(path)
            mask = _of_alpha(picture, path) if alpha_is_mask else None
            if picture.part:
                print_note(f"of {path} the slice {picture.part} is taken{_trained_on(record, picture.part)}")
        inputs.append(Input(image_id, name, _mapped(picture, path, record), mask))
    return inputs


def read_pixels(path: str, record: ImageRecord) -> np.ndarray:
    """Returns an image file as float32 [h, w, C] in [-1, 1], as the run sees its own image `record`.

    The run's value map reads values of the type that it was made for. Pictures of another type are taken by the limits
    of their own type (0 .. 255) where the run's image was taken by those of its type.
    """
    return _mapped(_read(path), path, record)


def _read(path: str) -> Picture:
    return readers.read(_existing(path), path)


def _mapped(picture: Picture, path: str, record: ImageRecord) -> np.ndarray:
    pixels, value_map = picture.pixels, record.value_map
    if picture.alpha is not None and pixels.shape[-1] + 1 == len(record.channels):  # which was trained on
        pixels = np.concatenate([pixels, picture.alpha[..., None]], axis=-1)
    if pixels.shape[-1] != len(record.channels):
        raise UserError(
            f"{path} has {pixels.shape[-1]} channels, {record.id} was trained on {len(record.channels)}"
            f" ({', '.join(record.channels)}): give an image with these"
        )
    as_type = set(value_map.rules) == {"type"}
    # Numbers of 0 to 1 can hardly be meant as values of a scan that go up to hundreds.
    fractions = pixels.dtype.kind == "f" and pixels.max() <= 1 and max(value_map.high) > 2
    if (pixels.dtype == np.uint8) != (value_map.dtype == "uint8") or fractions:
        limits = type_range(pixels, pixels.dtype)
        if as_type and limits is not None:
            unit = volume_map([limits] * pixels.shape[-1], pixels.dtype, "fixed").apply(pixels)
            return value_map.from_shown(unit)
        low = (value_map.least or value_map.low)[0]
        within = low <= pixels.min() and pixels.max() <= value_map.high[0]
        if not (as_type and within):
            raise UserError(
                f"{path} holds {pixels.dtype} values of {pixels.min():g} to {pixels.max():g}, the run"
                f" {value_map.dtype} of {low:g} to {value_map.high[0]:g}: give the image in those, as npy"
                " or NIfTI"
            )
    return value_map.apply(pixels)


def read_pair(path: str, mask_path: str, record: ImageRecord) -> tuple[Picture, np.ndarray]:
    """Returns an image and its mask, bool [h, w]. Raises UserError where the mask is of another size, empty or full."""
    picture, mask = readers.read_with_mask(_existing(path), path, _existing(mask_path), mask_path)
    if picture.part:
        both = f"of {path} and its mask {mask_path}" if mask.part else f"of {path}"
        print_note(f"{both} the slice {picture.part} is taken{_trained_on(record, picture.part)}")
    (mask_h, mask_w), (h, w) = mask.pixels.shape[:2], picture.pixels.shape[:2]
    if (mask_h, mask_w) != (h, w):
        raise UserError(
            f"the mask {mask_path} is {mask_h}x{mask_w} pixels, its image {h}x{w}: give one of the same size"
        )
    name = f"the mask {mask_path}"
    if mask.alpha is not None:
        print_note(f"{name} is taken from its alpha channel, not from its colours")
        return picture, _checked(binary_mask(mask.alpha, name, labels=False), name)
    suffix = readers.split_suffix(Path(mask_path).name)[1].lower()
    lossy, volume = suffix in (".jpg", ".jpeg"), suffix.startswith(".nii") and mask.pixels.dtype.kind in "biu"
    return picture, _checked(binary_mask(mask.pixels, name, False if lossy else True if volume else None), name)


def _of_alpha(picture: Picture, path: str) -> np.ndarray | None:
    """Returns the mask that an image's alpha channel is, None where it has none."""
    if picture.alpha is None:
        return None
    print_note(f"the mask of {path} is taken from its alpha channel")
    return _checked(binary_mask(picture.alpha, f"the alpha channel of {path}", labels=False), f"the mask of {path}")


def _checked(mask: np.ndarray, name: str) -> np.ndarray:
    if mask.mean() > MOST:
        print_note(f"{name} marks {mask.mean():.0%} of the image: if it marks what is to be kept, invert it")
    return mask


def _trained_on(record: ImageRecord, part: str) -> str:
    """Returns what to add where a run's image is another slice of a volume."""
    trained = record.source[record.source.find("[") :] if record.source.endswith("]") else ""
    return (
        f" ({record.id} was trained on the slice {trained} of {record.source[: -len(trained)]})"
        if (trained and trained != part)
        else ""
    )


def _existing(path: str) -> Path:
    existing = Path(path)
    if not existing.is_file():
        raise UserError(f"{path} is no file: give image files, separated by commas")
    if not readers.is_image(existing):
        advice = foreign_formats.advice([existing]) or ", ".join(sorted(readers.SUFFIXES))
        raise UserError(f"{path} is of no format that is read here: {advice}")
    if re.search(r"[\r\n]", path):
        raise UserError("file names with line breaks cannot be given here: rename the file")
    return existing
