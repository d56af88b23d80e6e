"""Whose images are: by patients.csv, by what a slice's file says, or by a part of its name.

One rule for all that a study shows or tests, or else a patient under two names could be on both sides.
"""

import csv
import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from launch.images import tfds_records
from launch.text import printable
from singan.config import DataConfig
from singan.errors import UserError

PATIENTS_FILE = "patients.csv"
TCGA = r"(TCGA-\w\w-\w{4})"
SLICE = r"(.+)_z\d+"


@dataclasses.dataclass(frozen=True)
class Rule:
    """What names the patient of a file: patients.csv (file,patient), else the pattern's group in its name."""

    listed: Mapping[str, str]
    pattern: re.Pattern[str]

    def by_list(self, stem: str, suffix: str = "") -> str:
        """Returns the patient that patients.csv names, or ''."""
        return self.listed.get(stem + suffix) or self.listed.get(stem) or ""

    def by_name(self, stem: str) -> str:
        """Returns the patient that the pattern finds, or ''."""
        match = self.pattern.search(stem)
        return (match[1] or "") if match else ""

    def required(self, path: Path) -> str:
        """Returns the patient of a file. Raises UserError where nothing tells."""
        if name := self.by_list(path.stem, path.suffix) or self.by_name(path.stem):
            return name
        raise UserError(
            f"whose image is {path.name}? Patients of training and test must differ: list file,patient in"
            f" {PATIENTS_FILE}, or give --study.patient with a regular expression ('(.*)' for one image each)"
        )


def read_rule(root: Path, given: str, known: str) -> Rule:
    """Returns the rule of a folder.

    Args:
      given: --study.patient; '' takes `known`.

    Raises:
      UserError: `given` is no regular expression with a group.
    """
    listed: dict[str, str] = {}
    if (root / PATIENTS_FILE).exists():
        with (root / PATIENTS_FILE).open(newline="", encoding="utf-8") as file:
            listed = {row[0].strip(): row[1].strip() for row in csv.reader(file) if len(row) >= 2}
    try:
        pattern = re.compile(given or known)
    except re.error as error:
        raise UserError(f"--study.patient={given!r} is no regular expression ({error})") from error
    if not pattern.groups:
        raise UserError(f"--study.patient={given!r} has no group in brackets, such as '(.*)_'")
    return Rule(listed, pattern)


def of_slice(path: Path, rule: Rule) -> str:
    """Returns the patient of an npz slice: as its array `patient` says, else by the rule, which may refuse."""
    with np.load(path, allow_pickle=False) as arrays:
        if "patient" in arrays.files:
            return str(arrays["patient"])
    return rule.required(path)


class Known:
    """The patients of slices that are not the study's own, such as those that tumours were put into.

    Args:
      names: of all patients of the study.
      paths: of the study's folders of training and test; of a prepared data set its data_dirs.
    """

    def __init__(self, data: DataConfig, given: str, paths: Sequence[str], names: Collection[str]):
        self._names, self._of_records, self._folders = set(names), {}, []
        for text in paths:
            if data.source.startswith(tfds_records.TFDS):
                prepared = tfds_records.open_prepared(dataclasses.replace(data, path=text))
                for rows in prepared.index.values():
                    self._of_records.update(zip(map(str, rows["id"]), map(str, rows["patient"]), strict=True))
            else:
                root = Path(text).expanduser()
                self._folders.append((root, read_rule(root, given, SLICE)))

    def patient_of(self, slice_id: str) -> str:
        """Returns whose a slice is, by what the study goes by for its own.

        A slice of the study's folders, and one that patients.csv lists, is whose it is said to be; by its name alone it
        is taken for one of the study's patients, and for nobody else's: that could be one of them under another name.

        Raises:
          UserError: nothing tells, or two folders tell different ones.
        """
        patients = {self._of_records[slice_id]} if slice_id in self._of_records else set()
        for root, rule in self._folders:
            path = root / f"{slice_id}.npz"
            patients.add(of_slice(path, rule) if path.is_file() else rule.by_list(slice_id, ".npz"))
        patients.discard("")
        if not patients:
            patients = {rule.by_name(slice_id) for _, rule in self._folders} & self._names
        if len(patients) == 1:
            return patients.pop()
        if patients:
            raise UserError(
                f"{printable(slice_id)} is of {' and of '.join(sorted(patients))}, as two folders say: mend one"
            )
        remedy = f"list it as file,patient in {PATIENTS_FILE}, or " if self._folders else ""
        raise UserError(
            f"whose slice is {printable(slice_id)}, which a tumour was put into? No patient of the study is known by"
            f" that: {remedy}insert into slices of the study's own data"
        )
