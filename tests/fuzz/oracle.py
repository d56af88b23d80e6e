"""What may come of an input: success, or one clear line. Everything else is a fault, and says which."""

import contextlib
import io
import logging
import re
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launch.text import one_line
from singan.errors import UserError

SUCCESS, REFUSED = "success", "one clear line"
LONGEST_LINE = 1200  # characters of a message
MAX_LINES = 12  # that a function may print
MAX_SECONDS = 15.0
MAX_BYTES = 700 * 2**20  # by which one example may raise the largest memory that the process has had
# What only a programmer reads: addresses, classes, tracebacks.
UGLY = re.compile(r"Traceback| at 0x[0-9a-f]{6}|<class |<function |<built-in|object has no attribute|\bNoneType\b")

HIDDEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


class Fault(AssertionError):
    """An outcome that is neither success nor one clear line."""


def judge(action: Callable[[], Any], refusals: tuple[type[Exception], ...] = (UserError,)) -> tuple[str, str]:
    """Returns the outcome of an action, and its line.

    Raises:
      Fault: another exception, an unclear line, warnings, a flood of output, too much time or memory.
    """
    _forget_peak()
    before, started = _peak(), time.monotonic()
    outcome, line = SUCCESS, ""
    with _noise() as noise, _limited():
        try:
            action()
        except refusals as error:
            outcome, line = REFUSED, one_line(str(error))
        except RecursionError as error:
            raise Fault(f"RecursionError: {error}") from None
        except Exception as error:
            raise Fault(f"{type(error).__name__}: {str(error)[:300]}") from error
    check_line(line, outcome)
    if noise:
        raise Fault(f"noise besides its outcome: {noise[0][:200]}")
    if (seconds := time.monotonic() - started) > MAX_SECONDS:
        raise Fault(f"took {seconds:.0f} s")
    if (grown := _peak() - before) > MAX_BYTES:
        raise Fault(f"took {grown / 2**20:.0f} MiB")
    return outcome, line


def check_line(line: str, outcome: str = REFUSED) -> None:
    """Raises Fault where a message is not one clear line."""
    if outcome == SUCCESS:
        return
    if not line.strip() or not line.isprintable():
        raise Fault(f"not one line of text: {line!r}")
    if len(line) > LONGEST_LINE:
        raise Fault(f"a line of {len(line)} characters: {line[:200]} ...")
    if found := UGLY.search(line):
        raise Fault(f"not clear ({found[0]}): {line}")


def whole(folder: Path) -> None:
    """Raises Fault where a folder holds what was only half written."""
    left = [path.name for path in folder.rglob("*") if path.name.startswith(".tmp-")]
    if left:
        raise Fault(f"left behind: {', '.join(left)}")


class _TooLongError(BaseException):
    """Not an Exception: readers take any of those for a damaged file."""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Ends what hangs."""

    def end(number: int, frame: Any) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        yield
    except _TooLongError:
        raise Fault(f"did not end within {MAX_SECONDS:.0f} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _noise() -> Iterator[list[str]]:
    """Collects what is said besides results: Python's warnings, records of loggers, floods of output."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(f"log of {record.name}: {record.getMessage()}")
    out, root = io.StringIO(), logging.getLogger()
    root.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(out):
            warnings.simplefilter("always")
            yield said
    finally:
        root.removeHandler(handler)
    # Those that Python shows: deprecations are for programmers.
    shown = [warning for warning in caught if not issubclass(warning.category, HIDDEN)]
    said += [f"{warning.category.__name__}: {warning.message}" for warning in shown]
    if len(lines := out.getvalue().splitlines()) > MAX_LINES:
        said.append(f"{len(lines)} lines, beginning with {lines[0]}")


def _forget_peak() -> None:
    """Lets the kernel count the largest memory from now on: what was before would hide what an example takes."""
    with contextlib.suppress(OSError):  # Linux alone, and not in every container
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
