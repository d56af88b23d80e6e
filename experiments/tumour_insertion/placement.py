"""Where a tumour goes: cut out by its segmentation, turned, and put inside the brain, off ventricles and wide sulci.

NumPy and SciPy alone; whatever is random comes from the generator that is handed in. Images are [H, W, C] in their own
values, labels uint8 [H, W] with 0 where there is no tumour, masks bool [H, W].
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, signal

from launch.images.brain import largest_piece

AROUND = 12  # pixels of the donor's slice that come along on every side of its tumour
GAP = 3  # pixels: pieces of a tumour nearer than twice that belong together
SHRINK = 0.85  # by how much a tumour that fits nowhere is made smaller before it is tried again
SMALLEST = 0.4  # of the donor's size
MAX_FLUID = 0.03  # share of a tumour that may lie over fluid: a sulcus here and there


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
      corner: row and column, in the background, of pixel (0, 0) of the arrays below, which hold the tumour with up to
        AROUND pixels on every side, as many as the background has there.
      image: float64 [h, w, C], the donor's values, turned.
      brain: bool [h, w], where these are the donor's brain.
      labels: uint8 [h, w].
      mask: bool [h, w], what is pasted: the tumour and what it encloses.
      places: at how many positions it would have fitted.
      over_fluid: share of the mask that lies over fluid of the background.
    """

    turn: Turn
    corner: tuple[int, int]
    image: np.ndarray
    brain: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    places: int
    over_fluid: float

    @property
    def window(self) -> tuple[slice, slice]:
        """The part of the background that the arrays lie over."""
        return tuple(slice(at, at + size) for at, size in zip(self.corner, self.mask.shape, strict=True))  # type: ignore[return-value]


def tumour_mask(labels: np.ndarray, take: np.ndarray | None = None) -> np.ndarray:
    """Returns the largest tumour of a segmentation, what it encloses included; other pieces nearby belong to it.

    Args:
      take: bool [H, W], what of it may be taken: off the brain's rim. None: everything.
    """
    tumour = labels > 0
    if not tumour.any():
        raise NoRoom("its segmentation is empty")
    near = np.asarray(ndimage.distance_transform_edt(~tumour)) <= GAP
    mask = np.asarray(ndimage.binary_fill_holes(largest_piece(near, tumour)))
    mask = mask if take is None else mask & take
    if not mask.any():
        raise NoRoom("it lies at the brain's rim alone")
    return mask


