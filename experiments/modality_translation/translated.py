"""Cases -> guesses and translations, many at once on the device, with their scores; and as files and pictures."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from experiments.modality_translation import cases as given
from experiments.modality_translation.cases import Case
from experiments.modality_translation.scores import DEFINITIONS, score
from experiments.modality_translation.translation import GUESSES, fill, subject, translate
from experiments.reporting import figures
from launch.images.channels import file_word
from launch.samples import writers
from launch.spreadsheet import csv_lines
from singan import files
from singan.metrics.values import Undefined
from singan.model.pyramid import resize_to
from singan.sampling.manipulation import Input
from singan.storage.run import Run

FIELDS = ("image", "case", "kind", "unknown", "channel", "method", "start_scale", "sample", *DEFINITIONS)


@dataclasses.dataclass(frozen=True, eq=False)
class Translated:
    """A case with one choice of unknown channels, and all that was made of it; images are of the finest scale.

    Attributes:
      unknown: name and numbers of the unknown channels.
      guesses: by name, float32 [h, w, C] in [-1, 1].
      made: start scale -> float32 [k, h, w, C] in [-1, 1].
      truth: [h, w, C]; None where the case does not hold the unknown channels.
    """

    case: Case
    unknown: tuple[str, tuple[int, ...]]
    guesses: Mapping[str, np.ndarray]
    made: Mapping[int, np.ndarray]
    truth: np.ndarray | None


def translate_all(
    run: Run,
    cases: Sequence[Case],
    unknown: Mapping[str, tuple[int, ...]],
    scales: Sequence[int],
    guess: str,
    noise: str,
    num_samples: int,
    seed: int,
    mesh: Mesh,
) -> list[Translated]:
    """Returns what becomes of every case with every choice of unknown channels, where it holds the others."""
    jobs, filled = [], []
    last = len(run.scales) - 1
    for case in cases:
        channels = len(case.present)
        for name, numbers in unknown.items():
            known = [c not in numbers for c in range(channels)]
            if any(here and not there for here, there in zip(known, case.present, strict=True)):
                continue
            one = Input(case.image_id, case.name, case.pixels)
            plain = {rule: fill(run, one, known, rule) for rule in GUESSES}
            truth = None
            if all(case.present):
                truth = run.spec.pyramid.level(resize_to(case.pixels, run.record(case.image_id).shape[:2]), last)
            finest = {rule: run.spec.pyramid.level(each.pixels, last) for rule, each in plain.items()}
            jobs.append((case, (name, numbers), finest, truth))
            filled.append(plain[guess])
    made: list[dict[int, np.ndarray]] = [{} for _ in jobs]
    for scale in scales if jobs else []:
        for each, pixels in zip(made, translate(run, filled, scale, num_samples, seed, noise, mesh), strict=True):
            each[scale] = pixels
    return [
        Translated(case, name, plain, own, truth) for (case, name, plain, truth), own in zip(jobs, made, strict=True)
    ]


def scored(run: Run, one: Translated) -> list[dict]:
    """Returns a row of FIELDS for each unknown channel, method and sample; [] where the truth is not known."""
    if one.truth is None:
        return []
    record = run.record(one.case.image_id)
    measured, empty = given.measured_channels(record), record.value_map.background_levels
    inside = subject(one.truth, [level if c in measured else None for c, level in enumerate(empty)])
    kinds = given.mask_channels_of(record)
    guesses = [(rule, None, 0, pixels) for rule, pixels in one.guesses.items()]
    guesses += [(f"start {scale}", scale, i, p) for scale, samples in one.made.items() for i, p in enumerate(samples)]
    rows = []
    for channel in one.unknown[1]:
        for method, scale, number, pixels in guesses:
            values = score(pixels[..., channel], one.truth[..., channel], inside, kinds.get(channel, ""))
            about = (record.id, one.case.name, one.case.kind, one.unknown[0], record.channels[channel])
            row = dict(zip(FIELDS, (*about, method, scale, number), strict=False))
            rows.append(row | {k: None if isinstance(v, Undefined) else float(v) for k, v in values.items()})
    return rows


def write_files(one: Translated, out: Path, form: str) -> None:
    """Writes OUT/start_SS/<case>_<unknown>..., as samples are written; known channels as the case holds them."""
    name, numbers = one.unknown
    record = dataclasses.replace(one.case.record, id=f"{one.case.name}_no_{file_word(name)}")
    for scale, samples in one.made.items():
        if form in writers.SOURCE_GRID:
            whole = resize_to(samples, record.shape[:2]).copy()
            kept = [c for c in range(whole.shape[-1]) if c not in numbers]
            whole[..., kept] = one.case.pixels[..., kept]
            samples = whole
        folder = files.make_directory(out / f"start_{scale:02d}")
        with writers.open_writer(form, folder, [record], len(samples), scale) as writer:
            writer.add([record.id], 0, samples[None])


def write_csv(path: Path, rows: Sequence[Mapping]) -> None:
    """Writes rows of FIELDS as CSV."""
    files.write_text(path, csv_lines(FIELDS, [[row.get(name, "") for name in FIELDS] for row in rows]))


def comparison(run: Run, some: Sequence[Translated]) -> np.ndarray:
    """Returns uint8 [H, W, 3]: for cases of one image and one choice of unknown channels, what was known and made.

    Columns: the known channels, the guesses, the start scales, the truth.
    """
    record, image = run.record(some[0].case.image_id), run.finest(some[0].case.image_id)
    unknown = set(some[0].unknown[1])
    rows: list[figures.Row] = []
    titles: list[str] = []
    for one in some:
        details = {**record.details, "upright": one.case.record.details.get("upright")}
        views = figures.views(dataclasses.replace(record, details=details), image)
        known = [view for view in views if not unknown & set(view.channels)]
        titles = [view.title for view in known]
        given_image = next(iter(one.guesses.values()))
        for view in views:
            if view.name == "nuclei" or not unknown & set(view.channels):
                continue
            panels: list[np.ndarray | None] = [each.panel(given_image) for each in known]
            panels += [view.panel(pixels) for pixels in one.guesses.values()]
            panels += [view.panel(samples[0]) for samples in one.made.values()]
            panels.append(None if one.truth is None else view.panel(one.truth))
            rows.append((f"{one.case.name} {view.title}", panels))
    columns = [*(f"known: {title}" for title in titles), *some[0].guesses]
    columns += [*(f"start {scale}" for scale in some[0].made), "truth"]
    notes = [f"{rule}: {what}." for rule, what in GUESSES.items()]
    title = " and ".join(figures.word(part) for part in some[0].unknown[0].split("+"))
    return figures.page(f"{record.id}: {title} unknown", columns, rows, notes)
