"""PanNuke's six mask channels brought to one instance map and one class map."""

import dataclasses

import numpy as np

# Order of the channels of masks.npy; the sixth is the background, which is what the five leave over.
CLASSES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")


@dataclasses.dataclass(frozen=True)
class Instances:
    """The nuclei of one patch.

    Attributes:
      instance_map: [h, w] uint16, 0 = background, else 1..n, unique across classes.
      class_map: [h, w] uint8, 0 = background, else 1 + index into CLASSES.
      classes: [n] uint8, class of each instance as in class_map.
      source_ids: [n] int32, id of each instance within its channel of masks.npy.
      overlap_pixels: Pixels that more than one instance claimed.
      hidden: Instances that the others covered entirely, so that they are not in the maps.
    """

    instance_map: np.ndarray
    class_map: np.ndarray
    classes: np.ndarray
    source_ids: np.ndarray
    overlap_pixels: int
    hidden: int

    def counts(self) -> np.ndarray:
        """Returns [5] int32: instances of each class."""
        return np.bincount(self.classes, minlength=len(CLASSES) + 1)[1:].astype(np.int32)


def merge_masks(masks: np.ndarray) -> Instances:
    """Merges the channels of one patch by these rules.

    - Every distinct value above 0 of a channel is one instance, in one piece or several: the annotators' ids are kept
      as what they say.
    - Where channels overlap, the smaller instance gets the pixel (the lower channel, then the lower id, among equals),
      so that a nucleus lying on a larger one stays visible. One that is covered entirely is dropped and counted.
    - Instances are numbered from 1 without gaps, by channel and then by their id.
    - The background channel is not read: background is where no class has an instance.

    Args:
      masks: [h, w, 6], any numeric type, whole numbers from 0 to 2^31 - 1.

    Raises:
      ValueError: Values that are no such numbers, or more than 65535 instances.
    """
    nuclei = masks[..., : len(CLASSES)]
    if not np.isfinite(nuclei).all() or (nuclei < 0).any() or (nuclei > 2**31 - 1).any():
        raise ValueError("mask values must be from 0 to 2147483647")
    ids = nuclei.astype(np.int32)
    if not np.array_equal(ids, nuclei):
        raise ValueError("mask values must be whole numbers")
    masks_by_area = []  # (class, id, area), by channel and then by id
    for channel in range(len(CLASSES)):
        values, areas = np.unique(ids[..., channel], return_counts=True)
        masks_by_area += [(channel + 1, int(v), int(a)) for v, a in zip(values, areas, strict=True) if v]
    if len(masks_by_area) > np.iinfo(np.uint16).max:
        raise ValueError(f"{len(masks_by_area)} instances in one patch, more than 65535")
    # Painted from large to small, and among equals from the last to the first: the last one painted stays on top.
    painted = np.zeros(ids.shape[:2], np.uint16)
    for index in sorted(range(len(masks_by_area)), key=lambda i: (-masks_by_area[i][2], -i)):
        class_id, value, _ = masks_by_area[index]
        painted[ids[..., class_id - 1] == value] = index + 1
    visible = np.unique(painted)
    visible = visible[visible > 0]
    renumbered = np.zeros(len(masks_by_area) + 1, np.uint16)
    renumbered[visible] = np.arange(1, len(visible) + 1)
    classes = np.array([masks_by_area[index - 1][0] for index in visible], np.uint8)
    instance_map = renumbered[painted]
    return Instances(
        instance_map=instance_map,
        class_map=np.concatenate([[np.uint8(0)], classes]).astype(np.uint8)[instance_map],
        classes=classes,
        source_ids=np.array([masks_by_area[index - 1][1] for index in visible], np.int32),
        overlap_pixels=int(((ids > 0).sum(axis=-1) > 1).sum()),
        hidden=len(masks_by_area) - len(visible),
    )
