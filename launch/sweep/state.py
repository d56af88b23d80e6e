"""What has become of a sweep's runs, as their workdirs and logs tell; nothing is written or locked to find out."""

import dataclasses
import fcntl
import io
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.results.text_table import text_table
from launch.sweep.plan import PlannedRun, Sweep
from singan import files, links
from singan.config import parse, to_mapping, with_legacy_defaults
from singan.errors import UserError
from singan.files import is_bucket
from singan.resuming import resume_differences
from singan.storage.metrics_file import last_rows
from singan.storage.workdir_lock.owner import may_be_alive, parse_holder

DONE, RUNNING, STOPPED, FAILED, WAITING = "done", "running", "stopped", "failed", "waiting"
TAIL = 2**16  # bytes of a log or of metrics.jsonl that are read
# How a log tells one start from the next, and what became of it (launch/sweep/backends/local.py).
START_LINE, PROCESS_LINE, EXIT_LINE = "--- start ", "--- process ", "--- exit code "
RESUMABLE = (75, 130)


@dataclasses.dataclass(frozen=True)
class RunState:
    """Where a run stands."""

    state: str  # done | running | stopped (resumes) | failed (is tried again) | waiting
    scale: int | None = None
    step: int | None = None
    rmse: float | None = None  # of the last reconstruction, mean over the images, in units of [-1, 1]
    speed: float | None = None  # image-steps per second
    note: str = ""


def read_state(sweep: Sweep, run: PlannedRun) -> RunState:
    """Returns the state of a run; of metrics.jsonl and the log only the end is read.

    Raises:
      UserError: the workdir is in a bucket that cannot be read from here, or holds a run of another configuration.
    """
    try:
        root = files.as_path(run.workdir)
        parts = [root] if not run.config.data.group_by_shape else _cohorts(root)
        for part in parts:
            links.check_workdir(part)
            _check_same(part, run)
        states = [_read(part) for part in parts] or [RunState(WAITING)]
        log = files.as_path(sweep.log(run))
        lines = [] if is_bucket(sweep.root) else tail(log)
        held = not is_bucket(sweep.root) and log_is_held(log)
    except Exception as error:
        if isinstance(error, UserError) or not is_bucket(sweep.root):
            raise
        # What a bucket's client raises has no common class; where it is missing, epath's text names what to install.
        raise UserError(f"{run.workdir} cannot be read from here: {error}") from error
    order = [RUNNING, FAILED, STOPPED, WAITING, DONE]
    worst = min(states, key=lambda state: order.index(state.state))
    # It has not come to its workdir yet, or is about to end. What it started may hold the log for a moment longer.
    if held and worst.state != RUNNING and _last_start(lines)[0] is None:
        return dataclasses.replace(worst, state=RUNNING, note=f"process {last_process(lines) or 'unknown'}")
    return _with_log(worst, lines)


def table(states: dict[str, RunState]) -> str:
    """Returns the states as a table, one run a line."""
    rows = [("run", "state", "scale", "step", "RMSE", "image-steps/s", "")]
    for name, s in states.items():
        numbers = (_cell(s.scale), _cell(s.step), _cell(s.rmse, ".4f"), _cell(s.speed, ".1f"))
        rows.append((name, s.state, *numbers, s.note))
    counts = [f"{n} {word}" for word in (DONE, RUNNING, STOPPED, FAILED, WAITING) if (n := _count(states, word))]
    return "\n".join([*text_table(rows, "<<>>>><"), f"{len(states)} runs: {', '.join(counts)}"])


def _count(states: dict[str, RunState], word: str) -> int:
    return sum(state.state == word for state in states.values())


def _cell(value: float | None, form: str = "d") -> str:
    return "-" if value is None else format(value, form)


def _cohorts(root: Path) -> list[Path]:
    """Returns the workdirs of a run whose image shapes are trained each on its own."""
    return sorted(path.parent for path in root.glob("*/run.json")) if root.exists() else []


def _check_same(workdir: Path, run: PlannedRun) -> None:
    old = _json(workdir / "config.json")
    old.pop("format", None)
    old.pop("digest", None)
    if old and (different := resume_differences(to_mapping(parse(with_legacy_defaults(old))), to_mapping(run.config))):
        raise UserError(
            f"{workdir} holds a run with another configuration ({'; '.join(different[:3])}): choose another --workdir,"
            " or plan this sweep with the old values"
        )


