"""The cohort: which images `config.data` names, read, named, mapped to [-1, 1] and found to fit together."""

import dataclasses
import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.images import conditions, geometry, readers
from launch.images.found_images import TFDS, FoundImages, selection_keys
from launch.images.image_files import ImageFiles, find_image_files
from launch.images.image_ids import unique_ids
from launch.images.modality_names import modality
from launch.text import print_note, printable
from singan.config import DataConfig, nearest
from singan.errors import UserError
from singan.source_image import SourceImage, default_channels
from singan.value_map import NARROW, fit, used_ranges

EXAMPLE = "immunohistochemistry"
SOURCES = (EXAMPLE, "tfds:brats/slices", "tfds:pannuke")
# Centres (row, column) of parts of the example that differ from each other and do not overlap at 96 pixels: a gland
# cut across, a lumen, a border of gland and stroma, crowded epithelium; then more of these for larger cohorts.
EXAMPLE_CENTRES = ((408, 318), (170, 352), (250, 245), (145, 130), (380, 90), (60, 228), (230, 455), (48, 100))

SHOWN = 3  # files named per group in an error; the others are counted


def load_images(data: DataConfig) -> list[SourceImage]:
    """Returns the images that `data` names, sorted by id, of one channel list and one shape.

    With data.group_by_shape shapes may differ: `group_by_shape` sorts them into cohorts.

    An id is the stem of the file's name; where stems repeat, the suffix, then the folders, then a hash of the path are
    added. data.max_images keeps the first by id; the others are not read.

    Raises:
      UserError: with one line that names the file or the key and says what to do.
    """
    listed = find_images(data)
    images = listed.read(range(len(listed.ids)))
    check_comparable(data, [(image.source, image.pixels.shape, image.channels) for image in images])
    return images


def find_images(data: DataConfig) -> FoundImages:
    """Returns what `load_images` would read, for whoever reads a part of it. Raises UserError likewise."""
    _check_channel_names(data.channels)
    data = _of_files_alone(data)
    if data.source.startswith(TFDS):
        from launch.images import tfds_records  # imported here: TFDS takes a second, and only its sources need it

        return tfds_records.find(data)
    if unused := selection_keys(data):
        raise UserError(
            f"config.data.{unused[0]} chooses among the records of a TFDS source, such as"
            f" --config.data.source=tfds:brats/slices; config.data.source={data.source!r} does not know it"
        )
    if data.path:
        return _find_files(data)
    if data.condition:
        raise UserError(
            "config.data.condition needs annotated images: give them with --config.data.path=FOLDER and"
            " --config.data.masks=FOLDER, or take --config.data.source=tfds:pannuke"
        )
    if data.source == EXAMPLE:
        images = _load_example(data)
        return FoundImages(tuple(image.id for image in images), lambda some: [images[i] for i in some])
    if not data.source:
        raise UserError(
            "no images are given: say where yours are with --config.data.path=FOLDER,"
            f" or take --config.data.source={' or '.join(SOURCES)}"
        )
    raise UserError(
        f"config.data.source={data.source!r} is not one of {', '.join(SOURCES)}{nearest(data.source, SOURCES)};"
        " images of your own are given with --config.data.path=FOLDER"
    )


def _of_files_alone(data: DataConfig) -> DataConfig:
    """Returns `data` without its TFDS source and what chooses among its records where data.path names files instead.

    A folder is a TFDS source's data_dir. Of a file, a glob, or what ends as an image does, none can be.
    """
    path = os.path.expanduser(data.path)
    if not (data.source.startswith(TFDS) and data.path) or os.path.isdir(path):
        return data
    if not (os.path.isfile(path) or glob.has_magic(path) or readers.is_image(Path(path))):
        return data
    unused = selection_keys(data)
    also = f", nor are config.data.{', '.join(unused)}" if unused else ""
    print_note(f"config.data.path names files: config.data.source={data.source} is not used{also}")
    default = DataConfig()
    return dataclasses.replace(data, source="", **{key: getattr(default, key) for key in unused})


def check_comparable(data: DataConfig, images: Sequence[tuple[str, tuple[int, ...], Sequence[str]]]) -> None:
    """Raises UserError where images, given as (source, shape, channels), cannot be trained as one cohort."""
    _check_equal([(source, _count(shape[-1])) for source, shape, _ in images], "number of channels", _SAME_NUMBER)
    _check_equal([(source, ", ".join(channels)) for source, _, channels in images], "channels", _SAME_NAMES)
    if not data.group_by_shape:
        sizes = [(source, f"{shape_key(shape)} (height x width)") for source, shape, _ in images]
        _check_equal(sizes, "shape", _SAME_SHAPE)


