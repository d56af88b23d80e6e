"""Samples of all variants side by side: what the numbers are of."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.paper_tables.variants import Plan
from experiments.reporting import figures
from launch.images.channels import file_word
from launch.run_record import record_of
from launch.samples import pictures
from singan import files

MAX_IMAGES = 4  # of the cohort that are shown


def write_pictures(
    out: Path, plan: Plan, start_scale: int, shown: Mapping[str, Mapping[str, np.ndarray]]
) -> list[Path]:
    """Writes samples_start_NN.png, one for each view of the images where they have several; returns the files.

    Args:
      shown: variant -> image id -> samples [k, h, w, C] in [-1, 1].
    """
    paths = []
    images = plan.images[:MAX_IMAGES]
    pyramid = next(iter(plan.pyramids.values()))
    real = {image.id: pyramid.level(image.pixels, len(pyramid) - 1) for image in images}
    count = max((len(samples) for of in shown.values() for samples in of.values()), default=0)
    views = figures.views(record_of(images[0]), real[images[0].id])
    for number, view in enumerate(views):
        rows: list[figures.Row] = []
        for image in images:
            # Windows are an image's own.
            here = figures.views(record_of(image), real[image.id])[number]
            for place, (variant, of) in enumerate(shown.items()):
                first = here.panel(real[image.id]) if place == 0 else None
                panels: Sequence[np.ndarray | None] = [here.panel(sample) for sample in of.get(image.id, ())]
                rows.append((f"{image.id} {variant}", [first, *panels, *[None] * (count - len(panels))]))
        columns = ["training image", *(f"sample {i}" for i in range(count))]
        title = f"Samples, start scale {start_scale}" + (f", {view.title}" if len(views) > 1 else "")
        word = f"_{file_word(view.name)}" if len(views) > 1 else ""
        path = out / f"samples_start_{start_scale:02d}{word}.png"
        files.write_bytes(path, pictures.encode_png(figures.page(title, columns, rows, (), view.key)))
        paths.append(path)
    return paths
