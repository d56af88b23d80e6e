"""The images of a folder, listed first and read one by one: a reader study needs few of what may be many samples.

An image is one file, one entry of an npy stack [n, H, W, C], or several files of one channel each. Of what
launch.sample writes (start_00/, start_01/ ...) the folder says at which scale an image's noise began.
"""

import dataclasses
import hashlib
import re
import sys
import tokenize
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from launch.images import foreign_formats, geometry, readers
from launch.images.channels import file_word
from launch.text import printable
from singan import links
from singan.errors import UserError

START_FOLDER = re.compile(r"start_(\d+)")
SAMPLE = re.compile(r".+_\d{4,}")  # as launch.samples.writers names a sample, and the files of its channels
SAMPLE_CHANNEL = re.compile(r"(?P<stem>.+_\d{4,})_(?P<word>.+)")
FOLD_FOLDER = re.compile(r"Fold \d+")  # of PanNuke's layout: beside the images lie masks and types


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where one image of a folder lies.

    Attributes:
      source: its name relative to the folder, with the index in a stack, or '<stem>_{t1,t2}.png' of several files.
      paths: its files.
      words: the channel that each file holds; () where one file holds all of them.
      index: which image of a stack it is, None where the file is no stack.
      start_scale: at which its noise began, None where that is not known.
    """

    source: str
    paths: tuple[Path, ...]
    words: tuple[str, ...] = ()
    index: int | None = None
    start_scale: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class StudyImage:
    """One image as its files hold it.

    Attributes:
      source: as the Entry's.
      planes: [H, W] each, one a channel, of their files' own types.
      channels: the names of the planes, None where the files do not say.
    """

    source: str
    planes: tuple[np.ndarray, ...]
    channels: tuple[str, ...] | None


def list_entries(given: str, flag: str, words: Sequence[str] = ()) -> list[Entry]:
    """Returns what a folder (or a file) holds, sorted by name; hidden names and sample grids are passed over.

    So are links that lead out of the folder, as with training images, which is said on stderr.

    Args:
      given: the folder or file.
      flag: the flag that gave it, for errors.
      words: channel names by which files such as 'scan_t1.nii.gz' and 'scan_t2.nii.gz' are found to be one image. Where
        any file ends in one of them, files that do not are left out.

    Raises:
      UserError: there is no such folder, it holds no image, or an image lacks a channel that others have.
    """
    root = Path(given).expanduser()
    if not root.exists():
        raise UserError(f"--{flag}={printable(given)} does not exist: give a folder of images")
    inside = root if root.is_dir() else root.parent
    paths, left_out = _image_files(root) if root.is_dir() else ([root] if readers.is_image(root) else [], 0)
    left = f"{left_out} symbolic link{'s' * (left_out > 1)} to elsewhere left out"
    if not paths:
        why = f" ({left})" if left_out else ""
        others = [path for path in (root.rglob("*") if root.is_dir() else [root]) if path.is_file()]
        advice = foreign_formats.advice(others)
        what = f", but {advice}" if advice else f": files end in {' '.join(readers.SUFFIXES)}"
        raise UserError(f"--{flag}={printable(given)} holds no image{why}{what}")
    if left_out:
        print(f"note: --{flag}={printable(given)}: {left}", file=sys.stderr, flush=True)
    images: dict[tuple[str, str], dict[str, Path]] = {}
    for path in paths:
        stem, word = _channel_word(path, inside, words)
        images.setdefault((path.parent.as_posix(), stem), {})[word] = path
    known = {file_word(word).casefold() for word in words}
    if any(word.casefold() in known for files in images.values() for word in files):
        kept = {
            key: {word: path for word, path in files.items() if word.casefold() in known}
            for key, files in images.items()
        }
        images = {key: files for key, files in kept.items() if files}
    everywhere = {word for files in images.values() for word in files}
    entries: list[Entry] = []
    for (_, stem), files in sorted(images.items()):
        if "" not in everywhere and (missing := sorted(everywhere - set(files))):
            raise UserError(
                f"--{flag}: {printable(stem)} has no file for the channel {missing[0]}: add it, or choose --channels"
            )
        entries += _entries(inside, stem, files)
    return entries


def words_of(entries: Iterable[Entry]) -> list[str]:
    """Returns the channels that images of several files have, in the order they are met."""
    return list(dict.fromkeys(word for entry in entries for word in entry.words))


def read(entry: Entry, layout: str = "auto", upright: bool = True) -> StudyImage:
    """Returns an entry's image.

    Args:
      layout: as launch.images.readers.read takes it.
      upright: whether to turn slices of NIfTI files upright, as sample pictures are. Stacks keep their axes as
        stored, so that what is compared with them must keep them too.

    Raises:
      UserError: a file cannot be read, or the files of an image differ in size or are different slices.
    """
    if entry.index is not None:
        return StudyImage(entry.source, _planes(_stack_entry(entry.paths[0], entry)), None)
    files = [readers.read(path, printable(path.name), layout) for path in entry.paths]
    if len({(file.part, file.pixels.shape[:2]) for file in files}) > 1:
        parts = ", ".join(file.part or "{}x{}".format(*file.pixels.shape[:2]) for file in files)
        raise UserError(f"{entry.source}: its channels are different slices or sizes ({parts}): save them alike")
    planes = [_planes(_turned(file) if upright else file.pixels) for file in files]
    if not entry.words:
        return StudyImage(entry.source, planes[0], files[0].channels)
    names: list[str] = []
    for word, file, held in zip(entry.words, files, planes, strict=True):
        names += [word] if len(held) == 1 else file.channels or [f"{word}_{c}" for c in range(len(held))]
    return StudyImage(entry.source, tuple(plane for held in planes for plane in held), tuple(names))


def digest(entries: Iterable[Entry]) -> bytes:
    """Returns a SHA-256 of the names and the contents of files: what someone without the folders cannot know."""
    result = hashlib.sha256()
    for entry in entries:
        result.update(repr((entry.source, entry.words, entry.start_scale)).encode("utf-8", "surrogatepass"))
        for path in entry.paths:
            with path.open("rb") as file:
                result.update(hashlib.file_digest(file, "sha256").digest())
    return result.digest()


def _image_files(root: Path) -> tuple[list[Path], int]:
    """Returns the image files below a folder, and how many links out of it were not followed."""
    paths, left_out = [], 0
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        in_fold = any(FOLD_FOLDER.fullmatch(part) for part in path.parts)
        if any(part.startswith(".") for part in parts):
            continue
        if path.is_symlink() and (path.is_dir() or (readers.is_image(path) and links.leads_out(path, root))):
            left_out += 1
            continue
        if not readers.is_image(path) or not path.is_file():
            continue
        if in_fold and path.name != "images.npy":
            continue
        paths.append(path)
    # launch.sample draws an overview of an image's samples beside them.
    names = {(path.parent, path.name) for path in paths}
    grids = {
        path
        for path in paths
        if path.name.endswith("_grid.png")
        and any(p == path.parent and n.startswith(path.name.removesuffix("grid.png") + "0000") for p, n in names)
    }
    return [path for path in paths if path not in grids], left_out


def _channel_word(path: Path, inside: Path, words: Sequence[str]) -> tuple[str, str]:
    """Returns the image that a file belongs to, and its channel, '' where its name says none."""
    stem = readers.split_suffix(path.name)[0]
    sampled = _start_scale(path, inside) is not None and not path.name.lower().endswith(".npy")  # npy: all channels
    if sampled and not SAMPLE.fullmatch(stem) and (match := SAMPLE_CHANNEL.fullmatch(stem)):
        return match["stem"], match["word"]
    for word in sorted(map(file_word, words), key=len, reverse=True):
        if re.fullmatch(rf".+[_\-. ]{re.escape(word)}", stem, re.IGNORECASE | re.DOTALL):
            return stem[: -len(word) - 1], word
    # With its suffix, so that scan.png and scan.npy are two images.
    return path.name, ""


def _start_scale(path: Path, inside: Path) -> int | None:
    parts = [inside.resolve().name, *path.relative_to(inside).parts[:-1]]
    scales = [int(match[1]) for part in parts if (match := START_FOLDER.fullmatch(part))]
    return scales[-1] if scales else None


def _entries(inside: Path, stem: str, files: dict[str, Path]) -> list[Entry]:
    words = tuple(sorted(word for word in files if word))
    paths = tuple(files[word] for word in words) or (files[""],)
    scale = _start_scale(paths[0], inside)
    name = printable(paths[0].relative_to(inside).as_posix())
    if len(words) > 1:
        suffix = paths[0].name.removeprefix(stem)[len(words[0]) + 1 :]
        folder = printable(paths[0].parent.relative_to(inside).as_posix())
        name = f"{folder}/{printable(stem)}_{{{','.join(words)}}}{suffix}".removeprefix("./")
    count = _stack_length(paths[0]) if not words else None
    if count is None:
        return [Entry(name, paths, words, None, scale)]
    return [Entry(f"{name}[{index}]", paths, words, index, scale) for index in range(count)]


def _stack_length(path: Path) -> int | None:
    """Returns how many images an npy file of four dimensions holds, None for any other file."""
    if not path.name.lower().endswith(".npy"):
        return None
    try:
        array = _mapped(path)
    except (OSError, ValueError, EOFError, OverflowError, tokenize.TokenError):
        return None  # readers.read says what is wrong with it
    return len(array) if array.ndim == 4 else None


def _mapped(path: Path) -> np.ndarray:
    """Returns the array of an npy file, of which no more is read than is used. np.load would open an archive too."""
    return np.lib.format.open_memmap(path, mode="r")


def _stack_entry(path: Path, entry: Entry) -> np.ndarray:
    array = _mapped(path)
    if array.dtype.kind not in "buif" or not 1 <= array.shape[-1] <= readers.MAX_CHANNELS or 0 in array.shape:
        raise UserError(f"{entry.source}: a stack of shape {array.shape} and type {array.dtype} is no [n, H, W, C]")
    pixels = np.array(array[entry.index])
    if not np.isfinite(pixels).all():
        raise UserError(f"{entry.source}: holds NaN or infinite values: replace them with numbers")
    return pixels


def _turned(file: readers.Picture) -> np.ndarray:
    return file.pixels if file.affine is None else geometry.upright(file.pixels, geometry.of_slice(file.affine))


def _planes(pixels: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.ascontiguousarray(pixels[..., c]) for c in range(pixels.shape[-1]))
