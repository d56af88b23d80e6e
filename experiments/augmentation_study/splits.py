"""What each seed trains and tests on: folds of patients, none on both sides, each tested once."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.augmentation_study.pairs import Pair, check_apart
from experiments.augmentation_study.settings import Study
from singan.errors import UserError

_SPLIT = 20240917  # so that seeds of a study are not those of other draws


@dataclasses.dataclass(frozen=True)
class Split:
    """One fold of one seed.

    Attributes:
      order: ids of training tiles; a training set of n is the first n, so that a larger one holds the smaller. Each
        patient gives one tile before any gives a second.
      validation: ids of the tiles that the decoding is tuned on, of patients that neither train nor test.
      test: ids of all tiles of the fold's patients.
    """

    seed: int
    fold: int
    order: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def train(self, size: int) -> tuple[str, ...]:
        """Returns the ids of a training set; size 0 takes all."""
        return self.order[: size or None]


def draw_splits(tiles: Sequence[Pair], held_out: Sequence[Pair], study: Study) -> list[Split]:
    """Returns a split for each seed and fold.

    Args:
      held_out: the tiles of study.test_path, which are then the one fold; [] where folds are made of `tiles`.

    Raises:
      UserError: a patient is on both sides, there are too few patients, or too few tiles for the largest set.
    """
    check_apart(tiles, held_out)
    patients = sorted({tile.patient for tile in tiles})
    folds = 1 if held_out else min(study.folds, len(patients))
    least = study.validation + 1 + (0 if held_out else -(-len(patients) // folds))
    if len(patients) < least or (folds < 2 and not held_out):
        raise UserError(
            f"{len(patients)} patient(s) are too few: beside those tested {study.validation} tune, and at"
            " least one trains: add patients, raise --study.folds or lower --study.validation"
        )
    splits = []
    for seed in range(study.seeds):
        rng = np.random.default_rng([_SPLIT, seed])
        shuffled = [patients[i] for i in rng.permutation(len(patients))]
        for fold in range(folds):
            tested = set() if held_out else set(shuffled[fold::folds])
            others = [patient for patient in shuffled if patient not in tested]
            tuned = set(others[: study.validation])
            of_patient = [[t for t in tiles if t.patient == patient] for patient in others[study.validation :]]
            of_patient = [[some[i] for i in rng.permutation(len(some))] for some in of_patient]
            rounds = max(map(len, of_patient))
            order = [some[turn].id for turn in range(rounds) for some in of_patient if turn < len(some)]
            if len(order) < max(study.train_sizes):
                raise UserError(
                    f"seed {seed} leaves {len(order)} tiles to train on, but --study.train_sizes asks for"
                    f" {max(study.train_sizes)}: give more images or smaller sets"
                )
            test = held_out or [tile for tile in tiles if tile.patient in tested]
            validation = tuple(tile.id for tile in tiles if tile.patient in tuned)
            splits.append(Split(seed, fold, tuple(order), validation, tuple(tile.id for tile in test)))
    return splits
