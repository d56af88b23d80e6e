"""The lock of a workdir in a bucket: an object that is created if absent, and refreshed while its holder lives."""

import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.cli import RESUMABLE
from launch.holders import LEASE_SECONDS, may_be_alive, parse_holder, refusal, this_process
from singan import files
from singan.errors import UserError

REFRESH_SECONDS = 20.0
SETTLE_SECONDS = 1.0  # after which of two that took over the same lock the one that holds it is known


class Lease:
    """Holds the lock of a bucket for the process that took it, until it is given back or the process is gone.

    No clock of another machine is trusted alone: a lock of an old heartbeat is watched for as long as two refreshes,
    and only one that stays as it is is taken over.
    """

    def __init__(
        self,
        path: Path,
        refresh: float = REFRESH_SECONDS,
        settle: float = SETTLE_SECONDS,
        end: Callable[[int], Any] = os._exit,
    ):
        """Args: end: ends this process, whose lock another one has taken; nothing may be written any more."""
        self.path, self._refresh, self._settle, self._end = path, refresh, settle, end
        self._token = secrets.token_hex(8)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._holder: dict[str, Any] = {}

    def take(self) -> None:
        """Takes the lock.

        Raises:
          UserError: another process holds it (host and pid are named), or the bucket cannot be used.
        """
        self._holder = {**this_process(), "token": self._token, "since": time.time()}
        if not files.create(self.path, self._content()):
            held = self._read()
            if held and self._is_held(held):
                raise UserError(refusal(self.path, parse_holder(held)))
            if held and self._read() == held:
                files.remove(self.path)
            if not files.create(self.path, self._content()):
                raise UserError(refusal(self.path, parse_holder(self._read())))
            time.sleep(self._settle)
            if not self._is_own():
                raise UserError(refusal(self.path, parse_holder(self._read())))
        self._thread = threading.Thread(target=self._keep, name="bucket lock", daemon=True)
        self._thread.start()

    def give_back(self) -> None:
        """Ends the refreshing and removes the lock, if it is still this process'."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            try:
                if self._is_own():
                    files.remove(self.path)
            except UserError as error:  # it ends by itself
                print(f"warning: {error}", file=sys.stderr, flush=True)

    def _content(self) -> bytes:
        return json.dumps({**self._holder, "heartbeat": time.time()}).encode()

    def _read(self) -> bytes:
        with files.named_os_errors(self.path):
            try:
                return self.path.read_bytes()
            except FileNotFoundError:
                return b""

    def _is_own(self) -> bool:
        return (parse_holder(self._read()) or {}).get("token") == self._token

    def _is_held(self, content: bytes) -> bool:
        holder = parse_holder(content)
        if holder is None:
            return self._changes(content)
        here = this_process()
        if holder["host"] == here["host"] and holder.get("boot") == here.get("boot"):
            return may_be_alive(holder)
        # Elsewhere, or before a reboot: machines of one image have the same host's name, and only the heartbeat tells.
        age = time.time() - float(holder.get("heartbeat", 0))
        return 0 <= age < LEASE_SECONDS or self._changes(content)

    def _changes(self, content: bytes) -> bool:
        """Returns whether the lock is refreshed within two refreshes."""
        print(f"{self.path} was not refreshed lately: watching it", file=sys.stderr, flush=True)
        end = time.monotonic() + 2 * self._refresh + 1
        while time.monotonic() < end:
            if (now := self._read()) != content:
                return bool(now)
            time.sleep(min(1.0, self._refresh / 4))
        return False

    def _keep(self) -> None:
        while not self._ended.wait(self._refresh):
            try:
                if not self._is_own():
                    print(
                        f"error: {self.path} is no longer this process': it ends at once", file=sys.stderr, flush=True
                    )
                    self._end(RESUMABLE)
                    return
                files.write_bytes(self.path, self._content())
            except UserError as error:
                # Training goes on: whoever would take the lock over watches it first, and is seen at the next refresh.
                print(f"warning: {error}", file=sys.stderr, flush=True)
