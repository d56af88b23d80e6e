"""Small files that claim to be huge: refused from their headers, before anything of that size is allocated."""

import functools
import gzip
import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from launch.images import size_limits
from launch.images.find import load_images
from singan.config import DataConfig
from singan.errors import UserError
from tests.fuzz.areas import Area
from tests.fuzz.oracle import Fault

SIDES = (70_000, 100_000, 1_000_000)


def npy_header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """Returns the beginning of an .npy file whose data is missing."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def npz(content: bytes, declared: int | None = None) -> bytes:
    """Returns an archive with one array; `declared` overwrites its size in the directories."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", content)
    data = buffer.getvalue()
    return data if declared is None else data.replace(struct.pack("<I", len(content)), struct.pack("<I", declared))


def png(side: int, rows: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((side + 1) * rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bmp(side: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 0, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024, 0, 0, 54 + 1024) + info + bytes(1024)


def jpeg(side: int) -> bytes:
    side = min(side, 65_500)
    frame = struct.pack(">HBHHB", 11, 8, side, side, 1) + b"\x01\x11\x00"
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xc0" + frame + b"\xff\xd9"


@functools.cache
def deflated(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def tiff(side: int, compression: int, pages: int = 1, data: bytes = b"") -> bytes:
    """A grey image of `side` pixels in one strip, or a stack of several."""
    body, offsets = b"II*\x00\x08\x00\x00\x00", []
    tags = [
        (256, 4, side),
        (257, 4, side),
        (258, 3, 8),
        (259, 3, compression),
        (262, 3, 1),
        (277, 3, 1),
        (278, 4, side),
    ]
    size = 2 + 12 * (len(tags) + 2) + 4
    strip = 8 + size * pages
    for page in range(pages):
        entries = sorted([*tags, (273, 4, strip), (279, 4, len(data) or side * side % 2**32)])
        following = 8 + size * (page + 1) if page + 1 < pages else 0
        body += struct.pack("<H", len(entries))
        body += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        body += struct.pack("<I", following)
        offsets.append(following)
    return body + data


def nifti(shape: tuple[int, ...], offset: float = 352.0, extension: int = 0, code: int = 16, bits: int = 32) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<hh", header, 70, code, bits)
    struct.pack_into("<f", header, 108, offset)
    struct.pack_into("<f", header, 76, 1.0)
    header[344:348] = b"n+1\x00"
    if extension:
        header[348] = 1
        header += struct.pack("<ii", extension, 6)
    return bytes(header)


@functools.cache
def zeros(start: bytes, mebibytes: int) -> bytes:
    """Returns gzip of `start` and that many MiB of zeros."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9) as file:
        file.write(start)
        for _ in range(mebibytes):
            file.write(bytes(2**20))
    return buffer.getvalue()


@st.composite
def bombs(draw) -> tuple[str, bytes]:
    side = draw(st.sampled_from(SIDES))
    shape = draw(st.sampled_from([(side, side), (side, side, 3), (1, side, side), (2**31, 2**31), (2**62, 2)]))
    volume = draw(st.sampled_from([(32767,) * 3, (32767,) * 2, (32767,) * 7, (30000, 30000, 1), (32767, 1, 32767)]))
    kind = draw(st.integers(0, 13))
    match kind:
        case 0:
            return "a.npy", npy_header(shape, draw(st.sampled_from(["<f4", "|u1", "<f8", "<c16", "|O"])))
        case 1:
            return "a.npz", npz(npy_header(shape))
        case 2:
            # Deflated zeros: a thousand bytes for one.
            return "a.npz", npz(npy_header((100_000, 4_000), "|u1") + bytes(400_000_000 // 20), 400_000_000)
        case 3:
            return draw(st.sampled_from(["a.png", "a.jpg", "a.tif"])), png(side, draw(st.integers(0, 20)))
        case 4:
            return "a.bmp", bmp(side)
        case 5:
            return "a.jpg", jpeg(side)
        case 6:
            return "a.tif", tiff(side, draw(st.sampled_from([1, 5, 8, 32773, 34925, 7, 50000])))
        case 7:
            return "a.tif", tiff(9_400, draw(st.sampled_from([8, 32946])), data=deflated(400_000_000))
        case 8:
            return "a.tif", tiff(9_000, 1, pages=draw(st.sampled_from([4, 40, 400])))
        case 9:
            return "a.nii", nifti(volume)
        case 10:
            return "a.nii.gz", zeros(nifti(volume), draw(st.sampled_from([0, 1])))
        case 11:
            return "a.nii.gz", zeros(
                nifti((20, 16, 3), draw(st.sampled_from([2.0**27, 2.0**40, -1.0, float("nan")]))), 600
            )
        case 12:
            return "a.nii.gz", zeros(nifti((20, 16, 3), 2.0**24, extension=2**31 - 16), 300)
        case _:
            return "a.nii.gz", zeros(nifti((20, 16, 3)), 300)


def use(example: tuple[str, bytes], folder: Path) -> None:
    name, data = example
    (folder / name).write_bytes(data)
    for found in load_images(DataConfig(path=str(folder))):
        if found.pixels.nbytes > size_limits.MAX_BYTES:
            raise Fault("read although it is beyond the limit")


def refused(example: tuple[str, bytes], folder: Path) -> str:
    """Returns why a bomb is refused."""
    try:
        use(example, folder)
    except UserError as error:
        return str(error)
    return ""


AREAS = [Area("decompression bombs", bombs(), use, 25, 120)]
