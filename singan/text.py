"""Text of others made fit for a terminal, and warnings, a line each on stderr."""

import sys


def printable(name: str) -> str:
    """Returns a file name as text of one line: control characters and bytes that are no text are written as escapes."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def print_warning(text: str) -> None:
    """Prints what went wrong and ends nothing."""
    print(f"warning: {text}", file=sys.stderr, flush=True)
