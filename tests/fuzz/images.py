"""Image files: arrays of every kind, damaged files of every format, names, links and other things in a folder."""

import dataclasses
import functools
import io
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from hypothesis import strategies as st
from PIL import Image

from launch.images.find import load_images
from launch.manipulate import inputs
from singan.config import DataConfig, parse
from singan.errors import UserError
from singan.storage.workdir import ImageRecord
from singan.value_map import ValueMap
from tests.fuzz import strategies
from tests.fuzz.areas import Area


@dataclasses.dataclass(frozen=True)
class Settings:
    """Keys of config.data that speak of files."""

    layout: str
    value_range: Any
    background: Any
    channels: tuple[str, ...]
    max_images: int
    group_by_shape: bool


ordinary = st.just(Settings("auto", "auto", "auto", (), 0, True))
odd = st.builds(
    Settings,
    st.sampled_from(["auto", "hwc", "chw"]),
    st.sampled_from(
        ["auto", "volume", (0.0, 1.0), (0.0, 255.0), (5.0, 5.0), (1.0, 0.0), (-1e38, 1e38), (1e-45, 2e-45)]
    ),
    st.sampled_from(["auto", "none", 0.0, -1e38, (0.0, 0.0, 0.0), (1.0,)]),
    st.sampled_from([(), ("a",), ("a", "b", "c"), ("a", "a"), ("",), ("x\n", "\x1b[0m", "<b>")]),
    st.sampled_from([0, 1, 7]),
    st.booleans(),
)
settings = st.one_of(ordinary, ordinary, odd)


def load(folder: Path, chosen: Settings) -> None:
    data = {**dataclasses.asdict(chosen), "path": str(folder)}
    config = parse({"data": data}).data
    for image in load_images(config):
        assert image.pixels.dtype == np.float32
        assert image.pixels.ndim == 3
        assert np.abs(image.pixels).max() <= 1
        assert image.pixels.shape[-1] == len(image.channels)


