"""The layouts of a conditional run's training images, as they are kept with it: layouts/<id>.npy."""

import numpy as np

from singan import files
from singan.errors import UserError
from singan.model.layouts import Layout
from singan.storage.workdir import ImageRecord, Workdir, read_kept_array


def layout_array(layout: Layout) -> np.ndarray:
    """Returns a layout as it is kept: int32 [3, H, W], ids, classes and region (1 where there is none)."""
    region = np.ones(layout.objects.shape) if layout.region is None else layout.region
    return np.stack([layout.objects, layout.classes, region]).astype(np.int32)


def write_layout(workdir: Workdir, image_id: str, layout: Layout) -> None:
    """Keeps the layout of a training image of a conditional run."""
    path = workdir.layout(image_id)
    files.make_directory(path.parent)
    files.write_npy(path, layout_array(layout))


def read_layout(workdir: Workdir, record: ImageRecord) -> Layout:
    """Returns the layout of a training image. Raises UserError where it is missing or damaged."""
    objects, classes, region = read_kept_array(workdir.layout(record.id), record.details["condition"]["digest"])
    return Layout(objects, classes.astype(np.uint8), None if region.all() else region > 0)


def has_layout(workdir: Workdir, record: ImageRecord) -> bool:
    """Returns whether the layout of a training image is kept with the run, and whole."""
    try:
        read_layout(workdir, record)
    except UserError:
        return False
    return True
