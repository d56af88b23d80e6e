"""The .npy format read so that a header alone allocates nothing: its array must be there before memory is taken."""

import io
import math
import tokenize
from collections.abc import Callable
from typing import Any

import numpy as np

from singan.errors import UserError

LONGEST_HEADER = 2**16  # bytes; NumPy itself takes no more than 10,000, but only after it has read them
PIECE = 2**20  # bytes read at a time


def read_npy(
    stream: Any, size: int, check: Callable[[tuple[int, ...], np.dtype], None] = lambda shape, dtype: None
) -> np.ndarray:
    """Returns the array, read-only, of an .npy stream of `size` bytes. Objects are never unpickled.

    Args:
      stream: of bytes, at its start.
      size: how long the stream is said to be; what it really holds is checked too.
      check: is given the array's shape and type before any memory is taken, and may raise.

    Raises:
      UserError: it is cut off, or holds Python objects; the text does not name the file.
      ValueError: it is no such stream.
    """
    version = np.lib.format.read_magic(stream)
    readers: Any = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"format version {version[0]}.{version[1]} is not read")
    start = stream.read(2 * version[0])
    length = int.from_bytes(start, "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    try:
        shape, fortran_order, dtype = readers[version](io.BytesIO(start + stream.read(length)))
    except (tokenize.TokenError, SyntaxError, TypeError, ValueError):
        # NumPy reads the header as Python's literals, and its errors speak of syntax trees.
        raise ValueError("a damaged header") from None
    if dtype.hasobject:
        raise UserError("holds Python objects, not numbers: save it again as an array of numbers")
    count = math.prod(shape)
    if any(side < 0 for side in shape) or (count and not dtype.itemsize):
        raise ValueError(f"a shape of {shape} and a type of {dtype.itemsize} bytes")
    check(shape, dtype)
    needed = count * dtype.itemsize
    there = max(size - stream.tell(), 0)
    content = _read(stream, needed) if there >= needed else b""
    if len(content) < needed:
        raise UserError(
            f"cut off: {len(content) or there} of {needed} bytes of its array are there: replace the file or take it"
            " out"
        )
    array = np.frombuffer(content, dtype) if needed else np.zeros(count, dtype)
    array.flags.writeable = False
    return array.reshape(shape, order="F" if fortran_order else "C")


def _read(stream: Any, count: int) -> np.ndarray | bytes:
    """Returns `count` bytes, or as many as there are; memory is taken as they come, and once."""
    content, done = np.empty(count, np.uint8), 0
    while done < count and (piece := stream.read(min(PIECE, count - done))):
        content[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    return content[:done]
