"""Files as torch.save writes them, made without PyTorch: tensors are given as NumPy arrays."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "complex64": "ComplexFloatStorage",
}


def save(value: Any, path: Path) -> None:
    """Writes dicts, lists, text, numbers and arrays as an archive of torch.save."""
    storages: list[bytes] = []

    def tensor(array: np.ndarray) -> bytes:
        key = str(len(storages))
        storages.append(np.ascontiguousarray(array).tobytes())
        strides = tuple(step // array.itemsize for step in np.empty(array.shape, array.dtype).strides)
        storage = b"(" + dump("storage") + f"ctorch\n{STORAGES[array.dtype.name]}\n".encode() + dump(key) + dump("cpu")
        storage += dump(array.size) + b"tQ"
        rest = dump(0) + dump(array.shape) + dump(strides) + b"\x89ccollections\nOrderedDict\n)R"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"

    def dump(value: Any) -> bytes:
        kinds: dict[type, Callable[[Any], bytes]] = {
            str: lambda text: b"X" + struct.pack("<I", len(text.encode())) + text.encode(),
            int: lambda number: b"J" + struct.pack("<i", number),
            float: lambda number: b"G" + struct.pack(">d", number),
            tuple: lambda items: b"(" + b"".join(map(dump, items)) + b"t",
            list: lambda items: b"](" + b"".join(map(dump, items)) + b"e",
            dict: lambda items: b"}(" + b"".join(dump(key) + dump(item) for key, item in items.items()) + b"u",
            np.ndarray: tensor,
        }
        return kinds[type(value)](value)

    content = b"\x80\x02" + dump(value) + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        for key, data in enumerate(storages):
            archive.writestr(f"archive/data/{key}", data)
