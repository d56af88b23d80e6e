"""Where a tumour goes: cut out by its segmentation, turned, and put where all of it lies inside the brain.

NumPy and SciPy alone; whatever is random comes from the generator that is handed in. Images are [H, W, C] in their own
values, labels uint8 [H, W] with 0 where there is no tumour, masks bool [H, W].
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage, signal

GAP = 3  # pixels: pieces of a tumour nearer than twice that belong together
SHRINK = 0.85  # by how much a tumour that fits nowhere is made smaller before it is tried again
SMALLEST = 0.4  # of the donor's size


class NoRoom(Exception):
    """A tumour fits nowhere; the text says why."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """How a tumour is turned: mirrored along its first axis, rotated by degrees, then scaled about its centre."""

    rotation: float
    flip: bool
    scale: float


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """A turned tumour and where it lies.

    Attributes:
      corner: row and column, in the background, of pixel (0, 0) of the arrays below.
      image: float64 [h, w, C], the donor's values, turned; tissue around the tumour included.
      labels: uint8 [h, w].
      mask: bool [h, w], what is pasted: the tumour and what it encloses.
      places: at how many positions it would have fitted.
    """

    turn: Turn
    corner: tuple[int, int]
    image: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    places: int

    @property
    def window(self) -> tuple[slice, slice]:
        """The part of the background that the arrays lie over."""
        return tuple(slice(at, at + size) for at, size in zip(self.corner, self.mask.shape, strict=True))  # type: ignore[return-value]


def brain_mask(outside: np.ndarray, margin: float) -> np.ndarray:
    """Returns the brain, bool [H, W]: the largest piece of what is not outside, holes filled, eroded.

    Args:
      outside: bool [H, W], where every modality holds its background value.
      margin: pixels that the brain is eroded by; what lies beyond the image's border counts as outside too.
    """
    if outside.all():
        return np.zeros(outside.shape, bool)
    filled = np.asarray(ndimage.binary_fill_holes(_largest(~outside, ~outside)))
    return np.asarray(ndimage.distance_transform_edt(np.pad(filled, 1)))[1:-1, 1:-1] > margin


def tumour_mask(labels: np.ndarray) -> np.ndarray:
    """Returns the largest tumour of a segmentation, what it encloses included; other pieces nearby belong to it."""
    tumour = labels > 0
    if not tumour.any():
        raise NoRoom("its segmentation is empty")
    near = np.asarray(ndimage.distance_transform_edt(~tumour)) <= GAP
    return np.asarray(ndimage.binary_fill_holes(_largest(near, tumour)))


def _largest(joined: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Returns the pixels of `counted` in that piece of `joined` that has most of them; bool [H, W] all three."""
    pieces: Any = np.zeros(joined.shape, np.int32)
    ndimage.label(joined, output=pieces)  # by edges alone: what touches at a corner is another piece
    sizes = np.bincount(pieces[counted])
    return counted & (pieces == sizes.argmax())


def turned(
    image: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    turn: Turn,
    spacing: Sequence[float] = (1.0, 1.0),
    new_spacing: Sequence[float] = (1.0, 1.0),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns image, labels and mask turned, cut to the mask's bounding box; that may be empty.

    Values are interpolated by cubic splines and clipped to the donor's own, labels taken from the nearest pixel.

    Args:
      spacing: mm between the donor's rows and columns, in which rotations and sizes are meant.
      new_spacing: the same of the background.
    """
    rows, columns = np.nonzero(mask)
    # A pixel, so that quarter turns and mirror images take pixels to pixels and blur nothing.
    centre = np.array([rows.min() + rows.max(), columns.min() + columns.max()]) // 2
    radius = np.sqrt(np.square((np.stack([rows, columns], 1) - centre) * spacing).sum(1).max())
    half = np.ceil(radius * turn.scale / np.asarray(new_spacing)).astype(int) + 1
    angle = np.deg2rad(turn.rotation)
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    if turn.flip:
        back = np.diag([-1.0, 1.0]) @ back
    matrix = np.diag(1 / np.asarray(spacing)) @ back @ np.diag(new_spacing) / turn.scale
    where = {"matrix": matrix, "offset": centre - matrix @ half, "output_shape": tuple(2 * half + 1)}
    new_mask = ndimage.affine_transform(mask.astype(np.uint8), order=0, **where) > 0
    new_labels = ndimage.affine_transform(np.where(mask, labels, 0).astype(np.uint8), order=0, **where)
    planes = []
    for channel in np.moveaxis(image.astype(np.float64), -1, 0):
        plane = ndimage.affine_transform(channel, order=3, mode="nearest", **where)
        planes.append(np.clip(plane, channel.min(), channel.max()))  # splines overshoot at edges
    box = ndimage.find_objects(new_mask.astype(np.uint8))
    box = box[0] if box else (slice(0), slice(0))
    return np.stack(planes, -1)[box], new_labels[box], new_mask[box]


def positions(mask: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Returns bool [rows, columns]: with its corner at which pixels the mask [h, w] lies in `allowed` [H, W] alone."""
    if not mask.any() or any(small > large for small, large in zip(mask.shape, allowed.shape, strict=True)):
        return np.zeros((0, 0), bool)
    beyond = signal.correlate((~allowed).astype(np.float64), mask.astype(np.float64), "valid", "fft")
    return beyond < 0.5  # counts of pixels, but for rounding


def place(
    image: np.ndarray,
    labels: np.ndarray,
    allowed: np.ndarray,
    turn: Turn,
    rng: np.random.Generator,
    least_pixels: int = 1,
    spacing: Sequence[float] = (1.0, 1.0),
    new_spacing: Sequence[float] = (1.0, 1.0),
) -> Placed:
    """Returns the tumour of a donor, turned, at a position that is uniform among those where it fits.

    Where there is none, it is made smaller step by step.

    Args:
      image, labels: of the whole donor slice.
      allowed: bool [H, W], where tumour may lie in the background.
      least_pixels: below which it is no tumour any more.

    Raises:
      NoRoom: it does not fit even at the smallest size.
    """
    if not allowed.any():
        raise NoRoom("the background shows no brain to put it in")
    mask = tumour_mask(labels)
    smaller = turn
    while True:
        new_image, new_labels, new_mask = turned(image, labels, mask, smaller, spacing, new_spacing)
        if new_mask.sum() < least_pixels:
            raise NoRoom(f"at scale {smaller.scale:.2f} only {int(new_mask.sum())} pixels of it are left")
        corners = np.argwhere(positions(new_mask, allowed))
        if len(corners):
            row, column = corners[rng.integers(len(corners))].tolist()
            return Placed(smaller, (row, column), new_image, new_labels, new_mask, len(corners))
        if smaller.scale * SHRINK < SMALLEST:
            raise NoRoom(
                f"{int(new_mask.sum())} pixels at scale {smaller.scale:.2f} fit nowhere into a brain of"
                f" {int(allowed.sum())}"
            )
        smaller = dataclasses.replace(smaller, scale=smaller.scale * SHRINK)
