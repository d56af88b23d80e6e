"""What each seed trains and tests on: patients first, then patches, so that no patient is on both sides."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.augmentation_study.pairs import Pair, check_apart
from experiments.augmentation_study.settings import Study
from singan.errors import UserError

_SPLIT = 20240917  # so that seeds of a study are not those of other draws


@dataclasses.dataclass(frozen=True)
class Split:
    """One seed's patches.

    Attributes:
      order: ids of training patches; a training set of n is the first n, so that a larger one holds the smaller.
      test: ids of all patches of the held-out patients.
      test_patients: their names.
    """

    seed: int
    order: tuple[str, ...]
    test: tuple[str, ...]
    test_patients: tuple[str, ...]


def draw_splits(patches: Sequence[Pair], held_out: Sequence[Pair], study: Study) -> list[Split]:
    """Returns a split for each seed.

    Args:
      held_out: the patches of study.test_path; [] where each seed holds out some of the patients itself.

    Raises:
      UserError: a patient is on both sides, there are too few patients, or too few patches for the largest set.
    """
    check_apart(patches, held_out)
    patients = sorted({pair.patient for pair in patches})
    if not held_out and len(patients) < 2:
        raise UserError(f"all images are of {patients[0]}: the test needs other patients")
    most, splits = max(study.train_sizes), []
    for seed in range(study.seeds):
        rng = np.random.default_rng([_SPLIT, seed])
        shuffled = [patients[i] for i in rng.permutation(len(patients))]
        count = 0 if held_out else min(max(round(len(patients) * study.test_share), 1), len(patients) - 1)
        apart = set(shuffled[:count])
        test = [pair for pair in patches if pair.patient in apart] or list(held_out)
        train = [pair for pair in patches if pair.patient not in apart]
        check_apart(train, test)
        if len(train) < most:
            raise UserError(
                f"seed {seed} leaves {len(train)} patches to train on, but --study.train_sizes asks for {most}: give"
                " more images or smaller sets"
            )
        order = tuple(train[i].id for i in rng.permutation(len(train)))
        names = tuple(sorted({pair.patient for pair in test}))
        splits.append(Split(seed, order, tuple(pair.id for pair in test), names))
    return splits


def used(splits: Sequence[Split], study: Study) -> list[str]:
    """Returns the ids of all patches that some seed trains on, sorted."""
    return sorted({name for split in splits for name in split.order[: max(study.train_sizes)]})