def group_by_shape(images: Sequence[SourceImage]) -> dict[str, list[SourceImage]]:
    """Returns the images by shape, as {'256x248': [...]} for height x width, smallest height first, in their order."""
    groups: dict[str, list[SourceImage]] = {}
    for image in sorted(images, key=lambda image: image.pixels.shape[:2]):  # stable: the order within a shape stays
        groups.setdefault(shape_key(image.pixels.shape), []).append(image)
    return groups


_SAME_SHAPE = "crop them alike, or train each shape as its own cohort with --config.data.group_by_shape=true"
_SAME_NUMBER = "give each kind a run of its own, with --config.data.path"
_SAME_NAMES = "give each kind a run of its own, or, where they mean the same, name them with --config.data.channels"


def _find_files(data: DataConfig) -> FoundImages:
    files = find_image_files(data.path)
    named = sorted(zip(unique_ids([one.id_name for one in files]), files, strict=True), key=lambda pair: pair[0])
    named = named[: data.max_images or None]

    def read(some: Sequence[int]) -> list[SourceImage]:
        pictures = [(*named[i], _picture(named[i][1], data)) for i in some]
        images = [_image(image_id, one.name + picture.part, picture, data) for image_id, one, picture in pictures]
        _note_what_is_lost([picture for *_, picture in pictures], images, data)
        return [_conditioned(image, one, data) for image, (_, one, _) in zip(images, pictures, strict=True)]

    return FoundImages(tuple(image_id for image_id, _ in named), read)


def _conditioned(image: SourceImage, of: ImageFiles, data: DataConfig) -> SourceImage:
    try:
        return conditions.from_files(image, of, data)
    except UserError as error:
        raise UserError(f"{of.name}: {error}") from error


def _picture(files: ImageFiles, data: DataConfig) -> readers.Picture:
    if len(files.paths) == 1:
        picture = readers.read(files.paths[0], files.name, data.layout, max(len(files.channels), 1))
    else:
        picture = readers.read_channels(files.paths, [printable(path.name) for path in files.paths], data.layout)
    if len(files.channels) == picture.pixels.shape[-1]:
        picture = dataclasses.replace(picture, channels=files.channels)
    if picture.alpha is not None and len(data.channels) == picture.pixels.shape[-1] + 1:  # asked for
        pixels = np.concatenate([picture.pixels, picture.alpha[..., None]], axis=-1)
        picture = dataclasses.replace(picture, pixels=pixels, alpha=None)
    return _wanted_channels(picture, data.channels)


def _wanted_channels(picture: readers.Picture, wanted: tuple[str, ...]) -> readers.Picture:
    """Returns a picture with the channels that are wanted, in that order, where all of them are among its own names."""
    own = [modality(name) for name in picture.channels or ()]
    names = [modality(name) for name in wanted]
    if not names or len(own) != picture.pixels.shape[-1] or len(set(own)) < len(own) or not set(names) <= set(own):
        return picture
    at = [own.index(name) for name in names]
    return dataclasses.replace(picture, pixels=picture.pixels[..., at], channels=wanted)


def _note_what_is_lost(pictures: Sequence[readers.Picture], images: Sequence[SourceImage], data: DataConfig) -> None:
    """Tells of slices, of alpha channels that are left out and of contrast that is lost, a line each."""
    if slices := [image.source for image, picture in zip(images, pictures, strict=True) if picture.part]:
        print_note(f"of a volume one slice is taken, the fullest one across the body: {_some(slices)}")
    opaque = [image.source for image, picture in zip(images, pictures, strict=True) if picture.alpha is not None]
    if opaque:
        names = (*images[0].channels, "mask")
        print_note(
            f"the alpha channel of {_some(opaque)} is left out: where it is a mask to be trained on, name it with"
            f" --config.data.channels={','.join(names)}"
        )
    flat, least, example = [], 1.0, ""
    for image, picture in zip(images, pictures, strict=True):
        of = image.value_map
        for c, (low, high) in enumerate(used_ranges(picture.pixels, of)):
            share = (high - low) / (of.high[c] - of.low[c])
            if share < NARROW:
                flat += [image.source] if image.source not in flat else []
                if share < least:
                    least, example = share, f"{image.channels[c]} of {image.source} from {low:g} to {high:g}"
    if flat:
        print_note(
            f"{_some(flat)} use less than {NARROW:.0%} of their value range ({example}, which is {least:.1%}): little"
            " contrast is left to learn, give the range that matters as --config.data.value_range=LOW,HIGH"
        )


