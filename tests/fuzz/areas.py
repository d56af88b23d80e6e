"""The areas that are fuzzed: for each a strategy of inputs, and what a command does with one."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from singan.errors import UserError


@dataclasses.dataclass(frozen=True)
class Area:
    """One kind of input.

    Attributes:
      name: of the area.
      examples: of inputs.
      use: what is done with an example in a fresh folder: what it raises is the outcome.
      short, long: how many examples the tests and the long form try.
      refusals: exceptions that mean one clear line.
      prepare: makes what all examples share.
    """

    name: str
    examples: st.SearchStrategy[Any]
    use: Callable[[Any, Path], Any]
    short: int
    long: int
    refusals: tuple[type[Exception], ...] = (UserError,)
    prepare: Callable[[], Any] = lambda: None
