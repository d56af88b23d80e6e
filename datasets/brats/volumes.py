"""One patient's volumes read from NIfTI, checked against each other, in the axes and values they are stored in."""

import dataclasses

import nibabel as nib
import numpy as np
from nibabel import orientations

from datasets.archives import Member
from datasets.brats import nifti
from datasets.brats.labels import whole_labels
from datasets.brats.names import MODALITIES, SEG
from datasets.brats.patients import Patient
from datasets.errors import BadExample, DataError

# Affines of one patient's files are equal up to how the year's software rounded them, in mm.
AFFINE_TOLERANCE_MM = 1e-3


@dataclasses.dataclass
class Volumes:
    """All modalities of one patient and their segmentation, axes and orientation as stored.

    Attributes:
      image: [x, y, z, modality] int16 or float32, intensities as stored; a missing modality is all zero.
      seg: [x, y, z] uint8, labels in the numbering of `labels.LabelTable`; all zero where there is none.
      present: [modality] bool.
      stored_dtypes: Type of each modality in its file, '' where it is missing.
      affine: [4, 4] float64, voxel to world in mm.
      form_codes: Codes of qform and sform of the file that `affine` is of; 0, 0 where it does not say where it lies.
      background: [modality] float32, the value around the brain: that of all eight corners, else 0.
      remarks: What was read otherwise than it is stored, in words that are the same for every patient.
      intensity_min, intensity_max: [modality] float32, over the whole volume.
      percentile_0_5, percentile_99_5: [modality] float32, over the brain.
    """

    image: np.ndarray
    seg: np.ndarray
    present: np.ndarray
    has_seg: bool
    stored_dtypes: list[str]
    affine: np.ndarray
    form_codes: tuple[int, int]
    background: np.ndarray
    remarks: list[str]
    intensity_min: np.ndarray
    intensity_max: np.ndarray
    percentile_0_5: np.ndarray
    percentile_99_5: np.ndarray

    def brain(self) -> np.ndarray:
        """Returns [x, y, z] bool: where any modality is not its background."""
        brain = np.zeros(self.image.shape[:3], bool)
        for channel in range(self.image.shape[3]):
            brain |= self.image[..., channel] != self.background[channel]
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
                    if nifti.header_needs_float(patient.files[modality]):
                        return np.dtype(np.float32)
                except nifti.UnreadableError:
                    continue
    return np.dtype(np.int16)


