"""Lists the training images below config.data.path, joins the channel files of an image, prints what is left out."""

import dataclasses
import glob
import itertools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from launch.images import foreign_formats, readers
from launch.images.picture import MAX_CHANNELS
from launch.text import print_note, printable, some
from singan import links
from singan.errors import UserError

LARGEST_DESCRIPTION = 2**20  # bytes of a dataset.json
# Words in the names of files and folders that hold masks, labels, drawings over images or small copies of them.
NO_IMAGES = re.compile(
    r"masks?|seg[sm]?|segms|segmentations?|labels?|labelmaps?|annotations?|annotated|overlays?|contours?|groundtruth|gt"
    r"|thumbs?|thumbnails?|previews?"
)
WITH_IT = ("with", "without", "no", "and")  # before such a word, and after it, in the names of images:
IN_IT = ("in", "free")
# Folders that systems make beside images, for copies of their own.
SYSTEM_FOLDERS = frozenset({"@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found", "thumbnails"})
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
CHANNEL_FILE = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")  # as nnU-Net names the channels of a case
Cases = dict[tuple[str, str], dict[str, Path]]  # (case, suffix) -> number of the channel -> file
CHANNEL_FOLDERS = frozenset({"imagestr", "imagests", "imagesval"})


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """The files of one image.

    Attributes:
      name: relative to the folder of config.data.path; of several files '<case>_{0000,0001}.nii.gz'.
      id_name: the name that the id is made of.
      paths: one file, or one for each channel.
      channels: their names as a dataset.json beside them says, else ().
    """

    name: str
    id_name: str
    paths: tuple[Path, ...]
    channels: tuple[str, ...] = ()


def find_image_files(given: str) -> list[ImageFiles]:
    """Returns the images that a folder, a file or a glob names; prints which files of a folder it leaves out.

    Raises:
      UserError: there is no such path, no image in it, or a channel of an image is missing.
    """
    key = f"config.data.path={printable(given)!r}"
    path = Path(given).expanduser()
    left_out, others = 0, []
    try:
        if path.is_dir():
            root = path
            paths, others, left_out = _walk(path)
        elif path.exists() or not glob.has_magic(given):
            path.stat()
            root = path.parent
            paths, others = ([path], []) if path.is_file() and readers.is_image(path) else ([], [path])
        else:
            matches = sorted({Path(match) for match in glob.glob(str(path), recursive=True)})
            root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
            matches = [match for match in matches if match.is_file() and not _of_system(match.relative_to(root).parts)]
            paths = [match for match in matches if readers.is_image(match)]
            others = [match for match in matches if not readers.is_image(match)]
    except PermissionError as error:
        where = printable(str(error.filename))
        raise UserError(f"{key}: no permission to read {where}: change its permissions") from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise UserError(f"{key} does not exist: give a folder, a file or a glob such as 'scans/*.png'") from error
    if not paths:
        advice = foreign_formats.advice(others)
        why = f" ({left_out} symbolic links to elsewhere are left out)" if left_out else ""
        what = f"but {advice}" if advice else f"files that are understood end in {' '.join(readers.SUFFIXES)}"
        raise UserError(f"{key} holds no image{why}{', ' if advice else ': '}{what}")
    if path.is_dir():
        paths = _without_masks(key, root, paths)
        scans = [other for other in others if not is_likely_mask(other.relative_to(root))]
        if advice := foreign_formats.advice(scans, scans_only=True):
            print_note(f"{key}: not read are {advice}")
    return _together(root, paths)


def _walk(folder: Path) -> tuple[list[Path], list[Path], int]:
    """Returns the image files below a folder, its other files, and how many links were not followed.

    Hidden names and folders of systems are passed over. Links to folders, and to files that lie outside, are not
    followed: they would bring in images of elsewhere, or the same ones twice.
    """

    def refuse(error: OSError) -> None:
        raise error

    paths, others, left_out = [], [], 0
    for parent, folders, files in os.walk(folder, onerror=refuse):  # does not follow links to folders
        folders[:] = [name for name in folders if not name.startswith(".") and not _of_system([name])]
        left_out += sum((Path(parent) / name).is_symlink() for name in folders)
        for name in files:
            path = Path(parent) / name
            if name.startswith("."):
                continue
            if path.is_symlink() and links.leads_out(path, folder):
                left_out += readers.is_image(path)
            elif path.is_file():
                (paths if readers.is_image(path) else others).append(path)
    return sorted(paths), sorted(others), left_out


def _of_system(parts: Sequence[str]) -> bool:
    return any(part.casefold() in SYSTEM_FOLDERS for part in parts)


