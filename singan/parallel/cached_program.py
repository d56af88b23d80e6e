"""Compiled programs that are kept: whoever draws a sample again pays for no second compilation."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from singan.parallel import cohort
from singan.parallel.costs import Memory, compiled_memory
from singan.shapes import PyTree


class Program:
    """A cohort program that compiles itself when it first meets arguments of a shape.

    Keep it where it is found again (functools.lru_cache over what it is made from); it holds on to no array.
    """

    def __init__(self, function: Callable[..., Any], precision: str, name: tuple[Any, ...] = ()):
        """Args: name: as cohort.compile_program takes it."""
        self._function, self._precision, self._name = function, precision, name
        self._compiled: dict[Any, Any] = {}

    def __call__(self, *arguments: PyTree) -> PyTree:
        return self.compiled(*arguments)(*arguments)

    def compiled(self, *arguments: PyTree) -> Any:
        """Returns the executable for arguments of these shapes."""
        leaves, tree = jax.tree.flatten(arguments)
        key = tree, tuple((np.shape(leaf), np.dtype(leaf.dtype).name) for leaf in leaves)
        if key not in self._compiled:
            self._compiled[key] = cohort.compile_program(
                self._function, *arguments, precision=self._precision, name=self._name
            )
        return self._compiled[key]

    def memory(self, *arguments: PyTree) -> Memory:
        """Returns what a call takes on each device."""
        return compiled_memory(self.compiled(*arguments))
