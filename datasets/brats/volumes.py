"""One patient's volumes read from NIfTI, checked against each other, in the axes and values they are stored in."""

import dataclasses
import gzip
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from datasets.archives import DAMAGE, Member
from datasets.brats.layout import MODALITIES, Patient
from datasets.errors import BadExample, DataError

# Voxels of one modality. BraTS has 9 million. Four modalities of this many as float32 take 192 MB, held several
# times over while they are written as one example: 1.3 GB in all.
MAX_VOXELS = 12_000_000

# Affines of one patient's files are equal up to how the year's software rounded them, in mm.
AFFINE_TOLERANCE_MM = 1e-3

# Stored types whose values all fit into int16.
_INT16 = (np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.int16))

_UNREADABLE = (*DAMAGE, OSError, ValueError, ImageFileError, HeaderDataError, WrapStructError)


@dataclasses.dataclass
class Volumes:
    """All modalities of one patient and their segmentation, axes and orientation as stored.

    Attributes:
      image: [x, y, z, modality] int16 or float32, intensities as stored; a missing modality is all zero.
      seg: [x, y, z] uint8, labels in the numbering of `labels.LabelTable`; all zero where there is none.
      present: [modality] bool.
      stored_dtypes: Type of each modality in its file, '' where it is missing.
      affine: [4, 4] float64, voxel to world in mm.
      intensity_min, intensity_max: [modality] float32, over the whole volume.
      percentile_0_5, percentile_99_5: [modality] float32, over the brain.
    """

    image: np.ndarray
    seg: np.ndarray
    present: np.ndarray
    has_seg: bool
    stored_dtypes: list[str]
    affine: np.ndarray
    intensity_min: np.ndarray
    intensity_max: np.ndarray
    percentile_0_5: np.ndarray
    percentile_99_5: np.ndarray

    def brain(self) -> np.ndarray:
        """Returns [x, y, z] bool: where any modality is not 0, to which BraTS sets everything outside the brain."""
        brain = np.zeros(self.image.shape[:3], bool)
        for channel in range(self.image.shape[3]):
            brain |= self.image[..., channel] != 0
        return brain

    def spacing(self) -> np.ndarray:
        """Returns [3] float32: voxel size along the axes in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0).astype(np.float32)

    def orientation(self) -> str:
        """Returns where the axes point, such as 'LPS', as nibabel says it."""
        return "".join(code or "?" for code in nib.aff2axcodes(self.affine))


def image_dtype(patients: list[Patient]) -> np.dtype:
    """Returns int16 where every modality's header says that its values fit, else float32, for a whole cohort.

    Files whose header cannot be read are passed over here; `read_volumes` reports them.
    """
    for patient in patients:
        for modality in MODALITIES:
            if modality in patient.files:
                try:
                    image = _header_only(patient.files[modality])
                except _UNREADABLE:
                    continue
                if _needs_float(image):
                    return np.dtype(np.float32)
    return np.dtype(np.int16)


def read_volumes(patient: Patient, dtype: np.dtype) -> Volumes:
    """Reads and checks all files of a patient.

    Args:
      dtype: int16 or float32, the type of the returned image. Types stored otherwise are held in float32: int32 and
        float64 only where this is exact or, for float64, up to float32 rounding. A scale factor in a NIfTI header is
        applied, and makes the values float32.

    Raises:
      BadExample: A file is damaged, or not 3-D, or its shape or affine differs from the others', or a value is not
        finite or does not fit, or a label is not in the table, or there is no brain.
      DataError: The values need float32 and `dtype` is int16.
    """
    image = seg = grid = None
    present = np.zeros(len(MODALITIES), bool)
    stored = [""] * len(MODALITIES)
    for channel, modality in enumerate(MODALITIES):
        member = patient.files.get(modality)
        if member is None:
            continue
        nifti = _read(patient, member)
        if grid is None or image is None:
            grid = _Grid(member.name, nifti.shape, np.asarray(nifti.affine))
            image = np.zeros((*nifti.shape, len(MODALITIES)), dtype)
        _check_same_grid(patient, grid, member, nifti)
        image[..., channel] = _values(patient, member, nifti, dtype)
        present[channel] = True
        stored[channel] = _stored_dtype(nifti).name
    assert image is not None, "a patient has at least one modality"
    assert grid is not None
    if "seg" in patient.files:
        member = patient.files["seg"]
        nifti = _read(patient, member)
        _check_same_grid(patient, grid, member, nifti)
        try:
            seg = patient.labels.from_stored(_array(patient, member, nifti))
        except ValueError as error:
            raise BadExample(patient.name, f"{member.name}: {error}") from None
    volumes = Volumes(
        image=image,
        seg=np.zeros(image.shape[:3], np.uint8) if seg is None else seg,
        present=present,
        has_seg=seg is not None,
        stored_dtypes=stored,
        affine=grid.affine,
        **{
            name: np.zeros(len(MODALITIES), np.float32)
            for name in ("intensity_min", "intensity_max", "percentile_0_5", "percentile_99_5")
        },
    )
    brain = volumes.brain()
    if not brain.any():
        raise BadExample(patient.name, "every voxel of every modality is 0")
    for channel in np.flatnonzero(present):
        plane = image[..., channel]
        volumes.intensity_min[channel], volumes.intensity_max[channel] = plane.min(), plane.max()
        volumes.percentile_0_5[channel], volumes.percentile_99_5[channel] = np.percentile(plane[brain], (0.5, 99.5))
    return volumes


def _unpacked(member: Member, stream: Any) -> Any:
    return gzip.GzipFile(fileobj=stream) if member.name.lower().endswith(".gz") else stream


def _nifti(data: bytes) -> nib.Nifti1Image:
    # The first four bytes are the header's length: 348 in NIfTI-1, 540 in NIfTI-2, in either byte order.
    two = data[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
    return (nib.Nifti2Image if two else nib.Nifti1Image).from_bytes(data)


def _header_only(member: Member) -> nib.Nifti1Image:
    with member.open() as stream, _unpacked(member, stream) as content:
        return _nifti(content.read(1024))


def _read(patient: Patient, member: Member) -> nib.Nifti1Image:
    """Returns the image of a file, read to its last byte, so that a checksum at its end is compared too."""
    limit = MAX_VOXELS * 8
    try:
        with member.open() as stream, _unpacked(member, stream) as content:
            data = content.read(limit + 1)
        if len(data) > limit:
            raise BadExample(patient.name, f"{member.name} holds more than {limit >> 20} MiB")
        nifti = _nifti(data)
    except _UNREADABLE as error:
        raise BadExample(patient.name, f"{member.name} cannot be read ({_short(error)}), download it again") from None
    if len(nifti.shape) != 3 or 0 in nifti.shape:
        raise BadExample(patient.name, f"{member.name} has shape {nifti.shape}, not that of a volume")
    if np.prod(nifti.shape, dtype=np.int64) > MAX_VOXELS:
        raise BadExample(patient.name, f"{member.name} has {nifti.shape} voxels, more than {MAX_VOXELS}")
    affine = np.asarray(nifti.affine)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise BadExample(patient.name, f"{member.name} has no usable affine")
    return nifti


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Where the voxels of a patient's first file are: all others must agree."""

    file: str
    shape: tuple[int, ...]
    affine: np.ndarray


