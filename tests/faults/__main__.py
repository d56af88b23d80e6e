"""Does to real runs what the world does, and prints what became of them.

python -m tests.faults --kills=20 --out=faults.json        (make faults; the long form is make faults N=100)

In the short form each kind of file is damaged in one way, by turns; in the long form (50 kills and more) in every way.
"""

import argparse
import dataclasses
import itertools
import json
import random
import sys
import tempfile
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults import others, surroundings, unreadable
from tests.faults.damage import SHOWN, WAYS, Damages
from tests.faults.kills import Kills
from tests.faults.world import Outcome, World, table
from tests.launch.train.train_test import Commands

LONG = 50  # kills, from which on every kind of file is damaged in every way


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__, allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="faults at the same time")
    parser.add_argument("--only", default="", help="kills, damage, surroundings, others or unreadable")
    parser.add_argument("--out", type=Path, help="a JSON file for the outcomes")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        factory: Any = types.SimpleNamespace(getbasetemp=lambda: Path(folder))
        world = World(Commands(factory), Path(folder) / "runs")
        kills = Kills(world, given.seed)
        jobs = cases(world, kills, given.kills, given.seed, given.only)
        print(f"{len(jobs)} faults, {given.jobs} at a time, seed {given.seed}", flush=True)
        # What waits for servers that do not answer, or for locks, costs no processor: it has threads of its own.
        waiting = [job for job in jobs if "wandb" in job[0] or "other host" in job[0]]
        with ThreadPoolExecutor(given.jobs) as pool, ThreadPoolExecutor(max(1, len(waiting))) as idle:
            futures = [(idle if job in waiting else pool).submit(one, *job) for job in jobs]
            outcomes = [outcome for future in futures if (outcome := future.result())]
    minutes = (time.monotonic() - began) / 60
    phases = {phase: count for phase, count in kills.hit.items() if count}
    print(f"{table(outcomes, phases)}\n{minutes:.1f} minutes, seed {given.seed}")
    if given.out:
        found = {
            "seed": given.seed,
            "minutes": minutes,
            "phases": phases,
            "outcomes": [*map(dataclasses.asdict, outcomes)],
        }
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(outcome.good for outcome in outcomes) else 1


def cases(world: World, kills: Kills, count: int, seed: int, only: str) -> list[tuple[str, Any]]:
    """Returns the faults as (name, function without arguments that returns an Outcome)."""
    found: list[tuple[str, Any]] = []
    if only in ("", "surroundings"):
        _ = world.evaluated
        found += surroundings.all_cases(world)
    if only in ("", "others"):
        found += others.all_cases(world)
    if only in ("", "unreadable"):
        found += unreadable.all_cases(world)
    if only in ("", "kills"):
        _ = world.evaluated
        found += [(f"kill {number}", lambda number=number: kills.one(number)) for number in range(count)]
    if only in ("", "damage"):
        damages, turns = Damages(world, seed), itertools.count(random.Random(seed).randrange(len(WAYS)))
        for finished, act in ((False, damages.train), (True, damages.sample)):
            for kind, name in damages.cases(finished):
                # The page of a run in progress is written again; other pictures and tables nobody reads back or mends.
                if any(shown in kind for shown in (SHOWN if finished else SHOWN[1:])):
                    continue
                ways = WAYS if count >= LONG else (WAYS[next(turns) % len(WAYS)],)
                found += [(f"damage {kind}", lambda a=(act, kind, name, way): a[0](*a[1:])) for way in ways]
    return found


def one(name: str, act: Any) -> Outcome:
    """Does one fault; says what became of it."""
    try:
        outcome = act()
    except Exception as error:  # of the harness: the others go on
        outcome = Outcome(name, "", note=f"{type(error).__name__}: {error}")
    if not outcome.good:  # now, and again at the end
        print(f"not good: {outcome.kind}, {outcome.what}: {outcome.note}", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
