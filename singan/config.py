"""The configuration of a run as frozen dataclasses, and their defaults as a plain mapping.

Launchers keep the configuration in an ml_collections ConfigDict (made from `default_mapping`) so that flags can
override it; `parse` turns any nested mapping into the dataclasses below and refuses what it does not know.
A value of None means "as the preset says" (PRESETS); `parse` fills it in, so a parsed Config has no None.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from singan.config_checks import check_ranges
from singan.errors import UserError
from singan.legacy_defaults import LEGACY_DEFAULTS
from singan.presets import PRESETS


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images are trained on. `path`, when set, wins over `source`, unless that is a TFDS one."""

    source: str = "immunohistochemistry"  # the built-in example | tfds:brats/slices | tfds:pannuke
    path: str = ""  # a folder, a file, or a glob; for TFDS sources their data_dir ("" = ~/tensorflow_datasets)
    layout: str = "auto"  # auto | hwc | chw: the axes of an array file
    background: str | float | tuple[float, ...] = "auto"  # auto | none | one value, or one per channel, in source units
    channels: tuple[str, ...] = ()  # names in the file's order, or the ones wanted of a TFDS source; () leaves it to it
    # What becomes -1 and 1: auto | (low, high) in source units; tfds:brats also knows volume (its auto) and percentile.
    value_range: str | tuple[float, float] = "auto"
    max_images: int = 0  # 0 takes all
    group_by_shape: bool = False  # train each image shape as its own cohort in WORKDIR/<height>x<width>
    num_crops: int = 4  # built-in example only
    crop_size: int = 96  # built-in example only, pixels
    # TFDS sources only: which records. They are kept where all keys say so; of these every k-th, in the data set's
    # order; of these max_images, the first ones or those that shuffle_seed draws.
    split: str = ""  # such as train, fold1 or fold1+fold2; "" takes all
    ids: tuple[str, ...] = ()  # () takes all; so for patients and tissues
    patients: tuple[str, ...] = ()  # brats
    first_slice: int = 0  # brats: position in the volume
    last_slice: int = -1  # brats: included; -1 is the volume's last
    has_tumour: str = "any"  # brats: any | yes | no
    min_brain: float = 0.0  # brats: least fraction of a slice's pixels that are brain
    tissues: tuple[str, ...] = ()  # pannuke
    min_nuclei: int = 0  # pannuke
    every: int = 1  # takes every k-th
    shuffle_seed: int = -1  # -1: max_images takes the first; else it takes this seed's choice


@dataclasses.dataclass(frozen=True)
class PyramidConfig:
    """The scales (ALGORITHM: SinGAN paper section 2 and the reference's rounding)."""

    min_size: int = 25  # pixels of the shorter side at scale 0
    max_size: int = 250  # pixels of the longer side at the finest scale
    ratio: float = 0.75  # wanted ratio between scales; the one used makes the scales meet both sizes
    # How many scales, spaced as ConSinGAN spaces them, more of them small. 0: as train.schedule says, which is
    # 6 for concurrent, while the sequential schedule's scales are those of `ratio`.
    num_scales: int = 0


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Generator and critic of one scale."""

    width: int = 32  # channels of the hidden layers at scale 0
    width_doubles_every: int = 4  # scales
    max_width: int = 128
    num_layers: int = 5  # convolutions, the last one included


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """Where the presets differ. None takes the preset's value (PRESETS)."""

    reconstruction_noise: str | None = None  # fixed | redrawn: z* of scale 0, once per image or at every step
    resize_border: str | None = None  # mirror | reference: what lies outside the image when resizing
    # clip | uint8 | uint8_rescaled | uint8_rescaled_before_crop: what happens to values that pass from scale to scale.
    # The last is what forks of the reference do with more than three channels: cut to 8 bits, resized, divided by the
    # image's own largest value and only then cropped. uint8_rescaled crops first: older imports hold it, by mistake.
    between_scales: str | None = None
    norm_statistics: str | None = None  # sample | running: the statistics that a frozen generator normalises with
    padding: str | None = None  # background | zero: what surrounds the previous image
    normalized_conv_bias: bool | None = None  # a bias before a normalisation, which it cancels out in training


CONCURRENT_NUM_SCALES = 6  # pyramid.num_scales where train.schedule is concurrent and says nothing else (ConSinGAN's)