def encode(array: np.ndarray, suffix: str) -> bytes:
    """Returns an array as a file of a format, or as .npy where the format cannot hold it."""
    buffer = io.BytesIO()
    try:
        if suffix == ".npz":
            np.savez_compressed(buffer, image=array)
        elif suffix in (".nii", ".nii.gz"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"x{suffix}"
                nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
                return path.read_bytes()
        elif suffix == ".tif":
            tifffile.imwrite(buffer, array)
        elif suffix in (".png", ".jpg", ".bmp"):
            Image.fromarray(array).save(buffer, {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP"}[suffix])
        else:
            np.save(buffer, array)
    except Exception:
        buffer = io.BytesIO()
        np.save(buffer, array)
    return buffer.getvalue()


suffixes = st.sampled_from([".npy", ".npz", ".tif", ".nii", ".nii.gz", ".png", ".jpg", ".bmp"])


def use_arrays(example: tuple[list[tuple[np.ndarray, str]], Settings], folder: Path) -> None:
    given, chosen = example
    for number, (array, suffix) in enumerate(given):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (folder / f"{number}{suffix}").write_bytes(encode(array, suffix))
    load(folder, chosen)


@functools.cache
def good_files() -> dict[str, bytes]:
    """A good file of each kind, by a name that ends in its suffix."""
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 255, (20, 16), np.uint8), rng.integers(0, 255, (20, 16, 3), np.uint8)
    volume = rng.integers(0, 900, (12, 10, 5), np.int16)
    found = {f"grey{suffix}": encode(grey, suffix) for suffix in (".png", ".bmp", ".tif", ".npy", ".npz", ".jpg")}
    found |= {f"colour{suffix}": encode(colour, suffix) for suffix in (".png", ".bmp", ".tif", ".npy", ".jpg")}
    found |= {f"volume{suffix}": encode(volume, suffix) for suffix in (".nii", ".nii.gz")}
    found["deep.png"] = encode(grey.astype(np.uint16) * 200, ".png")
    found["stack.tif"] = encode(rng.normal(size=(3, 20, 16)).astype(np.float32), ".tif")
    for name in ("zlib", "lzw", "packbits"):
        buffer = io.BytesIO()
        Image.fromarray(grey).save(
            buffer, "TIFF", compression={"zlib": "tiff_adobe_deflate", "lzw": "tiff_lzw"}.get(name, name)
        )
        found[f"{name}.tif"] = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(colour).quantize(16).save(buffer, "PNG")
    found["palette.png"] = buffer.getvalue()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "x.nii"
        nibabel.save(nibabel.Nifti2Image(volume, np.eye(4)), path)
        found["second.nii"] = path.read_bytes()
    buffer = io.BytesIO()
    np.savez(buffer, image=colour, channels=np.array(["a", "b", "c"]))
    found["named.npz"] = buffer.getvalue()
    return found


@st.composite
def damaged_files(draw) -> tuple[str, bytes]:
    """A damaged file of some format, or a whole one under another format's suffix."""
    name = draw(st.sampled_from(sorted(good_files())))
    data = good_files()[name]
    if draw(st.integers(0, 4)) == 0:
        return "other" + draw(suffixes), draw(st.one_of(st.just(data), strategies.damage(data)))
    return name, draw(strategies.damage(data))


RECORD = ImageRecord(
    "one",
    "x",
    (20, 16, 3),
    ("red", "green", "blue"),
    ValueMap((0.0,) * 3, (255.0,) * 3, (None,) * 3, "uint8", ("type",) * 3),
    "",
)


def use_damaged(example: tuple[str, bytes], folder: Path) -> None:
    """As a training image, as an image to inject, and as a mask: each is a clear line or success."""
    name, data = example
    (folder / name).write_bytes(data)
    refused = []
    for read in (
        lambda: load_images(DataConfig(path=str(folder))),
        lambda: inputs.read_pixels(str(folder / name), RECORD),
        lambda: inputs.read_pair(str(folder / name), str(folder / name), RECORD),
    ):
        try:
            read()
        except UserError as error:
            refused.append(error)
    if refused:
        raise refused[0]


@st.composite
def trees(draw) -> list[tuple[str, str]]:
    """Names in a folder and what lies there."""
    kinds = st.sampled_from(
        ["image", "image", "folder", "fifo", "outside", "loop", "dangling", "inside", "hidden", "long"]
    )
    return draw(st.lists(st.tuples(strategies.NAMES, kinds), min_size=1, max_size=4))


def use_tree(example: list[tuple[str, str]], folder: Path) -> None:
    inside, outside = folder / "images", folder / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    rng = np.random.default_rng(0)
    (outside / "secret.png").write_bytes(good_files()["colour.png"])
    there = 0
    for name, kind in example:
        path = inside / f"{name}.png"
        if os.path.lexists(path):
            continue
        try:
            match kind:
                case "image" | "hidden" | "long":
                    parent = inside / (name[:50].strip("/.") or "x") if kind == "long" else inside
                    parent.mkdir(exist_ok=True)
                    target = parent / f"{'.' if kind == 'hidden' else ''}{name}.png"
                    target.write_bytes(encode(rng.integers(0, 255, (8, 8, 3), np.uint8), ".png"))
                case "folder":
                    path.mkdir()
                case "fifo":
                    os.mkfifo(path)
                case "outside":
                    path.symlink_to(outside / "secret.png")
                case "loop":
                    path.symlink_to(path.name)
                case "dangling":
                    path.symlink_to("nothing.png")
                case "inside":
                    path.symlink_to(".")
        except (OSError, UnicodeEncodeError, ValueError):
            continue  # no name for this file system
        there += 1
    found = load_images(DataConfig(path=str(inside)))
    assert there
    assert all("secret" not in image.source and image.pixels.shape == (8, 8, 3) for image in found)
    assert all(image.source.isprintable() and (folder / f"{image.id}.npy").name == f"{image.id}.npy" for image in found)


paths = st.one_of(
    strategies.text,
    st.sampled_from(
        ["/dev/null", "/dev/zero", "/proc/self/mem", "**", "~nobody/x", "[", "{}", "x" * 300, "/", "/nowhere/*.png"]
    ),
)


def use_path(path: str, folder: Path) -> None:
    if path in ("", "/", "~", "**"):
        return  # the built-in example, or real folders
    (folder / "x.png").write_bytes(good_files()["colour.png"])
    for found in load_images(DataConfig(path=path if path.startswith(("/", "~")) else f"{folder}/{path}")):
        assert found.pixels.size


AREAS = [
    Area(
        "arrays as images",
        st.tuples(st.lists(st.tuples(strategies.arrays(), suffixes), min_size=1, max_size=2), settings),
        use_arrays,
        150,
        800,
    ),
    Area("damaged image files", damaged_files(), use_damaged, 200, 1500),
    Area("names and links", trees(), use_tree, 40, 250),
    Area("paths", paths, use_path, 40, 150),
]
