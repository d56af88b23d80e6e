"""What keeps a lock alive: its holder refreshes it, and whoever finds it watches whether that still happens."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from singan.errors import RESUMABLE, UserError
from singan.files import AnyPath
from singan.storage.workdir_lock.owner import LEASE_SECONDS, REFRESH_SECONDS, age, boot_id, may_be_alive, parse_holder


class Heartbeat:
    """A thread that refreshes a lock, until it is stopped or another process has taken the lock."""

    def __init__(
        self,
        path: AnyPath,
        is_own: Callable[[], bool],
        write: Callable[[], None],
        refresh: float = REFRESH_SECONDS,
        end: Callable[[int], Any] = os._exit,
    ):
        """Args:
        path: of the lock.
        is_own: whether the lock is still this process'.
        write: refreshes it.
        refresh: seconds from one time to the next.
        end: ends this process, whose lock another one has taken; nothing may be written any more.
        """
        self._path, self._is_own, self._write = path, is_own, write
        self._refresh, self._end = refresh, end
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the lock is no longer refreshed."""
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        said = ""
        while not self._ended.wait(self._refresh):
            try:
                if not self._is_own():
                    text = f"error: {self._path} is no longer this process': it ends at once"
                    print(text, file=sys.stderr, flush=True)
                    self._end(RESUMABLE)
                    return
                self._write()
            except (UserError, OSError) as error:
                # Training goes on: whoever would take the lock over watches it first, and is seen at the next refresh.
                if str(error) != said:
                    said = str(error)
                    print(f"warning: {said}", file=sys.stderr, flush=True)


def still_held(
    path: AnyPath,
    held: bytes,
    read: Callable[[], bytes],
    guarded: bool = False,
    lease: float = LEASE_SECONDS,
    refresh: float = REFRESH_SECONDS,
) -> bool:
    """Returns whether the process that a lock names may still be at work; where only time can tell, after watching it.

    No clock of another machine is trusted alone: a lock that changes while it is watched is held, and one that stays as
    it is for as long as its heartbeat says, and for two refreshes at least, is not.

    Args:
      path: of the lock, for messages.
      held: its content.
      read: returns its present content; b'' where it is gone.
      guarded: whether this process has what a holder at work would have as well (flock): then an old heartbeat, or a
        damaged lock, is enough.
    """
    holder = parse_holder(held)
    if holder is None:
        return not guarded and _changes(f"{path} is damaged", held, read, 2 * refresh + 1)
    who, since = f"{path} is of process {holder['pid']} on host {holder['host']}", age(holder)
    if holder["host"] == socket.gethostname():
        # Machines of one image have the same host's name: of another boot, where nothing guards, the heartbeat tells.
        if guarded or since is None or holder.get("boot") == boot_id():
            return may_be_alive(holder)
    elif since is None:
        return True  # of an older version, which does not refresh it
    assert since is not None
    if guarded and since >= lease:
        print(f"{who}, and was not refreshed for {since:.0f} s: it is taken over", file=sys.stderr, flush=True)
        return False
    left = lease - since if 0 <= since < lease else 0.0
    if _changes(who, held, read, max(left, 2 * refresh + 1)):
        return True
    print(f"{path} was not refreshed: it is taken over", file=sys.stderr, flush=True)
    return False


def _changes(who: str, held: bytes, read: Callable[[], bytes], seconds: float) -> bool:
    """Returns whether a lock is refreshed, or taken by another process, within a time; not if it is given back."""
    print(f"{who}: waiting for up to {seconds:.0f} s whether it is refreshed", file=sys.stderr, flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (now := read()) != held:
            return bool(now)
        time.sleep(min(1.0, seconds / 8))
    return False
