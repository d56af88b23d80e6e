"""The picture of a reader study: accuracy and ROC area with intervals, answers by kind, time for each image."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, QUIET, ACCENT = "#222222", "#9a9a9a", "#33658a"
DPI = 150


def draw(scores: Mapping[str, Any]) -> bytes:
    """Returns a PNG; equal scores give equal bytes."""
    people = [*scores["readers"], scores["pooled"]]
    kinds = [*scores["by_truth"], *scores["by_start_scale"]]
    if len({row["group"] for row in scores["by_modality"]}) > 1:
        kinds += scores["by_modality"]
    height = 1.9 + 0.32 * max(len(people), len(kinds))
    figure = Figure(figsize=(13, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 0.9))
    names = [_short(row["group"]) for row in people]
    _forest(axes[0], "accuracy (Wilson, 95 %)\ngrey: readers and items resampled", names, people, "accuracy", "wilson")
    _forest(
        axes[1], "area under the ROC curve\n(readers and items resampled, 95 %)", names, people, "auc", "auc_bootstrap"
    )
    if pooled := scores["pooled"]["accuracy_bootstrap"]:
        axes[0].plot(pooled, [len(people) - 1.25] * 2, color=QUIET, linewidth=1.5)
    _forest(
        axes[2], "accuracy by kind of image\n(Wilson, 95 %)", [_kind(row) for row in kinds], kinds, "accuracy", "wilson"
    )
    _times(axes[3], names, people)
    figure.suptitle(
        f"Reader study {scores['study']}: {scores['items']} {'pairs' if scores['mode'] == 'pairs' else 'images'}",
        fontsize=11,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _forest(
    axes: Axes, title: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]], value: str, interval: str
) -> None:
    """Draws a point and its interval for each row, top down, and the line of guessing."""
    _rows(axes, title, names)
    axes.axvline(0.5, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
    for place, row in enumerate(rows):
        colour = ACCENT if row["part"] == "pooled" else INK
        if row[interval]:
            axes.plot(row[interval], [place] * 2, color=colour, linewidth=1.5)
        if row[value] is not None:
            axes.plot([row[value]], [place], "o", color=colour, markersize=5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])


def _times(axes: Axes, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    _rows(axes, "seconds for each\n(median and quartiles)", names)
    for place, row in enumerate(rows):
        if row["seconds"]:
            low, middle, high = row["seconds"]
            colour = ACCENT if row["part"] == "pooled" else INK
            axes.plot([low, high], [place] * 2, color=colour, linewidth=1.5)
            axes.plot([middle], [place], "o", color=colour, markersize=5)
    axes.set_xlim(left=0)


def _rows(axes: Axes, title: str, names: Sequence[str]) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _kind(row: Mapping[str, Any]) -> str:
    kind = {"pair": "pairs", "real": "real", "generated": "synthetic"}[row["truth"]]
    if row["part"] == "truth":
        return f"all {kind}"
    return _short(f"start scale {row['group']}" if row["part"] == "start_scale" else f"{kind} {row['group']}")


def _short(text: str) -> str:
    text = text.replace("$", r"\$")  # else mathematics
    return text if len(text) <= 24 else text[:22] + "..."
