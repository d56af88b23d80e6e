"""The paper's figures 2a (background, donor, composites) and 2b (background, composites, results), by modality."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from experiments.tumour_insertion.compositing import Insertion
from launch.images import geometry
from launch.images.modality_names import modality
from launch.samples import pictures
from singan.model.pyramid import resize_to
from singan.sampling.manipulation import mask_at

BRIGHTEST = 99.8  # percentile of what is not black that is shown as white: a few vessels would darken all else
OUTLINE = (255, 160, 0)
MIN_HEIGHT = 160  # of the panels of figure 2b
PAPER = 255  # where a donor has no such modality


def figure_2a(insertion: Insertion) -> np.ndarray:
    """Returns uint8 [H, W, 3]: background, the donor's slice with the tumour's outline, two composites."""
    record, donor = insertion.record, insertion.donor
    images = [insertion.background, insertion.composite("paste"), insertion.composite("feather")]
    rows = []
    for c, channel in enumerate(record.channels):
        white = _white(images[0][..., c], images[1][..., c])
        first, *composites = (geometry.upright(_panel(image[..., c], white), record.details) for image in images)
        rows.append((channel, [first, _donor_panel(insertion, modality(channel), first.shape[:2]), *composites]))
    return pictures.grid(rows, ["background", f"donor {donor.id}"[:32], "naive paste", "feather"])


def figure_2b(insertion: Insertion, results: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns uint8 [H, W, 3]: the background and each result by its name, [H, W, C] on its grid, around the brain."""
    record, background = insertion.record, insertion.background
    part = _around(background)
    shown = [image[part] for image in (background, *results.values())]
    rows = []
    for c, channel in enumerate(record.channels):
        white = _white(shown[0][..., c], insertion.composite("paste")[part][..., c])
        panels = [geometry.upright(_panel(image[..., c], white), record.details) for image in shown]
        factor = max(1, -(-MIN_HEIGHT // panels[0].shape[0]))
        rows.append((channel, [panel.repeat(factor, 0).repeat(factor, 1) for panel in panels]))
    names = [name.replace("start_0", "start ").replace("start_", "start ") for name in results]
    return pictures.grid(rows, ["background", *names])


def _donor_panel(insertion: Insertion, channel: str, size: tuple[int, int]) -> np.ndarray:
    """The donor's slice at another size, outlined; turned as the background is where it does not say how."""
    donor = insertion.donor
    if channel not in donor.channels:
        return np.full((*size, 3), PAPER, np.uint8)
    turn = donor.details if donor.details.get("upright") else insertion.record.details
    values = donor.image[..., donor.channels.index(channel)].astype(np.float64)
    unit = np.clip(values, 0, None) / max(float(values.max()), 1e-9) * 2 - 1
    image = resize_to(geometry.upright(unit[..., None], turn), size)[..., 0]
    mask = geometry.upright((donor.labels > 0)[..., None], turn)[..., 0]
    mask = mask_at(mask, size)
    panel = np.repeat(_panel(image, _white(image)), 3, -1)
    panel[ndimage.binary_dilation(mask) & ~mask] = OUTLINE
    return panel


def _around(background: np.ndarray) -> tuple[slice, slice]:
    """The part of an image [H, W, C] in [-1, 1] that is not black, with a pixel around it."""
    seen = (background > -1).any(-1)
    if not seen.any():
        return slice(None), slice(None)
    (box,) = ndimage.find_objects(seen.astype(np.uint8))
    return slice(max(box[0].start - 1, 0), box[0].stop + 1), slice(max(box[1].start - 1, 0), box[1].stop + 1)


def _white(*planes: np.ndarray) -> float:
    """What is to be shown as white, in [-1, 1]."""
    seen = np.concatenate([plane[plane > -1] for plane in planes])
    return max(float(np.percentile(seen, BRIGHTEST)) if seen.size else 1.0, -0.99)


def _panel(plane: np.ndarray, white: float) -> np.ndarray:
    return pictures.to_uint8((plane[..., None] + 1) / (white + 1) * 2 - 1)
