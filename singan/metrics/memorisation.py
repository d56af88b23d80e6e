"""Whether samples are new or copies: how far they are from the training image, and their patches from its patches.

Fidelity is best for copies, so it is never reported without these. A patch counts as copied where
  1. its nearest training patch is nearer than COPY_RATIO times as far as that patch is from the nearest one elsewhere
     in the training image (sharing no pixel): nearer than two places of this texture are to each other, and
  2. at least two of the patches above, below, left and right of it have their nearest patch in the same displacement,
     to a pixel: a piece has been moved as a whole, and not put together from similar places.
Patches whose nearest training patch has its like elsewhere (within ALIKE: background, plain areas, exact repetition)
cannot be told to be copied or not, and are left out of the share.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from singan.metrics.patches import PATCH, NearestPatches, nearest_patches, own_distances, patch_grid
from singan.metrics.values import Undefined, Value, check_images
from singan.shapes import Array, Bool, Float

DEFINITIONS = {
    "rmse": "root mean squared difference of sample and training image, in units of the [-1, 1] range; 0 for copies",
    "nearest_patch": "distance of a sample's patches to their nearest training patch (root mean squared difference, in"
    " units of the [-1, 1] range), averaged over patches; 0 for copies",
    "nearest_patch_ratio": "nearest_patch divided by the same of the training image's own patches to patches elsewhere"
    " in it; 0 for copies, 1 for what is as new as another part of the same image",
    "copied": "share of patches, among those that have no like elsewhere in the training image, that are nearer than"
    " half that patch's distance to the rest of the image, and displaced like two of their neighbours; 1 for copies",
}

COPY_RATIO = 0.5
ALIKE = 2 / 127.5  # root mean squared difference: two grey levels of 8 bits
COMPARISONS = 1e9  # of patches: about a second and a half on two CPU cores for 7x7 patches of three channels


def memorisation(samples: Any, image: Any, size: int = PATCH, stride: int | None = None) -> list[dict[str, Value]]:
    """Returns for each sample `rmse`, `nearest_patch`, `nearest_patch_ratio` and `copied`; see DEFINITIONS.

    Args:
      samples: [n, H, W, C] in [-1, 1].
      image: [h, w, C] in [-1, 1], the training image; where its size differs, rmse is undefined.
      size: of the patches, in pixels along a side.
      stride: in pixels. A sample's patches are taken every `stride` pixels; the training image's are all searched.
        None for the least one that needs no more than COMPARISONS, at most `size`, so that every pixel has its part.

    Raises:
      UserError: see check_images.
    """
    samples, image = check_images(samples, image)
    if samples.shape[1:] == image.shape:
        rmse: list[Value] = [float(value) for value in np.asarray(rmse_to_image(samples, image))]
    else:
        rmse = [Undefined("the samples are not of the training image's size")] * len(samples)
    if not all((*patch_grid(samples.shape[1:3], size), *patch_grid(image.shape[:2], size))):
        small = Undefined(f"an image smaller than a patch of {size}x{size} pixels")
        return [
            {"rmse": value, "nearest_patch": small, "nearest_patch_ratio": small, "copied": small} for value in rmse
        ]
    stride = stride or chosen_stride(samples.shape, image.shape, size)
    nearest = nearest_patches(samples, image, size, stride)
    own = own_distances(image, size, stride)
    copied, judged = (np.asarray(each) for each in copied_patches(nearest, own, stride))
    baseline = own_distance(own)
    if baseline == 0:
        baseline = Undefined("every patch of the training image is repeated elsewhere in it")
    unjudged = Undefined("all patches have their like elsewhere in the training image, or nothing to compare with")
    rows: list[dict[str, Value]] = []
    for number, distances in enumerate(np.asarray(nearest.distance)):
        distance = float(distances.mean(dtype=np.float64))
        rows.append(
            {
                "rmse": rmse[number],
                "nearest_patch": distance,
                "nearest_patch_ratio": baseline if isinstance(baseline, Undefined) else distance / baseline,
                "copied": float(copied[number].sum() / judged[number].sum()) if judged[number].any() else unjudged,
            }
        )
    return rows


@jax.jit
def rmse_to_image(samples: Float[Array, "n h w c"], image: Float[Array, "h w c"]) -> Float[Array, "n"]:
    """Returns the root mean squared difference of each sample to the image, in units of the [-1, 1] range."""
    return jnp.sqrt(jnp.mean(jnp.square(samples - image), axis=(1, 2, 3)))


def own_distance(own: Float[Array, "gh gw"]) -> Value:
    """Returns the mean of own_distances over the patches that have one: the held-out baseline of nearest_patch."""
    own = np.asarray(own, np.float64)
    finite = np.isfinite(own)
    if not finite.any():
        return Undefined("a training image too small to have patches that share no pixel")
    return float(own[finite].mean())


def chosen_stride(samples: tuple[int, ...], image: tuple[int, ...], size: int = PATCH) -> int:
    """Returns the least stride at which samples [n, H, W, C] and the image [h, w, C] itself need COMPARISONS at most.

    1 for 16 samples of 56x56 pixels, 7 for 16 of 256x256; never more than `size`, whatever that costs.
    """
    searched = np.prod(patch_grid(image[:2], size), dtype=float)
    for stride in range(1, size):
        of_sample, of_image = (np.prod(patch_grid(shape, size, stride)) for shape in (samples[1:3], image[:2]))
        if (samples[0] * of_sample + of_image) * searched <= COMPARISONS:
            return stride
    return size


@partial(jax.jit, static_argnames="stride")
def copied_patches(
    nearest: NearestPatches, own: Float[Array, "gh gw"], stride: int
) -> tuple[Bool[Array, "n hh ww"], Bool[Array, "n hh ww"]]:
    """Returns which patches of the samples are copied, and which can be judged at all; see the head of this file.

    Args:
      nearest: of the samples' patches.
      own: own_distances of the training image, at the same stride; the nearest patch's is taken from the entry next
        to it.
      stride: in pixels.
    """
    row, column = (
        jnp.clip((place + stride // 2) // stride, 0, side - 1)
        for place, side in zip((nearest.row, nearest.column), own.shape, strict=True)
    )
    elsewhere = own[row, column]
    judged = jnp.isfinite(elsewhere) & (elsewhere > ALIKE)
    near = nearest.distance <= COPY_RATIO * elsewhere
    rows, columns = nearest.distance.shape[1:]
    down = nearest.row - stride * jnp.arange(rows)[:, None]
    across = nearest.column - stride * jnp.arange(columns)
    vertical = _alike(down[:, 1:], down[:, :-1]) & _alike(across[:, 1:], across[:, :-1])
    horizontal = _alike(down[..., 1:], down[..., :-1]) & _alike(across[..., 1:], across[..., :-1])
    agreeing = sum(
        jnp.pad(same.astype(jnp.int32), ((0, 0), *padding))
        for same, padding in (
            (vertical, ((1, 0), (0, 0))),
            (vertical, ((0, 1), (0, 0))),
            (horizontal, ((0, 0), (1, 0))),
            (horizontal, ((0, 0), (0, 1))),
        )
    )
    needed = min(rows - 1, 1) + min(columns - 1, 1)  # at the end of a strip of patches there is one neighbour only
    return judged & near & (agreeing >= needed), judged


def _alike(a: Array, b: Array) -> Array:
    return jnp.abs(a - b) <= 1
