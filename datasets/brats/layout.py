"""Which files of a download belong to which patient: BraTS from 2017 on, cohorts named alike, MSD and nnU-Net."""

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence

from datasets.archives import Member, Source
from datasets.brats import task_folders
from datasets.brats.names import KIND_OF, MODALITIES, SEG, split_name, stem
from datasets.brats.patients import Patient, grade_of, parts_of, split_of
from datasets.errors import BadExample, DataError

# Segmentations of something else than the tumour.
_NO_TUMOUR = re.compile(r"brain|parenchyma|tissue|skull|mask", re.IGNORECASE)
# What other kinds of files are brought to NIfTI with.
_CONVERTERS = {
    (".dcm", ".ima"): "DICOM becomes NIfTI with dcm2niix",
    (".mha", ".mhd", ".nrrd"): ".mha, .mhd and .nrrd become NIfTI with SimpleITK (ReadImage, WriteImage)",
    (".mgz", ".mgh"): ".mgz becomes NIfTI with FreeSurfer's mri_convert",
}


@dataclasses.dataclass
class Layout:
    """What lies in a download.

    Attributes:
      patients: Ordered by name.
      errors: One for each patient that cannot be used: found twice, two files for one modality, no modality at all.
      notes: Lines about files that were taken in spite of their name.
      unused: NIfTI files that belong to none of the patients and that no error tells of.
    """

    patients: list[Patient] = dataclasses.field(default_factory=list)
    errors: list[BadExample] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    unused: list[Member] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Group:
    """The files of one folder that are named after one case ('' where they are called t1.nii.gz and so on)."""

    folder: str
    case: str
    files_by_spelling: list[tuple[str, Member]] = dataclasses.field(default_factory=list)  # spelling, file
    dashes: bool = False

    def kinds(self) -> set[str]:
        return {KIND_OF[spelling] for spelling, _ in self.files_by_spelling}

    def has_modality(self) -> bool:
        return bool(self.kinds() & set(MODALITIES))

    def files(self) -> dict[str, Member]:
        """Returns a file for each kind; of several spellings the one that comes first in names.SYNONYMS."""
        files: dict[str, tuple[str, Member]] = {}
        for spelling, member in sorted(self.files_by_spelling, key=lambda file: list(KIND_OF).index(file[0])):
            taken, other = files.setdefault(KIND_OF[spelling], (spelling, member))
            if taken == spelling and other is not member:
                kind = KIND_OF[spelling]
                raise BadExample(self.case, f"{other.name} and {member.name} both hold {kind}, remove one")
        return {kind: member for kind, (_, member) in files.items()}


def wanted(path: str) -> bool:
    """Returns whether a file of this path is read: a NIfTI file, or the dataset.json of MSD and nnU-Net."""
    name = path.rpartition("/")[2]
    return stem(name) != "" or name.lower() == task_folders.DATASET_JSON


def find_patients(source: Source) -> Layout:
    """Sorts the files of a download into patients.

    Raises:
      DataError: No patient is found, or a dataset.json cannot be used.
    """
    niftis = [member for member in source.members if stem(member.name)]
    layout = Layout()
    layout.patients, layout.notes = task_folders.find_patients(source.members)
    in_tasks = {member.place for patient in layout.patients for member in patient.files.values()}
    groups, unnamed = _grouped([member for member in niftis if member.place not in in_tasks])
    _name_after_folders([group for group in groups if not group.case], stem(source.path.name) or source.path.name)
    by_name: dict[str, list[_Group]] = collections.defaultdict(list)
    # A patient's segmentation may lie in another folder than its images: those with images come first.
    for group in sorted(groups, key=lambda group: (group.case, not group.has_modality(), group.folder)):
        by_name[group.case].append(group)
    reported: set[str] = set()
    lone: list[_Group] = []  # segmentations without a patient of their name
    named: list[Patient] = []
    for name, same in by_name.items():
        if not same[0].has_modality():
            lone += same
            continue
        patient, errors = _patient(name, same, source.path.name)
        named += [patient] if patient else []
        layout.errors += errors
        reported |= {member.place for group in same if errors for _, member in group.files_by_spelling}
    strays = [member for group in lone for _, member in group.files_by_spelling] + unnamed
    layout.notes += _take_strays(named, strays)
    layout.patients = sorted(layout.patients + named, key=lambda patient: patient.name)
    used = {member.place for patient in layout.patients for member in patient.files.values()}
    for group in lone:
        if not used & {member.place for _, member in group.files_by_spelling} and not _extends(
            group.case, by_name, lone
        ):
            where = group.folder or "the top folder"
            layout.errors.append(
                BadExample(group.case, f"none of {', '.join(MODALITIES)} beside its segmentation in {where}")
            )
            reported |= {member.place for _, member in group.files_by_spelling}
    if not layout.patients and not layout.errors:
        raise DataError(_nothing_found(source))
    layout.unused = [member for member in niftis if member.place not in used | reported]
    return layout


