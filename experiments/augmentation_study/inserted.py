"""Tumours that experiments.tumour_insertion put into healthy slices, as synthetic pairs of the tumour task.

Only what a training set may know is used: tumours cut out of its own slices, in slices of patients that are not tested.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.augmentation_study.conditions import Condition
from experiments.augmentation_study.pairs import Pair, brain_pair, reduced
from experiments.augmentation_study.patients import Known
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.splits import Split
from experiments.augmentation_study.synthetic import Bank
from launch.text import printable
from singan import files
from singan.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Composite:
    """One inserted tumour at one start scale: whose it is, and where it was put.

    Attributes:
      donor: id of the slice that the tumour is of.
      patient: of the slice that it was put into, by the study's own rule.
      images: uint8 [1, p, p, C].
      targets: uint8 [1, p, p].
    """

    name: str
    start_scale: int
    donor: str
    patient: str
    images: np.ndarray
    targets: np.ndarray


def load(study: Study, like: Pair, known: Known) -> list[Composite]:
    """Returns the composites of study.inserted at the wanted start scales.

    Args:
      known: names the patients of the slices that tumours were put into, as the study names those that it tests; what
        the folder says of them follows another rule.

    Raises:
      UserError: the folder is not one that experiments.tumour_insertion.insert --format=npy wrote, holds slices of
        another size, with other channels, or of a patient that is not known.
    """
    root = Path(study.inserted).expanduser()
    where = printable(study.inserted)
    if not (root / "insertions.json").is_file():
        raise UserError(f"--study.inserted={where} holds no insertions.json: give what tumour_insertion.insert wrote")
    content = files.read_json(root / "insertions.json")
    results = [
        _composite(root, row, result, study, like, known)
        for row in content["insertions"]
        for result in row["results"]
        if result["start_scale"] in study.start_scales
    ]
    if not results:
        scales = ",".join(map(str, study.start_scales))
        raise UserError(f"--study.inserted={where} holds no tumour at start scales {scales}: set --study.start_scales")
    return results


def rows(bank: Bank, composites: Sequence[Composite], condition: Condition, split: Split, ids: Sequence[str]):
    """Returns the rows of what may be shown beside the real slices `ids`, by source.

    Raises:
      UserError: there is none: no tumour of these slices was inserted anywhere.
    """
    numbers: dict[str, list[int]] = {}
    for source in condition.sources:
        allowed = [
            one
            for one in composites
            if one.start_scale == source.start_scale and one.donor in ids and one.patient not in split.test_patients
        ]
        if not allowed:
            raise UserError(
                f"seed {split.seed}: no tumour of {', '.join(ids[:3])} was inserted at start scale {source.start_scale}"
                " into a slice of a patient that is not tested: insert more with --per_background, or raise"
                " --study.train_sizes"
            )
        numbers[source.name] = [
            row for one in allowed for row in bank.inserted(f"{source.name}/{one.name}", one.images, one.targets)
        ]
    return numbers


def _composite(root: Path, row: dict, result: dict, study: Study, like: Pair, known: Known) -> Composite:
    arrays = [name for name in result["files"] if name.endswith(".npy")]
    if len(arrays) != 2:
        raise UserError(f"{row['name']} is not stored as npy: insert the tumours with --format=npy")
    image_name, labels_name = sorted(arrays, key=lambda name: name.endswith("_seg.npy"))
    image, labels = (np.load(root / name, allow_pickle=False) for name in (image_name, labels_name))
    if image.shape[-1] != len(like.channels):
        raise UserError(
            f"{row['name']} has {image.shape[-1]} channels, the real slices {', '.join(like.channels)}: give the same"
            " with --config.data.channels"
        )
    patient = known.patient_of(str(row["background"]["id"]))
    pair = brain_pair(row["name"], patient, image, labels, like.channels, study)
    pixels, instances = reduced(pair, study.reduce)
    target, side = instances.astype(np.uint8) * np.uint8(255), study.patch
    if min(target.shape) < side:
        raise UserError(f"{row['name']} is smaller than a patch of {side} pixels")
    # The patch around the tumour.
    place = np.argwhere(target).mean(0) if target.any() else np.array(target.shape) / 2
    y, x = (int(np.clip(c - side // 2, 0, length - side)) for c, length in zip(place, target.shape, strict=True))
    part = np.s_[None, y : y + side, x : x + side]
    return Composite(
        row["name"], int(result["start_scale"]), str(row["donor"]["id"]), pair.patient, pixels[part], target[part]
    )
