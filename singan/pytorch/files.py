"""Files of torch.save read without PyTorch, and without running anything that they hold.

Both formats: the zip archive (PyTorch 1.6 and later: data.pkl, data/KEY, byteorder) and the one before it (five
pickles, then the storages). What a pickle may name is in `_Reader.table`; a module that was pickled whole is refused by
name.
"""

import io
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from singan.errors import UserError
from singan.pytorch.pickles import Buildable, Call, Memory, RefusedGlobalError, read_pickle, set_items

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older format
# What is read may take more memory than the file: a tensor may have been expanded (stride 0), and Python's objects are
# larger than their opcodes. All of it together takes at most this many times the file, or as many bytes.
MAX_EXPANSION, MAX_EXPANDED_BYTES = 16, 2**26
MAX_AXES = 32

_BFLOAT16 = "bfloat16"  # NumPy has none: its bits are read as uint16 and widened
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": _BFLOAT16,
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
_TYPES = (*_STORAGES.values(), "uint16", "uint32", "uint64")


class _OrderedDict(dict, Buildable):
    """A dict whose attributes (a state dict's _metadata) are dropped."""


class _StorageType:
    """A storage's type of element, by the names that NumPy and PyTorch share."""

    def __init__(self, code: str):
        self.code = code


class _Type(str):
    """A tensor's dtype by its name."""


class _NumpyType(Buildable):
    """numpy.dtype as pickled: its code, then its byte order as state."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True):
        if np.dtype(_text(code)).kind not in "biufc":
            raise ValueError(f"NumPy scalars of type {code} are not numbers")
        self.dtype = np.dtype(_text(code))

    def set_state(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Storage:
    """The bytes (uint8) of a storage, and the type of its elements."""

    def __init__(self, code: str, content: np.ndarray):
        self.code = code
        self.content = content


class _Reader:
    """Makes arrays for one pickle: storages come from `load`, tensors are views of them that are then copied."""

    def __init__(self, load: Callable[[str, str, int], np.ndarray], little_endian: bool, memory: Memory):
        """Args: load: (key, type, count of elements) -> uint8 [bytes]; memory: what the pickle may take."""
        self._load = load
        self._order: Literal["<", ">"] = "<" if little_endian else ">"
        self._memory = memory
        self._storages: dict[tuple[str, str], _Storage] = {}

    def table(self) -> dict[str, Any]:
        """Returns all that a pickle may name."""
        return {
            "collections.OrderedDict": Call(_ordered_dict),
            "torch.Size": Call(tuple),
            "torch._utils._rebuild_tensor": Call(self._tensor),
            "torch._utils._rebuild_tensor_v2": Call(self._tensor),
            "torch._utils._rebuild_tensor_v3": Call(self._typed_tensor),
            "torch._utils._rebuild_parameter": Call(_first),
            "torch._utils._rebuild_parameter_with_state": Call(_first),
            "torch.storage.UntypedStorage": _StorageType("uint8"),
            **{f"torch.{name}": _StorageType(code) for name, code in _STORAGES.items()},
            **{f"torch.{name}": _Type(name) for name in _TYPES},
            **{f"numpy.{core}.multiarray.scalar": Call(_numpy_scalar) for core in ("core", "_core")},
            "numpy.dtype": Call(_NumpyType),
            "_codecs.encode": Call(_encode),
        }

    def persistent(self, identity: tuple) -> _Storage:
        """Returns the storage that a persistent id names: ('storage', type, key, location, count, view of another)."""
        word, kind, key, _, count, *view = identity
        if _text(word) != "storage" or not isinstance(kind, _StorageType):
            raise RefusedGlobalError(f"a pickled {_text(word)}")
        if any(item is not None for item in view):
            raise ValueError("storages that are views of others are not supported")
        key = _text(key)
        _check_sizes([count])
        if (key, kind.code) not in self._storages:
            code = "uint16" if kind.code == _BFLOAT16 else kind.code
            content = self._load(key, code, count)
            if content.nbytes < count * np.dtype(code).itemsize:
                raise ValueError(f"storage {key} is shorter than its {count} elements")
            self._storages[key, kind.code] = _Storage(kind.code, content)
        return self._storages[key, kind.code]

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
        return self._view(storage, "", offset, size, stride)

    def _typed_tensor(self, storage: Any, offset: Any, size: Any, stride: Any, _: Any, __: Any, kind: _Type, *___: Any):
        if not isinstance(kind, _Type):
            raise TypeError("a tensor lacks its type")
        return self._view(storage, str(kind), offset, size, stride)

    def _view(self, storage: Any, code: str, offset: Any, size: Any, stride: Any) -> np.ndarray:
        if not (isinstance(storage, _Storage) and isinstance(size, tuple) and isinstance(stride, tuple)):
            raise TypeError("a tensor lacks its storage, size or stride")
        content, code = storage.content, code or storage.code
        dtype = np.dtype("uint16" if code == _BFLOAT16 else code).newbyteorder(self._order)
        elements = content[: content.nbytes // dtype.itemsize * dtype.itemsize].view(dtype)
        if len(size) > MAX_AXES:
            raise ValueError(f"a tensor of {len(size)} axes")
        _check_sizes([offset, *size, *stride])
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if count and last >= elements.size:
            raise ValueError(f"a tensor reaches element {last} of a storage of {elements.size}")
        self._memory.check(count * (4 if code == _BFLOAT16 else dtype.itemsize))  # counted once it is made
        strides = [step * dtype.itemsize for step in stride]
        view = np.lib.stride_tricks.as_strided(elements[offset:], size, strides) if count else np.empty(size, dtype)
        if code == _BFLOAT16:
            wide = np.empty(view.shape, np.float32)
            wide.view(np.uint32)[...] = view
            wide.view(np.uint32)[...] <<= 16
            return wide
        return np.array(view, dtype.newbyteorder("="), order="C")


def read_pytorch(path: str | os.PathLike) -> Any:
    """Returns what torch.save wrote: nested dicts, lists, tuples, text and numbers, with tensors as NumPy arrays.

    Tensors are contiguous, of their own type (bfloat16 as float32, exactly) and wherever they lay when they were saved;
    parameters are tensors, an OrderedDict is a dict.

    Raises:
      UserError: the file is missing, damaged or of another kind, or holds anything but plain data (the text names it).
        Nothing that a file holds is executed.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(f"{path} does not exist or is not a file")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    try:
        return _read_zip(data) if data[:4] == b"PK\x03\x04" else _read_sequence(data)
    except RefusedGlobalError as error:
        raise UserError(
            f"{path} holds {_line(error)}: only tensors, containers and numbers are read, because loading anything else"
            " would run code of the file; save the state_dict() in PyTorch instead"
        ) from None
    except (
        *(ValueError, IndexError, KeyError, TypeError, AttributeError, EOFError, OverflowError),
        *(zipfile.BadZipFile, NotImplementedError, RuntimeError, MemoryError),
    ) as error:
        raise UserError(f"{path} is damaged or no file of torch.save ({_line(error)}): copy it again") from None


