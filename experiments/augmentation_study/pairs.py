"""Tiles with their masks and patients: of a folder of files, or of a prepared PanNuke or BraTS folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from skimage.segmentation import relabel_sequential

from experiments.augmentation_study import patients
from experiments.augmentation_study.settings import Study
from launch.images import readers, tfds_records
from launch.images.image_ids import unique_ids
from launch.text import printable
from singan.config import DataConfig
from singan.errors import UserError
from singan.storage.workdir import pixel_digest

MASK_FOLDERS = ("instances", "masks")
PATIENT, FOLD = "patient", "fold"  # words for what is kept apart between training and test
MIN_SHARE = 0.01  # of a tile's pixels that must be foreground: an emptier one teaches nothing of it
BRIGHT = 99.5  # percentile of the pixels above 0 of an MRI channel that becomes 255


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """An image with its mask.

    Attributes:
      id: fit for a file name.
      patient: whose it is; where a data set publishes no patients, the part of it that is kept apart instead.
      pixels: uint8 [H, W, C].
      instances: int32 [H, W], 0 = background, else 1..n; in the tumour task 0 or 1.
      channels: the C names.
    """

    id: str
    patient: str
    pixels: np.ndarray
    instances: np.ndarray
    channels: tuple[str, ...]


def load_pairs(data: DataConfig, study: Study, path: str = "") -> list[Pair]:
    """Returns the images that `data` names, as they are, sorted by id.

    Args:
      path: takes the place of data.path.

    Raises:
      UserError: there are no masks, a mask does not fit, a patient is not known, or the wanted label is nowhere.
    """
    data = dataclasses.replace(data, path=path or data.path)
    if data.source.startswith(tfds_records.TFDS):
        pairs = _prepared(data, study)
    elif data.path:
        pairs = _npz(data, study) if study.task == "tumour" else _folder(data, study)
    else:
        raise UserError("the study needs images with masks: give --config.data.path=FOLDER with images/ and instances/")
    if len(shapes := {(*pair.pixels.shape, pair.channels) for pair in pairs}) > 1:
        sizes = "; ".join(sorted(f"{h}x{w} with {', '.join(names)}" for h, w, _, names in shapes)[:3])
        raise UserError(f"the images differ in size or channels ({sizes}): crop them alike, or give each kind a study")
    if not any(pair.instances.any() for pair in pairs):
        raise UserError(f"no mask holds anything: {len(pairs)} masks are all 0, so there is nothing to segment")
    return pairs


def kept_apart(data: DataConfig, study: Study) -> str:
    """Returns the word for what Pair.patient names: PATIENT, or FOLD of PanNuke, which publishes no patients."""
    return FOLD if study.task == "nuclei" and data.source.startswith(tfds_records.TFDS) else PATIENT


def cut(pairs: Sequence[Pair], study: Study) -> tuple[list[Pair], int]:
    """Returns the tiles of images, row by row, and how many were left out as all but empty of foreground.

    Slices are cut about their middle, tissue from its corner.

    Raises:
      UserError: an image is smaller than a tile, or no tile is left.
    """
    tiles, empty = [], 0
    for pair in pairs:
        pixels, instances = reduced(pair, study.reduce)
        height, width = instances.shape
        rows, columns = height // study.tile, width // study.tile
        if not rows or not columns:
            raise UserError(
                f"{pair.id}: {height}x{width} pixels, after --study.reduce={study.reduce}, hold no tile of"
                f" {study.tile}: lower --study.tile"
            )
        middle = study.task == "tumour"
        top, left = ((height - rows * study.tile) // 2, (width - columns * study.tile) // 2) if middle else (0, 0)
        for row in range(rows):
            for column in range(columns):
                y, x = top + row * study.tile, left + column * study.tile
                part = np.s_[y : y + study.tile, x : x + study.tile]
                nuclei = relabel_sequential(instances[part])[0].astype(np.int32)
                if (nuclei > 0).mean() < MIN_SHARE:
                    empty += 1
                    continue
                name = pair.id if rows == columns == 1 else f"{pair.id}_y{y:03d}_x{x:03d}"
                tiles.append(Pair(name, pair.patient, np.ascontiguousarray(pixels[part]), nuclei, pair.channels))
    if not tiles:
        raise UserError("every tile is all but empty of what is to be segmented: larger ones may not be")
    return tiles, empty


def check_apart(train: Sequence[Pair], test: Sequence[Pair]) -> None:
    """Raises a UserError where a patient, or the very same image, is on both sides."""
    if both := sorted({pair.patient for pair in train} & {pair.patient for pair in test}):
        raise UserError(
            f"patient {both[0]} is in training and test{f' (and {len(both) - 1} more)' if len(both) > 1 else ''}: take"
            " the images of one side out"
        )
    known = {pixel_digest(pair.pixels): pair for pair in train}
    for pair in test:
        if other := known.get(pixel_digest(pair.pixels)):
            raise UserError(f"{other.id} and {pair.id} are one image, in training and test: take one of them out")


def reduced(pair: Pair, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels as means of blocks, and the instances at the blocks' middles."""
    height, width = (side // factor * factor for side in pair.instances.shape)
    pixels = pair.pixels[:height, :width].reshape(height // factor, factor, width // factor, factor, -1).mean((1, 3))
    return np.rint(pixels).astype(np.uint8), pair.instances[factor // 2 : height : factor, factor // 2 : width : factor]


def _folder(data: DataConfig, study: Study) -> list[Pair]:
    root = Path(data.path).expanduser()
    images = root / "images" if (root / "images").is_dir() else root
    masks = next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)
    if not root.is_dir():
        raise UserError(f"config.data.path={printable(data.path)!r} does not exist: give a folder")
    if masks is None:
        raise UserError(
            f"config.data.path={printable(data.path)!r} holds no masks: put them into instances/, by the names of the"
            " images in images/, each nucleus with a number of its own"
        )
    by_stem = {path.stem: path for path in sorted(masks.iterdir()) if readers.is_image(path)}
    paths = [path for path in sorted(images.iterdir()) if path.is_file() and readers.is_image(path)]
    if not paths:
        raise UserError(f"{printable(str(images))} holds no image")
    rule = patients.read_rule(root, study.patient, patients.TCGA)
    pairs = []
    for image_id, path in zip(unique_ids([path.name for path in paths]), paths, strict=True):
        if path.stem not in by_stem:
            raise UserError(f"{path.name} has no mask in {masks.name}/: add it, or take the image out")
        mask_path = by_stem[path.stem]
        picture, marked = readers.read_with_mask(path, path.name, mask_path, f"{masks.name}/{mask_path.name}")
        mask = marked.pixels
        if mask.shape != (*picture.pixels.shape[:2], 1):
            raise UserError(f"{path.name}: its mask has the shape {mask.shape}, not {(*picture.pixels.shape[:2], 1)}")
        if picture.pixels.dtype != np.uint8:
            raise UserError(f"{path.name} holds {picture.pixels.dtype}: the nuclei task takes images of 8 bits")
        channels = picture.channels or tuple(f"channel_{c}" for c in range(picture.pixels.shape[-1]))
        pairs.append(Pair(image_id, rule.required(path), picture.pixels, mask[..., 0].astype(np.int32), channels))
    return sorted(pairs, key=lambda pair: pair.id)


def _npz(data: DataConfig, study: Study) -> list[Pair]:
    """Reads slices as npz files with `image` [C, H, W], `channels`, `seg` [H, W] and perhaps `patient`."""
    root = Path(data.path).expanduser()
    paths = sorted(root.glob("*.npz"))
    if not paths:
        raise UserError(f"config.data.path={printable(data.path)!r} holds no npz slice with image, channels and seg")
    rule = patients.read_rule(root, study.patient, patients.SLICE)
    pairs = []
    for path in paths:
        with np.load(path, allow_pickle=False) as arrays:
            if "seg" not in arrays.files:
                raise UserError(f"{path.name} has no mask: its array 'seg' is missing")
            labels = arrays["seg"]
        patient = patients.of_slice(path, rule)
        picture = readers.read(path, path.name)
        names = picture.channels or tuple(f"channel_{c}" for c in range(picture.pixels.shape[-1]))
        pairs.append(_slice(path.stem, patient, picture.pixels, labels, names, data, study))
    return _with_label(pairs, study)


def _prepared(data: DataConfig, study: Study) -> list[Pair]:
    nuclei = study.task == "nuclei"
    wanted = ("rgb", "instance") if nuclei else (*(data.channels or ("flair",)), "seg")
    data = dataclasses.replace(data, channels=wanted)
    prepared = tfds_records.open_prepared(data)
    if (prepared.name == "pannuke") != nuclei:
        raise UserError(f"--study.task={study.task} does not go with config.data.source={data.source}")
    pairs = []
    for record in tfds_records.choose(prepared, data):
        example = prepared.builder.as_data_source(record.split)[record.position]
        if nuclei:
            # PanNuke publishes no patients: its folds are kept apart instead.
            instances = np.asarray(example["instance_map"], np.int32)
            pairs.append(Pair(record.id, record.split, example["image"], instances, readers.COLOURS))
            continue
        (image,) = tfds_records.read(prepared, [record], data)
        measured = len(wanted) - 1
        names, patient = image.channels[:measured], str(image.details["patient"])
        pixels = image.value_map.invert(image.pixels)[..., :measured]
        pairs.append(_slice(record.id, patient, pixels, np.asarray(example["seg"]), names, data, study))
    return pairs if nuclei else _with_label(pairs, study)


def _slice(
    name: str,
    patient: str,
    pixels: np.ndarray,
    labels: np.ndarray,
    names: tuple[str, ...],
    data: DataConfig,
    study: Study,
) -> Pair:
    if chosen := [name for name in data.channels if name != "seg"]:
        if missing := [word for word in chosen if word not in names]:
            raise UserError(f"{name} has {', '.join(names)}, not {missing[0]!r}: set --config.data.channels")
        pixels, names = pixels[..., [names.index(word) for word in chosen]], tuple(chosen)
    return brain_pair(name, patient, pixels, labels, names, study)


def brain_pair(
    name: str, patient: str, pixels: np.ndarray, labels: np.ndarray, names: tuple[str, ...], study: Study
) -> Pair:
    """Returns a slice with its tumour: of float pixels [H, W, C] and labels [H, W] in the source's numbering."""
    mask = (labels == study.label if study.label else labels > 0).astype(np.int32)
    return Pair(name, patient, brain_to_uint8(pixels), mask, names)


def brain_to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Returns uint8 [H, W, C]: 0 and below is black, each channel's 99.5th percentile of what is above 0 is white."""
    shown = np.zeros(pixels.shape, np.uint8)
    for channel in range(pixels.shape[-1]):
        values = pixels[..., channel]
        top = float(np.percentile(values[values > 0], BRIGHT)) if (values > 0).any() else 1.0
        shown[..., channel] = np.rint(np.clip(values / top, 0, 1) * 255)
    return shown


def _with_label(pairs: list[Pair], study: Study) -> list[Pair]:
    """Returns the slices that show the tumour; raises a UserError where none does."""
    kept = [pair for pair in pairs if pair.instances.any()]
    if not kept:
        what = f"label {study.label}" if study.label else "a tumour"
        raise UserError(f"none of the {len(pairs)} slices has {what}: there is nothing to segment")
    return kept
