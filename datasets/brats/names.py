"""What the files of a case are called: every spelling of a modality and of the segmentation that is known."""

import re

# The channels of every image, by their names up to 2021.
MODALITIES = ("t1", "t1ce", "t2", "flair")
SEG = "seg"

# What a file holds -> how its name may end, in small letters. Where a case has a file under several spellings of one
# modality, the first spelling is read.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "t1": ("t1", "t1n", "t1w"),
    "t1ce": (
        *("t1ce", "t1c", "t1gd", "t1_gd", "t1-gd", "t1gad", "t1_ce", "t1-ce"),
        *("t1w_gd", "ce-gd_t1w", "ce-gadolinium_t1w"),
    ),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f", "t2flair", "t2_flair", "t2-flair"),
    SEG: (
        *("seg", "segm", "segmentation", "gtv", "label", "labels"),
        *("tumor_segmentation", "tumour_segmentation", "tumor_seg", "tumour_seg"),
    ),
}

KIND_OF = {spelling: kind for kind, spellings in SYNONYMS.items() for spelling in spellings}
_SPELLINGS = "|".join(map(re.escape, KIND_OF))
# As little as possible for the case, so that 'X_ce-gd_T1w' is the contrast-enhanced T1 of X.
_NAMED = re.compile(rf"(?P<case>.+?)(?P<separator>[_.-])(?P<spelling>{_SPELLINGS})", re.IGNORECASE)
_NIFTI = re.compile(r"(?P<stem>.+?)\.nii(\.gz)?", re.IGNORECASE)


def stem(name: str) -> str:
    """Returns a file's name without .nii or .nii.gz, or '' where it has neither."""
    match = _NIFTI.fullmatch(name)
    return match["stem"] if match else ""


def split_name(name: str) -> tuple[str, str, str] | None:
    """Returns the case, the separator and the spelling (a key of KIND_OF) in the name of a NIfTI file.

    Case and separator are '' where the name is a modality alone. None where the name ends in no known spelling.
    """
    if (alone := stem(name).lower()) in KIND_OF:
        return "", "", alone
    match = _NAMED.fullmatch(stem(name))
    return match and (match["case"], match["separator"], match["spelling"].lower())


def kind_of(channel: str) -> str | None:
    """Returns the modality that a channel's name, such as 'T1w' or 't1 Gd', stands for, or None."""
    return KIND_OF.get(re.sub(r"[\s_]+", "_", channel.strip().lower()))
