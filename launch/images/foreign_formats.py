"""Formats that medical images come in and that are not read here: what each is, and what turns it into one that is."""

from collections.abc import Iterable
from pathlib import Path

SIMPLE_ITK = "save them as .nii.gz with SimpleITK"
PATCHES = "cut them into patches with OpenSlide or QuPath, and save these as png or tif"
BIO_FORMATS = "save them as tif with Bio-Formats (bfconvert) or Fiji"
PICTURE = "save them as png"
ARRAY = "save the image's array as npy"
UNPACK = "unpack them first"

# Suffix -> (what it is, what to do).
FOREIGN: dict[str, tuple[str, str]] = {
    **dict.fromkeys((".dcm", ".dicom", ".ima"), ("DICOM", "convert them to .nii.gz with dcm2niix")),
    **dict.fromkeys((".par", ".rec"), ("Philips PAR/REC", "convert them to .nii.gz with dcm2niix")),
    **dict.fromkeys((".mha", ".mhd"), ("MetaImage", SIMPLE_ITK)),
    **dict.fromkeys((".nrrd", ".nhdr"), ("NRRD", SIMPLE_ITK)),
    ".gipl": ("GIPL", SIMPLE_ITK),
    **dict.fromkeys((".hdr", ".img"), ("Analyze or two-file NIfTI", SIMPLE_ITK)),
    **dict.fromkeys((".mgz", ".mgh"), ("FreeSurfer", "convert them to .nii.gz with mri_convert of FreeSurfer")),
    ".mnc": ("MINC", "convert them to .nii.gz with mnc2nii"),
    **dict.fromkeys((".head", ".brik"), ("AFNI", "convert them to .nii.gz with 3dAFNItoNIFTI")),
    **dict.fromkeys((".svs", ".ndpi", ".scn", ".mrxs", ".vms", ".bif"), ("whole slide", PATCHES)),
    **dict.fromkeys((".czi", ".lif", ".nd2", ".vsi", ".oib", ".oif", ".lsm"), ("microscope", BIO_FORMATS)),
    **dict.fromkeys((".jp2", ".j2k", ".webp", ".gif", ".heic", ".avif"), ("picture", PICTURE)),
    **dict.fromkeys((".mat", ".h5", ".hdf5", ".pt", ".pkl"), ("array", ARRAY)),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar", ".gz", ".bz2", ".xz"), ("packed", UNPACK)),
}
LOOKED_INTO = 50  # files without a known suffix whose first bytes are looked at
DICOM = FOREIGN[".dcm"]


def foreign(path: Path) -> tuple[str, str] | None:
    """Returns what a file is and what to do with it, where its name or its first bytes tell; else None.

    DICOM files often have no suffix, or that of a number.
    """
    known = FOREIGN.get(path.suffix.lower())
    if known is not None:
        return known
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return None
    return DICOM if start[128:] == b"DICM" else None


def advice(paths: Iterable[Path], scans_only: bool = False) -> str:
    """Returns '3 DICOM files: convert them ...; 1 NRRD file: ...' for those of `paths` that are of such a format.

    Args:
      scans_only: leave out what seldom is an image where others lie beside it: arrays and packed files.
    """
    counts: dict[tuple[str, str], int] = {}
    looked = 0
    for path in paths:
        unknown = path.suffix.lower() not in FOREIGN
        looked += unknown
        if unknown and (looked > LOOKED_INTO or path.is_symlink()):
            continue
        if (kind := foreign(path)) is not None and not (scans_only and kind[1] in (ARRAY, UNPACK)):
            counts[kind] = counts.get(kind, 0) + 1
    return "; ".join(f"{n} {what} {'file' if n == 1 else 'files'}: {how}" for (what, how), n in counts.items())
