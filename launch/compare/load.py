"""What launch.compare compares: workdirs, folders of generated images that were evaluated, and runs in wandb."""

import dataclasses
import os
import re
from collections.abc import Sequence

from launch.compare.compared import AT_END, Compared
from launch.results.quality import of_scale, read_evaluation
from launch.results.run_facts import STATUS, RunFacts, read_facts
from singan import files, links
from singan.config import flatten, to_mapping
from singan.errors import UserError
from singan.files import AnyPath

WANDB_PATH = re.compile(r"[\w.-]+/[\w.-]+/[\w.-]+")


def load(places: Sequence[str]) -> list[Compared]:
    """Returns what is to be compared, each with a name of its own; for the root of a sweep, its runs.

    Raises:
      UserError: a place holds nothing to compare, or a wandb run cannot be read.
    """
    runs = [_load(place) for place in dict.fromkeys(inner for place in places for inner in _inside(place))]
    names = [one.name for one in runs]
    parents = [f"{files.absolute(one.place).resolve().parent.name}/{one.name}" for one in runs]
    for number, one in enumerate(runs):
        if names.count(one.name) > 1:
            longer = parents[number] if parents.count(parents[number]) == 1 else one.place
            runs[number] = dataclasses.replace(one, name=longer)
    return runs


def _inside(place: str) -> list[str]:
    place = place.rstrip("/") or place
    if any(_holds(files.as_path(place), name) for name in ("config.json", "evaluation.json")):
        return [place]
    return sorted(str(path.parent) for path in files.as_path(place).glob("*/config.json")) or [place]


def _holds(path: AnyPath, name: str) -> bool:
    """Returns whether a folder has an entry of that name: whether it can be read, its reader says."""
    return (path / name).is_file() if files.is_bucket(path) else os.path.lexists(path / name)


def _load(place: str) -> Compared:
    path = files.as_path(place)
    if _holds(path, "config.json"):
        return of_workdir(place, read_facts(path))
    if _holds(path, "evaluation.json"):
        return of_folder(place)
    if path.is_dir():
        raise UserError(f"{place} holds no run (config.json), no sweep of runs and no evaluation.json")
    if not path.exists() and WANDB_PATH.fullmatch(place):
        from launch.compare.from_wandb import of_wandb

        return of_wandb(place)
    raise UserError(f"{place} is neither a directory nor a wandb run, ENTITY/PROJECT/ID")


def of_workdir(place: str, run: RunFacts) -> Compared:
    """Returns a workdir's run."""
    last = run.starts[-1] if run.starts else {}
    said = str(last.get("git_commit") or "")
    speeds = {scale.scale: scale.image_steps_per_second for scale in run.history if scale.curves}
    grid = next((scale for scale in reversed(run.finished) if run.grid(scale)), None)
    picture = run.grid(grid) if grid is not None else None
    return Compared(
        run.name,
        place,
        {
            "status": STATUS.get(str(run.record.get("status")), str(run.record.get("status", "unknown"))),
            "scales done": f"{len(run.finished)} of {len(run.sizes) or '?'}",
            "devices": str(last.get("devices", "")),
            "commit, + with changes": said[:10] + ("+" if said.endswith("+") else ""),
        },
        flatten(to_mapping(run.config)),
        {image.id: image.digest for image in run.images},
        run.sizes,
        {s.scale: {name: of_scale(s.ends, name) for name in AT_END} for s in run.history if s.ends},
        speeds,
        run.seconds,
        len(run.diverged),
        run.evaluation,
        (f"scale {grid}", _picture(picture)) if picture else None,
        run.problems,
        run.history,
        str(run.record.get("id", "")),
    )


def of_folder(place: str) -> Compared:
    """Returns a folder of generated images, of which evaluation.json alone is known.

    Raises:
      UserError: evaluation.json is damaged.
    """
    path = files.as_path(place)
    grids = path.glob("*/*grid.png" if files.is_bucket(path) else "**/*grid.png")
    drawn = [p for p in (path / "grid.png", *sorted(grids)) if p.is_file()]
    picture = next((p for p in drawn if files.is_bucket(path) or not links.leads_out(p, path)), None)
    return Compared(
        path.resolve().name,
        place,
        {"status": "generated images, evaluated"},
        evaluation=read_evaluation(path / "evaluation.json"),
        grid=(str(picture.relative_to(path)), _picture(picture)) if picture else None,
    )


def _picture(path: AnyPath) -> bytes:
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
