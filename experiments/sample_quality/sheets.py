"""A sheet of each image: the training image, and samples of every method at one diversity, side by side."""

from pathlib import Path

import numpy as np

from experiments.reporting import figures
from experiments.sample_quality.curves import SHOWN, Asked, shown_of_gpnn, shown_samples
from experiments.sample_quality.variants import GPNN, OFFICIAL, OFFICIAL_CURVE, Plan, run_name
from launch.images.channels import file_word
from launch.results.numbers import number
from launch.samples import pictures
from singan import files
from singan.storage.run_record import record_of


def write_sheets(out: Path, plan: Plan, measured_curves: dict, asked: Asked, mesh) -> None:
    """Writes sheet_<image>_start_NN.png, one for each view of an image that has several, of the first seed.

    Every method is shown at the official implementation's diversity where that was measured and the method's curve
    reaches it, else at temperature 1.
    """
    seed = plan.seeds[0]
    for group in plan.groups:
        for image in group.images:
            real = group.pyramid.level(image.pixels, len(group.pyramid) - 1)
            for start in asked.start_scales:
                rows = _rows(plan, measured_curves, group, image, start, seed, mesh)
                for view in figures.views(record_of(image), real) if rows else ():
                    panels: list[figures.Row] = [("training image", [view.panel(real), *[None] * (SHOWN - 1)])]
                    panels += [(name, [view.panel(sample) for sample in samples]) for name, samples in rows]
                    title = f"{image.id}, start scale {start}: {view.title}"
                    name = f"sheet_{file_word(image.id)}_start_{start:02d}_{file_word(view.name)}.png"
                    page = figures.page(title, [""] * SHOWN, panels, (), view.key)
                    files.write_bytes(out / name, pictures.encode_png(page))


def _rows(plan: Plan, measured_curves: dict, group, image, start: int, seed: int, mesh) -> list[tuple[str, np.ndarray]]:
    peer = measured_curves.get(OFFICIAL, {}).get(start, {}).get((image.id, seed))
    diversity = peer.at_temperature(1.0, "diversity") if peer else None
    rows: list[tuple[str, np.ndarray]] = []
    for variant in plan.variants:
        curve = measured_curves.get(variant, {}).get(start, {}).get((image.id, seed))
        folder = plan.root / run_name(variant, group, seed)
        if curve is None or variant == OFFICIAL_CURVE:  # the same networks as the official's own samples
            continue
        if variant == OFFICIAL:
            with np.load(folder / "samples.npz", allow_pickle=False) as drawn:
                rows.append((OFFICIAL, 2 * drawn[f"start_{start}"][:SHOWN].astype(np.float32) - 1))
            continue
        at = curve.temperature_at(diversity) if diversity is not None else None
        temperature = 1.0 if at is None else at
        if variant == GPNN:  # whose samples are kept at the temperatures that were measured
            temperature = min(curve.temperatures, key=lambda there: abs(there - temperature))
            path = shown_of_gpnn(plan.root / "measured" / f"{folder.name}.json", image.id, start, temperature)
            samples = np.load(path, allow_pickle=False)
        else:
            samples = shown_samples(folder, image.id, start, temperature, mesh)
        rows.append((f"{variant} t={number(temperature, 2)}", samples))
    return rows