CHOICES: dict[str, tuple[str, ...]] = {
    "preset": tuple(PRESETS),
    "data.layout": ("auto", "hwc", "chw"),
    "data.background": ("auto", "none"),
    "data.value_range": ("auto", "volume", "percentile"),
    "data.has_tumour": ("any", "yes", "no"),
    "method.reconstruction_noise": ("fixed", "redrawn"),
    "method.resize_border": ("mirror", "reference"),
    "method.between_scales": ("clip", "uint8", "uint8_rescaled", "uint8_rescaled_before_crop"),
    "method.norm_statistics": ("sample", "running"),
    "method.padding": ("background", "zero"),
    "train.schedule": ("sequential", "concurrent"),
    "train.precision": ("highest", "tf32", "bf16"),
    "train.compile_ahead": ("auto", "on", "off"),
    "tracking.wandb": ("auto", "offline", "online", "off"),
    "tracking.images": ("on", "off"),
    "tracking.ids": ("names", "numbers"),
}

OR_NUMBERS = ("data.background", "data.value_range")  # the keys of CHOICES that may be numbers instead


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One scale's training. Names and defaults as in the paper's supplement and the reference code."""

    # sequential: one generator a scale, the ones below frozen (SinGAN). concurrent: fewer scales, and the generators of
    # the last few trained together (ConSinGAN, Hinz et al. 2021; see singan/model/concurrent.py).
    schedule: str = "sequential"
    concurrent_scales: int = 3  # concurrent alone: generators trained together, the scale's own included
    concurrent_learning_rate: float = 0.1  # concurrent alone: factor of the generators' learning rate per older scale
    steps_per_scale: int = 2000
    chunk: int = 100  # steps in one device call
    checkpoint_every: int = 500  # steps; rounded up to whole chunks
    # Of the convolutions' operands: highest (float32) | tf32 (10 bits of mantissa) | bf16 (7); sums are float32. On a
    # CPU the operands are rounded, at no gain of speed, to show what an accelerator would make of the training. Of
    # JAX's precisions of these names, a TPU computes tf32 in three bf16 passes and a GPU bf16 in tf32: more exact.
    precision: str = "highest"
    critic_updates: int = 3  # per step
    generator_updates: int | None = None  # per step
    critic_learning_rate: float = 5e-4
    generator_learning_rate: float = 5e-4
    adam_b1: float = 0.5
    adam_b2: float = 0.999
    learning_rate_decay: float = 0.1  # factor applied once
    decay_at: float = 0.8  # share of steps_per_scale after which it applies
    gradient_penalty_weight: float = 0.1
    reconstruction_weight: float = 10.0
    noise_weight: float = 0.1  # noise amplitude = this times the RMSE of the upsampled reconstruction
    min_noise_amplitude: float | None = None  # of scales above 0, in units of the [-1, 1] range
    # Weight, in the generator's loss, of the distance between the patches of its samples and of the training image
    # (singan/model/patch_distance.py); 0 leaves it out.
    patch_weight: float | None = None
    # A scale leaves a running average of its generator's weights, which keeps this share of itself at every step; 0
    # leaves the last step's weights.
    average_decay: float | None = None
    group_size: int = 0  # images of one device trained at the same time; 0: as many as fit (CPU: one after another)
    # auto | on | off: whether the next scale is compiled while one trains. auto: on accelerators, not on a CPU, which
    # does both with the same cores.
    compile_ahead: str = "auto"


@dataclasses.dataclass(frozen=True)
class TrackingConfig:
    """Where a run's numbers and pictures go, besides metrics.jsonl and the workdir."""

    wandb: str = "auto"  # offline | online | off | auto: as WANDB_MODE says, else offline
    project: str = "medisingan"
    group: str = ""
    name: str = ""  # "" takes the workdir's name
    tags: tuple[str, ...] = ()  # of the run in wandb, as notes and job_type are
    notes: str = ""
    job_type: str = "train"
    # What wandb is sent: images=off keeps pictures of training images and samples here; ids=numbers replaces ids of
    # images, which are made of file names, and leaves out what names files and patients.
    images: str = "on"  # on | off
    ids: str = "names"  # names | numbers
    artifacts: bool = False  # the weights of finished scales too; they can give the training image back
    num_samples: int = 4  # samples per image in the grid of a scale
    max_grid_images: int = 8  # images in that grid


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything a run is made from."""

    seed: int = 0
    preset: str = "corrected"  # corrected | reference | tuned
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    pyramid: PyramidConfig = dataclasses.field(default_factory=PyramidConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    method: MethodConfig = dataclasses.field(default_factory=MethodConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)


# The keys that may differ when a run is resumed: they change what is seen and when, never a weight.
# (train.group_size changes how images share the device: the same training within rounding.)
# A new key, of these or not, also has its entry in singan/legacy_defaults.py: what runs without it were trained with.
RESUMABLE_KEYS = ("tracking.*", "train.checkpoint_every", "train.group_size", "train.compile_ahead", "data.path")


def default_mapping() -> dict[str, Any]:
    """Returns the defaults as a nested dict of plain values (None where the preset decides)."""
    return dataclasses.asdict(Config())


def to_mapping(config: Config) -> dict[str, Any]:
    """Returns a Config as a nested dict that json can write and `parse` can read."""
    return dataclasses.asdict(config)


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {'train.chunk': 100, ...} from a nested mapping; lists become tuples."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat


def nearest(word: str, words: Iterable[str]) -> str:
    """Returns ' (did you mean X?)' for the closest of `words`, or ''."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def parse(mapping: Mapping[str, Any]) -> Config:
    """Returns the Config that a nested mapping describes, with the preset's and the schedule's values filled in.

    Args:
      mapping: nested; keys that are left out take their defaults.

    Raises:
      UserError: an unknown key, a value of the wrong type, out of range, or not among a key's choices. The text
        names the key.
    """
    config = _build(Config, mapping, "")
    if config.preset not in PRESETS:
        raise UserError(_bad_choice("preset", config.preset))
    for key, value in PRESETS[config.preset].items():
        group, leaf = key.split(".")
        if getattr(getattr(config, group), leaf) is None:
            changed = dataclasses.replace(getattr(config, group), **{leaf: value})
            config = dataclasses.replace(config, **{group: changed})
    flat = flatten(to_mapping(config))
    for key, choices in CHOICES.items():
        if flat[key] not in choices and not (key in OR_NUMBERS and not isinstance(flat[key], str)):
            raise UserError(_bad_choice(key, flat[key]))
    check_ranges(flat)
    if config.train.schedule == "concurrent" and not config.pyramid.num_scales:
        pyramid = dataclasses.replace(config.pyramid, num_scales=CONCURRENT_NUM_SCALES)
        config = dataclasses.replace(config, pyramid=pyramid)
    return config


