"""The study's images: two pieces of stained tissue and one of a fundus photograph, all from scikit-image."""

import numpy as np

from singan.model.pyramid import resize_to

SIDE = 96  # pixels of every image
# (picture of skimage.data, top, left, pixels of a side there): a gland and its lumen, a border of gland and stroma, the
# optic disc with its vessels.
PIECES = {
    "ihc_gland": ("immunohistochemistry", 360, 270, 96),
    "ihc_border": ("immunohistochemistry", 202, 197, 96),
    "fundus_disc": ("retina", 470, 90, 384),
}


def pieces() -> dict[str, np.ndarray]:
    """Returns the images by name, uint8 [SIDE, SIDE, 3]; larger pieces are shrunk with antialiasing."""
    import skimage.data  # imported here: it takes a while

    images = {}
    for name, (picture, top, left, side) in PIECES.items():
        piece = getattr(skimage.data, picture)()[top : top + side, left : left + side]
        small = resize_to(piece / np.float32(127.5) - 1, (SIDE, SIDE))
        images[name] = np.rint((small + 1) * 127.5).astype(np.uint8)
    return images
