"""Every kind of file that a workdir holds, damaged in every way: mended to the bit, or refused by name."""

import functools
import random
import re
import shutil
import signal
import threading
from pathlib import Path

from tests.faults.kills import step
from tests.faults.world import PATIENCE, Outcome, World, last_line, wait_until
from tests.launch.train.train_test import CHUNK, contents

WAYS = ("flipped bit", "cut off", "emptied", "missing")
SHOWN = ("report.html", "samples/grid.png", "tables/")  # for people; only report.html is written again and again


class Damages:
    """Damages copies of two workdirs: of a run that was stopped in its second scale, and of one that is finished."""

    def __init__(self, world: World, seed: int):
        self.world, self.seed = world, seed
        self.stopped = world.place()
        with world.start(self.stopped) as process:
            assert wait_until(process, lambda: step(self.stopped, 1) >= 3 * CHUNK)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
        self._lock = threading.Lock()

    @functools.cached_property
    def _sampled(self) -> dict[str, bytes]:
        return self._samples(self.world.evaluated)[1]

    def cases(self, finished: bool) -> list[tuple[str, str]]:
        """Returns one file of each kind that the workdir holds, with its kind."""
        base = self.world.evaluated if finished else self.stopped
        kinds: dict[str, str] = {}
        for name in sorted(contents(base)):
            kinds.setdefault(kind_of(name), name)
        return [(kind, name) for kind, name in kinds.items() if kind != ".lock"]

    def train(self, kind: str, name: str, way: str) -> Outcome:
        """Damages a file of the stopped run and starts the training again."""
        workdir, outcome = self._damaged(self.stopped, name, way), Outcome(f"damaged, then trained: {way}", kind)
        before = contents(workdir)
        result = self.world.train(workdir)
        outcome.named = names(result.stderr, workdir, name)
        if result.returncode == 2:
            one_line = result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
            outcome.survived = one_line and outcome.named
            outcome.note = "" if outcome.survived else last_line(result.stderr)
            if changed := [n for n, data in contents(workdir).items() if before.get(n) != data]:
                outcome.note = outcome.note or f"refused, but changed {', '.join(changed)}"
        elif result.returncode == 0 and "Traceback" not in result.stderr:
            different = self.world.differences(workdir)
            if name == "metrics.jsonl" and (outcome.named or way == "flipped bit"):
                # Reported, and what is gone is gone; a changed digit of the log is not noticed.
                different = [each for each in different if each != "rows"]
            outcome.survived, outcome.identical = not different or outcome.named, not different
            outcome.note = "; ".join(different)
        else:
            outcome.note = f"exit code {result.returncode}: {last_line(result.stderr)}"
        return outcome

    def sample(self, kind: str, name: str, way: str) -> Outcome:
        """Damages a file of the finished run and draws samples of it: as ever, or not, with the file's name."""
        workdir, outcome = (
            self._damaged(self.world.evaluated, name, way),
            Outcome(f"damaged, then sampled: {way}", kind),
        )
        result, drawn = self._samples(workdir)
        outcome.named = names(result.stderr, workdir, name)
        with self._lock:
            expected = self._sampled
        outcome.identical = result.returncode == 0 and drawn == expected
        refused = result.returncode == 2 and outcome.named
        outcome.survived = outcome.identical or refused or (result.returncode == 0 and outcome.named)
        outcome.note = "" if outcome.survived else f"exit code {result.returncode}: {last_line(result.stderr)}"
        return outcome

    def _samples(self, workdir: Path):
        out = workdir.parent / "out"
        flags = (f"--workdir={workdir}", f"--out={out}", "--num_samples=1", "--format=npy")
        result = self.world.commands.run("sample", *flags)
        return result, contents(out) if out.exists() else {}

    def _damaged(self, base: Path, name: str, way: str) -> Path:
        workdir = self.world.place()
        shutil.copytree(base, workdir)
        draw = random.Random(f"{self.seed}:{name}:{way}")
        path, data = workdir / name, bytearray((workdir / name).read_bytes())
        if way == "missing":
            path.unlink()
        elif way == "emptied":
            path.write_bytes(b"")
        elif way == "cut off":
            path.write_bytes(data[: draw.randrange(len(data))])
        elif data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            path.write_bytes(data)
        return workdir


def kind_of(name: str) -> str:
    """Returns a file's kind: its name, but for what differs from run to run and from image to image."""
    name = re.sub(r"checkpoints/\d+/", "checkpoints/STEP/", name)
    name = re.sub(r"/[0-9a-f]{32}$", "/DATA", name)
    return re.sub(r"images/[^/]+\.npy", "images/ID.npy", name)


def names(said: str, workdir: Path, name: str) -> bool:
    """Returns whether a damaged file is named in what was said; of a checkpoint, the checkpoint."""
    checkpoint = re.match(r"scales/\d+/checkpoints/\d+", name)
    scale = re.match(r"scales/0*(\d+)/", name)
    places = [str(workdir / (checkpoint[0] if checkpoint else name))]
    places += [f"scale {scale[1]} has no whole weights"] if scale else []
    return any(place in said for place in places)
