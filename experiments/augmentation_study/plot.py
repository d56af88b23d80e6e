"""The study's picture: scores by number of real patches, paired differences, and what the ablations change."""

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.augmentation_study.conditions import Condition
from experiments.augmentation_study.segmenters import THRESHOLD
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.statistics import Comparison, Estimate

METRIC = "dice"
DPI = 140
INK, QUIET = "#222222", "#9a9a9a"
# Colours that can be told apart by eyes of every kind (Okabe and Ito), and marks that do not need them.
STYLES = {
    "real": ("#222222", "o", "-"),
    "real_augmented": ("#0072b2", "s", "-"),
    "synthetic": ("#d55e00", "^", "--"),
    "real_synthetic": ("#e69f00", "D", "--"),
    "all": ("#009e73", "v", "--"),
}
SHOWN = (
    ("real_synthetic", "real", "d - a: synthetic added to real"),
    ("all", "real_augmented", "e - b: synthetic added to augmented"),
    ("real_augmented", "real", "b - a: usual augmentation"),
)


def draw(
    means: Mapping[tuple[str, int, str], Estimate],
    compared: Sequence[Comparison],
    chosen: Sequence[Condition],
    study: Study,
    patient: str,
) -> bytes:
    """Returns a PNG; equal numbers give equal bytes.

    Args:
      patient: the word for what is kept apart: pairs.PATIENT or pairs.FOLD.
    """
    ablations = [condition for condition in chosen if condition.is_ablation]
    figure = Figure(figsize=(15 if ablations else 10.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    columns = figure.subplots(1, 3 if ablations else 2, width_ratios=(1.1, 1, 0.8) if ablations else (1.1, 1))
    columns[0].set_title(f"Dice on {patient}s that were not trained on\n(mean, 95 % interval)", fontsize=10)
    _scores(columns[0], means, [condition for condition in chosen if not condition.is_ablation], study)
    _differences(columns[1], compared, study)
    if ablations:
        _ablations(columns[2], compared, ablations, study)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _scores(
    axes: Axes, means: Mapping[tuple[str, int, str], Estimate], shown: Sequence[Condition], study: Study
) -> None:
    for number, condition in enumerate(shown):
        colour, mark, line = STYLES[condition.name]
        scores = [means[condition.name, size, METRIC] for size in study.train_sizes]
        places = [place + 0.08 * (number - 2) for place in range(len(study.train_sizes))]
        axes.plot(places, [e.mean for e in scores], line, color=colour, marker=mark, label=condition.about)
        for place, e in zip(places, scores, strict=True):
            axes.plot([place, place], [e.low, e.high], color=colour, linewidth=1.2, alpha=0.7)
    if (simple := means.get((THRESHOLD, 0, METRIC))) is not None:
        axes.axhline(simple.mean, color=QUIET, linestyle=(0, (4, 3)), label="Otsu's threshold, no training")
    axes.set_xticks(range(len(study.train_sizes)), list(map(str, study.train_sizes)))
    axes.set_xlabel("real training patches")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _differences(axes: Axes, compared: Sequence[Comparison], study: Study) -> None:
    axes.set_title("Paired differences in Dice\n(95 % interval; across 0: not told apart)", fontsize=10)
    axes.axhline(0, color=QUIET, linewidth=1)
    for number, (first, second, words) in enumerate(SHOWN):
        colour, mark, _ = STYLES[first]
        some = {c.size: c.estimate for c in compared if (c.first, c.second, c.metric) == (first, second, METRIC)}
        for order, size in enumerate(study.train_sizes):
            place, e = order + 0.16 * (number - 1), some[size]
            axes.plot([place, place], [e.low, e.high], color=colour, linewidth=1.5)
            axes.plot([place], [e.mean], mark, color=colour, markersize=5, label=words if not order else None)
    axes.set_xticks(range(len(study.train_sizes)), list(map(str, study.train_sizes)))
    axes.set_xlabel("real training patches")
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.25 * (top - bottom))  # room for the legend
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)


def _ablations(axes: Axes, compared: Sequence[Comparison], ablations: Sequence[Condition], study: Study) -> None:
    axes.set_title(f"Ablations, n = {study.lever_size}: change of Dice\n(against d, or as named)", fontsize=10)
    axes.axvline(0, color=QUIET, linewidth=1)
    names = []
    for place, ablation in enumerate(ablations):
        e = next(c.estimate for c in compared if c.first == ablation.name and c.metric == METRIC)
        axes.plot([e.low, e.high], [place, place], color=INK, linewidth=1.5)
        axes.plot([e.mean], [place], "o", color=INK, markersize=5)
        names.append(_wrapped(ablation.about + (" (against the line above)" if ablation.against == "plain" else "")))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _wrapped(text: str, width: int = 30) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