def with_legacy_defaults(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a stored nested mapping with the keys that it lacks at the values they had before they existed.

    Whatever reads a stored configuration goes through this before `parse`, which fills in today's defaults.
    """
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in stored.items()}
    for key, value in LEGACY_DEFAULTS.items():
        group, _, leaf = key.rpartition(".")
        place = result.setdefault(group, {}) if group else result
        if isinstance(place, dict):  # else it is damaged, which `parse` says
            place.setdefault(leaf, value)
    return result


def resume_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns the keys, as 'key: old -> new', whose change would change the training of a run that exists.

    A key that one side lacks has its legacy default there.

    Args:
      old: the mapping of the run's config.json.
      new: the mapping now asked for.
    """
    old_flat, new_flat = flatten(old), flatten(new)
    result = []
    for key in sorted({*old_flat, *new_flat}):
        before, now = (flat.get(key, LEGACY_DEFAULTS.get(key)) for flat in (old_flat, new_flat))
        if before != now and not _resumable(key):
            result.append(f"{key}: {before!r} -> {now!r}")
    return result


def training_values(config: Config) -> dict[str, Any]:
    """Returns what of a configuration decides on the weights, flat: the keys that may not change on resuming, where
    they differ from their legacy defaults. A key that is added later does not change it for runs without it."""
    flat = flatten(to_mapping(config))
    return {k: value for k, value in flat.items() if value != LEGACY_DEFAULTS.get(k) and not _resumable(k)}


def _resumable(key: str) -> bool:
    return any(key == k or (k.endswith("*") and key.startswith(k[:-1])) for k in RESUMABLE_KEYS)


def _bad_choice(key: str, value: Any) -> str:
    choices = CHOICES[key]
    return f"config.{key}={value!r} is not one of {', '.join(choices)}{nearest(str(value), choices)}"


def _build(cls: Any, mapping: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in mapping.items():
        if key not in hints:
            raise UserError(f"config.{prefix}{key} is not a config key{nearest(key, hints)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise UserError(f"config.{prefix}{key} must be a group of keys, not {value!r}")
            values[key] = _build(hint, value, f"{prefix}{key}.")
        else:
            values[key] = _coerce(value, hint, prefix + key)
    return cls(**values)


def _coerce(value: Any, hint: Any, key: str) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        origin = typing.get_origin(kind) or kind
        if origin is tuple and isinstance(value, list | tuple):
            items = typing.get_args(kind)
            if items[-1] is not Ellipsis and len(items) != len(value):
                raise UserError(f"config.{key}={value!r} must have {len(items)} values")
            return tuple(_coerce(item, items[0], key) for item in value)
        if origin is types.NoneType and value is None:
            return None
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if origin in (str, bool) and isinstance(value, origin):
            return value
    names = {types.NoneType: "none"}
    wanted = " or ".join(names.get(kind) or getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise UserError(f"config.{key}={value!r} must be of type {wanted}")
