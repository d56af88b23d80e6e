"""A patient's files, and what the names of folders tell about it."""

import dataclasses
import re

from datasets.archives import Member
from datasets.brats.labels import AS_STORED, LabelTable

# As BraTS itself names its splits: MICCAI_BraTS2020_ValidationData, ValidationData, BraTS20_Validation_001. A folder of
# somebody's own, such as 'cross-validation split 1', makes no split.
_TRAINING = re.compile(r"brats.*train|^training[ _-]?data", re.IGNORECASE)
_VALIDATION = re.compile(r"brats.*validation|^validation[ _-]?data", re.IGNORECASE)


@dataclasses.dataclass
class Patient:
    """The files of one patient (from 2023 on: of one time point of a patient).

    Attributes:
      name: As BraTS names it, such as BraTS2021_00000.
      folder: Where its files lie, for messages.
      files: Files by what they hold: a modality of MODALITIES, or 'seg'. Some may be missing.
      split: 'train'; 'validation' where BraTS's own names say so; 'test' for imagesTs of MSD and nnU-Net.
      grade: 'HGG' or 'LGG' where a folder says so (2017 to 2019), else ''.
      volume_of: Which volume along the fourth axis of its file a modality is; left out where files are 3-D.
      style: By which names its labels are guessed: 'until 2021', 'from 2023', or '' where they say nothing.
      labels: Table of its segmentation; `numbering.decide` sets it.
      decided: Whether `labels` is known already, from a dataset.json.
    """

    name: str
    folder: str
    files: dict[str, Member]
    split: str
    grade: str = ""
    volume_of: dict[str, int] = dataclasses.field(default_factory=dict)
    style: str = ""
    labels: LabelTable = AS_STORED
    decided: bool = False


def parts_of(place: str) -> list[str]:
    """Returns the folders, and the archives among them, of a place as `Member.folder` writes it."""
    return [part for part in re.split(r"[/:] ?", place) if part]


def split_of(folders: list[str], name: str) -> str:
    """Returns the split that the innermost of BraTS's own names gives: of the patient, of a folder or an archive."""
    for part in (name, *reversed(folders)):
        if _TRAINING.search(part):
            return "train"
        if _VALIDATION.search(part) and "cross" not in part.lower():
            return "validation"
    return "train"


def grade_of(folders: list[str]) -> str:
    """Returns 'HGG' or 'LGG' where a folder is called so, else ''."""
    return next((part.upper() for part in folders if part.upper() in ("HGG", "LGG")), "")
