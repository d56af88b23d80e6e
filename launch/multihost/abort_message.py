"""What C++ prints, and its abort: JAX's distributed runtime ends a process that has lost another with a stack dump.

jaxlib 0.10.2 offers no other end: its error callback cannot be a Python function (std::bad_cast). So its lines are
taken out of what the process prints, and the abort that follows them becomes one line and an exit code.
"""

import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable

from launch.streams import Printed

# Of the coordination service and client, and the alarm of a slow compilation; the rest is passed on.
_NOISE = re.compile(
    rb"\[Gloo\]|Additional GRPC error|:UNKNOWN:Error|RPC: /xla\.coordination|"
    rb"[IWEF]\d{4} .*(coordination_service|preemption_sync_manager|add_port\.cc|slow_operation_alarm)|"
    rb"\*{32}$|\[Compiling module|The operation took"
)
_FATAL = re.compile(rb"F\d{4} .*client\.h.*distributed service detected fatal errors")


class AbortMessage:
    """Passes on what is written to the file descriptors 1 and 2, less the noise of the distributed runtime.

    Python's own sys.stderr goes past it, so that a terminal stays one.
    """

    def __init__(self, on_fatal: Callable[[], tuple[str, int]]):
        """Args: on_fatal: the last line and the exit code when the distributed runtime aborts this process."""
        self._on_fatal, self._fatal = on_fatal, False
        sys.stdout.flush()
        sys.stderr.flush()
        self._saved = {number: os.dup(number) for number in (1, 2)}
        sys.stderr = Printed(os.dup(2), "utf-8", bars=True)
        self._threads = [self._filter(number) for number in (1, 2)]
        self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        # C's own signal(): a handler of Python's would run after abort() has ended the process.
        libc.signal(signal.SIGABRT, ctypes.cast(self._handler, ctypes.c_void_p))

    def close(self) -> None:
        """Passes on what is left; nothing is filtered afterwards."""
        for number, saved in self._saved.items():
            with contextlib.suppress(OSError, ValueError):
                (sys.stdout if number == 1 else sys.stderr).flush()
            os.dup2(saved, number)
        for thread in self._threads:  # a child that still holds the pipe is not waited for
            thread.join(timeout=1)

    def _filter(self, number: int) -> threading.Thread:
        read, write = os.pipe()
        os.dup2(write, number)
        os.close(write)

        def pass_on() -> None:
            with os.fdopen(read, "rb", buffering=0) as pipe:
                rest = b""
                while piece := pipe.read(65536):
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        self._line(number, line + b"\n")
                self._line(number, rest)

        thread = threading.Thread(target=pass_on, daemon=True)
        thread.start()
        return thread

    def _line(self, number: int, line: bytes) -> None:
        self._fatal = self._fatal or bool(_FATAL.match(line))
        if (self._fatal and number == 2) or _NOISE.match(line):
            return
        with contextlib.suppress(OSError):
            while line:
                line = line[os.write(self._saved[number], line) :]

    def _aborted(self, _: int) -> None:
        """Called by abort(), on whichever thread calls it."""
        for _ in range(20):
            time.sleep(0.02)  # the threads above may still have to read why
            if self._fatal:
                text, code = self._on_fatal()
                with contextlib.suppress(OSError):
                    os.write(self._saved[2], f"{text}\n".encode())
                os._exit(code)
