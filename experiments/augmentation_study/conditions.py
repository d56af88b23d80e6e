"""What segmenters are trained on: the five conditions, and the ablations of one of them."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.augmentation_study.settings import Study

DECODINGS = ("instances", "soft", "agreeing")


@dataclasses.dataclass(frozen=True)
class Source:
    """One set of synthetic pairs: where their noise began, how large they were drawn, and whether they were styled."""

    start_scale: int
    size: float = 1.0
    styled: bool = False

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"start_{self.start_scale:02d}" + f"_size_{self.size:g}" + "_styled" * self.styled


@dataclasses.dataclass(frozen=True)
class Condition:
    """What a segmenter is trained on.

    Attributes:
      about: for people.
      real: whether real patches are used.
      sources: of synthetic pairs; () for none.
      augmented: whether what is shown is flipped, turned and changed in colour.
      decoding: of the synthetic pairs' masks: instances (cut apart, small ones dropped), soft (the channel itself is
        the target), agreeing (as instances, of the half of the pairs whose mask agrees best with the stain).
      share: of synthetic pairs in each batch.
      against: for an ablation, the condition that it differs from in one thing; '' for the five conditions.
    """

    name: str
    about: str
    real: bool
    sources: tuple[Source, ...] = ()
    augmented: bool = False
    decoding: str = "instances"
    share: float = 0.0
    against: str = ""

    @property
    def is_ablation(self) -> bool:
        return bool(self.against)


BASE = "real_synthetic"  # the condition that ablations vary
COMPARISONS = (
    ("real_synthetic", "real"),
    ("all", "real_augmented"),
    ("synthetic", "real"),
    ("real_augmented", "real"),
)


def conditions(study: Study, start_scales: Sequence[int], coloured: bool) -> list[Condition]:
    """Returns the five conditions, then the ablations.

    Args:
      start_scales: of those asked for, the ones that the SinGANs have.
      coloured: whether images show stain that a mask can agree with.
    """
    sizes = [1.0] if study.inserted else [*study.sizes]
    sources = tuple(Source(scale, size) for scale in start_scales for size in sizes)
    base = Condition(BASE, "d: real + synthetic", True, sources, share=study.share)
    chosen = [
        Condition("real", "a: real", True),
        Condition("real_augmented", "b: real, flipped, turned, colours changed", True, augmented=True),
        Condition("synthetic", "c: synthetic", False, sources, share=1.0),
        base,
        dataclasses.replace(base, name="all", about="e: real + synthetic, all augmented", augmented=True),
    ]
    if not study.lever_size:
        return chosen

    def ablation(name: str, about: str, **changes) -> Condition:
        return dataclasses.replace(base, name=name, about=about, **{"against": BASE, **changes})

    if len(start_scales) > 1:
        for scale in start_scales:
            kept = tuple(source for source in sources if source.start_scale == scale)
            chosen.append(ablation(f"start_{scale}", f"start scale {scale} alone", sources=kept))
    if len(sizes) > 1:
        kept = tuple(source for source in sources if source.size == sizes[0])
        chosen.append(ablation(f"size_{sizes[0]:g}", f"size {sizes[0]:g} alone", sources=kept))
    others = [share for share in (0.25, 0.75) if share != study.share]
    chosen += [ablation(f"share_{share:g}", f"{share:.0%} of a batch synthetic", share=share) for share in others]
    if study.inserted:
        return chosen
    chosen.append(ablation("soft", "the mask channel itself as target", decoding="soft"))
    if coloured:
        chosen.append(ablation("agreeing", "the half whose mask agrees best with the stain", decoding="agreeing"))
    # The style step takes longer than all the rest: one source shows what it does.
    plain = Source(start_scales[min(1, len(start_scales) - 1)], sizes[0])
    styled = dataclasses.replace(plain, styled=True)
    words = f"start scale {plain.start_scale} at size {plain.size:g}"
    chosen.append(ablation("plain", words, sources=(plain,)))
    chosen.append(ablation("styled", f"{words}, style step {study.style:g}", sources=(styled,), against="plain"))
    return chosen


def train_sizes(condition: Condition, study: Study) -> tuple[int, ...]:
    """Returns the numbers of real patches that a condition is tried at."""
    return (study.lever_size,) if condition.is_ablation else study.train_sizes


def schedule(
    condition: Condition, study: Study, seed: int, real: Sequence[int], synthetic: Mapping[str, Sequence[int]]
) -> np.ndarray:
    """Returns which rows of the bank each batch shows, int32 [steps, batch]: as many steps whatever the condition.

    Each batch holds the condition's share of synthetic pairs (rounded), drawn from the sources alike.

    Args:
      real: rows of the training patches.
      synthetic: rows by source.
    """
    rng = np.random.default_rng([seed, len(real), zlib.crc32(condition.name.encode())])
    made = round(study.batch * condition.share) if condition.real else study.batch
    if condition.real and condition.sources:
        made = min(max(made, 1), study.batch - 1)
    rows = np.zeros((study.steps, study.batch), np.int32)
    if made < study.batch:
        rows[:, made:] = rng.choice(np.asarray(real), (study.steps, study.batch - made))
    if made:
        pools = [np.asarray(synthetic[source.name]) for source in condition.sources]
        which = rng.integers(len(pools), size=(study.steps, made))
        where = rng.random((study.steps, made))
        for number, pool in enumerate(pools):
            chosen = which == number
            rows[:, :made][chosen] = pool[(where[chosen] * len(pool)).astype(int)]
    return rows
