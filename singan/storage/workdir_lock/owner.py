"""Who holds a workdir: what a lock says of its process, and whether that may still be alive."""

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from singan.files import AnyPath
from singan.text import printable

REFRESH_SECONDS = 20.0  # from one time that a holder refreshes its lock to the next
LEASE_SECONDS = 120.0  # a lock that was not refreshed for so long may be that of a process that is gone


def this_process() -> dict[str, Any]:
    """Returns what a lock says of this process: host, pid and when it started, by the clock and by the boot."""
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start_time": process.create_time(),
        **({"boot": boot, "ticks": _ticks(os.getpid())} if (boot := boot_id()) else {}),
    }


def parse_holder(data: bytes) -> dict[str, Any] | None:
    """Returns the holder that a lock's content names, or None where it is empty or damaged."""
    try:
        holder = json.loads(data)
        known = {
            **holder,
            "host": printable(str(holder["host"])),
            "pid": int(holder["pid"]),
            "start_time": float(holder["start_time"]),
        }
        return {**known, "heartbeat": float(holder["heartbeat"])} if "heartbeat" in holder else known
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # empty or half-written: its writer died between making and filling it


def may_be_alive(holder: Mapping[str, Any]) -> bool:
    """Returns whether the process that a lock names may be alive.

    On this machine that is known; elsewhere a lock tells by its heartbeat, by this machine's clock, and one of an older
    version, in a directory, does not tell.

    Args:
      holder: the lock's content; an empty or damaged one is nobody's.
    """
    try:
        host, pid, started = holder["host"], int(holder["pid"]), float(holder["start_time"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    if host != socket.gethostname():
        since = age(holder)
        return since is None or since < LEASE_SECONDS
    if holder.get("boot") and (boot := boot_id()):  # no clock that is set anew changes these
        return holder["boot"] == boot and _ticks(pid) == holder.get("ticks")
    try:
        # psutil derives the start from the boot time, which clock corrections move a little.
        return abs(psutil.Process(pid).create_time() - started) < 2
    except (psutil.NoSuchProcess, ValueError):
        return False
    except psutil.AccessDenied:
        return True


def age(holder: Mapping[str, Any]) -> float | None:
    """Returns for how many seconds a lock was not refreshed, by this machine's clock; None where it never is."""
    beat = holder.get("heartbeat")
    return time.time() - beat if isinstance(beat, int | float) else None


def refusal(path: AnyPath, holder: Mapping[str, Any] | None) -> str:
    """Returns the line for who finds a workdir held. Args: path: of the lock."""
    workdir = path.parent
    if not holder:
        return f"{workdir} is in use by another process: wait for it, or choose another --workdir"
    who = f"process {holder['pid']} on host {holder['host']}"
    text = f"{workdir} is in use by {who}: wait for it, stop it, or choose another --workdir"
    if "heartbeat" in holder:
        text += f" (if it is gone, its lock ends by itself within {LEASE_SECONDS:.0f} s)"
    elif holder["host"] != socket.gethostname():
        text += f" (if it is gone, delete {path})"
    return text


def boot_id() -> str:
    """Returns what names this boot of the machine, '' where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _ticks(pid: int) -> int | None:
    """Returns when a process started, in clock ticks since the boot; None where there is no such process."""
    try:
        # The second field, a name in brackets, may hold any bytes, brackets as well.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
