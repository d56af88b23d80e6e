"""Pickles read as plain data: no object of a pickle's choosing is ever made, and nothing of it runs.

`pickletools.genops` splits the bytes into opcodes and checks their lengths; the small machine below interprets those
that containers, numbers, text and calls of a given table need. Not pickle.Unpickler with an allow-list in find_class:
it hashes the keys of a dict before anyone is asked, so that 140 bytes of nested tuples take seconds and 200 KB of them
end the process, and nothing bounds the memory that it takes (a memo of 2^32 entries in 5 bytes).
"""

import dataclasses
import pickletools
import sys
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

# Bytes that an opcode takes besides the value that it makes: a place on the stack, an entry of the memo, a call.
PLACE, MEMO, CALL = 16, 128, 256
MAX_ARGUMENTS = 16
LARGEST_KEY = 2**60  # larger integers can be chosen to have equal hashes, which makes a dict of them slow

# Of protocol 2 on, which torch.save needs.
LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
MAKERS: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
PUTS, GETS = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"BINGET", "LONG_BINGET"}
# How many values an opcode takes from the stack; None: all since the last mark.
TAKES: dict[str, int | None] = {
    **dict.fromkeys(("TUPLE", "APPENDS", "SETITEMS")),
    **dict.fromkeys(("TUPLE1", "BUILD", "APPEND", "BINPERSID"), 1),
    **dict.fromkeys(("TUPLE2", "SETITEM", "STACK_GLOBAL", "REDUCE", "NEWOBJ"), 2),
    "TUPLE3": 3,
}
FILLS: dict[str, type] = {"APPEND": list, "APPENDS": list, "SETITEM": dict, "SETITEMS": dict}


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


@dataclasses.dataclass
class Memory:
    """How many bytes a pickle may still take: a few of its own can ask for any number."""

    left: int

    def check(self, size: int = 0) -> None:
        """Raises ValueError where less than `size` bytes are left."""
        if size > self.left:
            raise ValueError("it asks for far more memory than a file of its size needs")


def read_pickle(stream: BytesIO, table: Mapping[str, Any], persistent: Callable[[tuple], Any], memory: Memory) -> Any:
    """Returns the value of the pickle that starts at `stream`'s position, which is behind it afterwards.

    Args:
      table: 'module.name' -> what stands for it in the result; a `Call` may be called by the pickle.
      persistent: makes a value of a persistent id, which is a tuple.
      memory: what all values take together is taken off it, and the arguments of calls each time.

    Raises:
      RefusedGlobalError: the pickle names what `table` lacks.
      ValueError, IndexError, KeyError, TypeError, AttributeError: damaged, or no pickle of plain data.
    """
    stack: list[Any] = []
    outer: list[list[Any]] = []  # the stacks below each mark
    memo: dict[int, Any] = {}
    arg: Any
    for opcode, arg, _ in pickletools.genops(stream):
        name = opcode.name
        memory.left -= PLACE
        memory.check()
        if name in LITERALS:
            value = arg
        elif name in VALUES:
            value = VALUES[name]
        elif name in MAKERS:
            value = MAKERS[name]()
        elif name in PUTS:
            memo[len(memo) if arg is None else arg] = stack[-1]
            memory.left -= MEMO
            continue
        elif name in GETS:
            stack.append(memo[arg])
            continue
        elif name == "GLOBAL":
            value = _named(table, *arg.split(" ", 1))
        elif name == "MARK":
            outer.append(stack)
            stack = []
            memory.left -= sys.getsizeof(stack)
            continue
        elif name in TAKES:
            count = TAKES[name]
            if count is None:
                items, stack = stack, outer.pop()
            elif count <= len(stack):
                items = stack[-count:]
                del stack[-count:]
            else:
                raise ValueError(f"opcode {name} lacks values")
            if name in FILLS:
                target = _checked(stack[-1], FILLS[name])
                memory.left += sys.getsizeof(target)
                target.extend(items) if isinstance(target, list) else set_items(target, items)
                memory.left -= sys.getsizeof(target)
                continue
            if name == "BUILD":
                _checked(stack[-1], Buildable).set_state(*items)
                continue
            if name.startswith("TUPLE"):
                value = tuple(items)
            elif name == "STACK_GLOBAL":
                value = _named(table, *items)
            else:
                arguments = _checked(items.pop(), tuple)
                if len(arguments) > MAX_ARGUMENTS:
                    raise ValueError(f"a call with {len(arguments)} arguments")
                memory.left -= CALL + sum(map(sys.getsizeof, (arguments, *arguments)))
                memory.check()
                value = _checked(items[0], Call).function(*arguments) if items else persistent(arguments)
        elif name == "STOP":
            break
        elif name in ("PROTO", "FRAME"):
            continue
        else:
            raise ValueError(f"opcode {name} is not one of plain data")
        stack.append(value)
        memory.left -= sys.getsizeof(value)
    if outer or len(stack) != 1:
        raise ValueError("it does not end with one value")
    return stack[0]


def set_items(target: dict, items: list[Any]) -> dict:
    """Returns `target` with [key, value, key, value, ...] put in. Raises ValueError or TypeError for what cannot be."""
    if len(items) % 2:
        raise ValueError("a key lacks its value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # No tuples: hashing nested ones can take for ever.
        if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < LARGEST_KEY):
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
