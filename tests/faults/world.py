"""Where faults are done to real runs: tiny images, one compilation cache, and an uninterrupted run to compare with."""

import copy
import dataclasses
import functools
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from singan.storage.metrics_file import read_rows
from tests.launch.train.train_test import SCALES, STEPS, Commands, done, rows

EVALUATE = ("--num_samples=2", "--start_scales=0", "--metrics=diversity")
PATIENCE = 300.0  # seconds that anything may take on a busy machine


@dataclasses.dataclass
class Outcome:
    """What became of one fault.

    Attributes:
      kind: of the fault, a line of the table.
      what: was done, in a few words.
      survived: the same command ended well afterwards, or refused in one line that names what is damaged.
      identical: the run ended as the uninterrupted one, to the bit, with the same rows.
      named: the damaged file was named.
      note: what went wrong, or what is worth knowing.
    """

    kind: str
    what: str
    survived: bool = False
    identical: bool = False
    named: bool = False
    note: str = ""
    skipped: bool = False

    @property
    def good(self) -> bool:
        """Nothing was lost in silence: as the uninterrupted run, or the damaged file was named."""
        return self.skipped or (self.survived and (self.identical or self.named))


class World:
    """The commands, and what an uninterrupted run leaves."""

    def __init__(self, commands: Commands, root: Path):
        self.commands, self.root = commands, root
        self.whole = commands.finished_run()
        self._numbers = itertools.count()

    @functools.cached_property
    def evaluated(self) -> Path:
        """An uninterrupted run that was evaluated without interruption."""
        workdir = self.place()
        shutil.copytree(self.whole, workdir)
        result = self.commands.run("evaluate", f"--workdir={workdir}", *EVALUATE)
        assert result.returncode == 0, result.stderr
        return workdir

    def place(self) -> Path:
        """Returns a path where nothing is."""
        return self.root / f"{next(self._numbers):03d}" / "run"

    def start(self, workdir: Path, *flags: str, **environment: str) -> subprocess.Popen:
        """Starts launch.train on a workdir."""
        commands = copy.copy(self.commands)
        commands.environment = {**commands.environment, **environment}
        return commands.start("train", *commands.train_flags(workdir, *flags))

    def train(self, workdir: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess:
        """Runs launch.train on a workdir to its end."""
        with self.start(workdir, *flags, **environment) as process:
            out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def differences(self, workdir: Path) -> list[str]:
        """Returns in what a finished run is not as the uninterrupted one; [] where it is, to the bit."""
        try:
            return self._differences(workdir)
        except (OSError, ValueError) as error:
            return [f"{type(error).__name__}: {error}"]

    def _differences(self, workdir: Path) -> list[str]:
        found = []
        if done(workdir) != done(self.whole):
            found.append("weights")
        kinds = [(row["global_step"], *sorted(row)) for row in read_rows(workdir / "metrics.jsonl")]
        if len(kinds) != len(set(kinds)):
            found.append("rows twice")
        if rows(workdir) != rows(self.whole):
            found.append("rows")
        for scale in range(SCALES):
            grid = f"scales/{scale:02d}/samples/grid.png"
            if (workdir / grid).read_bytes() != (self.whole / grid).read_bytes():
                found.append(f"samples of scale {scale}")
            if sorted(path.name for path in (workdir / f"scales/{scale:02d}/checkpoints").iterdir()) != [str(STEPS)]:
                found.append(f"checkpoints of scale {scale}")
        if leftovers := [path.name for path in workdir.rglob(".tmp-*")]:
            found.append(f"leftovers {', '.join(leftovers)}")
        if json.loads((workdir / "run.json").read_text())["status"] != "finished":
            found.append("status")
        if (workdir / ".lock").exists():
            found.append("lock")
        return found

    def resumed(self, outcome: Outcome, workdir: Path, *flags: str, **environment: str) -> Outcome:
        """Starts the same command again, and fills in whether it ended as the uninterrupted run."""
        result = self.train(workdir, *flags, **environment)
        if result.returncode or "Traceback" in result.stderr:
            outcome.note = f"exit code {result.returncode}: {last_line(result.stderr)}"
            return outcome
        outcome.survived = True
        different = self.differences(workdir)
        outcome.identical, outcome.note = not different, outcome.note or "; ".join(different)
        return outcome


def last_line(text: str) -> str:
    """Returns the last line of what a process said."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")[:300]


def wait_until(process: subprocess.Popen, condition: Callable[[], Any], delay: float = 0.0) -> bool:
    """Waits until a condition holds, and `delay` seconds more; returns whether the process is alive then."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.0003)
    time.sleep(delay)
    return process.poll() is None


def table(outcomes: list[Outcome], phases: Mapping[str, int]) -> str:
    """Returns what was tried and what became of it, as a table."""
    kinds = list(dict.fromkeys(outcome.kind for outcome in outcomes))
    lines = [("fault", "tried", "survived", "bit-identical", "named")]
    for kind in (*kinds, "all"):
        some = [outcome for outcome in outcomes if kind in (outcome.kind, "all")]
        counts = (sum(getattr(one, name) for one in some) for name in ("survived", "identical", "named"))
        lines.append((kind, str(len(some)), *map(str, counts)))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    text = [
        "  ".join([f"{line[0]:{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    if phases:
        text.append("kills by phase: " + ", ".join(f"{phase} {count}" for phase, count in phases.items()))
    text += [
        f"{'not identical' if one.survived else 'not survived'}: {one.kind}, {one.what}: {one.note}"
        for one in outcomes
        if not one.good
    ]
    return "\n".join(text)
