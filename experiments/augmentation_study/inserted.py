"""Tumours that experiments.tumour_insertion put into healthy slices, as pairs of the tumour task."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.augmentation_study.pairs import Pair, brain_pair, reduced
from experiments.augmentation_study.patients import Known
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.splits import Split
from launch.text import printable
from singan import files
from singan.errors import UserError
from singan.storage.workdir import pixel_digest


@dataclasses.dataclass(frozen=True, eq=False)
class Composite:
    """One inserted tumour: whose it is, and where it was put.

    Attributes:
      donor: id of the slice that the tumour is of.
      patient: of the slice that it was put into, by the study's own rule.
      image: uint8 [p, p, C].
      instances: int32 [p, p], 1 in the tumour.
    """

    name: str
    donor: str
    patient: str
    image: np.ndarray
    instances: np.ndarray


def load(study: Study, like: Pair, known: Known) -> list[Composite]:
    """Returns the composites of study.inserted.

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
    use = content.get("use")  # what the folder says is to be trained on; older ones have start scales alone, all taken
    results = [
        _composite(root, row, result, study, like, known)
        for row in content["insertions"]
        for result in row["results"]
        if use is None or result["method"] == use
    ]
    if not results:
        raise UserError(f"--study.inserted={where} holds no tumour: insert some")
    return results


class Inserted:
    """Inserted tumours as a generator (generators.Generator).

    Only what a training set may know is used: tumours cut out of its own slices, in slices of patients that neither
    tune nor test.

    Args:
      composites: see `load`.
      tiles: all of the study, by id.
    """

    def __init__(self, composites: Sequence[Composite], tiles: Mapping[str, Pair]):
        self._composites, self._tiles = composites, tiles

    def prepare(self, seconds: float) -> bool:
        return True

    def fingerprint(self) -> str:
        return "".join(f"{one.name}{one.donor}{one.patient}{pixel_digest(one.image)}" for one in self._composites)

    def pairs(self, tiles: Sequence[Pair], n: int, seed: int, split: Split) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns n of the composites, drawn with replacement. Raises UserError where there is none to be shown."""
        ids = {tile.id for tile in tiles}
        apart = {self._tiles[name].patient for name in (*split.validation, *split.test)}
        allowed = [one for one in self._composites if one.donor in ids and one.patient not in apart]
        if not allowed:
            raise UserError(
                f"seed {split.seed}: no tumour of {', '.join(sorted(ids)[:3])} was inserted into a slice of a patient"
                " that is not tested: insert more with --per_background, or raise --study.train_sizes"
            )
        chosen = np.random.default_rng(seed).integers(len(allowed), size=n)
        return [(allowed[i].image, allowed[i].instances) for i in chosen]


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
    side = study.tile
    if min(instances.shape) < side:
        raise UserError(f"{row['name']} is smaller than a tile of {side} pixels")
    # The tile around the tumour.
    place = np.argwhere(instances).mean(0) if instances.any() else np.array(instances.shape) / 2
    y, x = (int(np.clip(c - side // 2, 0, length - side)) for c, length in zip(place, instances.shape, strict=True))
    part = np.s_[y : y + side, x : x + side]
    return Composite(row["name"], str(row["donor"]["id"]), pair.patient, pixels[part], instances[part])
