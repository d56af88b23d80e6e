"""What the study compares and how large it is: defaults for each variant, every one of them a flag --study.KEY."""

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import config_dict

from singan.config import nearest
from singan.errors import UserError

TASKS = ("nuclei", "tumour")


@dataclasses.dataclass(frozen=True)
class Study:
    """The settings of a study."""

    task: str = "nuclei"  # nuclei: instances in tissue; tumour: one class in MRI slices
    train_sizes: tuple[int, ...] = (1, 2, 5, 10)  # numbers of real training patches
    seeds: int = 10  # each draws the patients of the test, the patches and the network's start
    reduce: int = 1  # whole factor that images are made smaller by, before they are cut
    patch: int = 192  # pixels of the patches that images are cut into, a multiple of 8
    test_share: float = 0.5  # of the patients, held out by each seed
    test_path: str = ""  # a second folder: its patients are the test of every seed, and the first ones all train
    patient: str = ""  # a regular expression whose group is the patient in a file's name; '' knows TCGA and _z080
    label: int = 0  # tumour: the one label that counts; 0 takes all
    start_scales: tuple[int, ...] = (0, 1, 2)  # of the synthetic pairs
    sizes: tuple[float, ...] = (1.0, 1.5)  # of the synthetic pairs, in multiples of a patch
    samples: int = 32  # synthetic pairs of each patch, start scale and size
    inserted: str = ""  # tumour: the folder that experiments.tumour_insertion wrote as npy, instead of SinGAN pairs
    share: float = 0.5  # of synthetic patches in a batch that has both
    steps: int = 2000  # gradient steps of every segmenter, whatever it is trained on
    batch: int = 16
    width: int = 24  # of the segmenter's first layer
    learning_rate: float = 2e-3
    lever_size: int = 2  # number of real patches at which the ablations are trained; 0: none are
    style: float = 1.0  # strength of the style step of that ablation
    together: int = 16  # segmenters in one device call
    licence: str = ""  # of the images, for the data cards of the synthetic pairs


SMALL = {
    "seeds": 5,
    "reduce": 2,
    "patch": 48,
    "samples": 4,
    "steps": 250,
    "batch": 4,
    "width": 8,
}
VARIANTS: dict[str, dict[str, Any]] = {"": {}, "small": SMALL}


def placeholders() -> Any:
    """Returns a ConfigDict of the keys, none of which is given."""
    fields: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(Study).items():
        kind = object if typing.get_origin(hint) is tuple else hint
        fields[name] = config_dict.FieldReference(None, field_type=kind)
    return config_dict.ConfigDict(fields)


def refuse_unknown(argv: Sequence[str]) -> None:
    """Raises a UserError for --study.KEY that there is not, which ml_collections would end in a traceback."""
    known = [field.name for field in dataclasses.fields(Study)]
    for argument in argv:
        if (match := re.match(r"--?study\.([^=]+)", argument)) and match[1] not in known:
            raise UserError(f"--study.{match[1]} is not a setting of the study{nearest(match[1], known)}")


def study_of(variant: str, given: Mapping[str, Any]) -> Study:
    """Returns the settings of a variant with those that were given.

    Raises:
      UserError: a value is of the wrong type or out of range; the key is named.
    """
    values = {**VARIANTS.get(variant, {}), **{key: value for key, value in given.items() if value is not None}}
    for name, hint in typing.get_type_hints(Study).items():
        if name in values and typing.get_origin(hint) is tuple:
            values[name] = _numbers(name, values[name], typing.get_args(hint)[0])
    study = Study(**values)
    _check(study)
    return study


def _numbers(key: str, given: Any, kind: type) -> tuple[Any, ...]:
    try:
        parts = given.split(",") if isinstance(given, str) else given if isinstance(given, list | tuple) else [given]
        return tuple(dict.fromkeys(kind(part) for part in parts if str(part).strip()))
    except ValueError:
        raise UserError(f"--study.{key}={given!r} must be numbers, such as 1,2") from None


def _check(study: Study) -> None:
    if study.task not in TASKS:
        raise UserError(f"--study.task={study.task!r} is none of {', '.join(TASKS)}{nearest(study.task, TASKS)}")
    at_least = {"seeds": 2, "reduce": 1, "samples": 1, "steps": 1, "batch": 2, "width": 1, "together": 1}
    for key, least in at_least.items():
        if getattr(study, key) < least:
            raise UserError(f"--study.{key}={getattr(study, key)} must be {least} or more")
    if study.patch < 16 or study.patch % 8:
        raise UserError(f"--study.patch={study.patch} must be a multiple of 8, 16 or more")
    for key in ("train_sizes", "start_scales", "sizes"):
        if not getattr(study, key):
            raise UserError(f"--study.{key} names none: give some numbers, such as 1,2")
    if min(study.train_sizes) < 1 or min(study.start_scales) < 0:
        raise UserError("--study.train_sizes must be 1 or more, and --study.start_scales 0 or more")
    if min(study.sizes) < 1:
        raise UserError("--study.sizes must be 1 or more: a sample is cut to the patch")
    if study.lever_size and study.lever_size not in study.train_sizes:
        raise UserError(f"--study.lever_size={study.lever_size} must be among --study.train_sizes, or 0")
    for key in ("test_share", "share"):
        if not 0 < getattr(study, key) < 1:
            raise UserError(f"--study.{key}={getattr(study, key)} must lie between 0 and 1")
    if not 0 < study.style <= 1:
        raise UserError(f"--study.style={study.style} must be above 0, up to 1")
    if study.inserted and study.task != "tumour":
        raise UserError("--study.inserted belongs to --study.task=tumour")
