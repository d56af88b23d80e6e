"""What can be wrong with somebody's download, said so that the reader knows what to do next."""

from collections.abc import Sequence


class DataError(Exception):
    """The input cannot be built. The message is one line that names the file and says what to do."""


class BadExample(DataError):
    """One example (a patient, a patch) is at fault; the others can still be built.

    Args:
      where: The patient or patch, as the user knows it.
      reason: What is wrong, naming the file, without a closing stop.
    """

    def __init__(self, where: str, reason: str):
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


def some(names: Sequence[str], limit: int = 3) -> str:
    """Returns a few names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