def read_volumes(patient: Patient, dtype: np.dtype) -> Volumes:
    """Reads and checks all files of a patient.

    Args:
      dtype: int16 or float32, the type of the returned image. Types stored otherwise are held in float32: int32 and
        float64 only where this is exact or, for float64, up to float32 rounding. A scale factor in a NIfTI header is
        applied, and makes the values float32.

    A file that holds the same voxels in another order of axes, or running the other way, is turned to those of the
    first one.

    Raises:
      BadExample: A file is damaged, or not 3-D, or lies elsewhere than the others, or a value is not finite or does not
        fit, or a label is not in the table, or there is no brain.
      DataError: The values need float32 and `dtype` is int16.
    """
    image = grid = last = None
    present = np.zeros(len(MODALITIES), bool)
    stored = [""] * len(MODALITIES)
    remarks: list[str] = []
    for channel, modality in enumerate(MODALITIES):
        member = patient.files.get(modality)
        if member is None:
            continue
        opened = last if last is not None and last.member is member else _open(patient, member)
        last = opened  # one file may hold all modalities
        if grid is None or image is None:
            grid = opened
            image = np.zeros((*opened.shape, len(MODALITIES)), dtype)
        values = opened.array(patient.volume_of.get(modality))
        image[..., channel] = opened.on_grid_of(grid, _intensities(opened, values, dtype), remarks)
        present[channel] = True
        stored[channel] = nifti.stored_dtype(opened.image).name
    del last
    assert image is not None, "a patient has at least one modality"
    assert grid is not None
    seg = None
    if SEG in patient.files:
        opened = _open(patient, patient.files[SEG])
        try:
            whole, rounded = whole_labels(opened.array(None))
            seg = patient.labels.from_stored(whole)
        except ValueError as error:
            raise opened.error(f"{error}", colon=True) from None
        if rounded:
            remarks.append("labels that are stored as fractions, such as 1.99216, are rounded to whole numbers")
        seg = np.ascontiguousarray(opened.on_grid_of(grid, seg, remarks))
    volumes = Volumes(
        image=image,
        seg=np.zeros(image.shape[:3], np.uint8) if seg is None else seg,
        present=present,
        has_seg=seg is not None,
        stored_dtypes=stored,
        affine=grid.affine,
        form_codes=nifti.form_codes(grid.image),
        remarks=remarks,
        **{
            name: np.zeros(len(MODALITIES), np.float32)
            for name in ("background", "intensity_min", "intensity_max", "percentile_0_5", "percentile_99_5")
        },
    )
    for channel in np.flatnonzero(present):
        volumes.background[channel] = _background(image[..., channel])
    brain = volumes.brain()
    if not brain.any():
        raise BadExample(patient.name, "every voxel of every modality is 0, or the value of its corners")
    if volumes.background.any():
        remarks.append("a background other than 0 was found in the corners and recorded; values are as stored")
    for channel in np.flatnonzero(present):
        plane = image[..., channel]
        volumes.intensity_min[channel], volumes.intensity_max[channel] = plane.min(), plane.max()
        volumes.percentile_0_5[channel], volumes.percentile_99_5[channel] = np.percentile(plane[brain], (0.5, 99.5))
    return volumes


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A file of a patient, read: the first one tells where the voxels are, all others must agree."""

    patient: str
    member: Member
    image: nib.Nifti1Image

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape[:3]

    @property
    def affine(self) -> np.ndarray:
        return np.asarray(self.image.affine)

    def error(self, reason: str, colon: bool = False) -> BadExample:
        return BadExample(self.patient, f"{self.member.name}{':' * colon} {reason}")

    def array(self, volume: int | None) -> np.ndarray:
        """Returns [x, y, z]: of a file with a fourth axis the given volume."""
        volumes = self.image.shape[3] if len(self.image.shape) > 3 else 1
        if volume is None and volumes > 1:
            raise self.error(f"has shape {self.image.shape}, not that of a volume")
        if volume is not None and volume >= volumes:
            raise self.error(f"has shape {self.image.shape}: there is no volume {volume} along the fourth axis")
        try:
            return nifti.array(self.image, volume or 0)
        except nifti.UnreadableError as error:
            raise self.error(str(error)) from None

    def on_grid_of(self, grid: "_Opened", values: np.ndarray, remarks: list[str]) -> np.ndarray:
        """Returns values [x, y, z] of this file in the axes of `grid`, which holds the same voxels."""
        if self is grid:
            return values
        if self.shape == grid.shape and np.abs(self.affine - grid.affine).max() <= AFFINE_TOLERANCE_MM:
            return values
        if self.shape == grid.shape and (0, 0) in (nifti.form_codes(self.image), nifti.form_codes(grid.image)):
            remarks.append("files whose headers do not say where they lie (form codes 0) are taken voxel by voxel")
            return values
        turn = orientations.io_orientation(np.linalg.inv(grid.affine) @ self.affine)
        turned = self.affine @ orientations.inv_ornt_aff(turn, self.shape)
        shape = tuple(int(side) for side in np.array(self.shape)[np.argsort(turn[:, 0])])
        if shape == grid.shape and np.abs(turned - grid.affine).max() <= AFFINE_TOLERANCE_MM:
            remarks.append("files stored with other axes than the first modality are turned to its axes, exactly")
            return orientations.apply_orientation(values, turn)
        if shape != grid.shape:
            raise self.error(
                f"has shape {self.shape} but {grid.member.name} has {grid.shape}: resample it onto that grid"
                " (a segmentation with nearest neighbour)"
            )
        away = np.abs(_corners(turned, shape) - _corners(grid.affine, shape)).max()
        raise self.error(
            f"lies elsewhere than {grid.member.name}, by up to {away:.3g} mm, as their affines differ: resample it onto"
            " that grid (a segmentation with nearest neighbour), or copy the header where only that is wrong"
        )


def _corners(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns where the eight corner voxels lie, [8, 3] in mm."""
    indices = np.stack(np.meshgrid(*([0, side - 1] for side in shape), indexing="ij"), -1).reshape(-1, 3)
    return indices @ affine[:3, :3].T + affine[:3, 3]


def _open(patient: Patient, member: Member) -> _Opened:
    try:
        opened = _Opened(patient.name, member, nifti.read(member))
    except nifti.UnreadableError as error:
        raise BadExample(patient.name, f"{member.name} {error}") from None
    if not np.isfinite(opened.affine).all() or abs(np.linalg.det(opened.affine[:3, :3])) < 1e-12:
        raise opened.error("has an affine that places no volume, such as one with an axis of length 0: mend its header")
    return opened


def _background(plane: np.ndarray) -> float:
    """Returns the value of all eight corners of a volume, or 0 where they differ: BraTS sets what is no brain to 0."""
    corners = plane[np.ix_(*([0, -1],) * 3)]
    return float(corners.flat[0]) if (corners == corners.flat[0]).all() else 0.0


def _intensities(opened: _Opened, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns the intensities in `dtype`."""
    if nifti.needs_float(opened.image) and dtype == np.int16:
        raise DataError(
            f"{opened.patient}: {opened.member.name} holds {nifti.stored_dtype(opened.image)} values, which int16 "
            "cannot: build with `python -m datasets.build brats`, which chooses the type from the headers"
        )
    if values.dtype.kind not in "iuf":
        raise opened.error(f"holds {values.dtype}, not one number per voxel")
    if not np.isfinite(values).all():
        raise opened.error("holds values that are not finite")
    with np.errstate(over="ignore"):
        converted = values.astype(dtype)
    if values.dtype.kind in "iu" and not np.array_equal(converted, values):
        raise opened.error("holds integers beyond 2^24, which float32 cannot")
    if not np.isfinite(converted).all():
        raise opened.error("holds values beyond those of float32")
    return converted
