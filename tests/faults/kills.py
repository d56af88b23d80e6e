"""Signals at moments of every phase of a run; every one hits a living process."""

import copy
import json
import random
import shutil
import signal
import subprocess
from pathlib import Path

from singan.storage.metrics_file import last_rows
from tests.faults.world import EVALUATE, PATIENCE, Outcome, World, last_line, wait_until
from tests.launch.train.train_test import CHUNK, SCALES, STEPS, rows

TRAINING = ("start", "compile", "chunk", "checkpoint", "freeze", "sampling", "report")
PHASES = (*TRAINING, "evaluation")
TRIES = 6  # of a moment that came too late


class Kills:
    """Kills runs, each at a phase that is its turn, and counts the phases that were hit."""

    def __init__(self, world: World, seed: int):
        self.world, self.seed, self.random = world, seed, random.Random()
        self.hit = dict.fromkeys(PHASES, 0)

    def one(self, number: int, phase: str = "", signals: str = "") -> Outcome:
        """Kills a run and starts it again.

        Args:
          phase: where; by turns where not given.
          signals: which; KILL in most cases where not given.
        """
        turn = copy.copy(self)  # several may be on at the same time, and each number gives the same moments
        turn.random = random.Random(f"{self.seed}:{number}")
        return turn._one(number, phase, signals)

    def _one(self, number: int, phase: str, signals: str) -> Outcome:
        phase = phase or PHASES[number % len(PHASES)]
        name = signals or self.random.choice(("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT"))
        outcome = Outcome("kill", f"{name} at {phase}")
        if phase == "evaluation":
            return self._evaluation(outcome, getattr(signal, name))
        for _ in range(TRIES):
            workdir = self.world.place()
            # Saved after every chunk, a run of this size is always about to write a checkpoint.
            rare = (f"--config.train.checkpoint_every={STEPS}",) if phase in ("chunk", "freeze") else ()
            with self.world.start(workdir, *rare) as process:
                earlier = set(unfinished_saves(workdir))
                if not self._moment(process, workdir, phase, earlier):
                    process.communicate()
                    continue
                process.send_signal(getattr(signal, name))
                _, err = process.communicate(timeout=PATIENCE)
            hit = phase_of(workdir, err)
            self.hit[hit] += 1
            outcome.what = f"{name} at {hit}"
            expected = (-signal.SIGKILL,) if name == "SIGKILL" else (0, 75, 130, -getattr(signal, name))
            if process.returncode not in expected or (hit != "start" and "Traceback" in err):
                outcome.note = f"exit code {process.returncode}: {last_line(err)}"
            return self._again(outcome, workdir)
        outcome.note = "every moment came too late"
        return outcome

    def _again(self, outcome: Outcome, workdir: Path) -> Outcome:
        ended_badly, outcome.note = outcome.note, ""
        self.world.resumed(outcome, workdir)
        if ended_badly:
            outcome.survived, outcome.note = False, ended_badly
        return outcome

    def _moment(self, process: subprocess.Popen, workdir: Path, phase: str, earlier: set[Path]) -> bool:
        """Waits for a moment of a phase; returns whether the process is alive then."""
        scale, draw = self.random.randrange(SCALES), self.random.uniform
        here = workdir / f"scales/{scale:02d}"
        if phase == "start":
            return wait_until(process, lambda: True, draw(0.05, 1.5))
        if phase == "compile":
            opened = workdir / "run.json" if scale == 0 else workdir / f"scales/{scale - 1:02d}/DONE"
            return wait_until(process, opened.exists, draw(0.1, 0.8))
        if phase == "checkpoint":
            after = self.random.randrange(1, STEPS // CHUNK) * CHUNK
            return wait_until(process, lambda: step(workdir, scale) >= after) and wait_until(
                process, lambda: set(unfinished_saves(workdir)) - earlier
            )
        if phase in ("chunk", "freeze"):
            at = STEPS if phase == "freeze" else self.random.randrange(1, STEPS // CHUNK) * CHUNK
            return wait_until(process, lambda: step(workdir, scale) >= at, draw(0, 0.02))
        if phase == "sampling":
            return wait_until(process, (here / f"checkpoints/{STEPS}").is_dir, draw(0, 0.1))
        ends = (here / "samples/grid.png", workdir / f"tables/scale_{scale:02d}.json", here / "DONE")
        return wait_until(process, self.random.choice(ends).exists, draw(0, 0.05))

    def _evaluation(self, outcome: Outcome, number: int) -> Outcome:
        commands = self.world.commands
        for _ in range(TRIES):
            workdir = self.world.place()
            shutil.copytree(self.world.whole, workdir)
            flags = (f"--workdir={workdir}", *EVALUATE)
            with commands.start("evaluate", *flags) as process:
                seen = self.random.choice(((workdir / ".lock"), (workdir / "evaluation.json")))
                if not wait_until(process, seen.exists, self.random.uniform(0, 0.3)):
                    process.communicate()
                    continue
                process.send_signal(number)
                process.communicate(timeout=PATIENCE)
            self.hit["evaluation"] += 1
            result = commands.run("evaluate", *flags)
            outcome.survived = result.returncode == 0
            outcome.note = "" if outcome.survived else last_line(result.stderr)
            same = [read(workdir) == read(self.world.evaluated) for read in (_evaluation_of, rows)]
            outcome.identical = outcome.survived and all(same)
            return outcome
        outcome.note = "every moment came too late"
        return outcome


def unfinished_saves(workdir: Path) -> list[Path]:
    return list(workdir.glob("scales/*/checkpoints/*tmp*"))


def step(workdir: Path, scale: int) -> int:
    """Returns the last step of a scale that has a row, 0 where none has."""
    return max(
        (row["scale_step"] for row in last_rows(workdir / "metrics.jsonl", 4096) if row["scale"] == scale), default=0
    )


def phase_of(workdir: Path, said: str) -> str:
    """Returns the phase that a run was in when it ended, as what it said and left tells."""
    if not (workdir / "run.json").exists():
        return "start"
    scale = next((s for s in range(SCALES) if not (workdir / f"scales/{s:02d}/DONE").exists()), None)
    if scale is None:
        return "report"
    here = workdir / f"scales/{scale:02d}"
    at = step(workdir, scale)
    if at < STEPS and unfinished_saves(workdir):
        return "checkpoint"
    if f"scale {scale} of" not in said:
        return "compile"
    if at < STEPS:
        return "chunk"
    if not (here / f"checkpoints/{STEPS}").is_dir():
        return "freeze"
    return "report" if (here / "samples/grid.png").exists() else "sampling"


def _evaluation_of(workdir: Path) -> dict:
    return json.loads((workdir / "evaluation.json").read_text())
