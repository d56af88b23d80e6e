"""What a conditional run is given of an image: its layout, from a data set's masks or from label maps beside it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.images import mask_channels, readers
from launch.images.brain import brain_mask, fluid_mask
from launch.images.image_files import ImageFiles
from launch.images.picture import Picture
from launch.text import printable
from singan import files, value_map
from singan.config import DataConfig
from singan.errors import UserError
from singan.model.encodings import HEART, ONE_HOT, encode
from singan.model.layouts import Layout, label_layout, layout_of
from singan.source_image import SourceImage
from singan.storage.layout_files import layout_array
from singan.storage.workdir import pixel_digest

CLASSES = "classes.txt"  # beside label maps: the names of their classes, one a line
MARGIN = 2  # pixels that a tumour keeps from the brain's rim


def conditioned(image: SourceImage, layout: Layout, data: DataConfig, class_names: Sequence[str]) -> SourceImage:
    """Returns an image with what a conditional run is given behind its own channels, drawn from its layout.

    Raises:
      UserError: the layout has no object, or a class that has no name.
    """
    if not layout.objects.any():
        raise UserError(
            "its label map holds no object: take the image out (of PanNuke with config.data.min_nuclei=1, of BraTS with"
            " config.data.has_tumour=yes), or annotate it"
        )
    if (most := int(layout.classes.max())) > len(class_names):
        raise UserError(f"its label map has class {most}, but there are {len(class_names)} ({', '.join(class_names)})")
    if "seg" in data.condition:
        layout = dataclasses.replace(layout, region=brain_region(image, layout.objects > 0))
    known, dtype = image.value_map, image.value_map.dtype
    shared = {
        "min_area": mask_channels.min_area(layout.objects),
        "default_class": int(np.bincount(list(layout.class_of_each().values())).argmax()),
        "class_names": list(class_names),
    }
    names, maps, masks = list(image.channels), [known], {**image.details.get("masks", {})}
    for word in data.condition:
        first, count = len(names), len(class_names) if word in ONE_HOT else 1
        names += [f"{word}_{name}" for name in class_names] if word in ONE_HOT else [word]
        maps.append(value_map.mask_map(count, float(HEART) if word == "instance" else 1.0, dtype))
        kind = "one_hot" if word in ONE_HOT else "instance" if word == "instance" else "binary"
        masks[word] = {"kind": kind, "channels": list(range(first, first + count)), **shared}
        if word == "seg":
            masks[word] |= {"names": list(class_names), "stored_values": list(range(count + 1))}
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"channel {repeated[0]} is both generated and given: take it out of config.data.channels")
    drawn = encode(layout, data.condition, len(class_names)).astype(np.float32) / 127.5 - 1
    given = {
        "words": list(data.condition),
        "channels": drawn.shape[-1],
        "classes": len(class_names),
        "class_names": list(class_names),
        "objects": layout.count,
        "digest": pixel_digest(layout_array(layout)),
    }
    return dataclasses.replace(
        image,
        pixels=np.concatenate([image.pixels, drawn], axis=-1),
        channels=tuple(names),
        value_map=value_map.join(maps),
        details=files.plain({**image.details, "masks": masks, "condition": given}),
        layout=layout,
    )


def brain_region(image: SourceImage, tumour: np.ndarray) -> np.ndarray | None:
    """Returns where a tumour may lie, bool [H, W]: in the brain, off its rim, and off fluid where that can be told.

    None where no channel has a background. See launch/images/brain.py.
    """
    levels = image.value_map.background_levels
    known = [channel for channel, level in enumerate(levels) if level is not None]
    if not known:
        return None
    outside = np.all([image.pixels[..., channel] == levels[channel] for channel in known], axis=0)
    region = brain_mask(outside, MARGIN)
    return (region & ~fluid_mask(image.pixels + 1, image.channels, brain_mask(outside, 0), tumour)) | tumour


def from_files(image: SourceImage, of: ImageFiles, data: DataConfig) -> SourceImage:
    """Returns an image of config.data.path with what config.data.condition names of its label map, if anything.

    Raises:
      UserError: there is no label map of its name, or it is none of the image.
    """
    if not data.condition:
        return image
    if not data.masks:
        raise UserError(
            "config.data.condition draws what is given from label maps: say where they are with"
            " --config.data.masks=FOLDER, each named as its image"
        )
    folder = Path(data.masks).expanduser()
    stem = readers.split_suffix(of.name)[0]
    candidates = [folder / f"{name}{suffix}" for name in (stem, Path(stem).name) for suffix in readers.SUFFIXES]
    path = next((one for one in candidates if one.is_file()), None)
    if path is None:
        raise UserError(f"config.data.masks={printable(data.masks)!r} holds no label map of this name")
    names, word = class_names(folder), printable(path.name)
    if not names and set(ONE_HOT) & set(data.condition):
        raise UserError(
            f"config.data.condition={','.join(data.condition)} gives classes: name them, one a line, in"
            f" {printable(str(folder / CLASSES))}"
        )
    layout = read_layout(readers.read(path, word), word, "seg" in data.condition)
    if layout.objects.shape != image.pixels.shape[:2]:
        raise UserError(
            f"its label map is of {'x'.join(map(str, layout.objects.shape))} pixels, the image of"
            f" {'x'.join(map(str, image.pixels.shape[:2]))}: give maps of the images' size"
        )
    return conditioned(image, layout, data, names or ["object"])


def class_names(folder: Path) -> list[str]:
    """Returns the names of classes that a folder of label maps has, [] without."""
    path = folder / CLASSES
    if not path.is_file():
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def read_layout(picture: Picture, name: str, labels: bool) -> Layout:
    """Returns the layout that a file shows: object ids, and perhaps the class of each pixel as a second channel.

    Args:
      labels: it holds classes alone, whose connected pieces are the objects.

    Raises:
      UserError: it is no label map.
    """
    values = picture.pixels
    if values.shape[-1] > (1 if labels else 2) or values.min() < 0 or (values != np.rint(values)).any():
        raise UserError(
            f"{name} is no label map: give one channel of whole numbers, 0 where nothing is"
            f"{'' if labels else ', and perhaps classes as a second'}"
        )
    if labels:
        return label_layout(values[..., 0])
    return layout_of(values[..., 0], values[..., 1] if values.shape[-1] == 2 else None)


def of_record(image: SourceImage, data: DataConfig, example: Mapping[str, Any]) -> SourceImage:
    """Returns the image of a record of a prepared data set with what config.data.condition names, if anything."""
    if not data.condition:
        return image
    if "instance_map" in example:
        names = [name.decode() for name in example["class_names"]]
        if "seg" in data.condition:
            raise UserError("config.data.condition: pannuke has binary, boundary, instance and class, not seg")
        return conditioned(image, layout_of(example["instance_map"], example["class_map"]), data, names)
    if set(data.condition) - {"seg", "region", "binary"}:
        raise UserError("config.data.condition: brats has seg, region and binary")
    count = int(np.flatnonzero(example["label_stored_values"] >= 0).max())
    names = [name.decode() for name in example["label_names"][1 : count + 1]]
    return conditioned(image, label_layout(example["seg"]), data, names)
