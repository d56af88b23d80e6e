"""What is fixed while one scale trains: shapes, widths and the method's choices. Hashable, so that it can be static."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from singan.config import Config, MethodConfig, NetworkConfig
from singan.model.networks import Critic, Generator
from singan.model.pyramid import Pyramid
from singan.shapes import PyTree


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """What of config.train decides which programs are compiled; see singan/config.py for each field.

    Learning rates and loss weights are not here: they only scale numbers, and are inputs of the compiled step
    (state.Hyperparameters), so that a sweep over them compiles each scale once.
    """

    schedule: str
    concurrent_scales: int
    steps_per_scale: int
    step_shares: tuple[float, ...]
    crop_size: int
    chunk: int
    precision: str
    critic_updates: int
    generator_updates: int
    adam_b1: float
    adam_b2: float
    group_size: int
    averages: bool  # whether a running average of the generator's weights is kept
    compares_patches: bool  # whether the generator's loss has the distance between patches


@dataclasses.dataclass(frozen=True)
class ScaleSpec:
    """Scale `scale` of a pyramid for images of `channels` channels; `conv_impl` is one of convolution.CONV_IMPLS.

    A conditional pyramid is given `condition` more channels, which it does not generate (singan/model/condition.py),
    and trains on a pool of `layouts` of them.
    """

    scale: int
    channels: int
    pyramid: Pyramid
    network: NetworkConfig
    method: MethodConfig
    train: TrainSpec
    conv_impl: str
    condition: int = 0
    layouts: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of this scale in pixels."""
        return self.pyramid.sizes[self.scale]

    @property
    def border(self) -> int:
        """Pixels that the networks lose on each side, and that are therefore padded before them."""
        return self.network.num_layers

    @property
    def steps(self) -> int:
        """Steps that this scale is trained for."""
        return steps_of_scale(self.train.steps_per_scale, self.train.step_shares, self.scale, len(self.pyramid))

    @property
    def steps_before(self) -> int:
        """Steps of all scales below."""
        return sum(self.at(scale).steps for scale in range(self.scale))

    @property
    def window(self) -> tuple[int, int]:
        """Height and width, in pixels, of the part of the image in which a step trains: all of it without cropping."""
        crop = self.train.crop_size if self.train.schedule == "sequential" else 0
        height, width = self.size
        return (min(height, crop), min(width, crop)) if crop else (height, width)

    def at(self, scale: int) -> "ScaleSpec":
        """Returns the spec of another scale of the same pyramid."""
        return dataclasses.replace(self, scale=scale)

    @property
    def co_trained(self) -> range:
        """The scales below whose generators train on together with this scale's; none in the sequential schedule."""
        together = self.train.concurrent_scales if self.train.schedule == "concurrent" else 1
        return range(max(self.scale - together + 1, 0), self.scale)

    @property
    def width(self) -> int:
        """Hidden channels of both networks: doubled every few scales, up to a limit."""
        doublings = self.scale // self.network.width_doubles_every
        assert self.network.max_width is not None  # parsed
        return min(self.network.width * 2**doublings, self.network.max_width)

    @property
    def continues_previous_scale(self) -> bool:
        """Whether both networks start from the previous scale's weights, which they do where the widths agree."""
        return self.scale > 0 and self.at(self.scale - 1).width == self.width

    @property
    def one_by_one(self) -> bool:
        """Whether images, and passes of one image, are computed one after another: on a CPU.

        There batching buys nothing: the convolutions are at the cores' limit, grouped ones are several times slower,
        and a sample would round differently in another batch.
        """
        return self.conv_impl == "direct"

    def map(self, function: Callable[[Any], Any], arguments: PyTree) -> PyTree:
        """Returns the function's values over the leading axis of the arguments, in one batch unless `one_by_one`."""
        return lax.map(function, arguments) if self.one_by_one else jax.vmap(function)(arguments)

    @property
    def batches_passes(self) -> bool:
        """Whether passes of the same weights are made in one batch: where images are, and normalised each by itself.

        It saves a quarter of a program's operations, each of which a GPU has to start. Not on a TPU, which has it
        `shifted`: compiled for a v5e, a step then reads and writes 4 to 9 % more bytes, and takes between a tenth less
        and an eighth more memory (docs/pods_and_sweeps.md). One image at a time on a CPU, separate passes are faster
        too, and running statistics must see one after the other.
        """
        return not self.one_by_one and self.conv_impl != "shifted" and self.method.norm_statistics != "running"

    @property
    def generator(self) -> Generator:
        return Generator(
            self.width,
            self.network.num_layers,
            self.channels,
            bool(self.method.normalized_conv_bias),
            self.method.norm_statistics == "running",
            self.conv_impl,
            self.condition,
        )

    @property
    def critic(self) -> Critic:
        return Critic(
            self.width,
            self.network.num_layers,
            bool(self.method.normalized_conv_bias),
            self.method.norm_statistics == "running",
            self.conv_impl,
            self.condition,
        )


def steps_of_scale(coarsest: int, shares: Sequence[float], scale: int, num_scales: int) -> int:
    """Returns how many steps a scale of a pyramid is trained for.

    Args:
      coarsest: train.steps_per_scale. shares: train.step_shares, the last one the finest scale's.
    """
    place = len(shares) - (num_scales - scale)
    return max(1, round(coarsest * shares[place])) if place >= 0 else coarsest


def make_spec(
    config: Config, pyramid: Pyramid, channels: int, conv_impl: str, scale: int = 0, condition: int = 0
) -> ScaleSpec:
    """Returns the spec of a scale for a parsed configuration.

    Args:
      channels: those that are generated. condition: those that are given.
    """
    given = dataclasses.asdict(config.train)
    given |= {"averages": bool(config.train.average_decay), "compares_patches": bool(config.train.patch_weight)}
    train = TrainSpec(**{field.name: given[field.name] for field in dataclasses.fields(TrainSpec)})
    layouts = config.data.layouts if condition else 0
    return ScaleSpec(scale, channels, pyramid, config.network, config.method, train, conv_impl, condition, layouts)
