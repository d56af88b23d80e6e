"""The study's picture: every metric's difference from `highest` in units of the seeds' spread."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.precision.shifts import Shift

DPI = 140
QUIET, BAND = "#9a9a9a", "#e8e8e8"
STYLES = {"tf32": ("#0072b2", "s"), "bf16": ("#d55e00", "o")}  # Okabe and Ito's colours, with marks of their own


def draw(rows: Sequence[tuple[str, Mapping[str, Shift | None]]], title: str) -> bytes:
    """Returns a PNG; equal numbers give equal bytes.

    Args:
      rows: (a metric's name, its shift by precision), from above.
    """
    figure = Figure(figsize=(7.5, 1.6 + 0.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axvspan(-1, 1, color=BAND, label="the seeds' spread (1 standard deviation)")
    axes.axvline(0, color=QUIET, linewidth=1)
    for order, (precision, (colour, mark)) in enumerate(STYLES.items()):
        labelled = False
        for place, (_, shifts) in enumerate(rows):
            shift = shifts.get(precision)
            if shift is None or not np.isfinite(shift.in_spreads()).all():
                continue
            y = place + 0.24 * (order - 0.5)
            middle, low, high = shift.in_spreads()
            axes.plot([low, high], [y, y], color=colour, linewidth=1.5)
            axes.plot([middle], [y], mark, color=colour, markersize=5, label=None if labelled else f"{precision}, 95 %")
            labelled = True
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("difference from highest, in standard deviations over seeds")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1 - 0.8 / len(rows)), ncols=3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
