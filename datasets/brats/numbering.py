"""Which label table holds for which case: asked for, brought along by the files, or told by names and contents.

Names alone mislead: post-operative data is numbered anew under the names of 2023, and files of 2021 are renamed to
those of 2023 with their old numbers. So the labels that all cases of one kind of names hold are looked at together.
What was taken is said, and where it is doubtful, why; where it cannot be told, the build stops.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from datasets.brats import nifti
from datasets.brats.labels import (
    AS_STORED,
    CHOICES_TEXT,
    FROM_2023,
    MEN_RT,
    PED,
    TREATED_2024,
    UNTIL_2021,
    LabelTable,
    choice,
    whole_labels,
)
from datasets.brats.names import SEG, split_name
from datasets.brats.patients import Patient, parts_of
from datasets.errors import DataError, some
from datasets.progress import track

_TASK = re.compile(r"BraTS-(MEN-RT|GLI|PED|MEN|MET|SSA|GoAT)s?-", re.IGNORECASE)
# The treated gliomas of 2024: their time points count from 100.
_TREATED = re.compile(r"BraTS-GLI-\d+-1\d\d", re.IGNORECASE)
_YEAR = re.compile(r"brats\D*(20\d\d)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Decision:
    """The table that was taken for some cases.

    Attributes:
      table: What their segmentations are read with.
      cases: Their names.
      how: Where it comes from, such as 'by their names'; a doubt included.
    """

    table: LabelTable
    cases: list[str]
    how: str

    def to_json(self) -> dict[str, Any]:
        """Returns what metadata.json keeps of it."""
        meaning = {str(value): name for value, name in self.table.meaning().items()}
        return {"label_table": self.table.name, "labels": meaning, "cases": len(self.cases), "how": self.how}


def decide(patients: Sequence[Patient], asked: str) -> list[Decision]:
    """Sets `labels` of the patients.

    Args:
      patients: All of a download. Every segmentation is read; one that cannot be is passed over here.
      asked: The numbering that --labels names, which overrules everything else; '' to find out.

    Returns:
      What was decided for the patients that have a segmentation.

    Raises:
      DataError: There is no such numbering, or it cannot be told.
    """
    with_seg = [patient for patient in patients if SEG in patient.files]
    if asked:
        for patient in patients:
            patient.labels = choice(asked)
        return [Decision(choice(asked), _names(with_seg), f"as --labels={asked} says")] if with_seg else []
    decisions: list[Decision] = []
    brought: dict[LabelTable, list[Patient]] = collections.defaultdict(list)
    kinds: dict[tuple[str, str], list[Patient]] = collections.defaultdict(list)
    held: dict[str, frozenset[int]] = {}
    for patient in track(with_seg, "brats labels", "segmentations"):
        held[patient.name], table = _look(patient)
        if table is not None:
            patient.labels, patient.decided = table, True
            brought[table].append(patient)
        elif patient.decided:
            brought[patient.labels].append(patient)
        else:
            kinds[_kind(patient)].append(patient)
    for table, group in brought.items():
        decisions.append(Decision(table, _names(group), "as the files themselves say"))
    for (rule, _), group in kinds.items():
        table, how = _RULES[rule](group, {patient.name: held[patient.name] for patient in group})
        for patient in group:
            patient.labels = table
        decisions.append(Decision(table, _names(group), how))
    return decisions


def _look(patient: Patient) -> tuple[frozenset[int], LabelTable | None]:
    """Returns the labels that a segmentation holds, without 0, and the table that it brings along."""
    try:
        image = nifti.read(patient.files[SEG])
        values, _ = whole_labels(nifti.array(image))
    except (nifti.UnreadableError, ValueError):
        return frozenset(), None
    try:
        table = nifti.label_table(image)
    except ValueError as error:
        raise DataError(
            f"{patient.files[SEG].place} says in its header what its labels mean, but not so that it can be used"
            f" ({error}): give --labels"
        ) from None
    return frozenset(int(value) for value in np.unique(values)) - {0}, table


def _kind(patient: Patient) -> tuple[str, str]:
    """Returns the rule for the labels of a patient, and the kind of names that are looked at together."""
    named = split_name(patient.files[SEG].name)
    if named and named[2] == "gtv":
        return "men-rt", ""
    if task := _TASK.match(patient.name):
        name = task[1].upper()
        return {"MEN-RT": "men-rt", "PED": "ped"}.get(name, "from 2023"), name
    return patient.style, ""


def _from_2023(patients: Sequence[Patient], held: Mapping[str, frozenset[int]]) -> tuple[LabelTable, str]:
    both, only_3, only_4 = _threes_and_fours(held)
    treated = {patient.name for patient in patients if _TREATED.match(patient.name)}
    if not (both or only_4):
        return (TREATED_2024 if len(treated) == len(patients) else FROM_2023), "by their names"
    treated |= {patient.name for patient in patients if _year(patient) >= 2024}
    if treated.issuperset(both + only_4):
        return TREATED_2024, "by their names"
    if both:
        return TREATED_2024, f"4 is beside 3 in {some(both)}, so that 4 is no enhancing tumour"
    if only_3:
        raise DataError(
            f"{some(only_3)} hold{_s(only_3)} label 3 and {some(only_4)} label 4 without 3, which may be the"
            " resection cavity of 2024 or the enhancing tumour of the numbering until 2021: give --labels=2024, or"
            " build those with --labels=2020 apart from the others"
        )
    return UNTIL_2021, (
        f"4 without 3 in {some(only_4)}, although named as from 2023 on: taken as the enhancing tumour; where it is"
        " the resection cavity, build again with --labels=2024 --overwrite"
    )


def _until_2021(patients: Sequence[Patient], held: Mapping[str, frozenset[int]]) -> tuple[LabelTable, str]:
    both, only_3, only_4 = _threes_and_fours(held)
    named = any(re.match(r"brats", patient.name, re.IGNORECASE) for patient in patients)
    if only_4 or not (both or only_3):
        if not named and set().union(*held.values()) == {1}:
            return AS_STORED, (
                "1 is the only label, taken as the whole tumour; where it is the necrotic core of BraTS, build again"
                " with --labels=2020 --overwrite"
            )
        return UNTIL_2021, "by their names" if named else "1 2 4, as in BraTS until 2021"
    if both:
        raise DataError(
            f"{some(both)} hold{_s(both)} both labels 3 and 4, which BraTS until 2021 does not: say with --labels how"
            f" they are numbered: {CHOICES_TEXT}"
        )
    said = "3 without 4" + (", although named as until 2021" if named else "")
    return FROM_2023, (
        f"{said}: taken as the numbering from 2023 on, 3 the enhancing tumour; where 1 is the oedema, as in MSD and"
        " nnU-Net, build again with --labels=MSD --overwrite"
    )


def _ped(patients: Sequence[Patient], held: Mapping[str, frozenset[int]]) -> tuple[LabelTable, str]:
    if any(4 in labels for labels in held.values()):
        return PED, "by their names"
    if all(_year(patient) == 2023 for patient in patients):
        return FROM_2023, "by their names, in a folder of 2023"
    if all(_year(patient) >= 2024 for patient in patients) or not any(held.values()):
        return PED, "by their names"
    return PED, (
        "by their names; without a 4 they may be those of 2023, whose 3 is the enhancing tumour: if so, build again"
        " with --labels=2023 --overwrite"
    )


def _men_rt(patients: Sequence[Patient], held: Mapping[str, frozenset[int]]) -> tuple[LabelTable, str]:
    return MEN_RT, "by their names"


def _unknown(patients: Sequence[Patient], held: Mapping[str, frozenset[int]]) -> tuple[LabelTable, str]:
    return AS_STORED, (
        "kept without names, for there is no dataset.json; nnU-Net's own conversion of BraTS is --labels=MSD, 4"
        " renumbered to 3 is --labels=2023"
    )


_RULES = {
    "from 2023": _from_2023,
    "until 2021": _until_2021,
    "ped": _ped,
    "men-rt": _men_rt,
    "": _unknown,
}


def _threes_and_fours(held: Mapping[str, frozenset[int]]) -> tuple[list[str], list[str], list[str]]:
    """Returns the cases that hold 3 and 4, 3 without 4, and 4 without 3."""
    patients: dict[tuple[bool, bool], list[str]] = collections.defaultdict(list)
    for name, labels in held.items():
        patients[3 in labels, 4 in labels].append(name)
    return patients[True, True], patients[True, False], patients[False, True]


def _year(patient: Patient) -> int:
    """Returns the year that the innermost folder named after BraTS says, or 0."""
    years = [int(match[1]) for part in parts_of(patient.folder) if (match := _YEAR.search(part))]
    return years[-1] if years else 0


def _names(patients: Iterable[Patient]) -> list[str]:
    return [patient.name for patient in patients]


def _s(names: Sequence[str]) -> str:
    return "s" if len(names) == 1 else ""
