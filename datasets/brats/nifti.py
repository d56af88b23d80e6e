"""NIfTI files read by what they hold, whatever their names say, and no further than their headers tell."""

import contextlib
import gzip
import json
import math
import warnings
from collections.abc import Callable, Iterator
from typing import IO, Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from datasets.archives import DAMAGE, Member
from datasets.brats.labels import LabelTable, from_names

# Voxels of one volume. BraTS has 9 million. Four modalities of this many as float32 take 192 MB, held several
# times over while they are written as one example: 1.3 GB in all.
MAX_VOXELS = 12_000_000
MAX_VOLUMES = 4  # of a file with a fourth axis
_LARGEST_OFFSET = 1 << 24  # bytes before the voxels: header and extensions
_LONGEST_TAIL = 1 << 24  # bytes after them that are read to reach the checksum
_LONGEST_HEADER = 540
_COMMENT = 6  # code of an extension that is plain text

_UNREADABLE = (*DAMAGE, OSError, ValueError, LookupError, ImageFileError, HeaderDataError, WrapStructError)


class UnreadableError(Exception):
    """A file that cannot be read. The message goes on after its name: 'cannot be read: ...'."""


def header_needs_float(member: Member) -> bool:
    """Returns whether a file's values may lie outside of int16, of which only the header is read.

    Raises:
      UnreadableError: Damaged, or no NIfTI.
    """
    header = _guarded(member, lambda content: _header(content.read(_LONGEST_HEADER), check=True))
    slope, inter = header.get_slope_inter()
    return _beyond_int16(slope, inter, header.get_data_dtype())


def read(member: Member) -> nib.Nifti1Image:
    """Returns the image of a file, read to its last byte, so that a checksum at its end is compared too.

    Its shape has three axes, or four where the last is not 1: trailing axes of length 1 are taken off.

    Raises:
      UnreadableError: Damaged, no NIfTI, larger than the limits above, or no volume.
    """
    return _guarded(member, _whole)


def array(image: nib.Nifti1Image, volume: int = 0) -> np.ndarray:
    """Returns the values [x, y, z] of an image of `read`, scaled as its header says; of four axes those of one volume.

    Raises:
      UnreadableError: As for `read`.
    """
    try:
        values = np.asanyarray(image.dataobj[..., volume] if len(image.shape) > 3 else image.dataobj)
    except _UNREADABLE as error:
        raise UnreadableError(_reason(error)) from None
    return values


def form_codes(image: nib.Nifti1Image) -> tuple[int, int]:
    """Returns the codes of qform and sform; both are 0 where the file does not say where its voxels lie."""
    header: Any = image.header
    return int(header["qform_code"]), int(header["sform_code"])


def label_table(image: nib.Nifti1Image) -> LabelTable | None:
    """Returns the label table that a segmentation brings along in a comment of its header, or None.

    The comment is JSON: {"label_table": "brats_ped", "labels": {"1": "enhancing_tumor", "2": ...}}.

    Raises:
      ValueError: The comment holds such a table, which cannot be used.
    """
    header: Any = image.header
    for extension in header.extensions:
        if extension.get_code() == _COMMENT:
            try:
                table = json.loads(bytes(extension.get_content()).rstrip(b"\0"))
                name, meaning = table["label_table"], table["labels"].items()
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue  # a comment of somebody else's
            return from_names(str(name), {int(value): str(text) for value, text in meaning})
    return None


def needs_float(image: nib.Nifti1Image) -> bool:
    """Returns whether the values of an image of `read` may lie outside of int16, by type and scale factors."""
    proxy: Any = image.dataobj  # nibabel keeps the scale factors here: it clears them in the header
    return _beyond_int16(proxy.slope, proxy.inter, stored_dtype(image))


def stored_dtype(image: nib.Nifti1Image) -> np.dtype:
    """Returns the type of the values in the file."""
    return np.dtype(image.get_data_dtype())


def _beyond_int16(slope: float | None, inter: float | None, dtype: np.dtype) -> bool:
    fits = dtype.newbyteorder("=") in (np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.int16))
    return not fits or slope not in (None, 1.0) or inter not in (None, 0.0)


def _guarded(member: Member, read_from: Callable[[Any], Any]) -> Any:
    try:
        with _quiet(), member.open() as stream, _unpacked(stream) as content:
            return read_from(content)
    except _UNREADABLE as error:
        raise UnreadableError(_reason(error)) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps to itself what nibabel says of the headers that it mends; one that it cannot mend raises."""
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _unpacked(stream: IO[bytes]) -> Any:
    packed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    return gzip.GzipFile(fileobj=stream) if packed else stream


def _header(start: bytes, check: bool = False) -> Any:
    # The first four bytes are the header's length: 348 in NIfTI-1, 540 in NIfTI-2, in either byte order.
    for kind, length in ((nib.Nifti1Header, 348), (nib.Nifti2Header, 540)):
        if start[:4] in (length.to_bytes(4, "little"), length.to_bytes(4, "big")) and len(start) >= length:
            return kind(start[:length], check=check)
    raise UnreadableError("cannot be read: its content is no NIfTI, or it is cut short")


def _whole(content: IO[bytes]) -> nib.Nifti1Image:
    start = content.read(_LONGEST_HEADER)
    header = _header(start)
    shape = tuple(int(side) for side in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1 or math.prod(shape[3:]) > MAX_VOLUMES:
        raise UnreadableError(f"has shape {shape}, not that of a volume")
    if math.prod(shape[:3]) > MAX_VOXELS:
        raise UnreadableError(f"has {shape} voxels, more than {MAX_VOXELS}")
    offset = float(header["vox_offset"])
    if not 0 <= offset <= _LARGEST_OFFSET:
        raise UnreadableError(f"cannot be read: its voxels begin at byte {offset:g}, it is damaged")
    needed = int(offset) + math.prod(shape) * header.get_data_dtype().itemsize
    data = start + content.read(max(needed - len(start), 0))
    if len(data) < needed:
        raise UnreadableError(f"cannot be read: it is cut short, {len(data)} of {needed} bytes")
    tail = 0
    while tail < _LONGEST_TAIL and (part := content.read(1 << 20)):
        tail += len(part)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind.from_bytes(data)
    if image.shape != shape:
        proxy: Any = image.dataobj
        image = kind(proxy.reshape(shape), image.affine, image.header)
    return image


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= 100 else text[:97] + "..."
    if isinstance(error, OSError) and error.errno is not None:  # not damage: no right to read it, a failing disk
        return f"cannot be read ({error.strerror})"
    return f"cannot be read ({text}): it is damaged or cut short"
