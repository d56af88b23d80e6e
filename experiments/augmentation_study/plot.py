"""The study's picture: scores by number of real tiles with Otsu's threshold beside them, and paired differences."""

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.augmentation_study.conditions import AUGMENTED, THRESHOLDS, Condition
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.statistics import Comparison, Estimate

METRICS = ("dice", "aji")
DPI = 140
QUIET = "#9a9a9a"
# Colours that can be told apart by eyes of every kind (Okabe and Ito), and marks that do not need them.
STYLES = {
    "real": ("#222222", "o", "-"),
    AUGMENTED: ("#0072b2", "s", "-"),
    "copy_paste": ("#56b4e9", "P", "-"),
    "cutmix": ("#cc79a7", "X", "-"),
    "carvemix": ("#cc79a7", "P", "-"),
    "tumor_cp": ("#56b4e9", "P", "-"),
    "stacked": ("#d55e00", "^", "--"),
    "conditional_pool": ("#e69f00", "D", "--"),
    "conditional": ("#009e73", "v", "--"),
    "gpnn": ("#8c6d00", "<", ":"),
    "near_copies": ("#7f7f7f", ">", ":"),
    "inserted": ("#009e73", "v", "--"),
}


def draw(
    means: Mapping[tuple[str, int, str], Estimate],
    compared: Sequence[Comparison],
    chosen: Sequence[Condition],
    study: Study,
    patient: str,
) -> bytes:
    """Returns a PNG of what is there; equal numbers give equal bytes.

    Args:
      patient: the word for what is kept apart: pairs.PATIENT or pairs.FOLD.
    """
    shown = [one for one in chosen if one.name in STYLES]
    metrics = [metric for metric in METRICS if any(cell[2] == metric for cell in means)]
    figure = Figure(figsize=(5 * len(metrics) + 6.5, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    columns = figure.subplots(1, len(metrics) + 1, squeeze=False)[0]
    for axes, metric in zip(columns, metrics, strict=False):
        axes.set_title(f"{metric.upper() if metric == 'aji' else 'Dice'} on other {patient}s (mean, 95 % interval)")
        _scores(axes, means, shown, study, metric)
    _differences(columns[-1], [one for one in compared if one.second == AUGMENTED], shown, study)
    handles, labels = columns[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _scores(
    axes: Axes,
    means: Mapping[tuple[str, int, str], Estimate],
    shown: Sequence[Condition],
    study: Study,
    metric: str,
) -> None:
    sizes = _sizes(study)
    for number, condition in enumerate(shown):
        colour, mark, line = STYLES[condition.name]
        there = [(place, means.get((condition.name, size, metric))) for place, size in enumerate(sizes)]
        points = [(place + _shift(number, len(shown)), e) for place, e in there if e is not None]
        axes.plot(
            [p for p, _ in points], [e.mean for _, e in points], line, color=colour, marker=mark, label=condition.about
        )
        for place, e in points:
            axes.plot([place, place], [e.low, e.high], color=colour, linewidth=1, alpha=0.7)
    for (name, words), dashes in zip(THRESHOLDS.items(), ((4, 3), (1, 2)), strict=True):
        if (simple := means.get((name, 0, metric))) is not None:
            axes.axhline(simple.mean, color=QUIET, linestyle=(0, dashes), label=words)
    _place(axes, sizes)


def _differences(axes: Axes, compared: Sequence[Comparison], shown: Sequence[Condition], study: Study) -> None:
    axes.set_title("Dice less that of augmentation alone\n(filled: different after Holm's correction)")
    axes.axhline(0, color=QUIET, linewidth=1)
    sizes = _sizes(study)
    for number, condition in enumerate(shown):
        colour, mark, _ = STYLES[condition.name]
        for one in compared:
            if (one.first, one.metric) == (condition.name, "dice"):
                place, e = sizes.index(one.size) + _shift(number, len(shown)), one.estimate
                fill = colour if one.verdict != "not told apart" else "white"
                axes.plot([place, place], [e.low, e.high], color=colour, linewidth=1.2)
                axes.plot([place], [e.mean], mark, color=colour, markerfacecolor=fill, markersize=5)
    _place(axes, sizes)


def _sizes(study: Study) -> list[int]:
    return sorted(study.train_sizes, key=lambda size: size or 10**9)


def _shift(number: int, count: int) -> float:
    return 0.06 * (number - (count - 1) / 2)


def _place(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xticks(range(len(sizes)), [str(size or "all") for size in sizes])
    axes.set_xlim(-0.5, len(sizes) - 0.5)
    axes.set_xlabel("real training tiles")
    axes.spines[["top", "right"]].set_visible(False)