def turned(
    image: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    turn: Turn,
    spacing: Sequence[float] = (1.0, 1.0),
    new_spacing: Sequence[float] = (1.0, 1.0),
    brain: np.ndarray | None = None,
    around: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns image, labels, mask and brain turned, cut to the mask's bounding box and `around` it; that may be empty.

    Values are interpolated by cubic splines and clipped to the donor's own, labels taken from the nearest pixel.

    Args:
      spacing: mm between the donor's rows and columns, in which rotations and sizes are meant.
      new_spacing: the same of the background.
      brain: bool [H, W], the donor's; None: all of its slice. What lies beyond the slice is none.
    """
    rows, columns = np.nonzero(mask)
    # A pixel, so that quarter turns and mirror images take pixels to pixels and blur nothing.
    centre = np.array([rows.min() + rows.max(), columns.min() + columns.max()]) // 2
    radius = np.sqrt(np.square((np.stack([rows, columns], 1) - centre) * spacing).sum(1).max())
    half = np.ceil(radius * turn.scale / np.asarray(new_spacing)).astype(int) + 1 + around
    angle = np.deg2rad(turn.rotation)
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    if turn.flip:
        back = np.diag([-1.0, 1.0]) @ back
    matrix = np.diag(1 / np.asarray(spacing)) @ back @ np.diag(new_spacing) / turn.scale
    where = {"matrix": matrix, "offset": centre - matrix @ half, "output_shape": tuple(2 * half + 1)}

    def nearest(plane: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.affine_transform(plane.astype(np.uint8), order=0, **where))

    new_mask = nearest(mask) > 0
    new_labels = nearest(np.where(mask, labels, 0))
    new_brain = nearest(np.ones(mask.shape) if brain is None else brain | mask) > 0
    planes = []
    for channel in np.moveaxis(image.astype(np.float64), -1, 0):
        plane = ndimage.affine_transform(channel, order=3, mode="nearest", **where)
        planes.append(np.clip(plane, channel.min(), channel.max()))  # splines overshoot at edges
    box = ndimage.find_objects(new_mask.astype(np.uint8))
    box = tuple(slice(s.start - around, s.stop + around) for s in box[0]) if box else (slice(0), slice(0))
    return np.stack(planes, -1)[box], new_labels[box], new_mask[box], new_brain[box]


def positions(mask: np.ndarray, allowed: np.ndarray, fluid: np.ndarray | None = None) -> np.ndarray:
    """Returns bool [rows, columns]: with its corner at which pixels the mask [h, w] lies in `allowed` [H, W] alone.

    Args:
      fluid: bool [H, W], what it may cover by MAX_FLUID of itself only.
    """
    if not mask.any() or any(small > large for small, large in zip(mask.shape, allowed.shape, strict=True)):
        return np.zeros((0, 0), bool)

    def covered(of: np.ndarray) -> np.ndarray:  # counts of pixels, but for rounding
        return np.asarray(signal.correlate(of.astype(np.float64), mask.astype(np.float64), "valid", "fft"))

    free = covered(~allowed) < 0.5
    return free if fluid is None else free & (covered(fluid) < MAX_FLUID * mask.sum() + 0.5)


def place(
    image: np.ndarray,
    labels: np.ndarray,
    allowed: np.ndarray,
    turn: Turn,
    rng: np.random.Generator,
    least_pixels: int = 1,
    spacing: Sequence[float] = (1.0, 1.0),
    new_spacing: Sequence[float] = (1.0, 1.0),
    fluid: np.ndarray | None = None,
    take: np.ndarray | None = None,
    brain: np.ndarray | None = None,
) -> Placed:
    """Returns the tumour of a donor, turned, at a position that is uniform among those where it fits.

    Where there is none, it is made smaller step by step.

    Args:
      image, labels: of the whole donor slice.
      allowed: bool [H, W], where tumour may lie in the background.
      least_pixels: below which it is no tumour any more.
      fluid: bool [H, W], the background's, which is avoided (MAX_FLUID).
      take: bool, of the donor slice, what of a tumour may be taken: off the brain's rim. None: everything.
      brain: bool, of the donor slice, what is brain around its tumour. None: everything.

    Raises:
      NoRoom: it does not fit even at the smallest size.
    """
    if not allowed.any():
        raise NoRoom("the background shows no brain to put it in")
    mask = tumour_mask(labels, take)
    smaller = turn
    while True:
        arrays = turned(image, labels, mask, smaller, spacing, new_spacing, brain, AROUND)
        new_mask = arrays[2][AROUND:-AROUND, AROUND:-AROUND]
        if new_mask.sum() < least_pixels:
            raise NoRoom(f"at scale {smaller.scale:.2f} only {int(new_mask.sum())} pixels of it are left")
        corners = np.argwhere(positions(new_mask, allowed, fluid))
        if len(corners):
            row, column = corners[rng.integers(len(corners))].tolist()
            return _at(smaller, (row, column), arrays, len(corners), allowed.shape, fluid)
        if smaller.scale * SHRINK < SMALLEST:
            raise NoRoom(
                f"{int(new_mask.sum())} pixels at scale {smaller.scale:.2f} fit nowhere into a brain of"
                f" {int(allowed.sum())}"
            )
        smaller = dataclasses.replace(smaller, scale=smaller.scale * SHRINK)


def _at(
    turn: Turn,
    corner: tuple[int, int],
    arrays: tuple[np.ndarray, ...],
    places: int,
    shape: tuple[int, ...],
    fluid: np.ndarray | None,
) -> Placed:
    """The tumour with its box at a corner; of what comes along around it, what lies within the background."""
    first = [at - AROUND for at in corner]
    inside = tuple(
        slice(max(-at, 0), min(size, length - at))
        for at, size, length in zip(first, arrays[2].shape, shape, strict=True)
    )
    image, labels, mask, brain = (array[inside] for array in arrays)
    row, column = (max(at, 0) for at in first)
    placed = Placed(turn, (row, column), image, brain, labels, mask, places, 0.0)
    over = 0.0 if fluid is None else float(fluid[placed.window][mask].mean())
    return dataclasses.replace(placed, over_fluid=over)