def _image(image_id: str, source: str, picture: readers.Picture, data: DataConfig) -> SourceImage:
    try:
        channels = _channel_names(picture, data.channels)
        value_map = fit(picture.pixels, data.value_range, data.background)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    details = geometry.of_slice(picture.affine) if picture.affine is not None else {}
    if picture.forms is not None:
        details["forms"] = picture.forms
    return SourceImage(image_id, value_map.apply(picture.pixels), channels, value_map, source, details)


def _channel_names(picture: readers.Picture, wanted: tuple[str, ...]) -> tuple[str, ...]:
    count = picture.pixels.shape[-1]
    if wanted:
        if len(wanted) != count:
            raise UserError(
                f"has {count} channels, but config.data.channels names {len(wanted)} ({', '.join(wanted)}):"
                " name as many, or say where the channels are with --config.data.layout=hwc or chw"
            )
        return wanted
    if picture.channels is not None:
        if len(picture.channels) != count or len(set(picture.channels)) != count:
            raise UserError(
                f"has {count} channels, but its own names for them are {', '.join(picture.channels)}:"
                " set --config.data.channels"
            )
        return picture.channels
    return default_channels(count, picture.pixels.dtype)


def _check_channel_names(names: tuple[Any, ...]) -> None:
    if not all(isinstance(name, str) and name.strip() for name in names) or len(set(names)) != len(names):
        raise UserError(f"config.data.channels={names!r} must be different names, one per channel")


def _load_example(data: DataConfig) -> list[SourceImage]:
    # Imported here: it takes a while, and only the example needs it.
    from skimage.data import immunohistochemistry

    whole = immunohistochemistry()
    corners = _crop_corners(whole.shape[0], data.num_crops, data.crop_size)
    images = []
    for y, x in corners:
        part = f"[{y}:{y + data.crop_size},{x}:{x + data.crop_size}]"
        crop = whole[y : y + data.crop_size, x : x + data.crop_size]
        picture = readers.Picture(crop, readers.COLOURS)
        images.append(_image(f"ihc_y{y:03d}_x{x:03d}", f"skimage:{EXAMPLE}{part}", picture, data))
    return sorted(images, key=lambda image: image.id)[: data.max_images or None]


def _crop_corners(side: int, count: int, size: int) -> list[tuple[int, int]]:
    """Returns the top left corners (row, column) of `count` squares of `size` that do not overlap: the chosen places
    where they suffice, else a grid."""
    chosen: list[tuple[int, int]] = []
    for centre in EXAMPLE_CENTRES:
        y, x = (min(max(place - size // 2, 0), side - size) for place in centre)
        if all(abs(y - other_y) >= size or abs(x - other_x) >= size for other_y, other_x in chosen):
            chosen.append((y, x))
    if size <= side and len(chosen) >= count:
        return chosen[:count]
    per_side = side // size
    if per_side**2 < count:
        raise UserError(
            f"{count} crops of {size} pixels do not fit into the example of {side}x{side} pixels ({per_side**2} do):"
            " lower config.data.num_crops or config.data.crop_size"
        )
    return [(size * (i // per_side), size * (i % per_side)) for i in range(count)]


def _count(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"


def shape_key(shape: Sequence[int]) -> str:
    """Returns '256x248' for an image of height 256 and width 248."""
    return f"{shape[0]}x{shape[1]}"


def _check_equal(traits: Sequence[tuple[str, str]], word: str, remedy: str) -> None:
    """Args: traits: (source, trait) of each image."""
    groups: dict[str, list[str]] = {}
    for source, trait in traits:
        groups.setdefault(trait, []).append(source)
    if len(groups) < 2:
        return
    shown = sorted(groups.items(), key=lambda item: -len(item[1]))
    lines = [f"{key}: {_some(sources)}" for key, sources in shown[:SHOWN]]
    more = f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    raise UserError(f"the images differ in {word}: {'; '.join(lines)}{more}: {remedy}")


def _some(sources: Sequence[str]) -> str:
    more = f" and {len(sources) - SHOWN} more" if len(sources) > SHOWN else ""
    return ", ".join(sources[:SHOWN]) + more
