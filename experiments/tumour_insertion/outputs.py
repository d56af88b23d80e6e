"""Images with inserted tumours and their segmentations, as files to train on."""

from pathlib import Path

import numpy as np

from experiments.tumour_insertion.compositing import Insertion
from experiments.tumour_insertion.donors import patient_of
from launch.images import geometry
from launch.samples import pictures
from launch.samples.nifti import label_comment, nifti_bytes, nifti_files
from singan import files

FORMATS = {
    "png": "pictures, slices upright; <name>_seg.png holds label numbers",
    "npy": "float32 [H, W, C] in the source's values; <name>_seg.npy uint8",
    "nifti": "a folder for each as BraTS names them: <name>/<name>_t1.nii.gz ... <name>_seg.nii.gz",
}


def write_image(folder: Path, form: str, insertion: Insertion, pixels: np.ndarray, note: str) -> list[str]:
    """Writes an image with the tumour's labels; returns the names of the files within the folder.

    Args:
      form: one of FORMATS; nifti has the background slice's affine and type.
      pixels: float32 [H, W, C] in [-1, 1] on the background's own grid.
      note: for the headers of NIfTI files.
    """
    name, record = insertion.name, insertion.record
    if form == "nifti":
        written = nifti_files(record, pixels, note)
        affine, forms = np.array(record.details["affine"]), record.details.get("forms")
        table = label_comment(insertion.donor.details)
        note = "labels as in the donor's segmentation"
        written["seg"] = nifti_bytes(insertion.labels, affine, note, forms, comment=table)
        content = {f"{name}/{name}_{kind}.nii.gz": data for kind, data in written.items()}
    elif form == "png":
        shown = geometry.upright(pixels, record.details)
        content = {
            f"{name}{suffix}.png": pictures.encode_png(picture)
            for suffix, picture in pictures.of_channels(shown, record.channels)
        }
        labels = geometry.upright(insertion.labels[..., None], record.details)
        content[f"{name}_seg.png"] = pictures.encode_png(np.ascontiguousarray(labels))
    else:
        files.make_directory(folder)
        files.write_npy(folder / f"{name}.npy", record.value_map.invert(pixels))
        files.write_npy(folder / f"{name}_seg.npy", insertion.labels)
        return [f"{name}.npy", f"{name}_seg.npy"]
    for file, data in content.items():
        files.make_directory((folder / file).parent)
        files.write_bytes(folder / file, data)
    return list(content)


def describe(insertion: Insertion) -> dict:
    """Returns what insertions.json says of a tumour, but for its results."""
    record, donor, placed = insertion.record, insertion.donor, insertion.placed
    values, counts = np.unique(insertion.labels[insertion.labels > 0], return_counts=True)
    pasted = [record.channels[c] for c in insertion.pasted]
    rows, columns = np.nonzero(insertion.mask)
    return {
        "name": insertion.name,
        "background": {"id": record.id, "patient": patient_of(record.id, record.details)},
        "donor": {
            "id": donor.id,
            "patient": donor.patient,
            "label_table": donor.details.get("label_table", ""),
        },
        "rotation_degrees": placed.turn.rotation,
        "flip": placed.turn.flip,
        "scale": placed.turn.scale,
        "position": {"row": placed.corner[0], "column": placed.corner[1], "of": "the corner of its bounding box"},
        "centre": [float(rows.mean()), float(columns.mean())],
        "positions_possible": placed.places,
        "over_fluid": placed.over_fluid,
        "feather": {"width": insertion.feather.width, "edge": insertion.feather.edge},
        "pixels": int(insertion.mask.sum()),
        "label_pixels": dict(zip(map(str, values.tolist()), counts.tolist(), strict=True)),
        "channels_pasted": pasted,
        "channels_of_background": [channel for channel in record.channels if channel not in pasted],
        "matching": {
            channel: {"gain": float(gain), "offset": float(offset)}
            for channel, gain, offset in zip(pasted, insertion.matching.gain, insertion.matching.offset, strict=True)
        },
    }
