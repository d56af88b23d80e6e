"""How masks and layouts are drawn as channels. NumPy and SciPy; launch/images/mask_channels.py decodes them.

| word | channels |
|---|---|
| binary | 1 inside of any object |
| boundary | 1 on the outermost pixels of each object, so that those that touch stay apart |
| instance | 0 outside, half at an object's edge, 1 at its heart (its own distance map) |
| class, seg | a channel for each class but the background, 1 where it is |
| region | 1 where objects may lie |
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from singan.model.layouts import Layout

EDGE, HEART = 128, 255  # of an instance channel's uint8
NEAR = ((0, 1), (0, -1), (1, 0), (-1, 0))  # steps to the four pixels beside one
ONE_HOT = ("class", "seg")  # words that give a channel for each class


def encode_binary(mask: np.ndarray) -> np.ndarray:
    """Returns uint8 [H, W, 1], 1 where `mask` [H, W] is not 0."""
    return (mask != 0)[..., None].astype(np.uint8)


def encode_one_hot(labels: np.ndarray, count: int) -> np.ndarray:
    """Returns uint8 [H, W, count], channel k being 1 where `labels` [H, W] is k + 1; 0 is the background."""
    return (labels[..., None] == np.arange(1, count + 1)).astype(np.uint8)


def encode_boundary(instances: np.ndarray) -> np.ndarray:
    """Returns uint8 [H, W, 1], 1 at pixels of an instance that have another instance, or none, beside them."""
    padded = np.pad(instances, 1, mode="edge")
    near = [padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx] for dy, dx in NEAR]
    return ((instances > 0) & np.any([one != instances for one in near], axis=0))[..., None].astype(np.uint8)


def encode_instances(instances: np.ndarray) -> np.ndarray:
    """Returns uint8 [H, W, 1]: 0 for background, within each instance of `instances` [H, W] from EDGE to HEART.

    The value grows linearly with the distance to the nearest pixel that is not of the instance. The image's border is
    no edge: a nucleus that it cuts goes on beyond it.
    """
    drawn = np.zeros(instances.shape, np.uint8)
    for number, box in enumerate(ndimage.find_objects(instances.astype(np.int32)), start=1):
        if box is None:
            continue
        around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        inside = instances[around] == number
        level = np.ones(inside.shape)
        if not inside.all():
            distance = ndimage.distance_transform_edt(inside)
            assert isinstance(distance, np.ndarray)
            if distance.max() > 1:  # pixels at the edge have distance 1
                level = (distance - 1) / (distance.max() - 1)
        drawn[around][inside] = np.rint(EDGE + (HEART - EDGE) * level[inside]).astype(np.uint8)
    return drawn[..., None]


def encode(layout: Layout, words: Sequence[str], classes: int) -> np.ndarray:
    """Returns the given channels of a layout, uint8 [H, W, K] of 0 to 255.

    Args:
      words: which, in their order (config_checks.CONDITIONS).
      classes: how many there are, the background left out.
    """
    everywhere = np.ones(layout.objects.shape, bool)
    parts = {
        "binary": lambda: encode_binary(layout.objects) * 255,
        "boundary": lambda: encode_boundary(layout.objects) * 255,
        "instance": lambda: encode_instances(layout.objects),
        "class": lambda: encode_one_hot(layout.classes, classes) * 255,
        "seg": lambda: encode_one_hot(layout.classes, classes) * 255,
        "region": lambda: encode_binary(everywhere if layout.region is None else layout.region) * 255,
    }
    return np.concatenate([parts[word]() for word in words], axis=-1).astype(np.uint8)
