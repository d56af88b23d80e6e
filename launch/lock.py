"""The lock that keeps a workdir to one process."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

from singan.errors import UserError
from singan.files import make_directory, named_os_errors

_Lock = TypeVar("_Lock", bound="WorkdirLock")


class WorkdirLock:
    """Context manager: while it is held, no second process can hold the same workdir.

    Two guards, as each has a hole: flock is race-free and ends with its process, but some network file systems keep it
    to one host; the file's content (host, pid, start time of the process) names the holder and is seen by all hosts.
    """

    NAME = ".lock"

    def __init__(self, workdir: str | os.PathLike):
        self.path = Path(workdir) / self.NAME
        self._fd: int | None = None

    def __enter__(self: _Lock) -> _Lock:
        """Makes the workdir if needed and takes its lock; that of a process that is gone is taken over.

        Raises:
          UserError: another process holds it (host and pid are named), or the workdir cannot be written.
        """
        make_directory(self.path.parent)
        with named_os_errors(self.path):
            fd = self._open_locked()
            try:
                holder = _read_holder(fd)
                if holder and _may_be_alive(holder):
                    raise UserError(self._refusal(holder))
                content = json.dumps(_this_process()).encode()
                os.ftruncate(fd, 0)
                os.pwrite(fd, content, 0)
            except BaseException:
                os.close(fd)
                raise
        self._fd = fd
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the lock back."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path)  # before the flock ends: whoever opened this file sees that it is gone
            os.close(self._fd)
            self._fd = None

    def _open_locked(self) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    holder = _wait_for_holder(fd)
                    os.close(fd)
                    raise UserError(self._refusal(holder)) from None
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    os.close(fd)
                    raise
                return fd  # no flock on this file system: the content alone guards
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self.path)):
                    return fd
            os.close(fd)  # the holder removed this file between our open and our flock: take the new one

    def _refusal(self, holder: Mapping[str, Any] | None) -> str:
        workdir = self.path.parent
        if not holder:
            return f"{workdir} is in use by another process: wait for it, or choose another --workdir"
        who = f"process {holder['pid']} on host {holder['host']}"
        text = f"{workdir} is in use by {who}: wait for it, stop it, or choose another --workdir"
        if holder["host"] != socket.gethostname():
            text += f" (if it is gone, delete {self.path})"
        return text


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "start_time": psutil.Process().create_time()}


def _read_holder(fd: int) -> dict[str, Any] | None:
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
        return {"host": str(holder["host"]), "pid": int(holder["pid"]), "start_time": float(holder["start_time"])}
    except (ValueError, KeyError, TypeError):
        return None  # empty or half-written: its writer died between making and filling it


def _wait_for_holder(fd: int) -> dict[str, Any] | None:
    for _ in range(10):  # the holder has the flock; it fills in its name a moment later
        if holder := _read_holder(fd):
            return holder
        time.sleep(0.05)
    return None


def _may_be_alive(holder: Mapping[str, Any]) -> bool:
    if holder["host"] != socket.gethostname():
        return True  # cannot be known from here
    try:
        # psutil derives the start from the boot time, which clock corrections move a little.
        return abs(psutil.Process(holder["pid"]).create_time() - holder["start_time"]) < 2
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
