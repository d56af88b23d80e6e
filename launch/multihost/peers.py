"""The other processes of one training, and what becomes of this one when one of them ends or is lost.

Beside JAX's distributed runtime, each process says every few seconds, in that runtime's own store of keys and values,
that it is there, or how it ended: so the others can say who it was.
"""

import contextlib
import importlib.util
import json
import os
import platform
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import jax

from launch import command_flags as flags
from launch.cli import INTERRUPTED, RESUMABLE, USER_ERROR
from singan.errors import UserError

JOIN_TIMEOUT = flags.DEFINE_integer(
    "join_timeout", 300, "Seconds to wait until all processes are there.", lower_bound=1
)
PEER_TIMEOUT = flags.DEFINE_integer(
    "peer_timeout", 30, "Seconds without a sign of a process after which the others end.", lower_bound=2
)

_KEYS = "medisingan/peers/"


class Peers:
    """The other processes, as this one sees them."""

    def __init__(self, address: str, count: int, index: int, detected: bool):
        self._address, self.count, self.index, self._detected = address, count, index, detected
        self._hosts = {index: platform.node()}
        self._stopped = threading.Event()
        self._client: Any = None
        self._beat, self._limit, self._lock = 0, float(PEER_TIMEOUT.value), threading.Lock()
        self._at_end: tuple[Callable[[int], Any], ...] = ()
        self._ending = threading.Lock()
        self._exit_reason: dict[str, Any] = {}
        self.prefix = f"process {index}: " if index else ""
        self._period = min(2.0, PEER_TIMEOUT.value / 5)

    def meet(self) -> None:
        """Joins the processes.

        Raises:
          UserError: the coordinator cannot be reached, or its port is taken.
        """
        deadline = time.monotonic() + JOIN_TIMEOUT.value
        if self.index == 0:
            _check_port(self._address)
        else:
            _wait_for(self._address, deadline)
        if any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
            # Else XLA shares out the timing of kernels, and a program that only some processes compile waits for ever.
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_shard_autotuning=false"
        # JAX would take SIGTERM for itself. What a signal asks for is agreed on after each chunk
        # (singan/training/scale_run.py).
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            self._address,
            self.count,
            self.index,
            cluster_detection_method=None if self._detected else "deactivate",
            initialization_timeout=max(int(deadline - time.monotonic()), 1),
            # Twice as long: who was lost is better known here than there.
            heartbeat_timeout_seconds=2 * PEER_TIMEOUT.value,
            shutdown_timeout_seconds=PEER_TIMEOUT.value,
        )
        from jax._src import distributed  # JAX's own store of keys and values has no public name

        self._client = distributed.global_state.client
        self._heartbeat()
        first = self._client.blocking_key_value_get(f"{_KEYS}0", 1000 * JOIN_TIMEOUT.value)
        self._hosts[0] = json.loads(first)["host"]
        threading.Thread(target=self._monitor, daemon=True).start()

    def at_end(self, *actions: Callable[[int], Any]) -> None:
        """Says what is to be done, quickly, when this process ends because another one did; nothing else then is.

        Args: actions: take the exit code.
        """
        self._at_end = actions

    def stop(self) -> None:
        """Ends the monitor: the processes part."""
        self._stopped.set()

    def on_fatal(self) -> tuple[str, int]:
        """Returns the last line and the exit code for when JAX's runtime aborts this process."""
        self._begin_end(RESUMABLE)
        if self._client is None:
            return (
                f"{self.prefix}error: not all of the {self.count} processes came to {self._address} within"
                f" {JOIN_TIMEOUT.value} s: start the same command on every host, with another --process_id each"
            ), USER_ERROR
        return self.prefix + self._gone(0 if self.index else None, f"no answer from {self._address}"), RESUMABLE

    def end_all(self, error: BaseException) -> None:
        """Tells the others how this process ends, and ends it. An error in what processes do together is theirs."""
        if self._client is None:  # not met yet
            raise error
        if is_of_another(error):
            self._limit = 4 * self._period  # it is known that one is gone; the monitor says which
            self._stopped.wait(PEER_TIMEOUT.value)
            self._end(self._gone(None, str(error).splitlines()[0][:150]), RESUMABLE)
        self._claim_exit()
        if isinstance(error, UserError):
            code, text = USER_ERROR, " ".join(str(error).split())
            print(f"error: {text}", file=sys.stderr, flush=True)
        elif isinstance(error, KeyboardInterrupt):
            code, text = INTERRUPTED, "interrupted"
            print("interrupted: run the same command again to go on", file=sys.stderr, flush=True)
        else:
            code, text = 1, f"{type(error).__name__}: {error}".splitlines()[0][:300]
            traceback.print_exception(error)
        with contextlib.suppress(Exception):
            self._exit_reason = {"end": text, "code": code}
            self._heartbeat()
            time.sleep(2.5 * self._period)  # process 0 holds the store that the others read it from
        self._exit(code)

    def _heartbeat(self) -> None:
        with self._lock:
            self._beat += 1
            state = json.dumps({"beat": self._beat, "host": platform.node(), **self._exit_reason})
            self._client.key_value_set(f"{_KEYS}{self.index}", state, allow_overwrite=True)

    def _monitor(self) -> None:
        seen: dict[int, tuple[str, float]] = {}
        answered = time.monotonic()
        while not self._stopped.wait(self._period):
            try:
                self._heartbeat()
                states = {int(key.rsplit("/", 1)[1]): text for key, text in self._client.key_value_dir_get(_KEYS)}
            except Exception:
                if time.monotonic() - answered > self._limit and not self._stopped.is_set():
                    self._end(self._gone(0 if self.index else None, f"no answer from {self._address}"), RESUMABLE)
                continue
            now = answered = time.monotonic()
            for index, text in states.items():
                before = seen.get(index)
                if before is None or before[0] != text:
                    seen[index] = text, now
                content = json.loads(text)
                self._hosts[index] = content["host"]
                if index == self.index or self._stopped.is_set():
                    continue
                if "end" in content:
                    self._end(f"error: {self._name(index)} has ended: {content['end']}", content["code"])
                elif now - seen[index][1] > self._limit:
                    since = f"no sign of it for {now - seen[index][1]:.0f} s"
                    self._end(self._gone(index, since), RESUMABLE)

    def _name(self, index: int | None) -> str:
        if index is None:
            return f"another process of {self.count}"
        host = f" (host {self._hosts[index]})" if index in self._hosts else ""
        return f"process {index} of {self.count}{host}"

    def _gone(self, index: int | None, why: str) -> str:
        return f"{self._name(index)} is gone: {why}; the same command resumes"

    def _end(self, text: str, code: int) -> None:
        self._begin_end(code)
        print(text, file=sys.stderr, flush=True)
        self._exit(code)

    def _exit(self, code: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        time.sleep(0.1)  # what is printed goes through a thread (launch/multihost/abort_message.py)
        os._exit(code)  # not sys.exit: JAX would wait at the end for those who are gone

    def _claim_exit(self) -> None:
        """Of several threads that find an end, the first goes on from here alone."""
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()

    def _begin_end(self, code: int) -> None:
        """Does what is to be done because another process is at its end."""
        self._claim_exit()
        for action in self._at_end:
            with contextlib.suppress(Exception):
                action(code)


class Prefixed:
    """A text stream that says at each line whose it is."""

    def __init__(self, stream: Any, prefix: str):
        self._stream, self._prefix, self._begun = stream, prefix, False

    def write(self, text: str) -> int:
        for piece in text.splitlines(keepends=True):
            self._stream.write(piece if self._begun else self._prefix + piece)
            self._begun = not piece.endswith("\n")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _check_port(address: str) -> None:
    """Raises UserError where the port is taken: JAX's service would crash."""
    port = int(address.rpartition(":")[2])
    try:
        with socket.create_server(("", port), family=socket.AF_INET, reuse_port=False):
            pass
    except OSError as error:
        raise UserError(f"--coordinator={address}: port {port} cannot be used here ({error.strerror})") from error


def _wait_for(address: str, deadline: float) -> None:
    """Returns when the coordinator takes a connection."""
    host, _, port = address.rpartition(":")
    reason = ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=max(min(left, 5), 0.1)):
                return
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(min(0.2, max(left, 0)))
    raise UserError(
        f"the coordinator {address} cannot be reached within {JOIN_TIMEOUT.value} s ({reason}): is process 0 started,"
        " and does a firewall let its port through?"
    )


def is_of_another(error: BaseException) -> bool:
    """Returns whether an error, of JAX's or of what is built on it, speaks of another process that is gone."""
    if isinstance(error, UserError) or not isinstance(error, Exception):
        return False  # of this process' own files, whatever words it has
    words = ("Gloo", "onnection closed", "onnection reset", "UNAVAILABLE", "arrier")
    return any(word in str(error) for word in words)
