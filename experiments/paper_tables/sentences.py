"""What the numbers say, in plain sentences: is one variant more faithful than another, and at no less diversity?"""

import dataclasses
from collections.abc import Mapping, Sequence

from experiments.reporting.results import Paired, Quality, pair
from experiments.reporting.tables import signed
from launch.results.numbers import counted, number

FIDELITY = {"swd": "SWD", "random_sifid": "random-feature SIFID"}
EQUAL = 0.95  # a diversity of at least this share of the other's counts as equal
RULE = (
    "Closer: the mean over images of the paired differences is below 0; clearly, where its 95 % interval (Student's t"
    f" over images) is too. Equal or higher diversity: at least {EQUAL:.0%} of the other's mean."
)


@dataclasses.dataclass(frozen=True)
class Answer:
    """Whether one variant beats another by one measure of fidelity at one start scale.

    Attributes:
      word: yes | in the mean | no | undecided.
      text: one sentence with the numbers.
    """

    start_scale: int
    metric: str
    word: str
    text: str


def answer(
    first: str, second: str, qualities: Mapping[str, Quality], start_scale: int, metric: str, pixels: str = ""
) -> Answer:
    """Returns whether `first` is closer to the training images than `second` at equal or higher diversity.

    Args:
      metric: one of FIDELITY; lower is closer.
      pixels: the start scale's size, to be said.
    """
    a, b = qualities[first], qualities[second]
    fidelity = pair(a.of(start_scale, metric), b.of(start_scale, metric))
    diverse = pair(a.of(start_scale, "diversity"), b.of(start_scale, "diversity"))
    where = f"Start scale {start_scale}{f' ({pixels})' if pixels else ''}, by {FIDELITY[metric]}"
    for found, name in ((fidelity, metric), (diverse, "diversity")):
        if found is None:
            whys = dict.fromkeys(why for of in (a, b) if (why := of.why(start_scale, name)))
            reason = "; ".join(whys) or "no image was measured for both"
            return Answer(start_scale, metric, "undecided", f"{where}: undecided, as {name} has no value ({reason}).")
    assert fidelity is not None
    assert diverse is not None
    kept = diverse.first >= EQUAL * diverse.second
    word = _word(fidelity) if kept or fidelity.difference >= 0 else "no"
    text = f"{where}: {word}. {first} is {_closeness(fidelity)} {second} ({_numbers(fidelity)}); {_diversity(diverse)}"
    new = pair(a.of(start_scale, "nearest_patch_ratio"), b.of(start_scale, "nearest_patch_ratio"))
    if new is not None:  # what is close because it is copied must not pass for faithful
        text += f"; nearest-patch ratio {number(new.first)} against {number(new.second)}, 0 for copies"
    return Answer(start_scale, metric, word, f"{text}.")


def answers(
    first: str, second: str, qualities: Mapping[str, Quality], start_scales: Sequence[int], pixels: Sequence[str]
) -> list[Answer]:
    """Returns the answers of all start scales, coarsest first, by each measure of fidelity."""
    return [
        answer(first, second, qualities, scale, metric, pixels[scale] if scale < len(pixels) else "")
        for scale in start_scales
        for metric in FIDELITY
    ]


def in_short(first: str, second: str, found: Sequence[Answer]) -> str:
    """Returns one sentence for all answers."""
    parts = []
    for metric, name in FIDELITY.items():
        words = [one.word for one in found if one.metric == metric]
        counts = [f"{words.count(word)} {word}" for word in ("yes", "in the mean", "no", "undecided") if word in words]
        parts.append(f"by {name}: {', '.join(counts)}")
    scales = counted(len({one.start_scale for one in found}), "start scale")
    return f"Is {first} closer to the training images than {second}, at equal or higher diversity? Of {scales}, " + (
        "; ".join(parts) + "."
    )


def _word(fidelity: Paired) -> str:
    if fidelity.difference >= 0:
        return "no"
    return "yes" if fidelity.high is not None and fidelity.high < 0 else "in the mean"


def _closeness(found: Paired) -> str:
    if found.lower == found.higher == 0:
        return "exactly as close as"
    if found.low is None or found.high is None:
        clear = "on the one image, which has no interval, "
    else:
        clear = "clearly " if found.low > 0 or found.high < 0 else "in the mean, not clearly, "
    if not found.difference:
        return "in the mean as close as"
    return clear + ("closer than" if found.difference < 0 else "farther than")


def _numbers(found: Paired) -> str:
    side, count = ("higher", found.higher) if found.difference > 0 else ("lower", found.lower)
    interval = "" if found.low is None else f", 95 % interval {signed(found.low)} to {signed(found.high)}"
    return (
        f"{number(found.first)} against {number(found.second)}, difference {signed(found.difference)}{interval},"
        f" {side} in {count} of {counted(found.pairs, 'pair')}"
    )


def _diversity(found: Paired) -> str:
    if found.first >= found.second:
        word = "higher" if found.first > found.second else "equal"
    else:
        word = "equal" if found.first >= EQUAL * found.second else "lower"
    return f"diversity is {word} ({_numbers(found)})"