def _line(error: Exception) -> str:
    """Returns what an error says, which may quote the file, as printable text of one line."""
    return str(error)[:150].encode("unicode_escape").decode("ascii") or type(error).__name__


def _memory(data: bytes) -> Memory:
    return Memory(max(MAX_EXPANSION * len(data), MAX_EXPANDED_BYTES))


def _read_zip(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("no archive of torch.save")
        prefix = names[0].removesuffix("data.pkl")
        left = len(data)

        def read(name: str) -> bytes:
            nonlocal left
            info = archive.getinfo(prefix + name)
            left -= info.file_size
            # torch.save never compresses; entries that overlap, or that unpack to more than the file, are bombs.
            if info.compress_type != zipfile.ZIP_STORED or left < 0:
                raise ValueError(f"{name} is compressed or longer than the file")
            return archive.read(info)

        order = read("byteorder") if f"{prefix}byteorder" in archive.namelist() else b"little"
        if order not in (b"little", b"big"):
            raise ValueError(f"byte order {order!r}")
        contents: dict[str, np.ndarray] = {}

        def load(key: str, code: str, count: int) -> np.ndarray:
            if key not in contents:
                contents[key] = np.frombuffer(read(f"data/{key}"), np.uint8)
            return contents[key]

        memory = _memory(data)
        reader = _Reader(load, order == b"little", memory)
        return read_pickle(io.BytesIO(read("data.pkl")), reader.table(), reader.persistent, memory)


def _read_sequence(data: bytes) -> Any:
    stream = io.BytesIO(data)
    memory = _memory(data)
    magic, _, system = (read_pickle(stream, {}, lambda _: None, memory) for _ in range(3))
    if magic != MAGIC:
        raise ValueError("it does not begin as such a file does")
    little_endian = bool(system["little_endian"])
    start = stream.tell()
    item_sizes: dict[str, int] = {}
    left = len(data)

    def record(key: str, code: str, count: int) -> np.ndarray:
        nonlocal left
        item_sizes[key] = np.dtype(code).itemsize
        left -= count * item_sizes[key]
        if left < 0:
            raise ValueError("its storages are longer than the file")
        return np.zeros(count * item_sizes[key], np.uint8)

    # The storages come behind the pickle that names them: once through it to learn their types, once for the tensors.
    reader = _Reader(record, little_endian, memory)
    read_pickle(stream, reader.table(), reader.persistent, memory)
    keys = read_pickle(stream, {}, lambda _: None, memory)
    contents: dict[str, np.ndarray] = {}
    for key in map(_text, keys):
        count = int.from_bytes(stream.read(8), "little" if little_endian else "big", signed=True)
        size = count * item_sizes[key]
        if not 0 <= size <= len(data) - stream.tell():
            raise ValueError(f"storage {key} is cut off")
        contents[key] = np.frombuffer(stream.read(size), np.uint8)
    stream.seek(start)
    memory = _memory(data)
    reader = _Reader(lambda key, code, count: contents[key], little_endian, memory)
    return read_pickle(stream, reader.table(), reader.persistent, memory)


def _check_sizes(numbers: list[Any]) -> None:
    if not all(isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**48 for number in numbers):
        raise ValueError("a size, offset or stride is no count")


def _ordered_dict(pairs: Any = ()) -> _OrderedDict:
    return cast(_OrderedDict, set_items(_OrderedDict(), [item for key, value in pairs for item in (key, value)]))


def _first(value: Any, *_: Any) -> Any:
    return value


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii")
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text was expected")
    return value


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Returns the bytes that protocol 2 keeps as text."""
    return _text(text).encode({"latin1": "latin-1"}[_text(encoding)])


def _numpy_scalar(kind: Any, content: Any) -> Any:
    if not isinstance(kind, _NumpyType):
        raise TypeError("a number lacks its type")
    return np.frombuffer(content, kind.dtype, 1)[0].astype(kind.dtype.newbyteorder("="))[()]
