"""The lock that keeps a workdir to one process; that of a workdir in a bucket is in launch/bucket_lock.py."""

import contextlib
import errno
import fcntl
import json
import os
import time
from typing import Any, TypeVar

from launch.bucket_lock import Lease
from launch.holders import may_be_alive, parse_holder, refusal, this_process
from singan.errors import UserError
from singan.files import as_path, is_bucket, make_directory, named_os_errors, remove_leftovers
from singan.workdir import Workdir

_Lock = TypeVar("_Lock", bound="WorkdirLock")


class WorkdirLock:
    """Context manager: while it is held, no second process can hold the same workdir.

    In a directory there are two guards, as each has a hole: flock is race-free and ends with its process, but some
    network file systems keep it to one host; the file's content (launch/holders.py) is seen by all hosts.
    """

    NAME = ".lock"

    def __init__(self, workdir: str | os.PathLike):
        self.path = as_path(workdir) / self.NAME
        self._fd: int | None = None
        self._lease = Lease(self.path) if is_bucket(workdir) else None

    def __enter__(self: _Lock) -> _Lock:
        """Makes the workdir if needed and takes its lock; that of a process that is gone is taken over.

        Raises:
          UserError: another process holds it (host and pid are named), or the workdir cannot be written.
        """
        if self._lease is not None:
            self._lease.take()
            return self
        make_directory(self.path.parent)
        with named_os_errors(self.path):
            fd = self._open_locked()
            try:
                holder = _read_holder(fd)
                if holder and may_be_alive(holder):
                    raise UserError(refusal(self.path, holder))
                content = json.dumps(this_process()).encode()
                os.ftruncate(fd, 0)
                os.pwrite(fd, content, 0)
            except BaseException:
                os.close(fd)
                raise
        self._fd = fd
        remove_leftovers(Workdir(self.path.parent).folders())
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the lock back."""
        if self._lease is not None:
            self._lease.give_back()
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
                    raise UserError(refusal(self.path, holder)) from None
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    os.close(fd)
                    raise
                return fd  # no flock on this file system: the content alone guards
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self.path)):
                    return fd
            os.close(fd)  # the holder removed this file between our open and our flock: take the new one


def _read_holder(fd: int) -> dict[str, Any] | None:
    return parse_holder(os.pread(fd, 4096, 0))


def _wait_for_holder(fd: int) -> dict[str, Any] | None:
    for _ in range(10):  # the holder has the flock; it fills in its name a moment later
        if holder := _read_holder(fd):
            return holder
        time.sleep(0.05)
    return None
