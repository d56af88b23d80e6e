"""Which files of a BraTS download belong to which patient, by the naming of the years 2017 to 2024."""

import collections
import dataclasses
import re

from datasets.archives import Member, Source
from datasets.brats.labels import AS_STORED, GLIOMA_FROM_2023, UNTIL_2021, LabelTable
from datasets.errors import BadExample, DataError

# The channels of every image, by their names up to 2021; from 2023 on they are t1n, t1c, t2w, t2f.
MODALITIES = ("t1", "t1ce", "t2", "flair")

_MODALITY_OF = {
    "t1": "t1", "t1ce": "t1ce", "t2": "t2", "flair": "flair",
    "t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair",
    "seg": "seg",
}  # fmt: skip

_NAMED = re.compile(
    r"(?P<patient>.+)(?P<separator>[_-])(?P<kind>t1ce|t1n|t1c|t1|t2w|t2f|t2|flair|seg)\.nii(\.gz)?", re.IGNORECASE
)
_NIFTI = re.compile(r".+\.nii(\.gz)?", re.IGNORECASE)
_GLIOMA_FROM_2023 = re.compile(r"BraTS-GLI-", re.IGNORECASE)


@dataclasses.dataclass
class Patient:
    """The files of one patient (from 2023 on: of one time point of a patient).

    Attributes:
      name: As BraTS names it, such as BraTS2021_00000.
      folder: Where its files lie, for messages.
      files: Files by what they hold: a modality of MODALITIES, or 'seg'. Some may be missing.
      labels: Table of its segmentation.
      split: 'train', or 'validation' where a folder, the archive or the patient's name says so.
      grade: 'HGG' or 'LGG' where a folder says so (2017 to 2019), else ''.
    """

    name: str
    folder: str
    files: dict[str, Member]
    labels: LabelTable
    split: str
    grade: str


def wanted(path: str) -> bool:
    """Returns whether a file of this path is a NIfTI file, the only kind that is read."""
    return _NIFTI.fullmatch(path.rpartition("/")[2]) is not None


def find_patients(source: Source) -> tuple[list[Patient], list[BadExample], list[str]]:
    """Sorts the files of a download into patients.

    Returns:
      The patients ordered by name; one error for each that cannot be used (found twice, two files for one modality,
      no modality at all); notes about files that were taken in spite of their name.

    Raises:
      DataError: Not a single file is named as in BraTS.
    """
    groups: dict[tuple[str, str], list[tuple[str, str, Member]]] = collections.defaultdict(list)
    unnamed: dict[str, list[Member]] = collections.defaultdict(list)
    for member in source.members:
        named = _NAMED.fullmatch(member.name)
        if named is None:
            unnamed[member.folder].append(member)
        else:
            kind = named["kind"].lower()
            groups[member.folder, named["patient"]].append((kind, named["separator"], member))
    if not groups:
        raise DataError(
            f"no BraTS patient in {source.path}: looked for files such as Brats18_X_t1.nii.gz, "
            "BraTS2021_00000_flair.nii.gz or BraTS-GLI-00000-000-t2f.nii.gz (.nii too), in folders, zip or tar; "
            f"{source.found()}. Give the folder or archive of the download as --manual_dir"
        )
    patients_in = collections.Counter(folder for folder, _ in groups)
    patients: dict[str, Patient] = {}
    errors, notes = [], []
    for (folder, name), found in sorted(groups.items(), key=lambda group: (group[0][1], group[0][0])):
        try:
            patient = _patient(name, folder, found)
            if name in patients:
                other = patients[name].folder or "the top folder"
                raise BadExample(name, f"found twice, in {other} and in {folder or 'the top folder'}")
        except BadExample as error:
            errors.append(error)
            continue
        stray = [member for member in unnamed[folder] if "seg" in member.name.lower()]
        if "seg" not in patient.files and patients_in[folder] == 1 and len(stray) == 1:
            # BraTS 2020: the segmentation of Training_355 lies in its folder under its name from another archive.
            patient.files["seg"] = stray[0]
            notes.append(f"{name}: {stray[0].name} taken as its segmentation, the only one in its folder")
        patients[name] = patient
    return list(patients.values()), errors, notes


def _patient(name: str, folder: str, found: list[tuple[str, str, Member]]) -> Patient:
    files: dict[str, Member] = {}
    for kind, _, member in found:
        modality = _MODALITY_OF[kind]
        if modality in files:
            raise BadExample(name, f"{files[modality].name} and {member.name} both hold {modality}, remove one")
        files[modality] = member
    if not set(files) & set(MODALITIES):
        raise BadExample(name, f"none of {', '.join(MODALITIES)} beside its segmentation in {folder}")
    if _GLIOMA_FROM_2023.match(name):
        labels = GLIOMA_FROM_2023
    elif any(separator == "-" or kind in ("t1n", "t1c", "t2w", "t2f") for kind, separator, _ in found):
        labels = AS_STORED
    else:
        labels = UNTIL_2021
    folders = re.split(r"[/:] ?", folder)
    return Patient(
        name=name,
        folder=folder,
        files=files,
        labels=labels,
        split="validation" if any("validation" in part.lower() for part in [*folders, name]) else "train",
        grade=next((part.upper() for part in folders if part.upper() in ("HGG", "LGG")), ""),
    )
