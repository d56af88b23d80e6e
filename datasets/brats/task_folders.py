"""The folders of the Medical Segmentation Decathlon and of nnU-Net: imagesTr, labelsTr and a dataset.json beside them.

MSD keeps the modalities of a case as the fourth axis of one file, nnU-Net as files X_0000, X_0001, ...
"""

import collections
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from datasets.archives import Member
from datasets.brats.labels import LabelTable, from_names
from datasets.brats.names import MODALITIES, SEG, kind_of, split_name, stem
from datasets.brats.patients import Patient
from datasets.errors import DataError

DATASET_JSON = "dataset.json"
_LARGEST_JSON = 1 << 24  # bytes
_SPLITS = {"imagestr": "train", "imagests": "test"}
_NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
# Where there is no dataset.json: nnU-Net's own conversion of BraTS, and MSD's Task01_BrainTumour.
_NNUNET_ORDER = dict(enumerate(MODALITIES))
_MSD_ORDER = {0: "flair", 1: "t1", 2: "t1ce", 3: "t2"}


def find_patients(members: Sequence[Member]) -> tuple[list[Patient], list[str]]:
    """Returns the patients below folders imagesTr and imagesTs, and a note for each such folder.

    Raises:
      DataError: A dataset.json cannot be read, or names no modality that is known.
    """
    jsons = {_place(member.folder): member for member in members if member.name.lower() == DATASET_JSON}
    images: dict[str, list[Member]] = collections.defaultdict(list)
    labels: dict[tuple[str, str], Member] = {}
    for member in members:
        above, last = _folders(member.folder)
        if not stem(member.name) or split_name(member.name):
            continue
        if last in _SPLITS:
            images[member.folder].append(member)
        elif last in ("labelstr", "labelsts"):
            labels[above, stem(member.name)] = member
    patients, notes = [], []
    for folder, files in images.items():
        above, last = _folders(folder)
        description = jsons.get(above)
        content = _read_json(description) if description else {}
        numbered = any(_NUMBERED.fullmatch(stem(member.name)) for member in files)
        default = _NNUNET_ORDER if numbered else _MSD_ORDER
        channels = _channels(description, content) if description else default
        table = _label_table(description, content) if description else None
        for case, of_case in _cases(folder, files, numbered, channels).items():
            if seg := labels.get((above, case)):
                of_case[SEG] = seg
            patient = Patient(case, folder, of_case, _SPLITS[last])
            if not numbered:
                patient.volume_of = {kind: volume for volume, kind in channels.items()}
            if table is not None:
                patient.labels, patient.decided = table, True
            patients.append(patient)
        order = ", ".join(f"{number} {kind}" for number, kind in sorted(channels.items()))
        kind, source = ("nnU-Net", "channels") if numbered else ("MSD", "volumes")
        said = "as dataset.json says" if description else f"by the order of {kind}, there is no dataset.json"
        notes.append(f"{folder}: {source} {order}, {said}")
    return patients, notes


def _folders(folder: str) -> tuple[str, str]:
    """Returns the place above a folder, and the folder's own name in small letters."""
    last = re.split(r"/|: ", folder)[-1]
    return _place(folder.removesuffix(last)), last.lower()


def _place(folder: str) -> str:
    return folder.rstrip("/: ")


def _cases(
    folder: str, files: Sequence[Member], numbered: bool, channels: Mapping[int, str]
) -> dict[str, dict[str, Member]]:
    """Returns the files of each case by modality; those of channels that are no modality are left out."""
    cases: dict[str, dict[str, Member]] = {}
    for member in files:
        match = _NUMBERED.fullmatch(stem(member.name))
        if not numbered:
            cases[stem(member.name)] = dict.fromkeys(channels.values(), member)
        elif match:
            number = int(match["channel"])
            if channels is _NNUNET_ORDER and number not in channels:
                raise DataError(
                    f"{member.place} is a fifth channel, and no dataset.json beside {folder} says what the channels "
                    f"are: add it, with the channel_names of nnU-Net ({', '.join(MODALITIES)})"
                )
            if number in channels:
                cases.setdefault(match["case"], {})[channels[number]] = member
    return cases


def _read_json(member: Member) -> dict[str, Any]:
    try:
        with member.open() as stream:
            content = json.loads(stream.read(_LARGEST_JSON))
        if not isinstance(content, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{member.place} cannot be read ({reason}): mend it, or take it out") from None
    return content


def _channels(member: Member, content: Mapping[str, Any]) -> dict[int, str]:
    """Returns the modality of each channel that is one."""
    given = content.get("channel_names", content.get("modality"))
    try:
        named = {int(number): str(name) for number, name in given.items()}  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError):
        raise DataError(f"{member.place} has no channel_names (or modality) as nnU-Net and MSD write them") from None
    known = {number: kind for number, name in named.items() if (kind := kind_of(name)) in MODALITIES}
    if not known or len(set(known.values())) < len(known):
        raise DataError(
            f"{member.place} names the channels {', '.join(named.values())}: of a brain tumour they are T1, T1ce, T2 "
            "and FLAIR, each once"
        )
    return known


def _label_table(member: Member, content: Mapping[str, Any]) -> LabelTable:
    """Returns the table of `labels`: {"1": "edema"} of MSD, {"edema": 1} or {"whole tumor": [1, 2, 3]} of nnU-Net."""
    meaning: dict[int, str] = {}
    sizes: dict[int, int] = {}
    try:
        for key, value in content["labels"].items():
            if isinstance(value, list):
                for label in map(int, value):
                    if label not in sizes or len(value) < sizes[label]:  # the smallest region that a label is in
                        meaning[label], sizes[label] = _rest_of(str(key), len(value)), len(value)
            elif isinstance(value, str):
                meaning[int(key)] = value
            elif str(key) != "ignore":
                meaning[int(value)] = str(key)
        return from_names("dataset_json", meaning)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{member.place} has no labels that can be used ({error}): mend it, or take it out") from None


def _rest_of(region: str, labels: int) -> str:
    """Returns what a region holds beside the smaller ones in it: the whole tumour beside its core is oedema."""
    if labels > 1 and "whole" in region.lower():
        return "edema"
    if labels > 1 and "core" in region.lower():
        return "necrotic_and_non_enhancing_core"
    return region
