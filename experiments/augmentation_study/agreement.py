"""Do synthetic images show what their masks say? Segmenters of other patients are asked, both ways.

On real: a segmenter trained on real tiles is tested on pairs whose SinGANs know tiles of patients that it has never
seen; the nearer its Dice is to that on real tiles of the same patients, the better image and mask agree. From made: a
segmenter trained on nothing but pairs is tested on real tiles of other patients (OSMIS, Sushko et al. 2023, has both).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.augmentation_study import statistics
from experiments.augmentation_study.conditions import AUGMENTED, Condition
from experiments.augmentation_study.generators import Generator
from experiments.augmentation_study.pairs import Pair
from experiments.augmentation_study.settings import Study
from experiments.augmentation_study.splits import Split
from experiments.augmentation_study.training import Trainer
from singan import files
from singan.metrics.memorisation import memorisation
from singan.metrics.values import Undefined, mean
from singan.storage.workdir import pixel_digest

MADE = {"conditional": "pairs whose SinGAN is given the mask", "stacked": "pairs whose SinGAN makes the mask as well"}
SEED = 0


def tiles_of(pairs: Mapping[str, Pair], splits: Sequence[Split], patients: int) -> list[str]:
    """Returns the ids of the tiles that have a SinGAN here: the first of each of so many patients, fold by fold."""
    first: dict[str, str] = {}
    for split in (one for one in splits if one.seed == SEED):
        for name in sorted(split.test):
            first.setdefault(pairs[name].patient, name)
    return sorted(list(first.values())[:patients])


def measure(
    root: Path,
    study: Study,
    tiles: Mapping[str, Pair],
    known: Sequence[str],
    splits: Sequence[Split],
    generators: Mapping[str, Generator],
    trainer: Trainer,
    stop: Callable[[], bool],
    log: Callable[[str], None],
) -> bool:
    """Measures what is not yet kept in ROOT/agreement, a fold at a time; returns whether all is there.

    Args:
      known: ids of the tiles that have a SinGAN.
    """
    digests = {name: pixel_digest(pair.pixels) + pixel_digest(pair.instances) for name, pair in sorted(tiles.items())}
    fingerprints = [generators[name].fingerprint() for name in MADE]
    made_from = files.digest({"study": str(study), "tiles": digests, "made": fingerprints})
    of_seed = [split for split in splits if split.seed == SEED]
    for kind in ("on", *(f"from_{name}" for name in (*MADE, "real"))):
        for split in of_seed:
            tested = [tiles[name] for name in split.test]
            shown = [pair for pair in tested if pair.id in known]
            trained = [tiles[name] for name in split.order if name in known]
            path = root / "agreement" / f"{kind}_fold{split.fold}.json"
            if not (shown if kind == "on" else trained):
                continue
            if path.is_file() and files.read_json(path)["made_from"] == made_from:
                continue
            name = kind.removeprefix("from_")
            condition = Condition(AUGMENTED, "")
            if name in MADE:
                condition = Condition(name, MADE[name], True, name, share=1.0)
            trained = [tiles[name] for name in split.order] if kind == "on" else trained
            fitted = trainer.fit(condition, trained, split, stop)
            if fitted is None:
                return False
            content: dict[str, Any] = {"real": fitted[0].score(tested)}
            for made in MADE if kind == "on" else ():
                drawn = _drawn(generators[made], shown, study.samples, split)
                content[made] = fitted[0].score(drawn)
                content[f"{made}_copied"] = _copied(drawn, shown)
            files.make_directory(path.parent)
            files.write_json(path, {"made_from": made_from, "scores": content})
            log(f"agreement, {kind}: fold {split.fold} is done")
    return True


def table(root: Path) -> str:
    """Returns a table in Markdown of what ROOT/agreement holds, means over patients with 95 % intervals."""
    on: dict[str, dict[str, float]] = {}
    for path in sorted((root / "agreement").glob("*.json")):
        kind, scores = path.stem.rpartition("_fold")[0], files.read_json(path)["scores"]
        parts = scores if kind == "on" else {kind: scores["real"]}
        for name, rows in parts.items():
            values = rows if name.endswith("_copied") else {patient: row["dice"] for patient, row in rows.items()}
            on.setdefault(name, {}).update(values)

    def cell(values: Mapping[str, float], name: str, signed: bool = False) -> str:
        one = statistics.estimate({SEED: values}, name)
        form = "+.3f" if signed else ".3f"
        return f"{one.mean:{form}} [{one.low:{form}}, {one.high:{form}}]"

    lines = ["| | Dice, patients that the segmenter never saw | copied patches |", "|---|---|---|"]
    words = {"real": "real tiles", **MADE}
    for name in (name for name in words if name in on):
        copied = on.get(f"{name}_copied")
        share = f"{np.mean([*copied.values()]):.0%}" if copied else ""
        lines.append(f"| {words[name]} | {cell(on[name], name)} | {share} |")
    if {"conditional", "stacked", "real"} <= set(on):
        for first, second in (("conditional", "real"), ("conditional", "stacked")):
            shared = {key: on[first][key] - on[second][key] for key in on[first] if key in on[second]}
            lines.append(f"| {first} less {second} | {cell(shared, first + second, signed=True)} | |")
        ratio = np.mean([*on["conditional"].values()]) / np.mean([on["real"][key] for key in on["conditional"]])
        lines.append(f"| conditional divided by real | {ratio:.3f} | |")
    lines += ["", "| trained on, augmented | Dice on real tiles of other patients |", "|---|---|"]
    for name in ("from_real", "from_conditional", "from_stacked"):
        if name in on:
            what = "the real tiles that the SinGANs know" if name == "from_real" else MADE[name.removeprefix("from_")]
            lines.append(f"| {what}{'' if name == 'from_real' else ' alone'} | {cell(on[name], name)} |")
    return "\n".join(lines)


def _drawn(generator: Generator, tiles: Sequence[Pair], count: int, split: Split) -> list[Pair]:
    """Returns pairs of each tile's SinGAN, as tiles of its patient."""
    drawn = []
    for tile in tiles:
        for number, (image, instances) in enumerate(generator.pairs([tile], count, SEED, split)):
            made = dataclasses.replace(tile, id=f"{tile.id}_{number}", pixels=image, instances=instances)
            drawn.append(made)
    return drawn


def _copied(drawn: Sequence[Pair], tiles: Sequence[Pair]) -> dict[str, float]:
    """Returns {patient: the share of copied patches in its pairs}."""
    shares = {}
    for tile in tiles:
        samples = np.stack([pair.pixels for pair in drawn if pair.patient == tile.patient])
        rows = memorisation(samples.astype(np.float32) / 127.5 - 1, tile.pixels.astype(np.float32) / 127.5 - 1)
        share = mean([row["copied"] for row in rows])
        if not isinstance(share, Undefined):
            shares[tile.patient] = share
    return shares