def is_likely_mask(name: Path) -> bool:
    """Returns whether a relative path has a word in it that speaks of masks, overlays or thumbnails."""
    for part in name.parts:
        words = ["", *(word.casefold() for word in WORD.findall(part)), ""]
        for before, word, after in zip(words, words[1:], words[2:], strict=False):
            if NO_IMAGES.fullmatch(word) and before not in WITH_IT and after not in IN_IT:
                return True
    return False


def _without_masks(key: str, root: Path, paths: list[Path]) -> list[Path]:
    """Returns the paths whose names do not say mask, or all where every name does; prints which it took for masks."""
    masks = [path for path in paths if is_likely_mask(path.relative_to(root))]
    images = [path for path in paths if path not in set(masks)]
    if not masks or not images:
        return paths
    pattern = masks[0].parent / f"*{readers.split_suffix(masks[0].name)[1]}"
    print_note(
        f"{key}: {_files(len(images))} taken as {'images' if len(images) > 1 else 'an image'}, {_some(root, images)};"
        f" {_files(len(masks))} left out, by their names masks, overlays or thumbnails, {_some(root, masks)}: to take"
        f" them too, give a glob such as {printable(str(pattern))!r}"
    )
    return images


def _together(root: Path, paths: Sequence[Path]) -> list[ImageFiles]:
    """Returns the images of files: nnU-Net's <case>_0000, <case>_0001 ... are the channels of one."""
    images: list[ImageFiles] = []
    in_order = sorted(paths, key=lambda path: (path.parent, path.name))
    for parent, group in itertools.groupby(in_order, lambda path: path.parent):
        files = list(group)
        names = _described_channels(parent)
        cases: Cases = {}
        for path in files:
            stem, suffix = readers.split_suffix(path.name)
            if match := CHANNEL_FILE.fullmatch(stem):
                cases.setdefault((match["case"], suffix), {})[match["channel"]] = path
        if sum(map(len, cases.values())) == len(files) and (names or parent.name.casefold() in CHANNEL_FOLDERS):
            images += [dataclasses.replace(_case(root, parent, *key, cases), channels=names) for key in cases]
            continue
        if _look_like_channels(cases):
            (case, suffix), channels = next(iter(cases.items()))
            shown = ", ".join(printable(f"{case}_{channel}{suffix}") for channel in channels)
            print_note(
                f"{shown} and the like are taken as images of their own: where they are the channels of one, put them"
                " into a folder called imagesTr, as nnU-Net has them"
            )
        for path in files:
            name = path.relative_to(root).as_posix()
            images.append(ImageFiles(printable(name), name, (path,), names))
    return images


def _case(root: Path, parent: Path, case: str, suffix: str, cases: Cases) -> ImageFiles:
    channels = sorted(cases[case, suffix])
    everywhere = sorted({channel for files in cases.values() for channel in files})
    folder = parent.relative_to(root)
    name = (folder / f"{case}{suffix}").as_posix()
    if missing := [channel for channel in everywhere if channel not in channels]:
        raise UserError(
            f"{printable(name)} has no file for the channel _{missing[0]}, which others have: add it, or take the"
            " others out"
        )
    if len(channels) > MAX_CHANNELS:
        raise UserError(f"{printable(name)} has {len(channels)} channels, more than {MAX_CHANNELS}: take some out")
    shown = (folder / f"{case}_{{{','.join(channels)}}}{suffix}").as_posix()
    if len(channels) == 1:
        shown = (folder / f"{case}_{channels[0]}{suffix}").as_posix()
    return ImageFiles(printable(shown), name, tuple(cases[case, suffix][channel] for channel in channels))


def _look_like_channels(cases: Cases) -> bool:
    """Returns whether several cases have the same numbers 0000, 0001 ..., few enough to be channels."""
    numbers = {tuple(sorted(files)) for files in cases.values()}
    if len(cases) < 2 or len(numbers) != 1:
        return False
    (only,) = numbers
    return 2 <= len(only) <= MAX_CHANNELS and only == tuple(f"{i:04d}" for i in range(len(only)))


def _described_channels(folder: Path) -> tuple[str, ...]:
    """Returns the names of several channels that a dataset.json (of nnU-Net, of the MSD) in or above a folder gives."""
    for path in (folder / "dataset.json", folder.parent / "dataset.json"):
        try:
            if path.stat().st_size > LARGEST_DESCRIPTION:
                continue
            content = json.loads(path.read_text(encoding="utf-8"))
            named = content.get("channel_names") or content.get("modality") or {}
            names = tuple(str(named[str(number)]) for number in range(len(named)))
        except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
            continue
        if len(names) > 1:
            return names
    return ()


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


def _some(root: Path, paths: Sequence[Path]) -> str:
    return some([printable(path.relative_to(root).as_posix()) for path in paths])
