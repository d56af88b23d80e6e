"""The lock that keeps a workdir to one process; bucket_lock.py has that of a workdir in a bucket."""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import Callable
from typing import Any, TypeVar

from singan.errors import UserError
from singan.files import as_path, is_bucket, make_directory, named_os_errors, remove_leftovers
from singan.links import leads_out
from singan.storage.workdir import Workdir
from singan.storage.workdir_lock.bucket_lock import SETTLE_SECONDS, Lease
from singan.storage.workdir_lock.heartbeat import Heartbeat, still_held
from singan.storage.workdir_lock.owner import LEASE_SECONDS, REFRESH_SECONDS, parse_holder, refusal, this_process

PADDED, LONGEST = 512, 4096  # bytes of a lock as it is written, and as far as it is read

_Lock = TypeVar("_Lock", bound="WorkdirLock")


class WorkdirLock:
    """Context manager: while it is held, no second process can hold the same workdir.

    In a directory there are two guards, as each has a hole: flock is race-free and ends with its process, but some
    network file systems keep it to one host; the file's content (owner.py), which is refreshed as in a bucket, is seen
    by all hosts.
    """

    NAME = ".lock"

    def __init__(
        self,
        workdir: str | os.PathLike,
        refresh: float = REFRESH_SECONDS,
        lease: float = LEASE_SECONDS,
        end: Callable[[int], Any] = os._exit,
    ):
        """Args:
        refresh: seconds from one heartbeat to the next.
        lease: seconds after which a lock of another host that was not refreshed is nobody's.
        end: as singan.storage.workdir_lock.heartbeat.Heartbeat takes it.
        """
        self.path = as_path(workdir) / self.NAME
        self._refresh, self._lease_seconds, self._end = refresh, lease, end
        self._fd = -1
        self._held: dict[str, Any] = {}
        self._heartbeat: Heartbeat | None = None
        self._lease = Lease(self.path, refresh, lease=lease, end=end) if is_bucket(workdir) else None

    def __enter__(self: _Lock) -> _Lock:
        """Makes the workdir if needed and takes its lock; that of a process that is gone is taken over.

        Raises:
          UserError: another process holds it (host and pid are named), the workdir cannot be written, or its lock is a
            link.
        """
        if self._lease is not None:
            self._lease.take()
            return self
        make_directory(self.path.parent)
        with named_os_errors(self.path):
            self._fd, guarded = self._open_locked()
            try:
                self._take(guarded)
            except BaseException:
                os.close(self._fd)
                self._fd = -1
                raise
        self._heartbeat = Heartbeat(self.path, self._is_own, self._write, self._refresh, self._end)
        self._heartbeat.start()
        folders = Workdir(self.path.parent).folders()
        remove_leftovers(folder for folder in folders if not leads_out(folder, self.path.parent))
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the lock back."""
        if self._lease is not None:
            self._lease.give_back()
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                if self._is_own():
                    os.unlink(self.path)  # before the flock ends: whoever opened this file sees that it is gone
            os.close(self._fd)
            self._fd = -1

    def _take(self, guarded: bool) -> None:
        """Writes this process into the open file, if no other holds it."""
        held, now = self._read(), os.fstat(self._fd)
        if now.st_nlink > 1 and held and parse_holder(held) is None:
            raise UserError(f"{self.path} is another file's second name and no lock: remove this name of it")
        if held and still_held(self.path, held, self._read, guarded, self._lease_seconds, self._refresh):
            raise UserError(refusal(self.path, parse_holder(self._read()) or parse_holder(held)))
        self._held = {**this_process(), "token": secrets.token_hex(8)}
        self._write()
        if not guarded:
            time.sleep(SETTLE_SECONDS)
            if not self._is_own():
                raise UserError(refusal(self.path, parse_holder(self._read())))

    def _read(self) -> bytes:
        return os.pread(self._fd, LONGEST, 0)

    def _write(self) -> None:
        # At one go, over what was there and as long, so that no reader meets half of it.
        content = json.dumps({**self._held, "heartbeat": time.time()}).encode()
        os.pwrite(self._fd, content.ljust(PADDED), 0)
        os.ftruncate(self._fd, max(len(content), PADDED))

    def _is_own(self) -> bool:
        """Returns whether no other process has taken the lock; where a person has removed it, nobody has."""
        with contextlib.suppress(FileNotFoundError):
            if not os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                return False
        return (parse_holder(self._read()) or {}).get("token") == self._held["token"]

    def _open(self) -> int:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(self.path, flags, 0o666)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise UserError(f"{self.path} is a symbolic link, which no lock is: remove it") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise UserError(f"{self.path} is no plain file, as a lock is: remove it")
        return fd

    def _open_locked(self) -> tuple[int, bool]:
        """Returns the lock's open file, and whether this process has its flock; False where there is none."""
        while True:
            fd = self._open()
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
                return fd, False  # no flock on this file system: the content alone guards
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.lstat(self.path)):
                    return fd, True
            os.close(fd)  # the holder removed this file between our open and our flock: take the new one


def _wait_for_holder(fd: int) -> dict[str, Any] | None:
    for _ in range(10):  # the holder has the flock; it fills in its name a moment later
        if holder := parse_holder(os.pread(fd, LONGEST, 0)):
            return holder
        time.sleep(0.05)
    return None
