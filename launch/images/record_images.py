"""One record of a prepared data set -> one training image: channels by name, their value map, what is kept of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch.images import conditions, geometry, mask_channels
from launch.images.readers import COLOURS
from singan import files, value_map
from singan.config import DataConfig, nearest
from singan.errors import UserError
from singan.model import encodings
from singan.source_image import SourceImage
from singan.value_map import ValueMap

MODALITIES = ("t1", "t1ce", "t2", "flair")
CHANNELS = {"brats": (*MODALITIES, "seg"), "pannuke": ("rgb", "instance", "class", "binary")}
RINGING = 0.1  # of the bright end: what lies less far below 0 is no signal
MIN_OUTSIDE = 0.01  # of a slice's pixels that must be 0 for 0 to be what is outside the brain
DEFAULT = {"brats": MODALITIES, "pannuke": ("rgb",)}


def channels_of(name: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """Returns the channels that data.channels asks of a data set, in the order given; () takes all that is measured.

    Raises:
      UserError: a name that the data set does not have, or masks without a picture.
    """
    known = CHANNELS[name]
    for channel in wanted:
        if channel not in known:
            raise UserError(
                f"config.data.channels: {name} has {', '.join(known)}, not {channel!r}{nearest(channel, known)}"
            )
    return tuple(wanted) or DEFAULT[name]


def has_channels(row: Mapping[str, Any], channels: Sequence[str]) -> bool:
    """Returns whether the record of a row of the index has all channels."""
    return all(
        row["has_seg"] if channel == "seg" else row["modality_present"][MODALITIES.index(channel)]
        for channel in channels
        if channel in (*MODALITIES, "seg")
    )


def slice_image(example: Mapping[str, Any], dataset: str, data: DataConfig) -> SourceImage:
    """Returns the training image of a BraTS slice: [x, y, C], axes as stored.

    What of a modality becomes -1 and 1 is one rule for the whole volume, so that a patient's slices are alike:
    'volume' (also 'auto') takes 0 to the volume's largest value, which keeps every value from 0 on exactly;
    'percentile' takes 0 to the 99.5th percentile of the brain and clips what is brighter. What lies below 0, ringing of
    the reconstruction, is clipped; only where it is more than that (the 0.5th percentile of the brain lies below 0 by
    more than a tenth of the 99.5th: the volume was standardised) the range starts at the volume's smallest value, or at
    that percentile.
    The label's channels are seg_1, seg_2, ..., one for each label that the year's table knows.
    """
    channels = channels_of("brats", data.channels)
    stored = example["image"]
    parts, names, maps, masks, clipped = [], [], [], {}, {}
    for channel in channels:
        first = len(names)
        if channel == "seg":
            values = example["label_stored_values"]
            count = int(np.flatnonzero(values >= 0).max())
            parts.append(encodings.encode_one_hot(example["seg"], count).astype(stored.dtype))
            maps.append(value_map.mask_map(count, 1.0, stored.dtype))
            names += [f"seg_{label}" for label in range(1, count + 1)]
            masks["seg"] = {
                "kind": "one_hot",
                "channels": list(range(first, first + count)),
                "names": [name.decode() for name in example["label_names"][1 : count + 1]],
                "stored_values": values[: count + 1],
            }
            continue
        number = MODALITIES.index(channel)
        pixels = stored[..., number, None]
        channel_map = _volume_map(example, number, data)
        low, high = channel_map.low[0], channel_map.high[0]
        clipped[channel] = {"below": int((pixels < low).sum()), "above": int((pixels > high).sum())}
        parts.append(pixels)
        maps.append(channel_map)
        names.append(channel)
    kept = {
        "patient": example["patient"].decode(),
        "grade": example["grade"].decode(),
        "slice_index": example["slice_index"],
        "slice_axis": example["slice_axis"],
        "volume_shape": example["volume_shape"],
        "volume_affine": example["volume_affine"],
        **geometry.of_slice(example["affine"]),
        **_forms(example),
        "has_seg": example["has_seg"],
        "has_tumour": example["has_tumour"],
        "tumour_voxels": example["tumour_voxels"],
        "label_table": example["label_table"].decode(),
        "clipped_pixels": clipped,
    }
    image = _image(example, dataset, parts, names, maps, masks, kept, data)
    return conditions.of_record(image, data, example)


def _forms(example: Mapping[str, Any]) -> dict[str, Any]:
    """Returns 'forms': what the volume's header says of where it lies, for 'qform' and 'sform' a code and an affine.

    Nothing for data sets that were prepared before the codes were kept.
    """
    codes = zip(("qform", "sform"), example.get("form_codes", ()), strict=False)
    forms = {form: {"code": int(code), "affine": example["affine"]} for form, code in codes if code}
    return {"forms": forms} if "form_codes" in example else {}


def patch_image(example: Mapping[str, Any], dataset: str, data: DataConfig) -> SourceImage:
    """Returns the training image of a PanNuke patch: [h, w, C] uint8, the colours first mapped from 0..255.

    Masks become channels as mask_channels says; 'class' gives one for each of the five classes, class_neoplastic first.
    """
    channels = channels_of("pannuke", data.channels)
    instances, class_names = example["instance_map"], [name.decode() for name in example["class_names"]]
    shared = {
        "min_area": mask_channels.min_area(instances),
        "default_class": int(np.argmax(example["class_counts"])) + 1,
        "class_names": class_names,
    }
    parts, names, maps, masks = [], [], [], {}
    for channel in channels:
        first = len(names)
        if channel == "rgb":
            parts.append(example["image"])
            maps.append(value_map.fit(example["image"], data.value_range))
            names += COLOURS
            continue
        if channel == "class":
            parts.append(encodings.encode_one_hot(example["class_map"], len(class_names)))
            names += [f"class_{name}" for name in class_names]
            kind, high = "one_hot", 1.0
        elif channel == "instance":
            parts.append(encodings.encode_instances(instances))
            names.append(channel)
            kind, high = "instance", float(encodings.HEART)
        else:
            parts.append(encodings.encode_binary(instances))
            names.append(channel)
            kind, high = "binary", 1.0
        maps.append(value_map.mask_map(len(names) - first, high, np.uint8))
        masks[channel] = {"kind": kind, "channels": list(range(first, len(names))), **shared}
    kept = {
        "fold": example["fold"],
        "patch_index": example["patch_index"],
        "tissue": example["tissue"].decode(),
        "num_nuclei": example["num_nuclei"],
        "class_counts": example["class_counts"],
    }
    image = _image(example, dataset, parts, names, maps, masks, kept, data)
    return conditions.of_record(image, data, example)


def _volume_map(example: Mapping[str, Any], number: int, data: DataConfig) -> ValueMap:
    """Returns the map of one modality.

    Outside the brain is what the volume's corners hold. Where they differ, or are 0, it is what this slice's border
    holds, and without such a value 0, as all of BraTS has it, unless the volume was standardised as a whole.
    """
    dtype, pixels = example["image"].dtype, example["image"][..., number, None]
    # Data sets that were prepared before it was recorded took all as 0.
    outside = float(example["background"][number]) if "background" in example else 0.0

    def mapped(low: float, high: float, rule: str) -> ValueMap:
        (border,) = value_map.backgrounds(np.clip(pixels, low, high), "auto")
        return value_map.volume_map([(low, high)], dtype, rule, float(np.clip(outside, low, high)) or border or 0.0)

    if not isinstance(data.value_range, str):
        low, high = data.value_range
        if not low < high:
            raise UserError(f"config.data.value_range={data.value_range!r} must be auto or (low, high) with low < high")
        return mapped(float(low), float(high), "fixed")
    rule = "percentile" if data.value_range == "percentile" else "volume"
    least, bottom, top, most = (
        float(example[key][number]) for key in ("intensity_min", "percentile_0_5", "percentile_99_5", "intensity_max")
    )
    bottom = min(bottom, outside)
    low, high = (bottom, top) if rule == "percentile" else (least, most)
    standardised = bottom < -RINGING * top
    volume_map = mapped(low if standardised else 0.0, high, rule)
    unknown = volume_map.background == (0.0,) and np.mean(pixels == 0) < MIN_OUTSIDE
    if standardised and unknown and data.background == "auto":
        raise UserError(
            f"{MODALITIES[number]} holds values below 0, and no one value at its border: say what surrounds the brain"
            " with --config.data.background"
        )
    return volume_map


def _image(
    example: Mapping[str, Any],
    dataset: str,
    parts: Sequence[np.ndarray],
    names: Sequence[str],
    maps: Sequence[ValueMap],
    masks: Mapping[str, Any],
    kept: Mapping[str, Any],
    data: DataConfig,
) -> SourceImage:
    pixels = np.concatenate(parts, axis=-1)
    joined = value_map.join(maps)
    if data.background != "auto":
        given = value_map.backgrounds(np.clip(pixels, joined.low, joined.high), data.background)
        joined = dataclasses.replace(joined, background=given)
    mapped = joined.apply(pixels)
    if (mapped == mapped[:1, :1]).all():
        raise UserError("holds the same value at every pixel: there is nothing to learn, choose other records")
    details = {"dataset": dataset, **kept}
    if masks:
        details["masks"] = masks
    image_id = example["id"].decode()
    return SourceImage(image_id, mapped, tuple(names), joined, f"tfds:{dataset}/{image_id}", files.plain(details))
