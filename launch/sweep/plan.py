"""From a sweep file's runs to runs that can be started: ids, names, workdirs, parsed configs, flags of launch.train."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch import studies
from launch.configs import load_config
from singan import files
from singan.config import Config, default_mapping, flatten, nearest, with_overrides
from singan.errors import UserError
from singan.files import is_bucket
from singan.resuming import resume_differences

REPOSITORY = studies.HOME
LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep."""

    id: str  # 8 hex digits of what it is made from: the same wherever and whenever it is planned
    name: str  # says what differs from the other runs
    workdir: str
    overrides: Mapping[str, Any]  # what is given to launch.train on top of the config file, in the order of its flags
    config: Config


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is to be run. The state of it is in the workdirs."""

    config_file: str  # as --config takes it
    root: str  # a directory, or a bucket's URL
    group: str
    runs: tuple[PlannedRun, ...]

    def log(self, run: PlannedRun) -> str:
        """Returns where a local run's output goes: beside its workdir, which stays launch.train's alone."""
        return f"{self.root}/{run.name}.log"


def plan_sweep(
    config_file: str,
    base: Mapping[str, Any],
    shared: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    root: str,
    group: str = "",
) -> Sweep:
    """Returns the sweep, every value of which has been checked; nothing is read or written.

    Args:
      config_file: as --config takes it; a study's name becomes its path.
      base: the config that it gives, with `shared` applied: nested.
      shared: overrides that all runs have, {key: value}, as given on the command line.
      runs: overrides of each run, {key: value}; None leaves a key as `base` has it.
      root: the directory or bucket URL that holds the workdirs.
      group: name of the sweep; '' takes tracking.group, else the last part of `root`.

    Raises:
      UserError: an unknown key (the nearest is named), a value that singan.config.parse refuses, or two runs that are
        the same or would share a workdir.
    """
    root, config_file = root.rstrip("/") or root, studies.find_file(config_file, "config.py")
    runs = [{key: value for key, value in run.items() if value is not None} for run in runs]
    _check_keys(runs, shared)
    last_part = root.rsplit("/", 1)[-1] if is_bucket(root) else Path(root).resolve().name
    group = group or flatten(base).get("tracking.group") or last_part or "sweep"
    differing = _differing(runs)
    planned: list[PlannedRun] = []
    for number, run in enumerate(runs, start=1):
        run_id = _run_id(config_file, shared, run)
        name = _name(run, differing, run_id)
        named = {**run, "tracking.group": group, "tracking.name": name}
        try:
            config = load_config(with_overrides(base, named))
        except UserError as error:
            raise UserError(f"run {number} of the sweep: {error}") from error
        planned.append(PlannedRun(run_id, name, f"{root}/{name}", {**shared, **named}, config))
    _check_apart(planned)
    return Sweep(config_file, root, group, tuple(planned))


def train_flags(sweep: Sweep, run: PlannedRun, **changed: Any) -> list[str]:
    """Returns the flags of launch.train for a run. changed: overrides that replace its own, {key: value}."""
    overrides = {**run.overrides, **changed}
    keys = [f"--config.{key}={_flag_text(value)}" for key, value in overrides.items()]
    return [f"--config={sweep.config_file}", *keys, f"--workdir={run.workdir}"]


def _check_keys(runs: Sequence[Mapping[str, Any]], shared: Mapping[str, Any]) -> None:
    known = flatten(default_mapping())
    for key in dict.fromkeys(key for run in runs for key in run):
        if key not in known:
            raise UserError(f"the sweep's key {key!r} is not a config key{nearest(str(key), known)}")
        if key in shared:
            raise UserError(f"--config.{key} is what the sweep varies: leave the flag out, or the key out of the sweep")


def _check_apart(runs: Sequence[PlannedRun]) -> None:
    places: dict[str, int] = {}
    trainings: dict[Config, int] = {}
    for number, run in enumerate(runs, start=1):
        if other := trainings.setdefault(_training(run.config), number) - number:
            if run.config.pyramid != runs[number + other - 1].config.pyramid:
                raise UserError(
                    f"runs {number + other} and {number} of the sweep would be the same: they differ in pyramid.ratio"
                    f" alone, which pyramid.num_scales={run.config.pyramid.num_scales} overrules: leave one key out"
                )
            raise UserError(
                f"runs {number + other} and {number} of the sweep are the same ({runs[number + other - 1].name} and"
                f" {run.name} give one configuration) and would share a workdir: leave one out"
            )
        if other := places.setdefault(run.workdir, number) - number:
            raise UserError(
                f"runs {number + other} and {number} of the sweep would share the workdir {run.workdir}: give them"
                " different names (the key tracking.name)"
            )


def _training(config: Config) -> Config:
    """Returns the configuration without what makes no difference to the weights: a run's name, an overruled ratio."""
    pyramid = dataclasses.replace(config.pyramid, ratio=0.0) if config.pyramid.num_scales else config.pyramid
    return dataclasses.replace(config, pyramid=pyramid, tracking=dataclasses.replace(config.tracking, name=""))


def _run_id(config_file: str, shared: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    name, _, variant = config_file.partition(":")
    path = Path(name).resolve()
    path = path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path
    # What may differ when a run is resumed (where the images lie, how it is tracked) does not make it another run,
    # unless it is what the sweep varies.
    training = {key: value for key, value in shared.items() if resume_differences({key: 0}, {key: 1})}
    made_from = files.plain({"config": path.as_posix(), "variant": variant, "overrides": {**training, **run}})
    return hashlib.blake2b(json.dumps(made_from, sort_keys=True).encode(), digest_size=4).hexdigest()


def _differing(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the keys that not every run has the same value of, in their order."""
    missing = object()
    keys = dict.fromkeys(key for run in runs for key in run)
    return [key for key in keys if any(run.get(key, missing) != runs[0].get(key, missing) for run in runs)]


def _name(run: Mapping[str, Any], differing: Sequence[str], run_id: str) -> str:
    leaves = [key.rsplit(".", 1)[-1] for key in differing]
    short = {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(differing, leaves, strict=True)}
    name = ",".join(f"{short[key]}={_text(run[key])}" for key in differing if key in run) or "base"
    name = str(run.get("tracking.name", "")) or name
    name = re.sub(r"[^\w=.,+-]+", "-", name, flags=re.ASCII).strip("-.") or run_id
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{run_id}"


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "+".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _flag_text(value: Any) -> str:
    """Returns what --config.key= takes for a value."""
    if isinstance(value, tuple | list):
        return ",".join(map(_flag_text, value)) + ("," if len(value) == 1 else "")
    return str(value).lower() if isinstance(value, bool) else str(value)
