"""The label tables of the BraTS years, brought to one numbering that can be undone.

Up to 2021 the enhancing tumour is stored as 4 and 3 is unused; here it becomes 3, as BraTS itself numbers it from 2023
on. From 2024 on 4 is the resection cavity of treated patients, and stays 4.
"""

import dataclasses

import numpy as np


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
        """Returns a segmentation as stored (any shape, values among `known`) in this numbering, uint8.

        Raises:
          ValueError: A value is not in the table; the message lists the values met.
        """
        values = np.unique(seg)
        unknown = values[~np.isin(values, self.known())]
        if unknown.size:
            met = ", ".join(f"{value:g}" for value in unknown[:5].tolist())
            raise ValueError(f"label {met} is not among {', '.join(map(str, self.known()))}")
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


UNTIL_2021 = LabelTable(
    name="brats_until_2021",
    names=("background", "necrotic_and_non_enhancing_core", "edema", "enhancing_tumor", ""),
    stored=(0, 1, 2, 4, -1),
    tumour=(1, 2, 3),
)

GLIOMA_FROM_2023 = LabelTable(
    name="brats_gli_from_2023",
    names=(
        "background",
        "necrotic_and_non_enhancing_core",
        "surrounding_flair_hyperintensity",
        "enhancing_tumor",
        "resection_cavity",
    ),
    stored=(0, 1, 2, 3, 4),
    tumour=(1, 2, 3),
)

# Tasks other than glioma number their labels in ways that changed between years: kept as they are, without names.
AS_STORED = LabelTable(
    name="as_stored",
    names=("background", "label_1", "label_2", "label_3", "label_4"),
    stored=(0, 1, 2, 3, 4),
    tumour=(1, 2, 3, 4),
)
