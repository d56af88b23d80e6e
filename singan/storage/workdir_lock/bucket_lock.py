"""The lock of a workdir in a bucket: an object that is created if absent, and refreshed while its holder lives."""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any

from singan import files
from singan.errors import UserError
from singan.files import AnyPath
from singan.storage.workdir_lock.heartbeat import Heartbeat, still_held
from singan.storage.workdir_lock.owner import LEASE_SECONDS, REFRESH_SECONDS, parse_holder, refusal, this_process

SETTLE_SECONDS = 1.0  # after which of two that took over the same lock the one that holds it is known


class Lease:
    """Holds the lock of a bucket for the process that took it, until it is given back or the process is gone."""

    def __init__(
        self,
        path: AnyPath,
        refresh: float = REFRESH_SECONDS,
        settle: float = SETTLE_SECONDS,
        end: Callable[[int], Any] = os._exit,
        lease: float = LEASE_SECONDS,
    ):
        """Args: end: as singan.storage.workdir_lock.heartbeat.Heartbeat takes it."""
        self.path, self._refresh, self._settle, self._end, self._lease = path, refresh, settle, end, lease
        self._token = secrets.token_hex(8)
        self._heartbeat: Heartbeat | None = None
        self._holder: dict[str, Any] = {}

    def take(self) -> None:
        """Takes the lock.

        Raises:
          UserError: another process holds it (host and pid are named), or the bucket cannot be used.
        """
        self._holder = {**this_process(), "token": self._token, "since": time.time()}
        if not files.create(self.path, self._content()):
            held = self._read()
            if held and still_held(self.path, held, self._read, lease=self._lease, refresh=self._refresh):
                raise UserError(refusal(self.path, parse_holder(self._read() or held)))
            if held and self._read() == held:
                files.remove(self.path)
            if not files.create(self.path, self._content()):
                raise UserError(refusal(self.path, parse_holder(self._read())))
            time.sleep(self._settle)
            if not self._is_own():
                raise UserError(refusal(self.path, parse_holder(self._read())))
        write = lambda: files.write_bytes(self.path, self._content())  # noqa: E731
        self._heartbeat = Heartbeat(self.path, self._is_own, write, self._refresh, self._end)
        self._heartbeat.start()

    def give_back(self) -> None:
        """Ends the refreshing and removes the lock, if it is still this process'."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
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
