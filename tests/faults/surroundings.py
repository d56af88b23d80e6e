"""What is around a run goes wrong: the disk, permissions, the clock, the wandb server, a second process."""

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from launch.results.run_facts import read_facts
from singan.storage.workdir_lock.owner import this_process
from tests.faults.kills import step
from tests.faults.world import PATIENCE, Outcome, World, last_line, wait_until
from tests.launch.tracking.tracking_test import Server
from tests.launch.train.train_test import CHUNK, rows

DAY = 86400.0
KEY = "0123456789" * 4


def all_cases(world: World) -> list[tuple[str, Callable[[], Outcome]]]:
    """Returns the faults by name, those that wait longest first."""
    return [
        *(
            (f"wandb {how}", lambda how=how: wandb(world, how))
            for how in ("gone in the middle", "silent", "slow", "refused")
        ),
        *((f"full disk {size}", lambda size=size: full_disk(world, size)) for size in ("16k", "700k", "1100k")),
        ("read-only", lambda: read_only(world)),
        *((f"clock {offset}", lambda offset=offset: clock(world, offset)) for offset in (-DAY, 400 * DAY)),
        *((f"threads {now}", lambda now=now: threads(world, *now)) for now in ((1, 2), (2, 1))),
        ("two processes", lambda: second_process(world)),
        *((f"lock {which}", lambda which=which: stale_lock(world, which)) for which in LOCKS),
        ("leftovers", lambda: leftovers(world)),
    ]


# wandb


class Vanishing(Server):
    """Takes a few rows, and then there is no server any more."""

    def do_POST(self) -> None:
        super().do_POST()
        if len(self.history) >= 2:
            threading.Thread(target=self.server.shutdown).start()
            self.server.socket.close()


