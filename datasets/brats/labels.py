"""How segmentations are numbered: the label tables of the BraTS years and tasks, and those that files bring along.

In every table but one a label is the number in the file. Up to 2021 the enhancing tumour is stored as 4 and 3 is
unused; here it becomes 3, as BraTS itself numbers it from 2023 on. `to_stored` gives the file's numbers back.
"""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from datasets.errors import DataError

LABELS = 5  # that an example has room for, the background among them

# How far a stored value may be from a whole number: an automatically scaled uint8 of labels up to 5 is off by 0.01.
ROUNDING = 0.02


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """How a segmentation is numbered.

    Attributes:
      name: Name of the table.
      names: What each of the five labels means here, index = label; '' where it is unused.
      stored: The value of each label in the file, index = label; -1 where it is unused.
      tumour: Labels that count as tumour.
    """

    name: str
    names: tuple[str, str, str, str, str]
    stored: tuple[int, int, int, int, int]
    tumour: tuple[int, ...]

    def known(self) -> tuple[int, ...]:
        """Returns the values a file may hold, ascending."""
        return tuple(sorted(value for value in self.stored if value >= 0))

    def from_stored(self, seg: np.ndarray) -> np.ndarray:
        """Returns a segmentation as stored (any shape, whole numbers) in this numbering, uint8.

        Raises:
          ValueError: A value is not in the table; the message lists the values met.
        """
        values = np.unique(seg)
        unknown = values[~np.isin(values, self.known())]
        if unknown.size:
            met = ", ".join(f"{value:g}" for value in unknown[:5].tolist())
            raise ValueError(
                f"label {met} is not among {', '.join(map(str, self.known()))} of {self.name};"
                " --labels says how segmentations are numbered"
            )
        labels = np.zeros(seg.shape, np.uint8)
        for label, value in enumerate(self.stored):
            if label and value >= 0:
                labels[seg == value] = label
        return labels

    def to_stored(self, labels: np.ndarray) -> np.ndarray:
        """Returns a segmentation in this numbering (uint8) as the file would hold it; undoes `from_stored`."""
        return np.maximum(np.asarray(self.stored), 0).astype(np.uint8)[labels]

    def is_tumour(self, labels: np.ndarray) -> np.ndarray:
        """Returns a boolean array: which voxels of a segmentation in this numbering are tumour."""
        return np.isin(labels, self.tumour)

    def meaning(self) -> dict[int, str]:
        """Returns what each value of a file but the background means."""
        return {value: name for value, name in zip(self.stored, self.names, strict=True) if value > 0}


def _table(name: str, *names: str, stored: tuple[int, ...] = (), tumour: tuple[int, ...] = ()) -> LabelTable:
    """Returns the table of labels 1, 2, ..., stored as they are and all of them tumour unless said otherwise."""
    unused = LABELS - 1 - len(names)
    filled = ("background", *names) + ("",) * unused
    values = (0, *(stored or range(1, len(names) + 1))) + (-1,) * unused
    return LabelTable(name, filled, values, tumour or tuple(range(1, len(names) + 1)))  # type: ignore[arg-type]


UNTIL_2021 = _table("brats_until_2021", "necrotic_and_non_enhancing_core", "edema", "enhancing_tumor", stored=(1, 2, 4))
FROM_2023 = _table(
    "brats_2023", "necrotic_and_non_enhancing_core", "surrounding_flair_hyperintensity", "enhancing_tumor"
)
TREATED_2024 = _table("brats_2024", *FROM_2023.names[1:4], "resection_cavity", tumour=(1, 2, 3))
PED = _table("brats_ped", "enhancing_tumor", "non_enhancing_tumor", "cystic_component", "edema")
MEN_RT = _table("brats_men_rt", "gross_tumor_volume")
MSD = _table("msd_brain_tumour", "edema", "non_enhancing_tumor", "enhancing_tumor")
UNTIL_2016 = _table("brats_until_2016", "necrosis", "edema", "non_enhancing_tumor", "enhancing_tumor")
# Where nothing says what the numbers mean: kept as they are, without names.
AS_STORED = _table("as_stored", "label_1", "label_2", "label_3", "label_4")

# What --labels takes, in small letters.
CHOICES: dict[str, LabelTable] = {
    "2015": UNTIL_2016,
    **dict.fromkeys(("2020", "2017", "2018", "2019", "2021", "upenn", "ucsf"), UNTIL_2021),
    **dict.fromkeys(("2023", "men", "met", "ssa", "goat"), FROM_2023),
    **dict.fromkeys(("2024", "2025"), TREATED_2024),
    **dict.fromkeys(("ped", "peds"), PED),
    "men-rt": MEN_RT,
    "msd": MSD,
    "as_stored": AS_STORED,
}
# The same for people: each numbering once.
CHOICES_TEXT = (
    "2020 (1 2 4, until 2021, UPENN, UCSF), 2023 (1 2 3; MEN, MET, SSA, GoAT), 2024 (1 2 3 4, resection cavity), PED,"
    " MEN-RT, MSD (1 edema 2 non-enhancing 3 enhancing), 2015 (1 2 3 4, until 2016) or as_stored (no names)"
)


def choice(text: str) -> LabelTable:
    """Returns the table that --labels names; DataError where there is none."""
    if text.lower() not in CHOICES:
        raise DataError(f"--labels={text} is no numbering of labels: give {CHOICES_TEXT}")
    return CHOICES[text.lower()]


def from_names(name: str, meaning: Mapping[int, str]) -> LabelTable:
    """Returns the table of a file that says what its values mean.

    Args:
      name: Of the table. Where it is one of the tables above and the values mean the same, that one is returned.
      meaning: What each value means; 0 may be among them.

    Raises:
      ValueError: More labels than an example has room for, or values that are none.
    """
    meaning = {value: _slug(text) for value, text in sorted(meaning.items()) if value != 0}
    for table in CHOICES.values():
        if table.name == name and table.meaning() == meaning:
            return table
    if not meaning or len(meaning) >= LABELS or min(meaning) < 0 or max(meaning) > 255:
        raise ValueError(f"{len(meaning)} labels ({', '.join(map(str, meaning))}), not 1 to {LABELS - 1} from 1 to 255")
    tumour = tuple(label for label, text in enumerate(meaning.values(), 1) if not re.search("resection|cavity", text))
    return _table(name, *meaning.values(), stored=tuple(meaning), tumour=tumour)


def whole_labels(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Returns a segmentation as whole numbers and, where values had to be rounded to become so, one of them as text.

    Raises:
      ValueError: Values further than ROUNDING from a whole number, or none at all.
    """
    if values.dtype.kind in "iub":
        return values, ""
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ValueError("values that are no labels")
    whole = np.rint(values)
    off = np.abs(values - whole)
    if off.max() > ROUNDING:
        raise ValueError(
            f"label {values.flat[off.argmax()]:g} is not whole: a segmentation is resampled with nearest neighbour,"
            " which mixes no labels"
        )
    return whole, f"{values.flat[off.argmax()]:g}" if off.max() > 0 else ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "unnamed"
