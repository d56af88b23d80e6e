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
    train_sizes: tuple[int, ...] = (1, 2, 5, 10, 0)  # numbers of real training tiles; 0 stands for all of a fold
    seeds: int = 5  # each draws the folds, the order of the tiles and the network's start
    folds: int = 4  # of the patients; each is tested by segmenters trained on others
    validation: int = 2  # patients of each fold's training side that the decoding is tuned on, and nothing else
    reduce: int = 2  # whole factor that images are made smaller by
    tile: int = 128  # pixels, after that, of the tiles that images are cut into, a multiple of 16
    also: str = ""  # a further folder like data.path, whose images of patients that are there already are left out
    test_path: str = ""  # a folder of other patients: they are the test of every seed, and all of data.path trains
    patient: str = ""  # a regular expression whose group is the patient in a file's name; '' knows TCGA and _z080
    label: int = 0  # tumour: the one label that counts; 0 takes all
    samples: int = 16  # pairs that a pool holds for each tile
    refresh: int = 50  # steps after which pairs that are made while training are made anew
    share: float = 0.5  # of synthetic crops in a batch
    share_size: int = 2  # number of real tiles at which shares of 25 and 75 % are tried too; 0: they are not
    inserted: str = ""  # tumour: the folder that experiments.tumour_insertion wrote as npy
    steps: int = 4000  # gradient steps of every segmenter, whatever it is trained on
    batch: int = 4  # crops
    crop: int = 64  # pixels of their side, a multiple of 16
    width: int = 24  # channels of the segmenter's first layer
    learning_rate: float = 3e-3


SMALL = {
    "train_sizes": (1, 2),
    "seeds": 2,
    "validation": 1,
    "tile": 64,
    "crop": 32,
    "samples": 2,
    "refresh": 20,
    "steps": 60,
    "width": 8,
    "share_size": 0,
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
    at_least = {
        "seeds": 2,
        "folds": 2,
        "validation": 1,
        "reduce": 1,
        "samples": 1,
        "refresh": 1,
        "steps": 2,
        "batch": 2,
    }
    for key, least in {**at_least, "width": 1}.items():
        if getattr(study, key) < least:
            raise UserError(f"--study.{key}={getattr(study, key)} must be {least} or more")
    for key in ("tile", "crop"):
        if getattr(study, key) < 16 or getattr(study, key) % 16:
            raise UserError(f"--study.{key}={getattr(study, key)} must be a multiple of 16")
    if study.crop > study.tile:
        raise UserError(f"--study.crop={study.crop} must fit into --study.tile={study.tile}")
    if not study.train_sizes or min(study.train_sizes) < 0:
        raise UserError("--study.train_sizes must name numbers of tiles, such as 1,2 (0 stands for all)")
    if study.share_size and study.share_size not in study.train_sizes:
        raise UserError(f"--study.share_size={study.share_size} must be among --study.train_sizes, or 0")
    if not 0 < study.share < 1:
        raise UserError(f"--study.share={study.share} must lie between 0 and 1")
    if study.inserted and study.task != "tumour":
        raise UserError("--study.inserted belongs to --study.task=tumour")
