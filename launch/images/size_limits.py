"""Files whose size is known before anything of it is allocated: a small file may claim, or unpack to, any size.

The limits: a file holds numbers, at most MAX_VALUES of them (height x width x channels x slices) in at most MAX_BYTES,
and a picture at most Pillow's MAX_IMAGE_PIXELS pixels (89,478,485), which is as much for three channels.
"""

import gzip
import io
import lzma
import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from singan.errors import UserError
from singan.npy import PIECE, read_npy

if TYPE_CHECKING:
    import tifffile

MAX_VALUES = 2**28
MAX_BYTES = 2**29
MAX_SCALED = 2**30  # bytes of a NIfTI file's voxels after its scale factors
MAX_NAMES = 2**16  # bytes of the channels' names
MAX_NIFTI_OFFSET = 2**24  # bytes before the voxels: a header and its extensions
SEGMENT = 2**26  # bytes that a compressed part of a TIFF may always unpack to


def check_array(shape: Iterable[int], dtype: np.dtype, most_bytes: int = MAX_BYTES) -> None:
    """Raises UserError where an array is beyond the limits, has a negative side, or holds anything but numbers."""
    sides = [int(side) for side in shape]
    if any(side < 0 for side in sides):
        raise UserError(f"a damaged file, whose shape is {tuple(sides)}: replace it or take it out")
    if dtype.kind not in "buif":
        raise UserError(f"holds values of type {dtype}: save it as an array of integers or floats")
    if (count := math.prod(sides)) > MAX_VALUES:
        raise UserError(f"larger than {MAX_VALUES} values: cut it into smaller images")
    if count * dtype.itemsize > most_bytes:
        raise UserError(
            f"larger than {most_bytes >> 20} MiB, with {dtype.itemsize} bytes for each value: save it with fewer, or"
            " cut it into smaller images"
        )


def _check_names(shape: Iterable[int], dtype: np.dtype) -> None:
    if math.prod(shape) * dtype.itemsize > MAX_NAMES:
        raise UserError(f"the names in its array 'channels' take more than {MAX_NAMES} bytes: give one short name each")


def read_npz_array(archive: zipfile.ZipFile, key: str) -> np.ndarray:
    """Returns the array `key` of an .npz archive, which holds numbers, or names where it is 'channels'.

    Raises:
      UserError, ValueError: as `singan.npy.read_npy`, and where it is beyond the limits.
    """
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile unpacks others without limit
        raise UserError("packed in another way than NumPy does: save it again with numpy.savez_compressed")
    with archive.open(info) as stream:
        return read_npy(stream, info.file_size, _check_names if key == "channels" else check_array)


def open_nifti(path: Path) -> Any:
    """Returns nibabel's image of a .nii or .nii.gz file, whichever of the two its content is.

    Raises:
      UserError: it is too large, holds no numbers, or is no NIfTI file.
    """
    import nibabel  # here and not above: most images are no NIfTI files

    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        start = file.read(540)
        # The first four bytes are the header's length: 348 in NIfTI-1, 540 in NIfTI-2, in either byte order.
        two = start[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
        kind = nibabel.Nifti2Image if two else nibabel.Nifti1Image
        length = 540 if two else 348
        if len(start) < length or start[:4] not in (length.to_bytes(4, "little"), length.to_bytes(4, "big")):
            raise UserError("not a NIfTI file, or a damaged one: replace it or take it out")
        header = kind.header_class(start[:length], check=False)
        shape, offset = header.get_data_shape(), float(header["vox_offset"])
        dtype = header.get_data_dtype()
        check_array(shape, dtype)
        if header.get_slope_inter() not in ((None, None), (1, 0)):  # nibabel makes float64 of what is scaled
            check_array(shape, np.dtype(np.float64), MAX_SCALED)
        if not 0 <= offset <= MAX_NIFTI_OFFSET:
            raise UserError(f"a damaged NIfTI file, whose voxels begin at byte {offset:g}: replace it or take it out")
        if not packed and not path.name.lower().endswith(".gz"):
            return kind.from_filename(path)  # mapped: its extensions are no longer than the file
        # Read no further than the voxels go: what follows, or an extension's length, may claim anything.
        needed = int(offset) + math.prod(shape) * dtype.itemsize
        data = io.BytesIO()
        data.write(start)
        while data.tell() < needed and (piece := file.read(min(PIECE, needed - data.tell()))):
            data.write(piece)
        if data.tell() >= needed:
            file.read(2**16)  # to the end of whole files, where gzip compares the checksum
    return kind.from_stream(data)


def check_tiff(tiff: "tifffile.TiffFile", series: "tifffile.TiffPageSeries") -> None:
    """Raises UserError where a series of a TIFF is too large, or a part of it unpacks to more than it holds."""
    check_array(series.shape, series.dtype)
    for page in series.pages:
        if page is None:
            continue
        check_array(page.shape, page.dtype or series.dtype)
        begin = {8: zlib.decompressobj, 32946: zlib.decompressobj, 34925: lzma.LZMADecompressor}.get(
            int(page.compression)
        )
        if begin is None:
            continue
        limit = max(page.nbytes, SEGMENT)
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            tiff.filehandle.seek(offset)
            unpacked = begin().decompress(tiff.filehandle.read(count), limit + 1)
            if len(unpacked) > limit:
                raise UserError(f"a part of it unpacks to more than {limit} bytes, which its size does not explain")
