"""What the reference PyTorch implementation leaves of a training, read and checked: DIR/{reals,NoiseAmp}.pth and
DIR/0, DIR/1, ... with {netG,netD,z_opt}.pth. No code of these files is run (singan/pytorch/files.py)."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from launch.images.image_ids import unique_ids
from launch.images.readers import COLOURS
from singan import value_map
from singan.config import Config, NetworkConfig, PyramidConfig, default_mapping, parse
from singan.errors import UserError
from singan.model.pyramid import make_pyramid, pyramid_of
from singan.model.spec import ScaleSpec, make_spec
from singan.presets import PRESETS
from singan.pytorch.files import read_pytorch
from singan.pytorch.weights import from_state_dict
from singan.shapes import PyTree
from singan.source_image import SourceImage
from singan.storage.checkpoints import flatten
from singan.storage.finished_scale import weights_template

MAX_CHANNELS = 16
EIGHT_BIT = 1e-3  # how far, in steps of 8 bits, values may be from whole ones to have been read from such an image
OVERSHOOT = -0.3  # below this no cubic resizing takes an image of values from 0 to 1


@dataclasses.dataclass(frozen=True)
class PytorchScale:
    """One trained scale: variables of both networks as they are named here, and the noise amplitude."""

    generator: PyTree
    critic: PyTree
    amplitude: np.float32

    @property
    def width(self) -> int:
        return self.generator["params"]["block_0"]["kernel"].shape[-1]

    @property
    def num_layers(self) -> int:
        return 1 + sum(name.startswith("block_") for name in self.generator["params"])


@dataclasses.dataclass(frozen=True)
class PytorchRun:
    """A training as it was found."""

    folder: Path
    reals: tuple[np.ndarray, ...]  # float32 [h, w, C] in [-1, 1] of all levels, coarsest first
    scales: tuple[PytorchScale, ...]  # those that are there, from 0 on
    reconstruction_noise: np.ndarray  # z* of scale 0, float32 [1, h, w, 1]


@np.errstate(over="ignore")  # what is too large for float32 becomes infinite, and is refused
def read_run(folder: Path) -> PytorchRun:
    """Returns the training that lies in a folder, as many scales of it as follow each other from 0 on.

    Raises:
      UserError: it is no such folder, a file is missing or damaged, or files do not fit together; the text names it.
    """
    if not (folder / "0" / "netG.pth").is_file():
        inner = sorted(path.parent.parent for path in folder.glob("*/0/netG.pth"))
        hint = f"; {inner[0]} has one" if inner else ""
        raise UserError(
            f"--from={folder} is not a folder of the reference implementation, which has 0/netG.pth in it{hint}"
        )
    reals = _read_reals(folder / "reals.pth")
    count = next(s for s in range(len(reals) + 1) if not (folder / str(s) / "netG.pth").is_file() or s == len(reals))
    amplitudes = _read_amplitudes(folder / "NoiseAmp.pth", count)
    scales = tuple(
        PytorchScale(
            _read_network(folder / str(scale) / "netG.pth"),
            _read_network(folder / str(scale) / "netD.pth"),
            amplitudes[scale],
        )
        for scale in range(count)
    )
    for scale, weights in enumerate(scales):
        channels = weights.generator["params"]["block_0"]["kernel"].shape[2]
        if channels != reals[0].shape[-1]:
            raise UserError(
                f"{folder / str(scale) / 'netG.pth'} is of {channels} channels, but {folder / 'reals.pth'} of"
                f" {reals[0].shape[-1]}: they belong to different trainings"
            )
    noise = _read_noise(folder / "0" / "z_opt.pth", reals[0].shape[:2], scales[0].num_layers)
    return PytorchRun(folder, reals, scales, noise)


def config_of(run: PytorchRun) -> Config:
    """Returns the configuration whose pyramid and networks are those of the training.

    Raises:
      UserError: there is none: the sizes, widths or layers follow another rule than the reference's.
    """
    layers = {scale.num_layers for scale in run.scales}
    if len(layers) > 1:
        raise UserError(f"{run.folder}: the scales have different numbers of layers {sorted(layers)}: not supported")
    mapping = default_mapping()
    mapping["preset"] = "reference"
    mapping["data"]["path"] = str(run.folder.resolve())
    mapping["pyramid"] = dataclasses.asdict(_pyramid_of(run))
    mapping["network"] = dataclasses.asdict(_network_of(run, *layers))
    return parse(mapping)


def spec_of(run: PytorchRun, config: Config, conv_impl: str = "direct") -> ScaleSpec:
    """Returns the spec of scale 0; conv_impl: one of convolution.CONV_IMPLS."""
    shape = run.reals[-1].shape
    return make_spec(config, pyramid_of(shape, config), shape[-1], conv_impl)


def check_weights(run: PytorchRun, config: Config) -> None:
    """Raises a UserError that names the first network which is not of the shape that `config` says, or not finite."""
    spec = spec_of(run, config)
    for scale, weights in enumerate(run.scales):
        template = weights_template(spec.at(scale))
        for name, ours, wanted in (
            ("netG", weights.generator, template["trained"].generator),
            ("netD", weights.critic, template["critic"]),
        ):
            path = run.folder / str(scale) / f"{name}.pth"
            there, here = flatten(wanted), flatten(ours)
            if different := sorted(set(there) ^ set(here)):
                raise UserError(f"{path} is of another architecture ({different[0]} is missing or left over)")
            for key, leaf in here.items():
                if leaf.shape != there[key].shape:
                    raise UserError(f"{path} is of another architecture: {key} {leaf.shape}, not {there[key].shape}")
                if not np.isfinite(leaf).all():
                    raise UserError(f"{path} holds values that are not finite: this training has failed")


def is_unit(run: PytorchRun, between_scales: str) -> bool:
    """Returns whether a training seems to have taken values from 0 to 1 as they are, and not brought them to [-1, 1].

    The reference always brings them there, so that hardly an image has nothing dark. Forks that divide by the largest
    value between scales (`between_scales`) give arrays to the network as they are.
    """
    lowest = min(float(real.min()) for real in run.reals)
    if between_scales.startswith("uint8_rescaled"):
        return lowest >= OVERSHOOT
    return lowest >= 0 and not _is_eight_bit(run.reals[-1])


def image_of(
    run: PytorchRun,
    name: str,
    channels: tuple[str, ...],
    background: str,
    unit: bool = False,
    replayed: Mapping[str, Any] | None = None,
) -> SourceImage:
    """Returns the training image: the finest level of reals.pth.

    Args:
      name: its id; '' makes one of the folder's name.
      channels: their names; () makes some.
      background: as config.data.background has it, in the values that samples are written in: 0 to 255 where the image
        was of 8 bits, 0 to 1 for `unit`.
      unit: the training took values from 0 to 1 as they are, and samples are of such.
      replayed: what replaying the training has shown (pytorch_replay.summary), which data cards tell.
    """
    pixels = run.reals[-1]
    count = pixels.shape[-1]
    if channels and (len(channels) != count or len(set(channels)) != count):
        raise UserError(f"--channels={','.join(channels)} must be {count} different names")
    words = run.folder.resolve()
    default = words.parent.name if words.name.startswith("scale_factor") else words.name
    (image_id,) = unique_ids([name or default])
    if name and image_id != name:
        raise UserError(f"--name={name} must be letters, digits, '_' and '-', such as {image_id}")
    try:
        if unit:
            mapped = value_map.fit(np.maximum(pixels, 0), (-1.0, 1.0), background)
            mapped = dataclasses.replace(mapped, rules=("type",) * count, least=(0.0,) * count)
        elif _is_eight_bit(pixels):
            mapped = value_map.fit(np.rint(_levels(pixels)).astype(np.uint8), "auto", background)
        else:
            mapped = value_map.fit(pixels, (-1.0, 1.0), background)
    except UserError as error:
        text = str(error).replace("config.data.background", "--background")
        raise UserError(f"{run.folder / 'reals.pth'}: {text}") from None
    replay_settings = {key: replayed[key] for key in ("between_scales", "misfit")} if replayed else {}
    names = channels or (COLOURS if count == 3 else tuple(f"channel_{i}" for i in range(count)))
    return SourceImage(image_id, pixels, names, mapped, "reals.pth", {"imported": "PyTorch SinGAN", **replay_settings})


def _levels(pixels: np.ndarray) -> np.ndarray:
    return (pixels.astype(np.float64) + 1) * 127.5


def _is_eight_bit(pixels: np.ndarray) -> bool:
    return bool(np.abs(_levels(pixels) - np.rint(_levels(pixels))).max() < EIGHT_BIT)


def _pyramid_of(run: PytorchRun) -> PyramidConfig:
    sizes = tuple(real.shape[:2] for real in run.reals)
    finest, (height, width), coarsest = len(sizes) - 1, sizes[-1], min(sizes[0])
    # The reference's ceil makes one more pixel of what is a whole number but for rounding (25 -> 26 of 250).
    for smallest in sorted({coarsest, coarsest - 1}, key=lambda size: (size != PyramidConfig.min_size, -size)):
        ratios = [PyramidConfig.ratio]
        if finest > 1 and 1 < smallest < min(height, width):
            # Any ratio that asks for this number of scales: those between finest - 2 and finest - 1 steps.
            ratios.append((smallest / min(height, width)) ** (1 / (finest - 1.5)))
        for ratio in ratios:
            config = PyramidConfig(smallest, max(height, width), ratio)
            try:
                planned = make_pyramid(height, width, config, "reference").sizes
            except (UserError, ValueError):
                continue
            if planned == sizes:
                return config
    shown = " ".join(f"{h}x{w}" for h, w in sizes)
    raise UserError(f"{run.folder / 'reals.pth'} has levels of {shown}: not a pyramid of the reference implementation")


def _network_of(run: PytorchRun, num_layers: int) -> NetworkConfig:
    widths = [scale.width for scale in run.scales]
    default, most = NetworkConfig(), PRESETS["reference"]["network.max_width"]
    for every in (default.width_doubles_every, *range(1, len(widths) + 1)):
        for largest in (max(most, widths[0]), max(widths)):
            if widths == [min(widths[0] * 2 ** (scale // every), largest) for scale in range(len(widths))]:
                return NetworkConfig(widths[0], every, largest, num_layers)
    raise UserError(f"{run.folder}: widths {widths} do not double every few scales: not supported")


def _read_reals(path: Path) -> tuple[np.ndarray, ...]:
    stored = read_pytorch(path)
    if not isinstance(stored, list | tuple) or not stored or not all(isinstance(real, np.ndarray) for real in stored):
        raise UserError(f"{path} is not a list of images")
    if not all(real.dtype.kind in "fiub" for real in stored):
        raise UserError(f"{path} holds complex numbers: not images of a training")
    shapes = [real.shape for real in stored]
    if not all(len(shape) == 4 and shape[0] == 1 and shape[1] == shapes[0][1] for shape in shapes):
        raise UserError(f"{path} holds arrays of shapes {shapes}: images [1, C, H, W] of one C are expected")
    if not 1 <= shapes[0][1] <= MAX_CHANNELS:
        raise UserError(f"{path} has images of {shapes[0][1]} channels: 1 to {MAX_CHANNELS} are understood")
    reals = [np.ascontiguousarray(real[0].transpose(1, 2, 0), np.float32) for real in stored]
    if not all(real.size and np.abs(real).max() <= 1 + 1e-5 for real in reals):  # also refuses NaN
        raise UserError(f"{path} has values outside [-1, 1]: not images of a training")
    return tuple(np.clip(real, -1, 1) for real in reals)


def _read_amplitudes(path: Path, count: int) -> list[np.float32]:
    stored = read_pytorch(path)
    if not isinstance(stored, list | tuple):
        raise UserError(f"{path} is not a list of numbers")
    if len(stored) < count:
        raise UserError(f"{path} has {len(stored)} noise amplitudes for {count} scales: copy all files of one training")
    values = [np.float32(_number(value)) for value in stored[:count]]
    if not all(np.isfinite(value) and value >= 0 for value in values) or values[0] != 1:
        shown = ", ".join(f"{value:g}" for value in values)
        raise UserError(f"{path} has noise amplitudes {shown}: finite ones, the first of them 1, are expected")
    return values


def _number(value: Any) -> float:
    """Returns a number or an array of one as a float; nan for anything else: lists are not looked into."""
    if isinstance(value, np.ndarray | np.generic):
        return float(value.reshape(())) if value.size == 1 and value.dtype.kind in "fiub" else math.nan
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan


def _read_network(path: Path) -> PyTree:
    stored = read_pytorch(path)
    if not isinstance(stored, dict) or not all(
        isinstance(name, str) and isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
        for name, value in stored.items()
    ):
        raise UserError(f"{path} is not a state dict")
    try:
        return from_state_dict(stored)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read_noise(path: Path, size: tuple[int, ...], num_layers: int) -> np.ndarray:
    """Returns z*, float32 [1, h, w, 1]; the reference saves it surrounded by as many zeros as there are layers."""
    noise = read_pytorch(path)
    if not (isinstance(noise, np.ndarray) and noise.dtype.kind in "fiub" and noise.ndim == 4) or (
        noise.shape[0] != 1 or noise.shape[1] == 0
    ):
        raise UserError(f"{path} is not a noise map [1, C, H, W]")
    height, width = size
    border = num_layers if noise.shape[2:] == (height + 2 * num_layers, width + 2 * num_layers) else 0
    if noise.shape[2:] != (height + 2 * border, width + 2 * border):
        raise UserError(f"{path} is of {noise.shape[2:]} pixels, but the coarsest image of reals.pth of {size}")
    inner = noise[0, :, border : border + height, border : border + width].astype(np.float32)
    if not np.isfinite(inner).all() or (inner != inner[:1]).any():
        raise UserError(f"{path} is not one finite noise map, the same in all channels, as scale 0 has it")
    return inner[:1, :, :, None]
