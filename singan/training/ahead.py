"""One thread for work that will be asked for later, such as compiling the next scale's programs."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_lock = threading.Lock()
_in_hand = 0


def at_work() -> bool:
    """Returns whether such a thread of this process has something in hand.

    Python waits for it at its end, since to end in the middle of a compilation can crash. A command that is to end at
    once leaves by os._exit (launch/cli.py).
    """
    return _in_hand > 0


class Ahead:
    """A thread that does what it is given, one after another."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")

    def start(self, action: Callable[[], Any]) -> None:
        """Has an action done later. What it returns or raises is lost: it keeps itself what matters to others."""
        self._pool.submit(_do, action)

    def close(self) -> None:
        """Drops what has not begun, and does not wait for what is in hand."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _do(action: Callable[[], Any]) -> None:
    global _in_hand
    with _lock:
        _in_hand += 1
    try:
        action()
    finally:
        with _lock:
            _in_hand -= 1
