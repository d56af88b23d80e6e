"""The .npy format read so that a header alone allocates nothing: its array must be there before memory is taken."""

import math
import tokenize
from typing import Any

import numpy as np

from singan.errors import UserError


def read_npy(stream: Any, size: int, most_values: int | None = None) -> np.ndarray:
    """Returns the array, read-only, of an .npy stream of `size` bytes. Objects are never unpickled.

    Args:
      stream: of bytes, at its start.
      size: how long the stream is said to be; what it really holds is checked too.
      most_values: more than these are refused.

    Raises:
      UserError: it has too many values, is cut off, or holds Python objects; the text does not name the file.
      ValueError: it is no such stream.
    """
    version = np.lib.format.read_magic(stream)
    readers: Any = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"format version {version[0]}.{version[1]} is not read")
    try:
        shape, fortran_order, dtype = readers[version](stream)
    except (tokenize.TokenError, SyntaxError, TypeError) as error:  # NumPy reads the header as Python's literals
        raise ValueError(f"a damaged header: {error}") from None
    if dtype.hasobject:
        raise UserError("holds Python objects, not numbers: save it again as an array of numbers")
    if any(side < 0 for side in shape):
        raise ValueError(f"a shape of {shape}")
    count = math.prod(shape)
    if most_values is not None and count > most_values:
        raise UserError(f"larger than {most_values} values: cut it into smaller images")
    needed = count * dtype.itemsize
    content = stream.read(needed) if (there := size - stream.tell()) >= needed else b""
    if len(content) < needed:
        raise UserError(
            f"cut off: {len(content) or max(there, 0)} of {needed} bytes of its array are there: replace the file or"
            " take it out"
        )
    array = np.frombuffer(content, dtype) if needed else np.zeros(count, dtype)
    return array.reshape(shape, order="F" if fortran_order else "C")
