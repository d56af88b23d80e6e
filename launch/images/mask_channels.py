"""Masks as image channels, and back: how labels, classes and single nuclei that samples show are decoded.

singan/model/encodings.py draws them.

| kind | drawn as | decoded by |
|---|---|---|
| binary | 1 channel: 0 or 1 | its sign in [-1, 1] |
| one_hot | a channel for each label but the background: 0 or 1 | the largest channel; background if none is above 0 |
| instance | 1 channel: 0, or 128 at a nucleus' edge to 255 at its heart | cutting along the valleys between hearts |

An instance channel is each nucleus' own distance map, so that nuclei that touch have a valley between them. (A map of
ids, as the paper stacks it, cannot be decoded: neighbouring ids look alike, and ids mean nothing to a generator.) Where
there is no instance channel, nuclei are the connected pieces of the mask, those that have grown together cut at their
waists by a watershed on the mask's distance map.

An encoding is recorded in images.json, in `details["masks"]`, as {name: {"kind", "channels": [numbers], ...}}.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.filters import gaussian
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

INSTANCE_THRESHOLD = -0.5  # in [-1, 1]: half-way between background and edge
MIN_AREA = 16  # pixels of the source's grid; smaller ones are noise, unless the source has nuclei as small
# How deep the valley between two hearts must be for them to be two nuclei.
INSTANCE_VALLEY = 0.2  # of an instance channel's span, background to heart
SMOOTHING, WAIST = 1.0, 0.5  # pixels, on the distance map of a mask: sigma of the blur, and the valley's depth
EIGHT = np.ones((3, 3), bool)  # pixels that meet at a corner are connected


def kinds_of_channels(masks: Mapping[str, Any]) -> dict[int, str]:
    """Returns the kind of each channel that is a mask, by its number; `masks` is `details["masks"]`, or {}."""
    return {int(channel): str(mask.get("kind", "")) for mask in masks.values() for channel in mask["channels"]}


def min_area(instances: np.ndarray) -> int:
    """Returns the least area, in pixels, of what counts as a nucleus in samples of an image with these instances."""
    areas = np.bincount(instances.ravel())[1:]
    return int(min([MIN_AREA, *areas[areas > 0]]))


def decode_binary(channel: np.ndarray) -> np.ndarray:
    """Returns bool [H, W] from a channel [H, W] in [-1, 1]."""
    return channel > 0


def decode_one_hot(channels: np.ndarray) -> np.ndarray:
    """Returns uint8 [H, W] labels, 0 = background, from channels [H, W, K] in [-1, 1]."""
    labels = channels.argmax(-1) + 1
    return np.where(channels.max(-1) > 0, labels, 0).astype(np.uint8)


def decode_instances(channel: np.ndarray, least: int) -> np.ndarray:
    """Returns int32 [H, W] instances 1..n, 0 = background, from an instance channel [H, W] in [-1, 1].

    Args:
      least: pixels; smaller instances are dropped.
    """
    hearts = (np.asarray(channel, np.float64) + 1) / 2
    return _numbered(_cut(hearts, channel > INSTANCE_THRESHOLD, INSTANCE_VALLEY), least)


def split_mask(mask: np.ndarray, least: int) -> np.ndarray:
    """Returns int32 [H, W] instances 1..n, 0 = background: the pieces of a bool mask [H, W], cut at their waists.

    Args:
      least: pixels; smaller instances are dropped.
    """
    distance = ndimage.distance_transform_edt(mask)
    blurred = np.where(mask, gaussian(np.asarray(distance), SMOOTHING), 0)
    return _numbered(_cut(blurred, mask, WAIST), least)


def decode_nuclei(image: np.ndarray, masks: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nuclei that an image shows.

    Args:
      image: [H, W, C] in [-1, 1], on the source's grid (minimum areas are in its pixels).
      masks: `details["masks"]` of the image's record: 'instance', 'binary' or 'class', or several of them.

    Returns:
      Instances, int32 [H, W], 0 = background, else 1..n; and their classes, uint8 [n], from 1. A nucleus' class is
      that of most of its pixels; where no channel tells classes, the one that most of the source's nuclei have.
    """
    recorded = next(iter(masks.values()))
    least, common = int(recorded["min_area"]), int(recorded["default_class"])
    classes = decode_one_hot(image[..., masks["class"]["channels"]]) if "class" in masks else None
    if "instance" in masks:
        instances = decode_instances(image[..., masks["instance"]["channels"][0]], least)
    elif "binary" in masks:
        instances = split_mask(decode_binary(image[..., masks["binary"]["channels"][0]]), least)
    else:
        assert classes is not None
        instances = np.zeros(classes.shape, np.int32)
        for kind in range(1, classes.max() + 1):  # nuclei of different classes are cut where they meet
            nuclei = split_mask(classes == kind, least)
            instances[nuclei > 0] = nuclei[nuclei > 0] + instances.max()
    count = int(instances.max())
    if classes is None:
        return instances, np.full(count, common, np.uint8)
    votes = np.zeros((count + 1, len(masks["class"]["channels"]) + 1), np.int64)
    np.add.at(votes, (instances.ravel(), classes.ravel()), 1)
    votes[:, 0] = 0
    kinds = np.where(votes.any(1), votes.argmax(1), common)
    return instances, kinds[1:].astype(np.uint8)


def _cut(height: np.ndarray, foreground: np.ndarray, valley: float) -> np.ndarray:
    """Returns instances from 1: the foreground cut along the valleys of `height` that are at least `valley` deep."""
    lowered = reconstruction(height - valley, height, footprint=EIGHT)
    hearts: Any = label(local_maxima(lowered, connectivity=2) & foreground, connectivity=2)
    instances = np.asarray(watershed(-height, hearts, mask=foreground, connectivity=2))
    # Pieces too flat to have a heart are instances too.
    rest = np.asarray(label(foreground & (instances == 0), connectivity=2))
    return np.where(rest > 0, rest + instances.max(), instances)


def _numbered(instances: np.ndarray, least: int) -> np.ndarray:
    """Returns the instances of at least `least` pixels, numbered from 1 without gaps in their order, as int32."""
    areas = np.bincount(instances.ravel())
    kept = areas >= least
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return numbers[instances]
