"""Inception-v3 as FID uses it (Flax Linen; besides networks.py the only file that imports it), and SIFID on its layers.

The architecture of Szegedy et al. 2015 with the peculiarities of the weights that FID figures are computed with (the
TensorFlow graph of 2015-12-05, in PyTorch's layout as pt_inception-2015-12-05): average pooling does not count the
padding, and the last block pools its maximum where the paper has the mean. Modules bear PyTorch's names, so that
weights map one to one (singan/metrics/inception_weights.py).

    layer   what                                        Inception SIFID of an image at its own size
    64      feature map before the first max pooling    as the first figures of SinGAN's release
    192     feature map before the second max pooling   the paper's choice (Shaham et al. 2019, section 3)
    768     feature map before the auxiliary head
    2048    mean over all positions at the end          FID and KID, images resized to 299x299

SinGAN's release runs these layers with other (torchvision's ImageNet) weights: its figures are of the same kind as
these, but not comparable to the digit. FID's are comparable with pytorch-fid's where images are 8 bit and 3 channels.
"""

import functools
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from singan.errors import UserError
from singan.metrics.frechet import map_frechet
from singan.shapes import Array, Float, PyTree

LAYERS = (64, 192, 768, 2048)
MIN_SIDES = {64: 13, 192: 31, 768: 91, 2048: 75}  # pixels; the maps then have 4 x 4 positions
FID_SIDE = 299


class ConvNorm(nn.Module):
    """Convolution without bias -> normalisation by running statistics -> ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    same: bool = True  # padded with zeros so that (at stride 1) the size stays

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n hh ww o"]:
        x = nn.Conv(
            self.features,
            self.kernel,
            strides=self.stride,
            padding="SAME" if self.same else "VALID",
            use_bias=False,
            precision=lax.Precision.HIGHEST,
            name="conv",
        )(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x))


class Mixed(nn.Module):
    """Branches side by side, their channels joined.

    Attributes:
      branches: chains of (name, features, kernel, stride); a name alone is a convolution of the chain's last output,
        and a tuple of such at the end of a chain forks it.
      pool: 'mean', 'max' or 'shrink' (maximum at stride 2).
      pool_features: of the 1x1 convolution after pooling; 0 for none.
    """

    branches: tuple[tuple, ...]
    pool: str
    pool_features: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n hh ww o"]:
        outputs = []
        for chain in self.branches:
            y = x
            for step in chain:
                if isinstance(step[0], tuple):
                    y = jnp.concatenate([_convolution(*fork)(y) for fork in step], axis=-1)
                else:
                    y = _convolution(*step)(y)
            outputs.append(y)
        if self.pool == "mean":
            pooled = nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)
        elif self.pool == "max":
            pooled = nn.max_pool(x, (3, 3), (1, 1), "SAME")
        else:
            pooled = nn.max_pool(x, (3, 3), (2, 2))
        if self.pool_features:
            pooled = ConvNorm(self.pool_features, name="branch_pool")(pooled)
        return jnp.concatenate([*outputs, pooled], axis=-1)


def _convolution(name: str, features: int, kernel: tuple[int, int] = (1, 1), stride: int = 1) -> ConvNorm:
    return ConvNorm(features, kernel, stride, same=stride == 1, name=name)


def _mixed_a(pool_features: int) -> tuple:
    return (
        (
            (("branch1x1", 64),),
            (("branch5x5_1", 48), ("branch5x5_2", 64, (5, 5))),
            (("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, (3, 3)), ("branch3x3dbl_3", 96, (3, 3))),
        ),
        "mean",
        pool_features,
    )


def _mixed_c(width: int) -> tuple:
    deep = [("branch7x7dbl_1", width)]
    deep += [(f"branch7x7dbl_{i}", width, (7, 1) if i % 2 == 0 else (1, 7)) for i in (2, 3, 4)]
    return (
        (
            (("branch1x1", 192),),
            (("branch7x7_1", width), ("branch7x7_2", width, (1, 7)), ("branch7x7_3", 192, (7, 1))),
            (*deep, ("branch7x7dbl_5", 192, (1, 7))),
        ),
        "mean",
        192,
    )


def _mixed_e(pool: str) -> tuple:
    return (
        (
            (("branch1x1", 320),),
            (("branch3x3_1", 384), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))),
            (
                ("branch3x3dbl_1", 448),
                ("branch3x3dbl_2", 384, (3, 3)),
                (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
            ),
        ),
        pool,
        192,
    )


_BLOCKS = {
    "Mixed_5b": _mixed_a(32),
    "Mixed_5c": _mixed_a(64),
    "Mixed_5d": _mixed_a(64),
    "Mixed_6a": (
        (
            (("branch3x3", 384, (3, 3), 2),),
            (("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, (3, 3)), ("branch3x3dbl_3", 96, (3, 3), 2)),
        ),
        "shrink",
        0,
    ),
    "Mixed_6b": _mixed_c(128),
    "Mixed_6c": _mixed_c(160),
    "Mixed_6d": _mixed_c(160),
    "Mixed_6e": _mixed_c(192),
    "Mixed_7a": (
        (
            (("branch3x3_1", 192), ("branch3x3_2", 320, (3, 3), 2)),
            (
                ("branch7x7x3_1", 192),
                ("branch7x7x3_2", 192, (1, 7)),
                ("branch7x7x3_3", 192, (7, 1)),
                ("branch7x7x3_4", 192, (3, 3), 2),
            ),
        ),
        "shrink",
        0,
    ),
    "Mixed_7b": _mixed_e("mean"),
    "Mixed_7c": _mixed_e("max"),
}


class Inception(nn.Module):
    """The network without its classifier."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"], layers: Sequence[int] = LAYERS) -> dict[int, Array]:
        """Returns {layer: maps [n, hh, ww, layer], or [n, 2048]} of images in [-1, 1]; nothing deeper is computed."""
        features: dict[int, Array] = {}
        x = ConvNorm(32, (3, 3), 2, same=False, name="Conv2d_1a_3x3")(x)
        x = ConvNorm(32, (3, 3), same=False, name="Conv2d_2a_3x3")(x)
        x = features[64] = ConvNorm(64, (3, 3), name="Conv2d_2b_3x3")(x)
        if max(layers) > 64:
            x = nn.max_pool(x, (3, 3), (2, 2))
            x = ConvNorm(80, name="Conv2d_3b_1x1")(x)
            x = features[192] = ConvNorm(192, (3, 3), same=False, name="Conv2d_4a_3x3")(x)
        if max(layers) > 192:
            x = nn.max_pool(x, (3, 3), (2, 2))
            for name, block in _BLOCKS.items():
                if name == "Mixed_7a":
                    features[768] = x
                    if max(layers) == 768:
                        break
                x = Mixed(*block, name=name)(x)
            features[2048] = jnp.mean(x, axis=(1, 2))
        return {layer: features[layer] for layer in layers}


