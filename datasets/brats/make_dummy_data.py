"""Makes small volumes with the file names of the BraTS years, for tests and to try the commands without the data.

    python -m datasets.brats.make_dummy_data --out=DIR [--layout=2018|2020|2021|2023]

Every patient is an ellipsoid of noise with a labelled ball in it; nothing of it comes from BraTS.
"""

import pathlib
from typing import Any

import nibabel as nib
import numpy as np
from absl import app, flags

SHAPE = (20, 18, 12)

# As in BraTS (x to the left, y to the back), with a spacing and an offset that tests can tell apart.
AFFINE = np.array([[-1.5, 0, 0, 12.25], [0, -1.25, 0, 30.5], [0, 0, 2.0, -7.75], [0, 0, 0, 1]])

# Kind of file -> ending, up to 2021 and from 2023 on.
_ENDINGS = {
    "until_2021": {"t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", "flair": "_flair", "seg": "_seg"},
    "from_2023": {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"},
}

# Layout -> for each patient: folder, name, endings, suffix, labels of the segmentation.
_LAYOUTS = {
    "2018": [
        (
            "MICCAI_BraTS_2018_Data_Training/HGG/Brats18_2013_2_1",
            "Brats18_2013_2_1",
            "until_2021",
            ".nii.gz",
            (1, 2, 4),
        ),
        ("MICCAI_BraTS_2018_Data_Training/LGG/Brats18_2013_0_1", "Brats18_2013_0_1", "until_2021", ".nii.gz", (1, 2)),
    ],
    "2020": [
        (f"{folder}/{name}", name, "until_2021", ".nii", labels)
        for folder, name, labels in (
            ("MICCAI_BraTS2020_TrainingData", "BraTS20_Training_001", (1, 2, 4)),
            ("MICCAI_BraTS2020_TrainingData", "BraTS20_Training_355", (1, 4)),
            ("MICCAI_BraTS2020_ValidationData", "BraTS20_Validation_001", None),
        )
    ],
    "2021": [
        ("BraTS2021_00000", "BraTS2021_00000", "until_2021", ".nii.gz", (1, 2, 4)),
        ("BraTS2021_00002", "BraTS2021_00002", "until_2021", ".nii.gz", (2,)),
    ],
    "2023": [
        ("BraTS-GLI-00001-000", "BraTS-GLI-00001-000", "from_2023", ".nii.gz", (1, 2, 3)),
        ("BraTS-GLI-00001-001", "BraTS-GLI-00001-001", "from_2023", ".nii.gz", (2, 3, 4)),
    ],
}

LAYOUTS = tuple(_LAYOUTS)


def volumes(seed: int, labels: tuple[int, ...] | None, shape=SHAPE, dtype: Any = np.int16) -> dict[str, np.ndarray]:
    """Returns 't1', 't1ce', 't2', 'flair' of `dtype` and, unless `labels` is None, 'seg' uint8, all of `shape`.

    The first and the last slice along the third axis are empty. Values go from -20 to 1500, 0 outside the ellipsoid.
    """
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    brain = (grid**2).sum(0) < 0.8
    result = {}
    for kind in ("t1", "t1ce", "t2", "flair"):
        values = random.integers(-20, 1500, shape)
        result[kind] = np.where(brain & (values != 0), values, 0).astype(dtype)
    if labels is not None:
        distance = ((grid - 0.1) ** 2).sum(0)
        seg = np.zeros(shape, np.uint8)
        for label, radius in zip(labels, np.linspace(0.2, 0.05, len(labels)), strict=True):
            seg[distance < radius] = label
        result["seg"] = seg
    return result


def write_patient(
    folder: pathlib.Path, name: str, arrays: dict[str, np.ndarray], naming="until_2021", suffix=".nii.gz", affine=AFFINE
) -> dict[str, pathlib.Path]:
    """Writes one patient's arrays under the names of a year; returns the files by kind."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for kind, array in arrays.items():
        files[kind] = folder / f"{name}{_ENDINGS[naming][kind]}{suffix}"
        nib.save(nib.Nifti1Image(array, affine), files[kind])
    return files


def write_layout(out: pathlib.Path, layout: str) -> dict[str, dict[str, np.ndarray]]:
    """Writes all patients of a layout of LAYOUTS below `out`; returns the arrays of each by its name."""
    patients = {}
    for seed, (folder, name, naming, suffix, labels) in enumerate(_LAYOUTS[layout]):
        patients[name] = volumes(seed, labels)
        files = write_patient(out / folder, name, patients[name], naming, suffix)
        if name == "BraTS20_Training_355":  # under the name that it has in BraTS 2020
            files["seg"].rename(files["seg"].with_name("W39_1998.09.19_Segm.nii"))
    return patients


def main(argv):
    """Runs the command."""
    del argv
    write_layout(pathlib.Path(flags.FLAGS.out), flags.FLAGS.layout)


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Folder to write into.", required=True)
    flags.DEFINE_enum("layout", "2021", LAYOUTS, "Year whose file names to use.")
    app.run(main)