@contextlib.contextmanager
def server(how: str) -> Iterator[str]:
    """Gives the URL of a wandb server that is not what it should be."""
    if how == "gone in the middle":
        Vanishing.history.clear()
        running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Vanishing)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.server_close()
        return
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if how != "refused":
            listening.listen(50)
        if how == "slow":
            threading.Thread(target=_drip, args=(listening,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def _drip(listening: socket.socket) -> None:
    """Accepts and answers a byte a second."""

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            for byte in (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000
            ):
                connection.sendall(bytes([byte]))
                time.sleep(1)

    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()


def wandb(world: World, how: str) -> Outcome:
    """Trains with a wandb server that is not there: no row is lost, and one line says so."""
    outcome, workdir = Outcome("wandb", how), world.place()
    home = workdir.parent / "home"
    home.mkdir(parents=True)
    began = time.monotonic()
    with server(how) as url:
        environment = {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "HOME": str(home)}
        world.resumed(outcome, workdir, "--config.tracking.wandb=online", **environment)
    outcome.note = outcome.note or f"took {time.monotonic() - began:.0f} s"
    return outcome


# the disk


@contextlib.contextmanager
def disk(world: World, size: str) -> Iterator[Path | None]:
    """Gives a small file system, or None where it may not be mounted."""
    place = world.place().parent
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=False)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def full_disk(world: World, size: str) -> Outcome:
    """Trains on a disk that is full after a while, and again when there is room."""
    outcome = Outcome("full disk", size)
    with disk(world, size) as place:
        if place is None:
            return skipped(outcome)
        result = world.train(place / "run")
        refused = result.returncode == 2 and "disk full: free space" in last_line(result.stderr)
        outcome.named = refused
        if not refused or "Traceback" in result.stderr:
            outcome.note = f"exit code {result.returncode}: {last_line(result.stderr)}"
            return outcome
        remount(place, "size=20m")
        return world.resumed(outcome, place / "run")


def read_only(world: World) -> Outcome:
    """Goes on with a run whose directory became read-only, and again when it may be written."""
    outcome = Outcome("read-only", "workdir")
    with disk(world, "20m") as place:
        if place is None:
            return skipped(outcome)
        stopped(world, place / "run")
        remount(place, "ro")
        result = world.train(place / "run")
        one_line = result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
        outcome.named = result.returncode == 2 and one_line and str(place) in result.stderr
        remount(place, "rw")
        if not outcome.named:
            outcome.note = f"exit code {result.returncode}: {last_line(result.stderr)}"
            return outcome
        return world.resumed(outcome, place / "run")


def skipped(outcome: Outcome) -> Outcome:
    outcome.kind, outcome.skipped, outcome.note = f"{outcome.kind} (skipped)", True, "only root mounts a small disk"
    return outcome


# the clock and the lock


def stopped(world: World, workdir: Path, number: int = signal.SIGTERM, **environment: str) -> int:
    """Ends a run by a signal in its second scale; returns its pid."""
    with world.start(workdir, **environment) as process:
        assert wait_until(process, lambda: step(workdir, 1) >= 3 * CHUNK)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
    return process.pid


def clock(world: World, offset: float) -> Outcome:
    """Goes on with a run whose start was by a clock that is `offset` seconds from the present one."""
    outcome, workdir = Outcome("clock", f"{-offset / DAY:+.0f} days in the middle"), world.place()
    shifted = str(Path(__file__).parent / "clock")
    stopped(world, workdir, signal.SIGKILL, PYTHONPATH=shifted, FAULT_CLOCK=str(offset))
    for path in workdir.rglob("*"):
        then = time.time() + offset
        os.utime(path, (then, then))
    world.resumed(outcome, workdir)
    if outcome.survived and not 0 <= (seconds := read_facts(workdir).seconds) < PATIENCE:
        outcome.survived, outcome.note = False, f"the report says that it took {seconds:.0f} s"
    return outcome


def threads(world: World, before: int, now: int) -> Outcome:
    """Goes on with a run with another number of threads: the sums' last bits differ, and that is said and recorded."""
    outcome, workdir = Outcome("threads", f"{before}, and {now} from the middle on"), world.place()
    stopped(world, workdir, NPROC=str(before))
    result = world.train(workdir, NPROC=str(now))
    recorded = [start["cpu"]["threads"] for start in json.loads((workdir / "run.json").read_text())["starts"]]
    outcome.survived = result.returncode == 0 and "Traceback" not in result.stderr and recorded == [before, now]
    outcome.named = f"CPU threads {before}, now {now} (NPROC={before} keeps them)" in result.stderr
    different = world.differences(workdir)
    outcome.identical = not different
    if not outcome.good:
        outcome.note = f"threads {recorded}, exit code {result.returncode}: {last_line(result.stderr)}"
    return outcome


def second_process(world: World) -> Outcome:
    """Starts a second process on a workdir in use; the first goes on to its end."""
    outcome, workdir = Outcome("two processes", "on one workdir"), world.place()
    with world.start(workdir) as first:
        if not wait_until(first, (workdir / "run.json").exists):
            outcome.note = "the first ended too early"
            return outcome
        first.send_signal(signal.SIGSTOP)
        result = world.train(workdir)
        first.send_signal(signal.SIGCONT)
        outcome.named = result.returncode == 2 and f"is in use by process {first.pid} on host " in result.stderr
        _, err = first.communicate(timeout=PATIENCE)
    outcome.survived = outcome.named and first.returncode == 0
    different = world.differences(workdir)
    outcome.identical, outcome.note = (
        not different,
        "; ".join(different) or ("" if outcome.survived else last_line(err)),
    )
    return outcome


LOCKS = {
    "of a process that is gone": lambda: {**this_process(), "pid": 2**22 + 1},
    "whose pid another process has": lambda: {**this_process(), "ticks": 1, "start_time": 1.0},
    "of before the machine's start": lambda: {**this_process(), "boot": "another"},
    "that started in the future": lambda: {"host": socket.gethostname(), "pid": os.getpid(), "start_time": 4e9},
    "half written": lambda: None,
}


def stale_lock(world: World, which: str) -> Outcome:
    """Starts where a lock was left behind."""
    outcome, workdir = Outcome("stale lock", which), world.place()
    workdir.mkdir(parents=True)
    left = LOCKS[which]()
    (workdir / ".lock").write_text('{"host": "' if left is None else json.dumps(left))
    return world.resumed(outcome, workdir)


def leftovers(world: World) -> Outcome:
    """Goes on where a process that was killed while it wrote has left its temporary files."""
    outcome, workdir = Outcome("leftovers", "temporary files"), world.place()
    pid = stopped(world, workdir, signal.SIGKILL)
    for folder in (
        workdir,
        workdir / "images",
        workdir / "tables",
        workdir / "scales/00/samples",
        workdir / "scales/01",
    ):
        (folder / f".tmp-some.json-{pid}-0a1b2c3d").write_text("{")
    shutil.copytree(
        workdir / "scales/00/checkpoints",
        workdir / "scales/01/checkpoints/30.orbax-checkpoint-tmp-0",
        dirs_exist_ok=True,
    )
    before = len(rows(workdir))
    world.resumed(outcome, workdir)
    return outcome if before else Outcome("leftovers", "temporary files", note="there were no rows")
