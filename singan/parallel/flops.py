"""Floating-point operations of a program, counted where it is written down: in its jaxpr, loops and all.

XLA's cost analysis counts the body of a loop once, whatever its length. What it says of a compiled program is brought
to the program's real length by the same two counts of the jaxpr: with every loop's length, and with each body once.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Operations:
    """FLOPs of the matrix products and convolutions, a multiply-add being two; of one device."""

    every: int  # every pass through every loop
    once: int  # each loop's body once

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.every + other.every, self.once + other.once)


def matrix_operations(jaxpr: Any) -> Operations:
    """Returns the operations of a jaxpr (closed or not); of a condition's branches, those of the longest."""
    total = Operations(0, 0)
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, inside = equation.primitive.name, [matrix_operations(inner) for inner in _inner(equation)]
        if name == "dot_general":
            ((contracted, _), _), left = equation.params["dimension_numbers"], equation.invars[0].aval
            own = 2 * _elements(equation.outvars[0]) * math.prod(left.shape[axis] for axis in contracted)
            total += Operations(own, own)
        elif name == "conv_general_dilated":
            kernel, axes = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
            own = 2 * _elements(equation.outvars[0]) * math.prod(kernel) // kernel[axes.rhs_spec[0]]
            total += Operations(own, own)
        elif name == "cond":
            total += max(inside, key=lambda branch: branch.every)
        else:
            length = equation.params["length"] if name == "scan" else 1
            for body in inside:
                total += Operations(body.every * length, body.once)
    return total


def _elements(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _inner(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for one in value if isinstance(value, list | tuple) else (value,):
            if hasattr(one, "eqns") or hasattr(getattr(one, "jaxpr", None), "eqns"):
                yield one
