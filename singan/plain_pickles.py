"""Pickles read as plain data: no object of a pickle's choosing is ever made, and nothing of it runs.

`pickletools.genops` splits the bytes into opcodes and checks their lengths; the small machine below interprets those
that containers, numbers, text and calls of a given table need. Not a subclass of pickle.Unpickler: that one can be made
to take any amount of memory or time by a few bytes (the index of a memo entry, a dict key of nested tuples).
"""

import pickletools
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

MARK = object()
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
MAKERS: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS, GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


class RefusedGlobalError(Exception):
    """A pickle names something that is not in the table; the text is that name."""


class Call:
    """What a pickle may call, under the name by which it does so."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function


class Buildable:
    """What a pickle may give a state after making it."""

    def set_state(self, state: Any) -> None:
        """Takes the state; here it is dropped."""


def read_pickle(stream: BytesIO, table: Mapping[str, Any], persistent: Callable[[tuple], Any]) -> Any:
    """Returns the value of the pickle that starts at `stream`'s position, which is behind it afterwards.

    Args:
      table: 'module.name' -> what stands for it in the result; a `Call` may be called by the pickle.
      persistent: makes a value of a persistent id, which is a tuple.

    Raises:
      RefusedGlobalError: the pickle names what `table` lacks.
      ValueError, IndexError, KeyError, TypeError, AttributeError: damaged, or no pickle of plain data.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def pop_mark() -> list[Any]:
        index = len(stack) - 1
        while stack[index] is not MARK:
            index -= 1
            if index < 0:
                raise ValueError("an opcode lacks its mark")
        items = stack[index + 1 :]
        del stack[index:]
        return items

    arg: Any
    for opcode, arg, _ in pickletools.genops(stream):
        name = opcode.name
        if name in LITERALS:
            stack.append(arg)
        elif name in VALUES:
            stack.append(VALUES[name])
        elif name in MAKERS:
            stack.append(MAKERS[name]())
        elif name in PUTS:
            memo[arg] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in GETS:
            stack.append(memo[arg])
        elif name == "MARK":
            stack.append(MARK)
        elif name in TUPLES:
            count = TUPLES[name]
            if len(stack) < count:
                raise ValueError("a tuple lacks its items")
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(pop_mark()))
        elif name == "LIST":
            stack.append(pop_mark())
        elif name == "DICT":
            stack.append(set_items({}, pop_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = pop_mark() if name == "APPENDS" else [stack.pop()]
            _checked(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = pop_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
            set_items(_checked(stack[-1], dict), items)
        elif name == "GLOBAL":
            stack.append(_named(table, *arg.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            last = stack.pop()
            stack.append(_named(table, stack.pop(), last))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = _checked(stack.pop(), tuple)
            stack.append(_checked(stack.pop(), Call).function(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            _checked(stack[-1], Buildable).set_state(state)
        elif name == "BINPERSID":
            stack.append(persistent(_checked(stack.pop(), tuple)))
        elif name == "STOP":
            break
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"opcode {name} is not one of plain data")
    (value,) = stack
    return value


def set_items(target: dict, items: list[Any]) -> dict:
    """Returns `target` with [key, value, key, value, ...] put in. Raises ValueError or TypeError for what cannot be."""
    if len(items) % 2:
        raise ValueError("a key lacks its value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # No tuples: hashing nested ones can take for ever.
        if key is not None and not isinstance(key, str | int | float | bytes):
            raise TypeError(f"a {type(key).__name__} as a key")
        target[key] = value
    return target


def _named(table: Mapping[str, Any], module: Any, name: Any) -> Any:
    full = f"{_checked(module, str)}.{_checked(name, str)}"
    if full not in table:
        raise RefusedGlobalError(full)
    return table[full]


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{'none' if value is None else type(value).__name__} where {kind.__name__} was expected")
    return value
