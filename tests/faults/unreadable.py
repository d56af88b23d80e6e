"""Files of a run that cannot be read, and checkpoints of another Orbax: nothing is lost, and once mended it goes on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from singan.storage.checkpoint_files import FILES, seal
from tests.faults.world import PATIENCE, Outcome, World, last_line
from tests.launch.train.train_test import ROOT, STEPS, contents

FAILING = str(Path(__file__).parent / "failing")
STEP = f"scales/00/checkpoints/{STEPS}"
NAMES = ("config.json", "images.json", "run.json", f"{STEP}/about/metadata", f"{STEP}/arrays/manifest.ocdbt")
WAYS = ("I/O error", "no permission", "folder in its place")
BOUND = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")  # root that permissions hold for, too


def all_cases(world: World) -> list[tuple[str, Callable[[], Outcome]]]:
    """Returns the faults by name."""
    return [
        *((f"{way} {name}", lambda a=(way, name): unreadable(world, *a)) for way in WAYS for name in names(way)),
        *((f"Orbax {which}", lambda which=which: other_orbax(world, which)) for which in VERSIONS),
    ]


def names(way: str) -> tuple[str, ...]:
    """Returns the files that can be had to fail so: TensorStore, which reads the arrays, opens them without Python."""
    return tuple(name for name in NAMES if way != "I/O error" or "/arrays/" not in name)


def unreadable(world: World, way: str, name: str) -> Outcome:
    """Lets a file of a finished run be unreadable, for a training and a reader, and then mends it."""
    outcome, workdir = Outcome(f"unreadable: {way}", name), world.place()
    shutil.copytree(world.whole, workdir)
    path, aside, prefix = workdir / name, workdir.parent / "aside", ()
    environment = {"FAULT_OPEN": str(path), "PYTHONPATH": FAILING} if way == "I/O error" else {}
    if way == "no permission":
        path.chmod(0)
        prefix = BOUND if os.geteuid() == 0 else ()
        if prefix and (not shutil.which(prefix[0]) or subprocess.run([*prefix, "true"], check=False).returncode):
            outcome.kind, outcome.skipped = f"{outcome.kind} (skipped)", True
            return outcome
    elif way == "folder in its place":
        path.rename(aside)
        path.mkdir()
    _refused(world, outcome, workdir, path, prefix, environment)
    if way == "no permission":
        path.chmod(0o644)
    elif way == "folder in its place":
        path.rmdir()
        aside.rename(path)
    return world.resumed(outcome, workdir) if outcome.survived else outcome


def _v1(step: Path) -> None:
    import orbax.checkpoint.experimental.v1 as other

    shutil.rmtree(step)
    other.save_pytree(step, {"weights": np.zeros((2, 3), np.float32)})


def _arrays(step: Path) -> None:
    manifest = step / "arrays/manifest.ocdbt"
    manifest.write_bytes(b"\x0c\xdb\x20\xde" + b"another format" + manifest.read_bytes())
    seal(step)


def _records(step: Path) -> None:
    (step / FILES).unlink()  # as an earlier version of ours left it
    (step / "arrays/_METADATA").write_text(json.dumps({"tree": {}, "version": 3}))


VERSIONS = {"of layout 1": _v1, "with another format of arrays": _arrays, "with other records": _records}


def other_orbax(world: World, which: str) -> Outcome:
    """Puts a checkpoint of another Orbax in the place of a scale's only one, for a training and a reader, and back."""
    outcome, workdir = Outcome("checkpoint of another Orbax", which), world.place()
    shutil.copytree(world.whole, workdir)
    VERSIONS[which](workdir / STEP)
    _refused(world, outcome, workdir, workdir / STEP)
    shutil.rmtree(workdir / STEP)
    shutil.copytree(world.whole / STEP, workdir / STEP)
    return world.resumed(outcome, workdir) if outcome.survived else outcome


def _refused(
    world: World, outcome: Outcome, workdir: Path, place: Path, prefix: tuple = (), environment: dict | None = None
) -> None:
    """Runs a training and a reader: each refuses in one line that names the place, and no file is changed."""
    flags = (f"--workdir={workdir}", f"--out={workdir.parent / 'out'}", "--num_samples=1")
    before = contents(workdir)
    outcome.survived = outcome.named = True
    for name, given in (("train", world.commands.train_flags(workdir)), ("sample", flags)):
        if name == "sample" and place.name == "run.json":
            continue  # it does not need that
        ran = subprocess.run(
            [*prefix, sys.executable, "-m", f"launch.{name}", *map(str, given)],
            cwd=ROOT,
            env={**world.commands.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        outcome.named &= str(place) in ran.stderr
        if ran.returncode != 2 or ran.stderr.count("\n") != 1 or not ran.stderr.startswith("error: "):
            outcome.survived, outcome.note = False, f"{name}: exit code {ran.returncode}: {last_line(ran.stderr)}"
    after = contents(workdir)
    if changed := [name for name in {**before, **after} if after.get(name) != before.get(name)]:
        outcome.survived, outcome.note = False, f"changed {', '.join(changed[:3])}"