def _read(workdir: Path) -> RunState:
    record, holder = _json(workdir / "run.json"), parse_holder(_bytes(workdir / ".lock")) or {}
    state, note = WAITING, ""
    if may_be_alive(holder):
        state, note = RUNNING, f"process {holder.get('pid')} on {holder.get('host')}"
    elif "status" in record:
        by_status = {"finished": DONE, "failed": FAILED, "diverged": FAILED, "stopped": STOPPED, "running": STOPPED}
        status = str(record["status"])
        state = by_status.get(status, STOPPED)
        note = {"running": "ended without a word; resumes", "stopped": "resumes", "diverged": "diverged"}.get(
            status, ""
        )
        if state == DONE and record.get("diverged"):
            note = f"{len(record['diverged'])} image(s) diverged"
    rows = last_rows(workdir / "metrics.jsonl", TAIL)
    place = rows[-1] if rows else {}
    return RunState(
        state,
        place.get("scale"),
        place.get("scale_step"),
        _last(rows, "end/reconstruction_rmse", "generator/reconstruction_rmse"),
        _last(rows, "image_steps_per_second"),
        note,
    )


def _with_log(run: RunState, lines: Sequence[str]) -> RunState:
    """Returns the state with what the log of a local run adds: how its last start ended, and the error's line."""
    code, text = _last_start(lines)
    if run.state == RUNNING or code is None:
        return run
    if code < 0:
        killed = f"killed by {signal.Signals(-code).name}; resumes"
        return run if run.state in (DONE, FAILED) else dataclasses.replace(run, state=STOPPED, note=killed)
    if code in RESUMABLE:
        return dataclasses.replace(run, state=STOPPED, note="resumes")
    if run.state == FAILED or code > 0:
        errors = [line for line in text if line.startswith("error: ")] or text or [f"exit code {code}"]
        return dataclasses.replace(run, state=FAILED, note=errors[-1])
    return run


def _last_start(lines: Sequence[str]) -> tuple[int | None, list[str]]:
    """Returns the exit code of the last start in a log, None while there is none, and the lines that it printed."""
    begins = max((i for i, line in enumerate(lines) if line.startswith(START_LINE)), default=-1)
    text = [line for line in lines[begins + 1 :] if line.strip() and not line.startswith(PROCESS_LINE)]
    if text and text[-1].startswith(EXIT_LINE):
        return int(text[-1].removeprefix(EXIT_LINE).split()[0]), text[:-1]
    return None, text


def log_is_held(path: Path) -> bool:
    """Returns whether a local run of this log is alive: it holds the log's lock from before it starts to its end."""
    try:
        with files.open_plain(path) as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no log, or no flock on this file system: the workdir's lock tells
        return False
    return False


def last_process(lines: Sequence[str]) -> int | None:
    """Returns the process id of the last start in a log."""
    words = next((line.split() for line in reversed(lines) if line.startswith(PROCESS_LINE)), [])
    return int(words[2]) if len(words) > 2 and words[2].isdigit() else None


def last_slot(lines: Sequence[str]) -> str:
    """Returns the name of the devices that the last start in a log has; '' where it does not say."""
    words = next((line for line in reversed(lines) if line.startswith(PROCESS_LINE)), "").partition(" on ")
    return words[2]


def _last(rows: Sequence[dict[str, Any]], *keys: str) -> float | None:
    """Returns the latest value of any of the keys; the mean where there is one for each image."""
    for row in reversed(rows):
        for key in keys:
            value = row.get(key)
            numbers = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int | float)]
            if numbers:
                return sum(numbers) / len(numbers)
    return None


def tail(path: Path) -> list[str]:
    """Returns the last lines of a text file, none where there is no file; the first one may be a part of one."""
    try:
        with files.open_plain(path) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - TAIL))
            return file.read().decode(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _bytes(path: Path) -> bytes:
    """Returns what a file holds, b'' where there is none."""
    try:
        return files.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_bytes(path))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
