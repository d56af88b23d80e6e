"""The rows of an .npy file one after another, from a file or an archive, without holding more than one.

A fold of PanNuke is 12 GB of float64. Its arrays are in C order, so that a row (a patch) is one run of bytes and can
be read from the middle of a zip as well as from a file.
"""

import io
import tokenize
from collections.abc import Iterator
from typing import IO

import numpy as np

from datasets.archives import DAMAGE, Member
from datasets.errors import DataError

_LONGEST_HEADER = 10_000  # bytes; NumPy reads no longer one either
_LARGEST_ROW = 2**28  # bytes, held in memory; PanNuke's largest has 3 MB


class NpyRows:
    """Iterates over the first axis of an array in an .npy file; each row is a read-only array of the stored type.

    Args:
      member: The file.

    Attributes:
      shape: Shape of the whole array.
      dtype: Its stored type.

    Raises:
      DataError: Not an .npy file, one that holds Python objects (which only pickle could load; it is never used), one
        in Fortran order with more than one axis, or one that is cut short.
    """

    def __init__(self, member: Member):
        self._member = member
        with member.open() as stream:
            self.shape, self.dtype, self._offset = _read_header(member, stream)
        self._row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        if self._row_bytes > _LARGEST_ROW:
            raise DataError(f"{member.place} has rows of {self._row_bytes} bytes, more than {_LARGEST_ROW}")
        there, needed = member.size - self._offset, self.shape[0] * self._row_bytes
        if there < needed:
            raise DataError(f"{member.place} is cut short: {there} of {needed} bytes of data, download it again")

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        with self._member.open() as stream:
            _read_exactly(self._member, stream, self._offset)
            for _ in range(len(self)):
                row = _read_exactly(self._member, stream, self._row_bytes)
                yield np.frombuffer(row, self.dtype).reshape(self.shape[1:])


def _read_header(member: Member, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"format version {version[0]}.{version[1]} is not read")
        # The header's length, 2 or 4 bytes, is what tells where the data starts: a zip's stream may not tell().
        length = _read_exactly(member, stream, 2 if version == (1, 0) else 4)
        if int.from_bytes(length, "little") > _LONGEST_HEADER:
            raise ValueError(f"a header of {int.from_bytes(length, 'little')} bytes")
        header = length + _read_exactly(member, stream, int.from_bytes(length, "little"))
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, fortran_order, dtype = read(io.BytesIO(header))
        except (tokenize.TokenError, SyntaxError, TypeError, ValueError):  # they speak of syntax trees
            raise ValueError("a damaged header") from None
    except (ValueError, *DAMAGE) as error:
        text = " ".join(str(error).split())[:100]
        raise DataError(
            f"{member.place} is no readable .npy file ({text}): save it with np.save, or download it again"
        ) from None
    if dtype.hasobject:
        raise DataError(f"{member.place} holds Python objects, which are not loaded: save plain numbers or strings")
    if not shape:
        raise DataError(f"{member.place} holds a single value, not an array")
    if fortran_order and len(shape) > 1:
        raise DataError(f"{member.place} is in Fortran order: save it again with np.save of np.ascontiguousarray")
    return shape, dtype, len(np.lib.format.magic(*version)) + len(header)


def _read_exactly(member: Member, stream: IO[bytes], size: int) -> bytes:
    """Returns `size` bytes; a stream may give fewer at a time."""
    parts, missing = [], size
    try:
        while missing:
            part = stream.read(missing)
            if not part:
                raise DataError(f"{member.place} is cut short, download it again")
            parts.append(part)
            missing -= len(part)
    except DAMAGE as error:
        raise DataError(f"{member.place} is damaged ({error}), download it again") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)
