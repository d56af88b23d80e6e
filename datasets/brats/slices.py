"""From a patient's volumes to examples: the axial slices, or the volume as one example."""

from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np

from datasets.brats.names import MODALITIES
from datasets.brats.patients import Patient
from datasets.brats.volumes import Volumes


def slice_axis(affine: np.ndarray) -> int:
    """Returns the array axis (0, 1 or 2) that runs closest to foot-head: slices across it are axial. 2 in all BraTS."""
    codes = nib.aff2axcodes(affine)
    return next((axis for axis, code in enumerate(codes) if code in ("S", "I")), 2)


def slice_affine(affine: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Returns the affine of one slice, [4, 4] float64.

    Args:
      affine: [4, 4], voxel to world of the volume, in mm.
      axis: The axis the slice lies across.
      index: Its position along that axis.

    The slice counts as a volume of one voxel's depth whose axes are the two others, in their order, and then `axis`.
    Its offset includes the position, so that voxel (i, j, 0) of the slice is where it was in the volume.
    """
    order = [*(other for other in range(3) if other != axis), axis]
    result = affine[:, [*order, 3]].astype(np.float64)
    result[:, 3] = affine[:, 3] + index * affine[:, axis]
    return result


def slice_examples(patient: Patient, volumes: Volumes) -> Iterator[dict[str, Any] | None]:
    """Yields an example for each axial slice in ascending order, None for each empty one.

    A slice is empty where every modality is its background and no voxel is labelled.
    """
    axis = slice_axis(volumes.affine)
    brain = np.moveaxis(volumes.brain(), axis, 2)
    image = np.moveaxis(volumes.image, axis, 2)
    seg = np.moveaxis(volumes.seg, axis, 2)
    order = [*(other for other in range(3) if other != axis), axis]
    common = _common(patient, volumes)
    common["spacing"] = volumes.spacing()[order]
    for index in range(image.shape[2]):
        if not brain[:, :, index].any() and not seg[:, :, index].any():
            yield None
            continue
        labels = np.ascontiguousarray(seg[:, :, index])
        yield common | {
            "id": f"{patient.name}_z{index:03d}",
            "slice_index": index,
            "slice_axis": axis,
            "image": np.ascontiguousarray(image[:, :, index]),
            "seg": labels,
            "affine": slice_affine(volumes.affine, axis, index),
            "volume_affine": volumes.affine,
            "volume_shape": np.array(volumes.image.shape[:3], np.int32),
            "brain_fraction": np.float32(brain[:, :, index].mean()),
            **_tumour(patient, volumes.has_seg, labels),
        }


def volume_example(patient: Patient, volumes: Volumes) -> dict[str, Any]:
    """Returns the example of a whole volume, axes as stored."""
    return _common(patient, volumes) | {
        "id": patient.name,
        "image": volumes.image,
        "seg": volumes.seg,
        "affine": volumes.affine,
        "spacing": volumes.spacing(),
        "brain_fraction": np.float32(volumes.brain().mean()),
        **_tumour(patient, volumes.has_seg, volumes.seg),
    }


def _tumour(patient: Patient, has_seg: bool, labels: np.ndarray) -> dict[str, Any]:
    voxels = int(patient.labels.is_tumour(labels).sum()) if has_seg else -1
    return {"tumour_voxels": voxels, "has_tumour": voxels > 0}


def _common(patient: Patient, volumes: Volumes) -> dict[str, Any]:
    return {
        "patient": patient.name,
        "grade": patient.grade,
        "modalities": list(MODALITIES),
        "modality_present": volumes.present,
        "has_seg": volumes.has_seg,
        "orientation": volumes.orientation(),
        "form_codes": np.array(volumes.form_codes, np.int32),
        "stored_dtypes": volumes.stored_dtypes,
        "background": volumes.background,
        "intensity_min": volumes.intensity_min,
        "intensity_max": volumes.intensity_max,
        "percentile_0_5": volumes.percentile_0_5,
        "percentile_99_5": volumes.percentile_99_5,
        "label_table": patient.labels.name,
        "label_names": list(patient.labels.names),
        "label_stored_values": np.array(patient.labels.stored, np.int32),
    }
