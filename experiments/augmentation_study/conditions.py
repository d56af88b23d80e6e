"""What segmenters are trained on, the one primary comparison, and the exploratory ones."""

import dataclasses
from collections.abc import Sequence

from experiments.augmentation_study.settings import Study


@dataclasses.dataclass(frozen=True)
class Condition:
    """What a segmenter is trained on: real tiles, and perhaps made pairs beside them.

    Attributes:
      name: of files; and `about`, of tables.
      augmented: whether crops are turned, scaled, deformed and restained.
      generator: a name of generators.py; '' for real tiles alone.
      fresh: made anew all through the training, else drawn once from a pool.
      share: of a batch that is made.
    """

    name: str
    about: str
    augmented: bool = True
    generator: str = ""
    fresh: bool = False
    share: float = 0.0

    @property
    def is_share(self) -> bool:
        """Whether it differs from another condition in its share alone."""
        return self.name.rpartition("_share_")[0] != ""


THRESHOLD, TUNED_THRESHOLD = "threshold", "threshold_tuned"  # need no training
THRESHOLDS = {
    THRESHOLD: "Otsu's threshold on the stain, no training",
    TUNED_THRESHOLD: "the same, holes filled, blur tuned on validation patients",
}
REAL, AUGMENTED = "real", "augmented"
# name of the generator -> (name, words, fresh); the order is that of the table.
MADE = {
    "copy_paste": (("copy_paste", "+ copy-paste", True),),
    "cutmix": (("cutmix", "+ CutMix", True),),
    "carvemix": (("carvemix", "+ CarveMix", True),),
    "tumor_cp": (("tumor_cp", "+ TumorCP", True),),
    "stacked": (("stacked", "+ SinGAN pairs, mask as a channel", False),),
    "conditional": (
        ("conditional_pool", "+ conditional pairs, a pool", False),
        ("conditional", "+ conditional pairs, made while training", True),
    ),
    "gpnn": (("gpnn", "+ GPNN pairs", False),),
    "near_copies": (("near_copies", "+ near-copies (start scale 2)", False),),
    "inserted": (("inserted", "+ inserted tumours", False),),
}
SHARES = (0.25, 0.75)
SHARED_BY = ("stacked", "conditional")  # the conditions whose share is varied
PRIMARY = ("conditional", "copy_paste", 2, "dice")  # first, second, number of real tiles, metric


def conditions(study: Study, generators: Sequence[str]) -> list[Condition]:
    """Returns the conditions, in the order of the table.

    Args:
      generators: those that can make pairs for this study.
    """
    chosen = [
        Condition(REAL, "real", augmented=False),
        Condition(AUGMENTED, "real + augmentation (base of all below)"),
    ]
    for generator in generators:
        for name, about, fresh in MADE[generator]:
            chosen.append(Condition(name, about, True, generator, fresh, study.share))
    if study.share_size:
        for base in [one for one in chosen if one.name in SHARED_BY]:
            for share in SHARES:
                name, about = f"{base.name}_share_{share:g}", f"{base.about}, {share:.0%} of a batch"
                chosen.append(dataclasses.replace(base, name=name, about=about, share=share))
    return chosen


def train_sizes(condition: Condition, study: Study) -> tuple[int, ...]:
    """Returns the numbers of real tiles that a condition is tried at; all tiles (0) are for the two without pairs."""
    if condition.is_share:
        return (study.share_size,)
    return tuple(n for n in study.train_sizes if n or not condition.generator)


def comparisons(chosen: Sequence[Condition]) -> list[tuple[str, str]]:
    """Returns (first, second) of what is compared at every number of tiles that both have.

    Everything is compared with augmentation alone, what needs a pyramid also with copy-paste, a share with the usual
    one, and the best known with Otsu's threshold.
    """
    names = [one.name for one in chosen]
    pairs = [(AUGMENTED, REAL)]
    pairs += [(one.name, AUGMENTED) for one in chosen if one.generator and not one.is_share]
    cheap = ("copy_paste", "cutmix", "carvemix", "tumor_cp")
    if "copy_paste" in names:
        pairs += [
            (one.name, "copy_paste")
            for one in chosen
            if one.generator and one.generator not in cheap and not one.is_share
        ]
    pairs += [(one.name, one.name.rpartition("_share_")[0]) for one in chosen if one.is_share]
    pairs += [(AUGMENTED, name) for name in THRESHOLDS]
    return [(first, second) for first, second in pairs if second in names or second in THRESHOLDS]
