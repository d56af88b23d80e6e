"""Where the folds of a PanNuke download lie: `Fold 1/images/fold1/images.npy` and so on, unpacked or zipped.

Kaggle's copy calls them `Part 1/Images/images.npy` and so on. One fold may lie in a folder that has no number.
"""

import dataclasses
import re

from datasets.archives import Member, Source
from datasets.errors import DataError
from datasets.pannuke.channels import MaskChannels, look
from datasets.pannuke.instances import CLASSES
from datasets.pannuke.npy import NpyRows

_FILES = ("images.npy", "masks.npy", "types.npy")
_FOLD = re.compile(r"(?:fold|(?<![a-z])part)[ _-]?(\d+)", re.IGNORECASE)

# Longest name of a tissue; types.npy is read as a whole, so that its size is bounded.
_MAX_TYPE_BYTES = 1024


@dataclasses.dataclass(frozen=True)
class Fold:
    """One fold, opened: its number, the rows of its images and masks, each patch's tissue, how masks are stored."""

    number: int
    images: NpyRows
    masks: NpyRows
    tissues: list[str]
    channels: MaskChannels

    @property
    def split(self) -> str:
        """Name of the fold's split, such as 'fold1'."""
        return f"fold{self.number}"


def wanted(path: str) -> bool:
    """Returns whether a file of this path is one of a fold's three arrays."""
    return path.rpartition("/")[2].lower() in _FILES


def find_folds(source: Source) -> list[Fold]:
    """Returns the folds of a download ordered by number, each with all three arrays of equal length.

    Raises:
      DataError: No fold, an array missing or found twice, or arrays that do not fit together or cannot be read.
    """
    folds: dict[int, dict[str, Member]] = {}
    for member in source.members:
        # Of several numbers the innermost holds; without one it is the only fold.
        numbers = _FOLD.findall(f"{source.path.name}/{member.folder}")
        number = int(numbers[-1]) if numbers else 1
        files = folds.setdefault(number, {})
        name = member.name.lower()
        if name in files:
            raise DataError(
                f"{name} of fold {number} found twice, {files[name].place} and {member.place}: remove one of them, or"
                " call the folders of folds 'Fold 1', 'Fold 2', ..."
            )
        files[name] = member
    if not folds:
        raise DataError(
            f"no PanNuke fold in {source.path}: looked for Fold 1/images/fold1/images.npy, Fold 1/images/fold1/"
            f"types.npy and Fold 1/masks/fold1/masks.npy, in folders, zip or tar; {source.contents()}. "
            "Give the folder that holds these three files of each fold, or fold_1.zip, as --manual_dir"
        )
    return [_open_fold(number, files) for number, files in sorted(folds.items())]


def _open_fold(number: int, files: dict[str, Member]) -> Fold:
    missing = [name for name in _FILES if name not in files]
    if missing:
        there = ", ".join(member.place for member in files.values())
        raise DataError(f"fold {number} has no {' and no '.join(missing)}, only {there}: put it beside them")
    images, masks, types = (NpyRows(files[name]) for name in _FILES)
    if len(images.shape) != 4 or images.shape[3] != 3:
        raise DataError(f"{files['images.npy'].place} has shape {images.shape}, expected (n, height, width, 3)")
    channels = len(CLASSES) + 1
    if len(masks.shape) != 4 or masks.shape[3] != channels:
        raise DataError(f"{files['masks.npy'].place} has shape {masks.shape}, expected (n, height, width, {channels})")
    if len(types.shape) != 1 or types.dtype.kind not in "US" or types.dtype.itemsize > _MAX_TYPE_BYTES:
        raise DataError(
            f"{files['types.npy'].place} holds {types.dtype} of shape {types.shape}, expected one string per patch"
        )
    for rows, name in ((images, "images.npy"), (masks, "masks.npy")):
        if rows.dtype.kind not in "uif":
            raise DataError(f"{files[name].place} holds {rows.dtype}, expected numbers")
    if not len(images) == len(masks) == len(types):
        raise DataError(
            f"fold {number} has {len(images)} images, {len(masks)} masks and {len(types)} types: "
            "they must be equally many, so these are not files of one fold"
        )
    if images.shape[1:3] != masks.shape[1:3]:
        raise DataError(f"fold {number} has images of {images.shape[1:3]} but masks of {masks.shape[1:3]} pixels")
    return Fold(number, images, masks, [_text(value[()]) for value in types], look(masks, files["masks.npy"].place))


def _text(value) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
