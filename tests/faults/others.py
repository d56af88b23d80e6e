"""What others do: read no further, start a run again on another host, put links into it, write into its records."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from singan.storage.workdir import Workdir, read_config, read_run, write_config, write_run
from tests.faults.kills import step
from tests.faults.surroundings import DAY, stopped
from tests.faults.world import PATIENCE, Outcome, World, last_line, wait_until
from tests.launch.train.train_test import CHUNK, ROOT, contents

SHIFTED = str(Path(__file__).parent / "clock")
UGLY = "\x1b[2J=1+1\u202e\r"
# Of those that hold no lock, and of one that does.
LINKED = ("scales/00/checkpoints", "scales/01", "images", "run.json", "metrics.jsonl", "scales/00/DONE", ".lock")


def all_cases(world: World) -> list[tuple[str, Callable[[], Outcome]]]:
    """Returns the faults by name, those that wait longest first."""
    return [
        *((f"other host {which}", lambda which=which: other_host(world, which)) for which in HOSTS),
        *((f"pipe {when}", lambda when=when: pipe(world, when)) for when in ("first line", "second scale", "closed")),
        *((f"link {name}", lambda name=name: link(world, name, "link")) for name in LINKED),
        *((f"FIFO {name}", lambda name=name: link(world, name, "FIFO")) for name in LINKED[3:]),
        ("escapes", lambda: escapes(world)),
    ]


HOSTS = {
    "at once": {},
    "whose clock is a day back": {"FAULT_CLOCK": str(-DAY)},
    "whose clock is a day ahead": {"FAULT_CLOCK": str(DAY)},
}


def other_host(world: World, which: str) -> Outcome:
    """Kills a run and starts it again under another host name, as containers have."""
    outcome, workdir = Outcome("restart on another host", which), world.place()
    stopped(world, workdir, signal.SIGKILL, PYTHONPATH=SHIFTED, FAULT_HOST="container-a")
    return world.resumed(outcome, workdir, PYTHONPATH=SHIFTED, FAULT_HOST="container-b", **HOSTS[which])


def pipe(world: World, when: str) -> Outcome:
    """Trains while nobody reads what is said, from some time on."""
    outcome, workdir = Outcome("pipe that nobody reads", when), world.place()
    command = [sys.executable, "-m", "launch.train", *map(str, world.commands.train_flags(workdir))]
    read, write = os.pipe()
    with subprocess.Popen(command, cwd=ROOT, env=world.commands.environment, stdout=write, stderr=write) as process:
        os.close(write)
        if when != "closed":
            os.read(read, 1)
        if when == "second scale":
            wait_until(process, lambda: step(workdir, 1) >= CHUNK)
        os.close(read)
        code = process.wait(PATIENCE)
    outcome.survived, different = code == 0, world.differences(workdir)
    outcome.identical, outcome.note = not different, "; ".join(different) or f"exit code {code}" * bool(code)
    return outcome


def link(world: World, name: str, kind: str) -> Outcome:
    """Puts a link or a FIFO into a finished run: both commands refuse it, and what it leads to is as it was."""
    outcome, workdir = Outcome(f"{kind} in a workdir", name), world.place()
    shutil.copytree(world.whole, workdir)
    elsewhere, path = workdir.parent / "elsewhere", workdir / name
    (elsewhere / "1").mkdir(parents=True)
    for secret in ("1/file", "file"):
        (elsewhere / secret).write_text("precious")
    target = elsewhere if path.is_dir() else elsewhere / "file"
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    before = contents(elsewhere)
    flags = (f"--workdir={workdir}", f"--out={workdir.parent / 'out'}", "--num_samples=1")
    outcome.survived = outcome.named = True
    for result in (world.train(workdir), world.commands.run("sample", *flags)):
        outcome.named &= str(path) in result.stderr
        if result.returncode != 2 or not result.stderr.startswith("error: ") or result.stderr.count("\n") != 1:
            outcome.survived, outcome.note = False, f"exit code {result.returncode}: {last_line(result.stderr)}"
    if contents(elsewhere) != before:
        outcome.survived, outcome.note = False, "what it leads to was changed"
    return outcome


def escapes(world: World) -> Outcome:
    """Compares a run whose records hold what a terminal and a spreadsheet would obey."""
    outcome, workdir, out = Outcome("escapes in records", "run.json, config.json"), world.place(), world.place()
    shutil.copytree(world.whole, workdir)
    place = Workdir(workdir)
    start = {"git_commit": UGLY, "devices": UGLY}
    write_run(place, {**read_run(place), "status": UGLY, "starts": [start]})
    config = read_config(place)
    write_config(place, dataclasses.replace(config, tracking=dataclasses.replace(config.tracking, name=UGLY)))
    said = []
    for form in ("table", "markdown", "csv"):
        result = world.commands.run("compare", workdir, world.whole, f"--out={out}", f"--format={form}")
        said += [result.stdout, result.stderr, (out / "compare.csv").read_text()]
        outcome.note = outcome.note or last_line(result.stderr)
    if bad := [c for text in said for c in text if not c.isprintable() and c != "\n"]:
        outcome.note = f"{bad[0]!r} was printed"
    outcome.survived = outcome.named = not outcome.note and any("\\x1b[2J" in text for text in said)
    return outcome
