"""A progress bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import tqdm

T = TypeVar("T")

# Seconds between two lines where the output is no terminal.
LINE_EVERY = 10.0


def track(items: Sequence[T], what: str, unit: str) -> Iterator[T]:
    """Yields the items and shows on stderr how many are done, of how many, and the time left.

    Args:
      items: What to go through.
      what: Said in front, such as 'brats train'.
      unit: What one item is, in the plural.
    """
    if sys.stderr.isatty():
        yield from tqdm.tqdm(items, desc=what, unit=f" {unit}", leave=False)
        return
    start = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - said >= LINE_EVERY:
            said = now
            left = (now - start) / done * (len(items) - done)
            print(f"{what}: {done} of {len(items)} {unit}, about {left:.0f} s left", file=sys.stderr, flush=True)
        yield item
    if items:
        took = time.monotonic() - start
        print(f"{what}: {len(items)} of {len(items)} {unit} in {took:.1f} s", file=sys.stderr, flush=True)
