"""Other stainings of the same tissue: haematoxylin, eosin and DAB are jittered (Tellez et al. 2018)."""

import numpy as np
from skimage.color import hed2rgb, rgb2hed

from singan.shapes import Array, Float


def jitter_stain(
    image: Float[Array, "h w 3"], rng: np.random.Generator, gain: float = 0.2, offset: float = 0.02
) -> Float[Array, "h w 3"]:
    """Returns the image [H, W, 3] in [0, 1], each stain's density multiplied by 1 +- gain and moved by +- offset.

    Args:
      gain: the largest relative change, drawn evenly for each stain.
      offset: the largest shift, in scikit-image's units of rgb2hed (haematoxylin of nuclei is about 0.1).
    """
    stains = rgb2hed(image)
    gains, offsets = rng.uniform(1 - gain, 1 + gain, 3), rng.uniform(-offset, offset, 3)
    return hed2rgb(stains * gains + offsets).astype(image.dtype)
