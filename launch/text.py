"""Text of others (names, values, messages) made fit for one line on a terminal."""

import sys
from collections.abc import Sequence

from singan.text import printable

LONGEST_LINE = 1000  # characters of an error: what a file or a flag holds may be of any length

# What moves a terminal's cursor, changes colours or turns the direction of writing.
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPED = {code: chr(code).encode("unicode_escape").decode("ascii") for code in _CONTROLS if chr(code) not in "\n\t"}


def without_controls(text: str) -> str:
    """Returns text of any number of lines whose control characters, but for new lines and tabs, are escapes."""
    return text.translate(_ESCAPED)


def one_line(text: str) -> str:
    """Returns any text as one printable line of at most LONGEST_LINE characters; its middle is left out if need be."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 100]} ... {line[-90:]}"


def described(error: BaseException) -> str:
    """Returns what an exception of other people's code is and says, also where it cannot say it."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        return name
    return f"{name}: {text}" if text else name


def some(names: Sequence[str], most: int = 3) -> str:
    """Returns the first of some names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def print_note(text: str) -> None:
    """Prints what a command does otherwise than its user may think, as one line on stderr."""
    print(f"note: {one_line(text)}", file=sys.stderr)
