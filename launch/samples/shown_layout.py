"""Which objects a sample shows: those of the layout that it was given, else those that its mask channels decode to."""

from collections.abc import Sequence

import numpy as np

from launch.images import mask_channels
from singan.model.layouts import Layout, label_layout
from singan.storage.workdir import ImageRecord

NUCLEI = ("instance", "binary", "class")


def class_names(record: ImageRecord) -> list[str]:
    """Returns the names of the classes of an image's objects, from class 1 on; [] where it has no masks."""
    masks = record.details.get("masks", {})
    known = next((mask.get("class_names") or mask.get("names") for mask in masks.values()), None)
    return list(known or ())


def has_objects(record: ImageRecord) -> bool:
    """Returns whether samples of an image show objects that can be told apart."""
    masks = set(record.details.get("masks", {}))
    return bool(record.given or masks & {*NUCLEI, "seg"})


def shown_layout(record: ImageRecord, image: np.ndarray, layout: Layout | None = None) -> Layout:
    """Returns the layout of a sample on the source's grid.

    Args:
      image: [H, W, C] in [-1, 1], on that grid.
      layout: what it was given, which is exact; None: it is decoded, as well as the sample shows it.
    """
    if layout is not None:
        return layout.resized(record.shape[:2])
    masks = record.details["masks"]
    if "seg" in masks:
        return label_layout(mask_channels.decode_one_hot(image[..., masks["seg"]["channels"]]))
    objects, kinds = mask_channels.decode_nuclei(image, masks)
    return Layout(objects, np.concatenate([[0], kinds]).astype(np.uint8)[objects])


def layout_at(layouts: Sequence[Sequence[Layout]], image: int, sample: int) -> Layout | None:
    """Returns the layout of one sample of a batch, None where none were given."""
    return layouts[image][sample] if layouts else None
