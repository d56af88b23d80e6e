"""Bringing an image to any size, on the host."""

import numpy as np

from singan.model.pyramid import resize_matrix


def resize_to(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns an image [..., H, W, C] in [-1, 1] at another size, cubic, clipped, float32 [..., h, w, C].

    An image of that size already is returned as it is. Shrinking antialiases; borders are mirrored.
    """
    if image.shape[-3:-1] == tuple(size):
        return np.asarray(image, np.float32)
    rows, columns = (
        resize_matrix(old, new, new / old, "mirror") for old, new in zip(image.shape[-3:-1], size, strict=True)
    )
    resized = np.einsum("ph,...hwc,qw->...pqc", rows, image.astype(np.float64), columns, optimize=True)
    return np.clip(resized, -1, 1).astype(np.float32)