def _check_same_grid(patient: Patient, grid: _Grid, member: Member, nifti: nib.Nifti1Image) -> None:
    if nifti.shape != grid.shape:
        raise BadExample(patient.name, f"{member.name} has shape {nifti.shape} but {grid.file} has {grid.shape}")
    difference = np.abs(np.asarray(nifti.affine) - grid.affine).max()
    if difference > AFFINE_TOLERANCE_MM:
        raise BadExample(
            patient.name, f"the affines of {member.name} and {grid.file} differ by {difference:.3g}, register them"
        )


def _array(patient: Patient, member: Member, nifti: nib.Nifti1Image) -> np.ndarray:
    try:
        return np.asanyarray(nifti.dataobj)
    except _UNREADABLE as error:
        raise BadExample(patient.name, f"{member.name} cannot be read ({_short(error)}), download it again") from None


def _values(patient: Patient, member: Member, nifti: nib.Nifti1Image, dtype: np.dtype) -> np.ndarray:
    """Returns the intensities in `dtype`."""
    if _needs_float(nifti) and dtype == np.int16:
        raise DataError(
            f"{patient.name}: {member.name} holds {_stored_dtype(nifti)} values, which int16 cannot: "
            "build with `python -m datasets.build brats`, which chooses the type from the headers"
        )
    values = _array(patient, member, nifti)
    if values.dtype.kind not in "iuf":
        raise BadExample(patient.name, f"{member.name} holds {values.dtype}, not one number per voxel")
    if not np.isfinite(values).all():
        raise BadExample(patient.name, f"{member.name} holds values that are not finite")
    with np.errstate(over="ignore"):
        converted = values.astype(dtype)
    if values.dtype.kind in "iu" and not np.array_equal(converted, values):
        raise BadExample(patient.name, f"{member.name} holds integers beyond 2^24, which float32 cannot")
    if not np.isfinite(converted).all():
        raise BadExample(patient.name, f"{member.name} holds values beyond those of float32")
    return converted


def _needs_float(nifti: nib.Nifti1Image) -> bool:
    proxy: Any = nifti.dataobj  # nibabel keeps the scale factors here: it clears them in the header
    return (proxy.slope, proxy.inter) != (1.0, 0.0) or _stored_dtype(nifti).newbyteorder("=") not in _INT16


def _stored_dtype(nifti: nib.Nifti1Image) -> np.dtype:
    return np.dtype(nifti.get_data_dtype())


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else text[:97] + "..."
