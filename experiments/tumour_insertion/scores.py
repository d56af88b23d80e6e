"""Whether the seam is gone, and whether the tumour is still there."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.tumour_insertion.compositing import Insertion
from singan.metrics.seams import compare_seams, contrasts
from singan.metrics.values import Undefined
from singan.model.pyramid import resize_to
from singan.sampling.manipulation import Result, mask_at
from singan.storage.run import Run

COLUMNS = {
    "seam_composite": "before",
    "seam": "after",
    "seam_background": "background",
    "seam_removed": "removed",
    "contrast_kept": "contrast kept",
}


def score(run: Run, insertion: Insertion, result: Result) -> dict[str, float | None]:
    """Returns the seam of a harmonised composite before and after, and of the background alone: see COLUMNS.

    Of the channels that the tumour was pasted in, at the run's finest scale, so that enlarging a result to the
    source's grid, which would smooth its seam too, has no part in it. contrast_kept says how much of what pasting did
    to the contrast between inside and surroundings is left, over those channels: 1 all of it, 0 none, as in the
    background. A seam can be lost with its tumour.
    """
    assert result.blended is not None
    background = run.finest(insertion.record.id)
    size, pasted = background.shape[:2], list(insertion.pasted)
    naive = resize_to(insertion.pixels, size)[..., pasted]
    mask = mask_at(insertion.mask, size)
    made = result.blended[:1][..., pasted]
    seams = compare_seams(made, naive, background[..., pasted], mask)[0]
    without = contrasts(background[None][..., pasted], mask)[0]
    before, after = contrasts(naive[None], mask)[0] - without, contrasts(made, mask)[0] - without
    length = float(before @ before)
    rows = {name: seams[name] for name in COLUMNS if name in seams}
    values = {name: None if isinstance(value, Undefined) else float(value) for name, value in rows.items()}
    return {**values, "contrast_kept": float(before @ after) / length if length > 0 else None}


def means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Returns the mean of each of COLUMNS over the tumours that have a value, None where none has."""
    by_column = {name: [value for row in rows if (value := row[name]) is not None] for name in COLUMNS}
    return {name: float(np.mean(values)) if values else None for name, values in by_column.items()}


def table(by_scale: Mapping[int, Sequence[Mapping[str, float | None]]]) -> str:
    """Returns the means over all tumours as lines of text, one for each start scale; and how many seams got weaker."""
    lines = ["gradient across the tumour's contour, in units of the [-1, 1] range per pixel, means over all tumours"]
    lines.append("start scale" + "".join(f"{title:>15}" for title in COLUMNS.values()) + f"{'weaker':>12}")
    for scale, rows in sorted(by_scale.items()):
        cells = "".join(f"{'-':>15}" if value is None else f"{value:15.3f}" for value in means(rows).values())
        weaker = sum((row["seam"] or 0) < (row["seam_composite"] or 0) for row in rows)
        lines.append(f"{scale:>11}{cells}{f'{weaker} of {len(rows)}':>12}")
    return "\n".join(lines)
