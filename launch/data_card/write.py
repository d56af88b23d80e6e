"""DATA_CARD.md and data_card.json of a set of synthetic images; no time and no path: equal sets have equal cards."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.data_card import measure
from launch.text import some
from singan import files
from singan.config import flatten, to_mapping
from singan.storage.run import Run

NAMES = ("DATA_CARD.md", "data_card.json")
FORMAT = 1
NOT_STATED = "not stated"
NOT_RECORDED = "not recorded"
SHOWN = 8  # training images that the page names
MANY = 0.1  # share of near-copies from which on the card warns
# What is known of the sources that have names here; --licence says otherwise.
LICENCES = {
    "immunohistochemistry": "no known copyright restrictions (scikit-image's example)",
    "tfds:pannuke": "CC BY-NC-SA 4.0 (PanNuke), which binds what is derived from it",
    "tfds:brats": "the terms accepted on registration for BraTS, which bind what is derived from it",
}
INTENDED = (
    "development and tests of methods: pipelines, segmentation with few labelled images, augmentation",
    "teaching and illustration, marked as synthetic",
)
LIMITS = (
    "every sample is made of the patches of one training image: a set shows as many patients as it has training images,"
    " however many samples it holds, and statistics over samples are not statistics of a population",
    "positions, counts and shapes are no anatomy or pathology that anyone has seen: not for diagnosis",
    "no privacy guarantee: what may not be shared of a training image may not be shared of its samples",
)
MASKS = "masks are generated with the image, not drawn by an expert: check some before training on them"
GIVEN = (
    "masks were given, and images made to them: ids, classes and outlines are exact, whether an image shows what its"
    " mask says is to be checked; objects are those of the training images"
)


def settings_of(run: Run, **drawn: Any) -> dict[str, Any]:
    """Returns what a set was made with: the run's part of it, and how it was drawn (start_scale, size, seed, ...)."""
    config = {
        key: value
        for key, value in flatten(to_mapping(run.config)).items()
        if not key.startswith("tracking.") and key != "data.path"
    }
    # The weights name the run: its id is drawn at random, and equal runs give equal cards.
    weights = "".join(scale.fingerprint for scale in run.scales)
    return {
        "config_digest": _digest(json.dumps(files.plain(config), sort_keys=True)),
        "weights_digest": _digest(weights),
        "preset": run.config.preset,
        "scales": len(run.scales),
        "steps_per_scale": run.config.train.steps_per_scale,
        "precision": run.config.train.precision,
        **drawn,
    }


def make_card(
    run: Run, settings: Mapping[str, Any], samples: Mapping[str, np.ndarray], total: int, licence: str = ""
) -> dict[str, Any]:
    """Returns data_card.json's content.

    Args:
      settings: of `settings_of`.
      samples: [n, H, W, C] in [-1, 1] by image: what is measured (measuring.Collector).
      total: samples that the set holds.
      licence: '' for what is known of the source.
    """
    channels = run.spec.channels  # what a conditional run is given is not measured
    real = {name: image[..., :channels] for name, image in measure.real_images(run, samples).items()}
    made = {name: drawn[..., :channels] for name, drawn in samples.items()}
    return card_of(run, settings, measure.measure(made, real), total, licence)


def card_of(
    run: Run,
    settings: Mapping[str, Any],
    measured: Mapping[str, Any],
    total: int,
    licence: str = "",
) -> dict[str, Any]:
    """Returns data_card.json's content, from numbers that `measuring.measure` made."""
    source = run.config.data.source
    if run.config.data.path and not source.startswith("tfds:"):
        source = "files"
    known = next((text for word, text in LICENCES.items() if source.startswith(word)), NOT_STATED)
    patients = sorted({str(row.details["patient"]) for row in run.images if row.details.get("patient")})
    has_masks = any(row.details.get("masks") for row in run.images)
    return {
        "format": FORMAT,
        "what": "synthetic images, each drawn from a SinGAN that was trained on one image",
        "samples": total,
        "source": {
            "data": source,
            "licence": licence or known,
            "images": [{"id": row.id, "source": row.source} for row in run.images],
            "patients": patients or NOT_STATED,
        },
        "training": {
            "images": len(run.images),
            "images_of_a_model": 1,
            "size": list(run.images[0].shape[:2]),
            "size_of_samples": list(run.spec.pyramid.sizes[len(run.scales) - 1]),
            "channels": list(run.images[0].channels),
            **_imported(run),
        },
        "settings": dict(settings),
        **measured,
        "intended_use": list(INTENDED),
        "limits": [
            *warnings(measured),
            *LIMITS,
            *([GIVEN] if run.spec.condition else [MASKS] if has_masks else []),
        ],
        "definitions": measure.DEFINITIONS,
    }


def _imported(run: Run) -> dict[str, Any]:
    """Returns where weights were imported from, and how well they were understood; {} for those trained here."""
    details = run.images[0].details
    if not details.get("imported"):
        return {}
    return {
        "imported": {
            "from": str(details["imported"]),
            "between_scales": str(run.config.method.between_scales),
            "misfit": details.get("misfit", NOT_RECORDED),
        }
    }


