"""Runs of a sweep as processes on this machine, each on its own devices."""

import contextlib
import dataclasses
import datetime
import fcntl
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from launch.cli import DONE, FAILED, RESUMABLE
from launch.sweep import state
from launch.sweep.backends.devices import Slot, share_out
from launch.sweep.plan import PlannedRun, Sweep, train_flags
from singan import files
from singan.errors import UserError
from singan.files import is_bucket

POLL, POLL_FOUND = 0.2, 2.0  # seconds; the latter where what is waited for is read from files
# wandb's agent sets these for the process that it starts, which is the sweep: its runs are their own, though they keep
# WANDB_SWEEP_ID, under which wandb lists them.
_AGENTS = ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")


@dataclasses.dataclass
class _Active:
    """A run at work: started by this process, or found alive, when a sweep that was killed is started again."""

    run: PlannedRun
    slot: Slot | None  # None: another machine's, or not known
    process: subprocess.Popen | None  # None where it was found
    pid: int | None  # None: of another machine
    started: float


class Local:
    """Trains the runs of a sweep, some at a time; a failed run does not keep the others."""

    def __init__(self, sweep: Sweep, concurrency: int, devices_per_run: int):
        if is_bucket(sweep.root):
            raise UserError(f"--workdir={sweep.root}: the local backend keeps its runs in a directory")
        self._sweep, self._slots = sweep, share_out(concurrency, devices_per_run)
        self._signals = 0
        self._active: list[_Active] = []

    def require(self) -> None:
        """Does nothing: this machine is there."""

    def describe(self, runs: Sequence[PlannedRun]) -> str:
        """Returns every command that `start` would run."""
        slots = "; ".join(f"{slot.name} {_environment_text(slot)}".strip() for slot in self._slots)
        lines = [f"# {len(self._slots)} at once: {slots}"]
        for run in runs:
            lines += [f"# {run.name}", f"{shlex.join(self._command(run))} >> {shlex.quote(self._sweep.log(run))} 2>&1"]
        return "\n".join(lines)

    def start(self, runs: Sequence[PlannedRun]) -> int:
        """Trains the runs, and returns the exit code: 1 where one failed, 75 where one is left to resume, else 0.

        SIGTERM and SIGINT are passed on: the runs stop with a checkpoint. A second one stops them at once.
        """
        files.make_directory(self._sweep.root)
        with self._passing_on():
            free = list(self._slots)
            waiting = deque([run for run in runs if not self._find_live(run, free)])
            while self._active or (waiting and not self._signals):
                while waiting and free and not self._signals:
                    self._start_run(waiting.popleft(), free)
                time.sleep(POLL if any(active.process for active in self._active) else POLL_FOUND)
                for active in [active for active in self._active if self._has_ended(active)]:
                    self._active.remove(active)
                    free += [active.slot] if active.slot else []
                    if self._finish(active, len(waiting)) and not self._signals:
                        waiting.append(active.run)
            states = {run.name: state.read_state(self._sweep, run) for run in runs}
        seen = {each.state for each in states.values()}
        if self._signals:
            return RESUMABLE if waiting or seen - {state.DONE, state.FAILED} else max(DONE, state.FAILED in seen)
        return FAILED if state.FAILED in seen else RESUMABLE if seen - {state.DONE} else DONE

    def logs(self, runs: Sequence[PlannedRun]) -> int:
        """Shows the end of each run's log."""
        for run in runs:
            path = Path(self._sweep.log(run))
            print(f"--- {path}")
            if path.exists():
                print("\n".join(path.read_text(errors="replace").splitlines()[-10:]))
        return DONE

    def delete(self, runs: Sequence[PlannedRun]) -> int:
        raise UserError("--delete gives the cloud's machines back; local runs have none: delete their workdirs by hand")

    def _command(self, run: PlannedRun) -> list[str]:
        return [sys.executable, "-m", "launch.train", *train_flags(self._sweep, run)]

    def _find_live(self, run: PlannedRun, free: list[Slot]) -> bool:
        """Returns whether a run is alive already; then what it runs on is taken from `free`, and it is waited for."""
        if (now := state.read_state(self._sweep, run)).state != state.RUNNING:
            return False
        path = Path(self._sweep.log(run))
        here = state.log_is_held(path)
        lines = state.tail(path) if here else []
        slot = next((slot for slot in free if here and slot.name == state.last_slot(lines)), None)
        if here and free:
            slot = slot or free[0]  # of other devices than are shared out now: it takes some of them
            free.remove(slot)
        self._active.append(_Active(run, slot, None, state.last_process(lines), time.monotonic()))
        print(f"{run.name}: is running already ({now.note}), waiting for it", flush=True)
        return True

    def _has_ended(self, active: _Active) -> bool:
        if active.process is not None:
            return active.process.poll() is not None
        return state.read_state(self._sweep, active.run).state != state.RUNNING

    def _start_run(self, run: PlannedRun, free: list[Slot]) -> None:
        # In the meantime another sweep of the same runs may have started or finished it.
        if self._find_live(run, free) or state.read_state(self._sweep, run).state == state.DONE:
            return
        slot = free.pop(0)
        self._give_id(run)
        command, path = self._command(run), Path(self._sweep.log(run))
        begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        environment = {key: value for key, value in os.environ.items() if key not in _AGENTS}
        with files.open_plain(path, "ab", buffering=0) as log:
            if not _lock(log.fileno()):
                free.insert(0, slot)
                self._find_live(run, free)
                return
            log.write(f"{state.START_LINE}{begun} {shlex.join(command)}\n".encode())
            # The run inherits this: a stop waits until it can hear one (launch/train/__main__.py).
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            try:
                process = subprocess.Popen(
                    command,
                    env={**environment, **slot.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that Ctrl-C comes through this process, once
                )
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            log.write(f"{state.PROCESS_LINE}{process.pid} on {slot.name}\n".encode())
        if slot.cores and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, slot.cores)  # before it has made its threads, which inherit this
        self._active.append(_Active(run, slot, process, process.pid, time.monotonic()))
        print(f"{run.name}: started on {slot.name}, process {process.pid}, {path}", flush=True)

    def _finish(self, active: _Active, waiting: int) -> bool:
        """Says what has become of a run that has ended; returns whether it was found alive and is left to resume."""
        seconds = time.monotonic() - active.started
        if active.process is not None:
            with files.open_plain(self._sweep.log(active.run), "ab") as log:
                log.write(f"{state.EXIT_LINE}{active.process.returncode} after {seconds:.0f} s\n".encode())
            self._take_id_back(active.run)
        now = state.read_state(self._sweep, active.run)
        rmse = f", reconstruction RMSE {now.rmse:.4f}" if now.rmse is not None and now.state == state.DONE else ""
        note = f": {now.note}" if now.note else ""
        left = f"{len(self._active)} running, {waiting} waiting"
        print(f"{active.run.name}: {now.state} after {seconds:.0f} s{rmse}{note} ({left})", flush=True)
        return active.process is None and now.state in (state.STOPPED, state.WAITING)

    def _give_id(self, run: PlannedRun) -> None:
        """Leaves the id for launch.train to find: the planned one, and four digits that no other workdir's run has.

        wandb takes rows of the same id for those of the same run, and a sweep may be run again in another directory.
        """
        record = Path(run.workdir) / "run.json"
        if not record.exists() and not run.config.data.group_by_shape:
            files.make_directory(run.workdir)
            files.write_json(record, {"id": f"{run.id}-{secrets.token_hex(2)}", "starts": []})

    def _take_id_back(self, run: PlannedRun) -> None:
        """Removes what `_give_id` left where launch.train refused to start."""
        record = Path(run.workdir) / "run.json"
        if record.exists() and "status" not in files.read_json(record):
            record.unlink()
            with contextlib.suppress(OSError):
                record.parent.rmdir()

    @contextlib.contextmanager
    def _passing_on(self):
        def pass_on(number: int, frame: FrameType | None) -> None:
            self._signals += 1
            # A run ends at the next chunk after SIGTERM, and at once when SIGINT follows.
            passed = signal.SIGTERM if self._signals == 1 else signal.SIGINT
            for active in self._active:
                if active.pid is not None and not (active.process and active.process.poll() is not None):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(active.pid, passed)
            print(f"{signal.Signals(number).name}: stopping {len(self._active)} run(s)", file=sys.stderr, flush=True)

        before: dict[int, Any] = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _lock(log: int) -> bool:
    """Locks an open log, and returns whether no other process has it locked.

    Locked before the run is there, and by it to its end, as it has this open file for its output: whatever becomes of
    the sweep, no other starts the run beside it.
    """
    for _ in range(20):  # whoever looks at the state of the run has it for a moment
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:  # no flock on this file system: the workdir's lock guards the run, a moment later
            return True
        else:
            return True
    return False


def _environment_text(slot: Slot) -> str:
    return " ".join(f"{key}={value}" for key, value in slot.environment.items())
