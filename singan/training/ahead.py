"""One thread for work that will be asked for later, such as compiling the next scale's programs."""

import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

_submitted: weakref.WeakSet[Future] = weakref.WeakSet()


def at_work() -> bool:
    """Returns whether such a thread of this process has something in hand.

    Python waits for it at its end, since to end in the middle of a compilation can crash. A command that is to end at
    once leaves by os._exit (launch/cli.py).
    """
    return any(future.running() for future in list(_submitted))


class AheadThread(ThreadPoolExecutor):
    """A thread that does what it is given, one after another."""

    def __init__(self) -> None:
        super().__init__(1, thread_name_prefix="ahead")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future = super().submit(fn, *args, **kwargs)
        _submitted.add(future)
        return future
