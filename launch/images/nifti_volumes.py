"""NIfTI volumes: which slice is taken, where it lies, and a mask brought onto its image's grid."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from launch.images import geometry, size_limits
from launch.images.picture import GREY, MAX_CHANNELS, Picture
from singan.errors import UserError

LARGEST_PLACE = 1e9  # mm: farther from the origin is no place of a patient
FORMS = ("qform", "sform")
SAME_PLACE = 0.1  # voxels that two grids may lie apart and still be one
BORDER_SHARE = 0.5  # of a volume's border voxels that must hold one value for it to be the background


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """What a NIfTI file holds.

    Attributes:
      voxels: [X, Y, Z, C], Z and C of at least 1.
      affine: float64 [4, 4], voxel to world in mm; where the file says nothing, what nibabel makes of the voxels' size.
      forms: as Picture has them, of the volume.
      flat: whether the file holds a two-dimensional image.
    """

    voxels: np.ndarray
    affine: np.ndarray
    forms: Mapping[str, Any]
    flat: bool

    @property
    def axis(self) -> int:
        """The axis that slices are taken along: of a single slice the one it was cut along, else foot to head."""
        shape = self.voxels.shape[:3]
        if 1 in shape:
            return 2 if shape[2] == 1 else shape.index(1)
        return next((i for i, code in enumerate(geometry.axis_codes(self.affine)) if code in ("S", "I")), 2)

    @property
    def count(self) -> int:
        """How many slices it has."""
        return self.voxels.shape[self.axis]


def open_volume(path: Path, channels: int = 1) -> Volume:
    """Returns the volume of a file.

    Args:
      channels: how many volumes the fourth axis may hold, as the channels of one image; 0: up to MAX_CHANNELS.

    Raises:
      UserError: it holds a series of volumes, or says that it lies nowhere in space.
    """
    from nibabel.spatialimages import HeaderDataError  # here and not above: most images are no NIfTI files

    image = size_limits.open_nifti(path)
    shape = image.shape
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 5 and shape[3] == 1:  # as vectors are stored
        shape = (*shape[:3], shape[4])
    if len(shape) == 4 and shape[3] != channels and not (channels == 0 and shape[3] <= MAX_CHANNELS):
        raise UserError(
            f"an array of 4 dimensions {shape}: save one volume a file; where the last axis holds the channels of one"
            " image, say so with --config.data.layout=hwc"
        )
    if not 2 <= len(shape) <= 4:
        raise UserError(f"an array of {len(shape)} dimensions {shape}: save one volume a file")
    voxels = np.asanyarray(image.dataobj).reshape(*shape[:3], *(1,) * (3 - len(shape)), math.prod(shape[3:]))
    flat, forms = voxels.shape[2] == 1, {}
    for form in FORMS:
        # A form that cannot be used is as good as none, where the other one can.
        with contextlib.suppress(HeaderDataError, UserError):
            matrix, code = getattr(image.header, f"get_{form}")(coded=True)
            if code:
                forms[form] = {"code": int(code), "affine": _usable(np.asarray(matrix, np.float64), flat).tolist()}
    return Volume(voxels, _usable(np.asarray(image.affine, np.float64), flat), forms, len(shape) == 2)


def _usable(affine: np.ndarray, flat: bool) -> np.ndarray:
    if not np.isfinite(affine).all() or np.abs(affine).max() > LARGEST_PLACE:
        raise UserError("its affine has infinite or impossible values: save it again with a right one")
    whole = geometry.completed(affine, flat)
    if whole is None:
        raise UserError("its affine makes a plane or a line of a volume: save it again with a right one")
    return whole


def fullest(volume: Volume, marked: np.ndarray | None = None) -> int:
    """Returns the index of the slice along volume.axis with the most foreground; on a tie, the one nearest the middle.

    A voxel is foreground where it differs from the value that most of the volume's border has (0 if none prevails).

    Args:
      marked: bool [number of slices], the slices to choose from; None for all.
    """
    slices = np.moveaxis(volume.voxels, volume.axis, 0)
    background = _border_values(volume.voxels)
    filled = np.array([np.count_nonzero(one != background) for one in slices])
    if marked is not None:
        filled[~marked] = -1
    most = np.flatnonzero(filled == filled.max())
    return int(most[np.abs(most - (len(slices) - 1) / 2).argmin()])


def _border_values(voxels: np.ndarray) -> np.ndarray:
    """Returns [C]: what most of the outermost voxels hold, in axes that have an inside; 0 where there is no such."""
    inside = tuple(slice(1, -1) if side > 2 else slice(None) for side in voxels.shape[:3])
    border = np.ones(voxels.shape[:3], bool)
    border[inside] = False
    border_values = np.zeros(voxels.shape[3], voxels.dtype)
    if voxels.dtype.kind not in "buif" or not border.any():
        return border_values
    for c in range(voxels.shape[3]):
        values, counts = np.unique(voxels[border, c], return_counts=True)
        if counts.max() >= BORDER_SHARE * border.sum():
            border_values[c] = values[counts.argmax()]
    return border_values


def slice_of(volume: Volume, index: int) -> Picture:
    """Returns one slice. Rows and columns are the remaining axes in their order, so that it can be put back."""
    axis = volume.axis
    part = [":", ":", ":"]
    part[axis] = str(index)
    pixels = np.take(volume.voxels, index, axis)
    placed = {
        form: {**orientation, "affine": geometry.slice_affine(np.asarray(orientation["affine"]), axis, index).tolist()}
        for form, orientation in volume.forms.items()
    }
    affine = geometry.slice_affine(volume.affine, axis, index)
    name = "" if volume.flat else f"[{', '.join(part)}]"
    return Picture(pixels, GREY if pixels.shape[-1] == 1 else None, name, affine, placed)


def on_grid_of(mask: Volume, image: Volume, mask_name: str, image_name: str) -> Volume:
    """Returns a mask in the order of its image's axes, which may be stored otherwise; no voxel is interpolated.

    Where one of both does not say where it lies, they are taken to be stored alike.

    Raises:
      UserError: they are of different grids.
    """
    from nibabel import orientations

    placed = mask
    if mask.forms and image.forms and not together(mask, image):
        turn = orientations.ornt_transform(
            orientations.io_orientation(mask.affine), orientations.io_orientation(image.affine)
        )
        affine = mask.affine @ orientations.inv_ornt_aff(turn, mask.voxels.shape[:3])
        placed = dataclasses.replace(mask, voxels=orientations.apply_orientation(mask.voxels, turn), affine=affine)
        if placed.voxels.shape[:3] == image.voxels.shape[:3] and not together(placed, image):
            raise UserError(
                f"the mask {mask_name} lies elsewhere than {image_name}, as their affines say: resample it onto that"
                " image's grid, or give both the same affine"
            )
    if placed.voxels.shape[:3] != image.voxels.shape[:3]:
        shapes = ["x".join(map(str, one.voxels.shape[:3])) for one in (mask, image)]
        raise UserError(
            f"the mask {mask_name} is {shapes[0]} voxels, its image {image_name} {shapes[1]}: give both on one grid"
        )
    return placed


def together(one: Volume, other: Volume) -> bool:
    """Returns whether the corners of two volumes lie at the same places, less SAME_PLACE of a voxel."""
    shape = one.voxels.shape[:3]
    if shape != other.voxels.shape[:3]:
        return False
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape) - 1)
    apart = (one.affine - other.affine) @ np.c_[corners, np.ones(8)].T
    return bool(np.abs(apart[:3]).max() <= SAME_PLACE * np.linalg.norm(other.affine[:3, :3], axis=0).min())