def _grouped(niftis: Sequence[Member]) -> tuple[list[_Group], list[Member]]:
    """Returns the files whose names end in a known spelling, by folder and case, and the others."""
    groups: dict[tuple[str, str], _Group] = {}
    unnamed: list[Member] = []
    in_folder = collections.Counter(member.folder for member in niftis)
    for member in niftis:
        folder, named = member.folder, split_name(member.name)
        last = (parts_of(folder) or [""])[-1]
        if in_folder[folder] == 1 and split_name(last):  # X_t1.nii/anything.nii, as some archives are unpacked
            folder, named = folder.removesuffix(last).rstrip("/"), split_name(last)
        if named is None:
            unnamed.append(member)
            continue
        case, separator, spelling = named
        group = groups.setdefault((folder, case), _Group(folder, case))
        group.files_by_spelling.append((spelling, member))
        group.dashes |= separator == "-"
    return list(groups.values()), unnamed


def _name_after_folders(bare: Sequence[_Group], top: str) -> None:
    """Names the cases of files that are called t1.nii.gz and so on after as many folders as tell them apart."""
    parts = [parts_of(group.folder) or [top] for group in bare]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        for group, each in zip(bare, parts, strict=True):
            group.case = "_".join(each[-depth:])
        kinds = collections.Counter((group.case, kind) for group in bare for kind in group.kinds())
        if max(kinds.values()) == 1:
            return


def _patient(name: str, same: Sequence[_Group], top: str) -> tuple[Patient | None, list[BadExample]]:
    """Returns the patient of the groups of one name, which hold different files of it, and what is wrong with them."""
    patient: Patient | None = None
    errors = []
    for group in same:
        try:
            files = group.files()
        except BadExample as error:
            return None, [error]
        if patient is None:
            folders = [top, *parts_of(group.folder)]
            # t1c and t2w are no sign: UCSF, numbered as until 2021, has them too.
            new = group.dashes or any(spelling in ("t1n", "t2f") for spelling, _ in group.files_by_spelling)
            patient = Patient(
                name=name,
                folder=group.folder,
                files=files,
                split=split_of(folders, name),
                grade=grade_of(folders),
                style="from 2023" if new else "until 2021",
            )
        elif files.keys() & patient.files.keys():
            here, there = (folder or "the top folder" for folder in (patient.folder, group.folder))
            errors.append(BadExample(name, f"found twice, in {here} and in {there}"))
        else:
            patient.files |= files
    return patient, errors


def _take_strays(patients: Iterable[Patient], strays: Sequence[Member]) -> list[str]:
    """Gives patients the only segmentation of their folder that is named otherwise; returns notes.

    BraTS 2020: the segmentation of Training_355 lies in its folder under its name from another archive.
    """
    notes = []
    in_folder = collections.Counter(patient.folder for patient in patients)
    for patient in patients:
        beside = [
            member
            for member in strays
            if member.folder == patient.folder
            and "seg" in member.name.lower()
            and not _NO_TUMOUR.search(member.name.replace(patient.name, ""))
        ]
        if SEG not in patient.files and in_folder[patient.folder] == 1 and len(beside) == 1:
            patient.files[SEG] = beside[0]
            notes.append(f"{patient.name}: {beside[0].name} taken as its segmentation, the only one in its folder")
    return notes


def _extends(case: str, by_name: dict[str, list[_Group]], lone: Sequence[_Group]) -> bool:
    """Returns whether the name of a segmentation goes on after that of a patient: X_brain_segmentation of X."""
    seg_only = {group.case for group in lone}
    return any(case[: match.start()] in by_name.keys() - seg_only for match in re.finditer(r"[_.-]", case))


def _nothing_found(source: Source) -> str:
    names = " ".join(source.others).lower()
    hints = [text for endings, text in _CONVERTERS.items() if any(re.search(rf"\{end}\b", names) for end in endings)]
    return (
        f"no BraTS patient in {source.path}: looked for files such as Brats18_X_t1.nii.gz, "
        "BraTS2021_00000_flair.nii.gz, BraTS-GLI-00000-000-t2f.nii.gz or X/t1.nii.gz (.nii too), and for imagesTr of "
        f"MSD and nnU-Net, in folders, zip or tar; {source.contents()}. "
        + ("; ".join(hints) if hints else "datasets/brats/README.md lists the names that are understood")
    )
