"""Where a slice lies in the patient, how it is shown upright, and bringing samples back to its own grid."""

from collections.abc import Mapping
from typing import Any

import numpy as np

MIN_VOLUME = 1e-3  # of the box that three axes of length 1 span; less is a plane or a line
# Pictures show slices as radiologists look at them: rows run down to the feet, or to the back; columns run to the back,
# or to the patient's left, so that the patient's right is on the left.
SHOWN_TOWARDS = "IPL"
ROWS_FIRST = {"S": 0, "I": 0, "A": 1, "P": 1, "L": 2, "R": 2}  # which of two axes runs down the picture


def axis_codes(affine: np.ndarray) -> tuple[Any, ...]:
    """Returns the direction of each axis in the patient, a letter of RLAPSI, or None for an axis of length 0."""
    from nibabel import aff2axcodes  # here and not above: it takes a while, and most images have no affine

    return aff2axcodes(affine)


def slice_affine(affine: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Returns the affine [4, 4] of the slice at `index` along `axis` of a volume with `affine`.

    Its voxel (i, j, 0) is where it was; its axes are the volume's two others, in their order, and then `axis`.
    """
    order = [*(other for other in range(3) if other != axis), axis]
    result = np.array(affine[:, [*order, 3]], np.float64)
    result[:, 3] = affine[:, 3] + index * affine[:, axis]
    return result


def completed(affine: np.ndarray, flat: bool) -> np.ndarray | None:
    """Returns an affine [4, 4] whose three axes span space, or None where they do not.

    Args:
      flat: whether the image is one slice: a third axis of length 0 then becomes the normal of the two others, 1 mm
        long, as nothing says how thick the slice is.
    """
    axes = np.array(affine[:3, :3], np.float64)
    lengths = np.linalg.norm(axes, axis=0)
    result = np.array(affine, np.float64)
    if flat and lengths[2] == 0 and lengths[0] and lengths[1]:
        normal = np.cross(axes[:, 0] / lengths[0], axes[:, 1] / lengths[1])
        result[:3, 2] = normal / max(np.linalg.norm(normal), np.finfo(float).tiny)
        axes, lengths = result[:3, :3], np.linalg.norm(result[:3, :3], axis=0)
    if not lengths.all() or abs(np.linalg.det(axes / lengths)) < MIN_VOLUME:
        return None
    return result


def of_slice(affine: np.ndarray) -> dict[str, Any]:
    """Returns what is recorded of a slice's place: 'affine', 'spacing' in mm, 'orientation' of its axes, 'upright'.

    Args:
      affine: [4, 4], voxel (row, column, 0) to world in mm.
    """
    codes = axis_codes(affine)
    known = all(codes[:2])  # an axis of length 0 has no direction
    transpose = known and ROWS_FIRST[codes[1]] < ROWS_FIRST[codes[0]]
    shown = (codes[1], codes[0]) if transpose else codes[:2]
    return {
        "affine": np.asarray(affine, np.float64).tolist(),
        "spacing": np.linalg.norm(affine[:3, :3], axis=0).tolist(),
        "orientation": "".join(code or "?" for code in codes),
        "upright": {"transpose": transpose, "flip": [known and code not in SHOWN_TOWARDS for code in shown]},
    }


def upright(image: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Returns an image [..., H, W, C] turned for being looked at, as its record's details say; a view."""
    turn = details.get("upright")
    if not turn:
        return image
    if turn["transpose"]:
        image = np.swapaxes(image, -3, -2)
    for axis, flipped in zip((-3, -2), turn["flip"], strict=True):
        if flipped:
            image = np.flip(image, axis)
    return image