def warnings(measured: Mapping[str, Any]) -> list[str]:
    """Returns what the numbers themselves warn of."""
    said = []
    share = measured["distance"]["near_copy"].get("mean")
    if share is None:
        said.append("whether samples are copies could not be judged: look at them beside their training images")
    elif share >= MANY:
        said.append(
            f"{share:.0%} of the samples judged are near-copies of their training image: do not count them as new"
        )
    varied = measured["diversity"]["diversity"].get("mean")
    if varied is not None and varied < 0.05:
        said.append(
            f"samples of an image hardly differ from each other (diversity {varied:.3f}): few are as good as many"
        )
    return said


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Writes both files; raises UserError where that cannot be done."""
    files.write_json(folder / NAMES[1], card)
    files.write_text(folder / NAMES[0], page(card))


def page(card: Mapping[str, Any]) -> str:
    """Returns DATA_CARD.md."""
    source, training, distance = card["source"], card["training"], card["distance"]
    images = source["images"]
    names = some([f"`{row['id']}` ({row['source']})" for row in images], SHOWN)
    patients = source["patients"]
    people = patients if isinstance(patients, str) else f"{len(patients)}: {', '.join(patients[:SHOWN])}"
    height, width = training["size_of_samples"]
    measured = card["measured"]
    part = (
        f"Measured on {measured['samples']} of {card['samples']} samples: up to {measured['samples_of_each']} of each"
        f" of {measured['images']} of {training['images']} training images."
    )
    parts = [
        "# Data card: synthetic images",
        "",
        f"{card['samples']} {card['what']}.",
        "",
        "| | |",
        "|---|---|",
        f"| source | {source['data']}: {names} |",
        f"| licence of the source | {source['licence']} |",
        f"| patients | {people} |",
        f"| training set | {training['images']} image(s), one for each model, of"
        f" {'x'.join(map(str, training['size']))} pixels, trained at {height}x{width}; channels"
        f" {', '.join(training['channels'])} |",
        *_imported_row(training.get("imported")),
        *(f"| {key.replace('_', ' ')} | {_shown(value)} |" for key, value in card["settings"].items()),
        "",
        "## How good, how various, how new",
        "",
        part,
        "",
        "| metric | mean | 10th to 90th percentile | |",
        "|---|---|---|---|",
        _row("fidelity: SWD", card["fidelity"]["swd"], "0 for copies"),
        _row("diversity", card["diversity"]["diversity"], "0 where all samples are alike"),
        _row("MS-SSIM of samples", card["diversity"]["ms_ssim"], "1 where all samples are alike"),
        _row("RMSE to the training image", distance["rmse"], "0 for copies"),
        _row("RMSE between two real images", distance["real_rmse"], "to compare with"),
        _row("nearest patch in the training image", distance["nearest_patch"], "0 for copies"),
        _row("nearest patch, real image in another", distance["real_nearest_patch"], "to compare with"),
        _row(
            "nearest patch, by that of the image's own parts",
            distance["nearest_patch_ratio"],
            "0 copies, 1 as new",
        ),
        _row("samples nearer to their training image than two real ones", distance["nearer_than_real"], "a share"),
        _row("share of copied patches", distance["copied"], "1 for copies"),
        "",
        f"**Near-copies: {_near(distance)}.** The distances of each sample are in data_card.json.",
        "",
        "## Intended use",
        "",
        *(f"- {text}" for text in card["intended_use"]),
        "",
        "## Limits",
        "",
        *(f"- {text}" for text in card["limits"]),
        "",
        "## Definitions",
        "",
        *(f"- `{name}`: {text}" for name, text in card["definitions"].items()),
    ]
    return "\n".join(parts) + "\n"


def in_short(card: Mapping[str, Any]) -> str:
    """Returns one line for the terminal."""
    swd, varied = card["fidelity"]["swd"].get("mean"), card["diversity"]["diversity"].get("mean")
    numbers = [f"{name} {value:.3f}" for name, value in (("SWD", swd), ("diversity", varied)) if value is not None]
    near = f"near-copies: {_near(card['distance'])}"
    return f"{', '.join([*numbers, near])} ({NAMES[0]})"


def _imported_row(imported: Mapping[str, Any] | None) -> list[str]:
    if imported is None:
        return []
    row, misfit = f"{imported['from']}; between scales {imported['between_scales']}", imported["misfit"]
    if isinstance(misfit, float):
        row += f", which replays the stored noise amplitudes within {max(misfit, 1e-4):.2%}"
    return [f"| imported from | {row} |"]


def _row(name: str, entry: Mapping[str, Any], hint: str) -> str:
    if "undefined" in entry:
        return f"| {name} | – | {entry['undefined']} | |"
    spread = f"{entry['p10']:.3f} to {entry['p90']:.3f}" if entry.get("count", 1) > 1 else ""
    return f"| {name} | {entry['mean']:.3f} | {spread} | {hint} |"


def _near(distance: Mapping[str, Any]) -> str:
    entry = distance["near_copy"]
    if "undefined" in entry:
        return entry["undefined"]
    return f"{distance['near_copies']} of {distance['judged']} samples judged ({entry['mean']:.0%})"


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " x ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value)
    return str(value)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
