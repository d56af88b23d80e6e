"""table.md, table.csv and table.json of a plan whose variants have been measured."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.paper_tables import writing
from experiments.paper_tables.sentences import RULE, answers, in_short
from experiments.paper_tables.variants import GPNN, Plan, run_name
from experiments.reporting import results
from experiments.reporting.results import Quality, Training, read_quality, read_training
from experiments.reporting.tables import transposed
from launch.evaluate import image_metrics as metrics
from launch.results.text_table import text_table
from singan import files
from singan.config import flatten, to_mapping

QUESTIONS = (("corrected", "reference"), ("concurrent", "corrected"), ("corrected", GPNN))
FORMAT = 1


def write(plan: Plan, out: Path, num_samples: int, command: str) -> str:
    """Writes the three files; returns the text for the terminal.

    Raises:
      UserError: a run's files cannot be read.
    """
    ids = [image.id for image in plan.images]
    qualities: dict[str, Quality] = {}
    trainings: dict[str, Training | None] = {}
    for variant in plan.variants:
        paths = {seed: Path(plan.root) / run_name(variant, seed) for seed in plan.seeds}
        qualities[variant] = read_quality(
            {seed: path / "evaluation.json" for seed, path in paths.items()}, ids, plan.start_scales
        )
        trainings[variant] = read_training(list(paths.values())) if variant != GPNN else None
    sizes = {variant: pyramid.sizes for variant, pyramid in plan.pyramids.items()}
    said = []
    for first, second in QUESTIONS:
        if {first, second} <= set(plan.variants):
            pixels = ["x".join(map(str, size)) + " pixels" for size in sizes[first]]
            found = answers(first, second, qualities, plan.start_scales, pixels)
            said.append((in_short(first, second, found), found))
    definitions = {name: metrics.DEFINITIONS[name] for name in results.METRICS} | results.DEFINITIONS
    facts = _facts(plan, num_samples, command)
    text = writing.markdown(facts, qualities, trainings, plan.start_scales, sizes, said, definitions)
    files.write_text(out / "table.md", text)
    files.write_text(out / "table.csv", writing.csv_text(qualities, trainings, plan.start_scales, sizes))
    content = {
        "format": FORMAT,
        "command": command,
        "settings": {
            "num_samples": num_samples,
            "seeds": plan.seeds,
            "start_scales": plan.start_scales,
            "variants": plan.variants,
            "images": ids,
            "sizes": sizes,
            "config": to_mapping(plan.config),
        },
        "definitions": definitions,
        "quality": {
            name: {
                str(scale): {metric: of.summary(scale, metric) for metric in results.METRICS}
                for scale in plan.start_scales
            }
            for name, of in qualities.items()
        },
        "images": {name: _by_image(of, plan) for name, of in qualities.items()},
        "training": {name: dataclasses.asdict(of) if of else None for name, of in trainings.items()},
        "says": [{"in_short": short, "answers": [dataclasses.asdict(a) for a in found]} for short, found in said],
        "rule": RULE,
    }
    files.write_json(out / "table.json", content)
    parts = []
    for scale in plan.start_scales:
        quality = transposed(writing.quality_rows(qualities, scale, sizes))
        parts += [f"start scale {scale}", *text_table(quality), ""]
    parts += [*text_table(transposed(writing.training_rows(trainings))), ""]
    for short, found in said:
        parts += [short, *(f"  {one.text}" for one in found), ""]
    return "\n".join([*parts, *writing.notes(qualities, plan.start_scales)])


def _facts(plan: Plan, num_samples: int, command: str) -> list[str]:
    height, width, channels = plan.images[0].pixels.shape
    ids = ", ".join(image.id for image in plan.images[:8]) + (" ..." if len(plan.images) > 8 else "")
    shown = flatten(to_mapping(plan.config))
    finest = {pyramid.sizes[-1] for pyramid in plan.pyramids.values()}
    sizes = [
        f"{name}: {' '.join(f'{h}x{w}' for h, w in pyramid.sizes)} pixels" for name, pyramid in plan.pyramids.items()
    ]
    return [
        f"`{command}`",
        f"{len(plan.images)} image(s) of {height}x{width} pixels, {channels} channel(s): {ids}",
        f"measured at {' '.join(f'{h}x{w}' for h, w in sorted(finest))} pixels, {num_samples} samples of each image and"
        f" start scale, seeds {', '.join(map(str, plan.seeds))}",
        f"{shown['train.steps_per_scale']} steps a scale, {shown['network.width']} channels at scale 0, precision"
        f" {shown['train.precision']}",
        *sizes,
    ]


def _by_image(quality: Quality, plan: Plan) -> dict[str, Any]:
    """Returns start scale -> metric -> list of {image, seed, mean}."""
    return {
        str(scale): {
            metric: [
                {"image": name, "seed": seed, "mean": mean} for (name, seed), mean in quality.of(scale, metric).items()
            ]
            for metric in results.METRICS
        }
        for scale in plan.start_scales
    }
