"""Whether an inserted tumour sits in its new brain as it sat in its own, and whether it is still there."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.tumour_insertion.blending import NEAR, contrast_kept
from experiments.tumour_insertion.compositing import Insertion
from singan.metrics.seams import compare_seams, contour_step
from singan.metrics.sliced_wasserstein import detail_distance
from singan.metrics.values import Undefined
from singan.sampling.masks import dilate

COLUMNS = {
    "seam_removed": "seam removed",
    "contrast_kept": "contrast kept",
    "step": "step",
    "step_ratio": "step / own",
    "texture": "texture",
}
OWN = "own"  # the donor's tumour in its own brain, as a row beside the methods
LOW_CONTRAST = 0.8  # below which a result is warned of
TEXTURE_AROUND = 2.0  # pixels around a tumour whose patches count as its own

Scores = dict[str, float | None]


def score(insertion: Insertion, window: np.ndarray) -> Scores:
    """Returns the scores of a result, on the background's own grid, of the channels that the tumour was put in.

    seam, seam_composite, seam_background, seam_removed: see singan.metrics.seams; the composite is the naive paste.
    Most of a seam is the tumour's own edge, so that 1 is smoother than any real tumour.
    contrast_kept: how much of what pasting did to the contrast between inside and surroundings is left: 1 all of it,
    0 none. A seam can be lost with its tumour.
    step: mean step over one pixel at the contour, in units of the [-1, 1] range. step_ratio: in multiples of that of
    the donor's tumour in its own brain, turned and scaled in the same way.
    texture: distance between the fine detail of tumour and contour here and in the donor's own slice; see
    singan.metrics.sliced_wasserstein.detail_distance. None where a value is not defined.

    Args:
      window: float32 [h, w, C] in [-1, 1], the part of the result that insertion.placed lies over.
    """
    pasted, mask = list(insertion.pasted), insertion.placed.mask
    behind = insertion.background[insertion.placed.window]
    shown = [image[..., pasted] for image in (window, insertion.windows["paste"], behind, insertion.real[0])]
    made, naive, without, real = shown
    is_own = window is insertion.own
    step = insertion.own_step if is_own else contour_step(made, mask)
    here, there = (dilate(each, TEXTURE_AROUND) for each in (mask, insertion.real[1]))
    values = {
        **compare_seams(made[None], naive, without, mask)[0],
        "contrast_kept": contrast_kept(made, naive, without, mask),
        "step": step,
        "step_ratio": step / insertion.own_step if insertion.own_step > 0 else float("nan"),
        "texture": detail_distance(made, here, real, there),
    }
    names = ("seam", "seam_composite", "seam_background", *COLUMNS)
    given = {name: values[name] for name in names}
    return {n: None if isinstance(v, Undefined) or not np.isfinite(v) else float(v) for n, v in given.items()}


def means(rows: Sequence[Scores]) -> Scores:
    """Returns the mean of each of COLUMNS over the tumours that have a value, None where none has."""
    by_column = {name: [value for row in rows if (value := row[name]) is not None] for name in COLUMNS}
    return {name: float(np.mean(values)) if values else None for name, values in by_column.items()}


def as_sharp(rows: Sequence[Scores]) -> int:
    """Returns how many tumours have a step at their contour within NEAR of the donor's own."""
    return sum(row["step_ratio"] is not None and abs(row["step_ratio"] - 1) <= NEAR for row in rows)


def table(by_method: Mapping[str, Sequence[Scores]]) -> str:
    """Returns the means over all tumours as lines of text, one for each method, and how many have their own step."""
    width = max(len("method"), *map(len, by_method)) + 1
    lines = ["scores on the source's grid, means over all tumours; own: the donor's tumour in its own brain"]
    lines.append(f"{'method':<{width}}" + "".join(f"{title:>15}" for title in COLUMNS.values()) + f"{'as sharp':>12}")
    for method, rows in by_method.items():
        cells = "".join(f"{'-':>15}" if value is None else f"{value:15.3f}" for value in means(rows).values())
        lines.append(f"{method:<{width}}{cells}{f'{as_sharp(rows)} of {len(rows)}':>12}")
    return "\n".join(lines)


def best(by_method: Mapping[str, Sequence[Scores]], first: str) -> str:
    """Returns the method to train on: `first`, or a start scale that beats it in all that is measured.

    That is: it keeps LOW_CONTRAST of the contrast on average, has no fewer tumours as sharp as their own, and a
    smaller distance of texture.
    """
    chosen, texture = first, means(by_method[first])["texture"]
    for method, rows in by_method.items():
        about = means(rows)
        if (
            method.startswith("start_")
            and (about["contrast_kept"] or 0) >= LOW_CONTRAST
            and as_sharp(rows) >= as_sharp(by_method[first])
            and about["texture"] is not None
            and (texture is None or about["texture"] < texture)
        ):
            chosen, texture = method, about["texture"]
    return chosen


def warnings(by_method: Mapping[str, Sequence[Scores]]) -> list[str]:
    """Returns a line for each method that loses the tumours: their segmentation then tells where they were pasted."""
    lines = []
    for method, rows in by_method.items():
        kept = means(rows)["contrast_kept"]
        if kept is not None and kept < LOW_CONTRAST:
            weak = sum((row["contrast_kept"] or 0) < LOW_CONTRAST for row in rows)
            lines.append(
                f"{method} keeps {kept:.0%} of the tumours' contrast, {weak} of {len(rows)} less than"
                f" {LOW_CONTRAST:.0%}: its segmentations say where tumours were put, not what is left of them"
            )
    return lines
