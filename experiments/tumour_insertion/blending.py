"""How a donor's tumour is put over a background: cut along its mask, faded out, or by its gradients.

NumPy and SciPy alone. Images are [h, w, C] in [-1, 1]: `donor` the donor's matched values, `background` what is there;
masks are bool [h, w].
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage, sparse, special
from scipy.sparse import linalg

from singan.metrics.seams import contour_step, contrasts, seam_energy, signed_distance

METHODS = ("paste", "feather", "poisson")
WIDTHS = (0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0)  # pixels, of which Feather's width is chosen where it is not given
EDGES = (0.0, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)  # and its edge
NEAR = 0.1  # of 1: a step within this of the donor's own is as sharp
MIN_KEPT = 0.9  # share of the pasted tumour's contrast that the chosen feather keeps, where one does
RING = 6  # pixels around the mask that Poisson blending solves for too


@dataclasses.dataclass(frozen=True)
class Feather:
    """How a tumour fades out.

    Attributes:
      width: pixels, the standard deviation of the Gaussian that softens its edge.
      edge: pixels outside the tumour's contour at which donor and background have equal shares.
    """

    width: float
    edge: float = 0.0


def choices(width: float | None = None, edge: float | None = None) -> list[Feather]:
    """Returns the feathers to choose among: all of WIDTHS and EDGES, but for what is given."""
    edges, widths = EDGES if edge is None else (edge,), WIDTHS if width is None else (width,)
    return [Feather(one, each) for each in edges for one in widths]


def contrast_kept(made: np.ndarray, pasted: np.ndarray, background: np.ndarray, mask: np.ndarray) -> float:
    """Returns how much of what pasting did to the contrast between inside and surroundings an image keeps.

    Over all channels: 1 all of it, 0 none, as in the background; NaN where pasting did nothing.
    """
    without, before, after = (contrasts(image[None], mask)[0] for image in (background, pasted, made))
    length = float((before - without) @ (before - without))
    return float((before - without) @ (after - without)) / length if length > 0 else float("nan")


def choose_feather(
    background: np.ndarray,
    donor: np.ndarray,
    mask: np.ndarray,
    brain: np.ndarray,
    own: np.ndarray,
    own_step: float,
    among: Sequence[Feather],
) -> Feather:
    """Returns the feather that makes the contour most like that of the donor's tumour in its own brain.

    In this order, and as far as there is one: it keeps MIN_KEPT of the contrast, or as much as there is in the donor's
    own brain; its step over one pixel is NEAR the donor's own; it keeps MIN_KEPT; its seam, over a band of some pixels,
    is the nearest to the donor's.

    Args:
      donor: what is mixed in; see `extended`.
      brain: bool [h, w], the background's.
      own: the donor's own slice.
      own_step: its step (singan.metrics.seams.contour_step).
    """
    if len(among) == 1:
        return among[0]
    pasted = mix(background, donor, mask)
    least = min(MIN_KEPT, contrast_kept(own, pasted, background, mask))
    own_seam = float(seam_energy(own[None], mask)[0])
    scored = []
    for feather in among:
        made = mix(background, donor, feather_weights(mask, brain, feather))
        kept = contrast_kept(made, pasted, background, mask)
        away = abs(contour_step(made, mask) / own_step - 1) if own_step > 0 else 0.0
        rest = abs(float(seam_energy(made[None], mask)[0]) - own_seam)
        scored.append(((kept < least, max(away - NEAR, 0.0), kept < MIN_KEPT, rest), feather))
    return min(scored, key=lambda each: each[0])[1]


def extended(donor: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns the donor's values, each where they are not to be used that of the nearest pixel where they are.

    So what lies beyond the donor's brain fades out as its tumour, not as a dark outline.

    Args:
      known: bool [h, w], the tumour and the brain around it.
    """
    indices: Any = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    rows, columns = indices
    return donor[rows, columns]


def feather_weights(mask: np.ndarray, brain: np.ndarray, feather: Feather) -> np.ndarray:
    """Returns the donor's share, float64 [h, w] in [0, 1]: 1/2 at the edge, 0 outside the background's brain."""
    share = special.ndtr((feather.edge - signed_distance(mask)) / feather.width)
    return np.where(mask | brain, share, 0.0)


def mix(background: np.ndarray, donor: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns (1 - weights) * background + weights * donor; the background's very bits where that is 0."""
    share = np.where(weights > 1e-3, weights, 0.0)[..., None]
    mixed = (1 - share) * background.astype(np.float64) + share * donor.astype(np.float64)
    return np.where(share > 0, mixed, background).astype(background.dtype)


def poisson(background: np.ndarray, donor: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Returns the image that has the donor's gradients within a region and the background's values around it.

    Source: Perez, Gangnet, Blake 2003, equation 7: the Laplacian of the donor, Dirichlet boundary of the background.
    A neighbour beyond the arrays' border is left out.
    """
    count = int(region.sum())
    number = np.full(region.shape, -1)
    number[region] = np.arange(count)
    rows, columns = np.nonzero(region)
    values: list[np.ndarray] = []
    right = np.zeros((count, background.shape[-1]))
    links: list[tuple[np.ndarray, np.ndarray]] = []
    neighbours = np.zeros(count)
    for down, across in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        r, c = rows + down, columns + across
        there = (r >= 0) & (r < region.shape[0]) & (c >= 0) & (c < region.shape[1])
        at, r, c = np.flatnonzero(there), r[there], c[there]
        neighbours[at] += 1
        right[at] += donor[rows[at], columns[at]] - donor[r, c]
        inner = region[r, c]
        right[at[~inner]] += background[r[~inner], c[~inner]]
        links.append((at[inner], number[r[inner], c[inner]]))
        values.append(-np.ones(int(inner.sum())))
    system = sparse.coo_array(
        (
            np.concatenate([neighbours, *values]),
            (
                np.concatenate([np.arange(count), *(at for at, _ in links)]),
                np.concatenate([np.arange(count), *(to for _, to in links)]),
            ),
        )
    ).tocsc()
    solve = linalg.factorized(system)
    result = background.copy()
    result[region] = np.stack([solve(column) for column in right.T], -1)
    return result