def inception_features(
    variables: PyTree, images: Float[Array, "n h w 3"], layers: Sequence[int] = LAYERS
) -> dict[int, Array]:
    """Returns {layer: feature maps [n, hh, ww, layer]; layer 2048: [n, 2048]} of images in [-1, 1], at their own size.

    Raises:
      UserError: a layer does not exist, or the images have a side below MIN_SIDES of one.
    """
    for layer in layers:
        if layer not in LAYERS:
            raise UserError(f"there is no Inception layer {layer}: choose of {', '.join(map(str, LAYERS))}")
        if min(images.shape[1:3]) < MIN_SIDES[layer]:
            raise UserError(
                f"images of {images.shape[1]}x{images.shape[2]} pixels are too small for Inception's layer {layer}:"
                f" use at least {MIN_SIDES[layer]} pixels a side, or an earlier layer"
            )
    return Inception().apply(variables, images, tuple(layers))  # pyright: ignore[reportReturnType]


def inception_sifid(
    variables: PyTree, real: Float[Array, "h w 3"], samples: Float[Array, "n hh ww 3"], layer: int
) -> Float[Array, "n"]:
    """Returns the SIFID of each sample against the one real image on a layer of Inception: see frechet.map_frechet.

    Images as they are, neither resized nor quantised. At least 0; copies of the image give 0. Samples may differ from
    the image in size. NaN where pixels are not finite. Memory does not grow with n.

    Raises:
      UserError: as inception_features; layer 2048 has no positions to compare.
    """
    if layer == 2048:
        raise UserError("SIFID compares the positions of a feature map, and layer 2048 has none: choose 64, 192 or 768")
    features = inception_features(variables, real[None], (layer,))[layer][0]
    return lax.map(
        lambda image: map_frechet(features, inception_features(variables, image[None], (layer,))[layer][0]), samples
    )


def resized(images: Float[Array, "n h w c"]) -> Float[Array, "n 299 299 c"]:
    """Returns images at the size at which FID and KID take layer 2048.

    Bilinearly, without antialiasing and with half-pixel centres, as pytorch-fid does by PyTorch's interpolate with
    align_corners=False; the TensorFlow original differs slightly.
    """
    shape = (images.shape[0], FID_SIDE, FID_SIDE, images.shape[3])
    return jax.image.resize(images, shape, "bilinear", antialias=False, precision=lax.Precision.HIGHEST)


def inception_inputs(images: Float[Array, "n h w c"], names: Sequence[str]) -> dict[str, Float[Array, "n h w 3"]]:
    """Returns what Inception is to look at, as {name: images of three channels}; every result is to carry its name.

    Three channels are looked at together, as 'T1+T2+FLAIR'; of other numbers, red, green and blue where they are among
    them. Every other channel is looked at alone, copied to all three.

    Args:
      names: of all channels of `images`.

    Raises:
      UserError: names and channels differ in number.
    """
    names = list(names)
    if len(names) != images.shape[-1] or len(set(names)) != len(names):
        raise UserError(f"{images.shape[-1]} channels need as many different names, not {', '.join(names) or 'none'}")
    together = names if len(names) == 3 else ["red", "green", "blue"]
    groups = {"+".join(together): together} if set(together) <= set(names) else {}
    groups |= {name: [name] * 3 for name in names if not groups or name not in together}
    return {title: images[..., np.array([names.index(name) for name in group])] for title, group in groups.items()}


@functools.cache
def variable_shapes() -> Mapping[str, PyTree]:
    """Returns the shapes and types of the network's variables."""
    image = jax.ShapeDtypeStruct((1, MIN_SIDES[768], MIN_SIDES[768], 3), np.float32)
    return jax.eval_shape(Inception().init, jax.random.key(0), image)
