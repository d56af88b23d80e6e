"""What is printed: it never ends a command, whoever reads it, and says nothing to the terminal but text."""

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any

from launch.text import without_controls


class _Descriptor(io.RawIOBase):
    """A file descriptor that takes everything; `error` is the first failure, after which nothing is written to it.

    reader_left: whether the failure is that whoever read it, such as `head` or a terminal, is gone.
    """

    def __init__(self, number: int):
        self._number, self._terminal = number, os.isatty(number)
        self.error: OSError | None = None
        self.reader_left = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return self._terminal and self.error is None

    def write(self, data: Any) -> int:
        while self.error is None:
            try:
                return os.write(self._number, data)
            except BlockingIOError:  # whoever shares the terminal has set it so
                select.select([], [self._number], [], 1.0)
            except OSError as error:
                self.error = error
                self.reader_left = error.errno == errno.EPIPE or (error.errno == errno.EIO and self._terminal)
                if self.reader_left:
                    # For C++ and child processes, too, there is nobody any more.
                    with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                        os.dup2(nowhere.fileno(), self._number)
        return len(data)


class Printed(io.TextIOWrapper):
    """A text stream to a file descriptor, for sys.stdout and sys.stderr.

    What it cannot write is dropped: a pipe that nobody reads any more, or a full disk, ends no training. Characters
    that the locale's encoding lacks, and those that would move a terminal's cursor, are written as escapes, but for
    the carriage return that a progress bar begins with.
    """

    def __init__(self, number: int, encoding: str | None = None, bars: bool = False):
        """Args: bars: whether progress bars are drawn here."""
        self._descriptor = _Descriptor(number)
        self._bars, lines = bars, bars or self._descriptor.isatty()
        super().__init__(io.BufferedWriter(self._descriptor), encoding, "backslashreplace", line_buffering=lines)

    @property
    def lost(self) -> str:
        """Why what was printed is not where it was sent, '' where it is, or where its reader left by choice."""
        error = self._descriptor.error
        return "" if error is None or self._descriptor.reader_left else error.strerror or str(error)

    def write(self, text: str) -> int:
        begun = "\r" if self._bars and text.startswith("\r") else ""
        super().write(begun + without_controls(text[len(begun) :]))
        return len(text)


def install() -> None:
    """Makes the interpreter's own stdout and stderr, closed ones too, streams that end no command."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: no file that is written later gets it. Child processes have it, too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, number, bars in (("stdout", 1, False), ("stderr", 2, True)):
        stream = getattr(sys, name)
        if stream is not None and stream is not getattr(sys, f"__{name}__"):
            continue  # somebody captures it
        if stream is not None:
            stream.flush()
        setattr(sys, name, Printed(number, getattr(stream, "encoding", None), bars))


def exit_code(code: Any) -> Any:
    """Returns the exit code of a command that has come to its end with `code`.

    It is 1, and that is said, where `code` tells of a success and what was printed did not arrive.
    """
    if (why := _lost()) and not code:
        print(f"error: what was printed is not whole: {why}", file=sys.stderr, flush=True)
        return 1
    return code


def _lost() -> str:
    """Flushes both streams; returns why what was printed to stdout did not arrive, or ''."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return sys.stdout.lost if isinstance(sys.stdout, Printed) else ""
