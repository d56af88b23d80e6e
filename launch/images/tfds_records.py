"""Images from data sets that `python -m datasets.build` prepared: tfds:brats/slices and tfds:pannuke.

Which records are wanted is decided on the index beside them, so that no other record is read: `choose` lists them, the
same on every host, and `read` reads those that a host is to train. Text comes out of TFDS as bytes, arrays read-only.
"""

import contextlib
import dataclasses
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from launch.images import record_images
from launch.images.found_images import TFDS, FoundImages, selection_keys
from launch.text import printable, some
from singan.config import DataConfig, nearest
from singan.errors import UserError
from singan.source_image import SourceImage

# Source -> its folder below the data_dir, and the command that builds it.
KNOWN = {"brats/slices": "brats", "brats": "brats", "pannuke": "pannuke"}
CONFIGS = {"brats": ("slices",), "pannuke": ()}
ONLY_OF = {
    "patients": "brats",
    "first_slice": "brats",
    "last_slice": "brats",
    "has_tumour": "brats",
    "min_brain": "brats",
    "tissues": "pannuke",
    "min_nuclei": "pannuke",
}


@dataclasses.dataclass(frozen=True)
class Record:
    """One record that was chosen: its id, the split it is in and its position there."""

    id: str
    split: str
    position: int


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared data set.

    Attributes:
      name: 'brats' or 'pannuke'.
      full_name: with config and version, such as 'brats/slices/1.0.0'.
      folder: where it lies.
      index: split -> column -> one entry per record, in their order.
    """

    name: str
    full_name: str
    folder: Path
    index: Mapping[str, Mapping[str, Sequence[Any]]]
    builder: Any


def find(data: DataConfig) -> FoundImages:
    """Returns the images that `data` names, sorted by id.

    Raises:
      UserError: the data set is not there, or a key names what it does not have.
    """
    prepared = open_prepared(data)
    records = choose(prepared, data)
    return FoundImages(
        tuple(record.id for record in records), lambda some: read(prepared, [records[i] for i in some], data)
    )


def open_prepared(data: DataConfig) -> Prepared:
    """Returns the data set that data.source names in data.path; of several versions the newest, unless one is named."""
    given = data.source.removeprefix(TFDS)
    match = re.fullmatch(r"(.+?)(?:[:/](\d+\.\d+\.\d+))?", given)
    if not match or match[1] not in KNOWN:
        known = [f"{TFDS}{name}" for name in ("brats/slices", "pannuke")]
        raise UserError(
            f"config.data.source={data.source!r} is not one of {', '.join(known)}{nearest(data.source, known)}"
        )
    name = KNOWN[match[1]]
    root = Path(data.path or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    place = root.joinpath(name, *CONFIGS[name])
    command = f"python -m datasets.build {name} --manual_dir=DOWNLOAD --data_dir={root}"
    try:
        versions = [entry.name for entry in place.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", entry.name)]
    except OSError:
        versions = []
    if not versions or (match[2] and match[2] not in versions):
        there = f"it holds {', '.join(sorted(versions))}" if versions else "there is none"
        raise UserError(
            f"no prepared data set in {printable(str(place / (match[2] or 'VERSION')))} ({there}): build it with"
            f" {printable(command)}, or say where it is with --config.data.path=DATA_DIR"
        )
    folder = place / (match[2] or max(versions, key=lambda version: [int(part) for part in version.split(".")]))
    try:
        builder = tfds.builder_from_directory(folder)
        metadata: Any = builder.info.metadata
        index = metadata["index"]
        assert all(len(index[split]["id"]) == info.num_examples for split, info in builder.info.splits.items())
    except Exception as error:  # TFDS raises nearly anything on a damaged folder
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{printable(str(folder))} was not written whole by this repository's builder ({reason}):"
            f" {printable(command)} --overwrite"
        ) from error
    return Prepared(name, builder.info.full_name, folder, index, builder)


def choose(prepared: Prepared, data: DataConfig) -> list[Record]:
    """Returns the records that `data` asks for, sorted by id; none of them is read.

    In the order of the data set: those of the splits that all keys keep and that have the channels; of these every
    k-th; of these max_images. The choice depends on the data set and the keys alone.

    Raises:
      UserError: a key does not apply, names what is not there, or nothing is left.
    """
    for key in selection_keys(data):
        if ONLY_OF.get(key, prepared.name) != prepared.name:
            raise UserError(
                f"config.data.{key} does not apply to {prepared.name}, only to {ONLY_OF[key]}: leave it out"
            )
    splits = _splits(prepared, data.split)
    rows = [
        (Record(row["id"], split, position), row)
        for split in splits
        for position, row in enumerate(_rows(prepared.index[split]))
    ]
    for key, column in (("ids", "id"), ("patients", "patient"), ("tissues", "tissue")):
        if wanted := getattr(data, key):
            known = {row[column] for _, row in rows}
            if unknown := [value for value in wanted if value not in known]:
                raise UserError(
                    f"config.data.{key}: {unknown[0]!r} is not in {prepared.full_name}{nearest(unknown[0], known)};"
                    f" it has {some(sorted(known), 5)}"
                )
    if data.masks:
        raise UserError(f"config.data.masks is for images of config.data.path; {prepared.full_name} has its own")
    channels = record_images.channels_of(prepared.name, data.channels)
    channels += ("seg",) if prepared.name == "brats" and data.condition else ()
    kept = [(record, row) for record, row in rows if _wanted(prepared.name, row, data)]
    complete = [record for record, row in kept if record_images.has_channels(row, channels)]
    if len(complete) < len(kept):
        print(
            f"note: {len(kept) - len(complete)} of {len(kept)} chosen records lack one of {', '.join(channels)} and are"
            " left out",
            file=sys.stderr,
        )
    chosen = complete[:: data.every]
    if data.max_images and data.shuffle_seed >= 0:
        order = np.random.default_rng(data.shuffle_seed).permutation(len(chosen))
        chosen = [chosen[i] for i in order]
    chosen = chosen[: data.max_images or None]
    if not chosen:
        keys = ", ".join(f"config.data.{key}={getattr(data, key)!r}" for key in selection_keys(data)) or "no key given"
        raise UserError(
            f"none of the {len(rows)} records of {prepared.full_name} is wanted ({keys}), or none has the channels"
            f" {', '.join(channels)}: widen the choice"
        )
    return sorted(chosen, key=lambda record: record.id)


def read(prepared: Prepared, records: Sequence[Record], data: DataConfig) -> list[SourceImage]:
    """Returns the images of the records, in their order; only these records are read.

    Raises:
      UserError: a record cannot be read, or cannot be trained on; the text names it.
    """
    make: Callable[..., SourceImage] = {"brats": record_images.slice_image, "pannuke": record_images.patch_image}[
        prepared.name
    ]
    open_split = functools.cache(prepared.builder.as_data_source)
    images = []
    with _quiet():
        for record in records:
            try:
                example = open_split(record.split)[record.position]
                assert example["id"].decode() == record.id
            except Exception as error:  # the file formats raise nearly anything on a damaged file
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise UserError(
                    f"{record.id} of {prepared.full_name} cannot be read ({reason}): build the data set again with"
                    " --overwrite"
                ) from error
            try:
                images.append(make(example, f"{prepared.full_name}/{record.split}", data))
            except UserError as error:
                raise UserError(f"{record.id}: {error}") from error
    return images


def _splits(prepared: Prepared, wanted: str) -> list[str]:
    names = [name.strip() for name in wanted.split("+")] if wanted.strip() else list(prepared.index)
    for name in names:
        if name not in prepared.index:
            raise UserError(
                f"config.data.split: {name!r} is not a split of {prepared.full_name}{nearest(name, prepared.index)};"
                f" it has {', '.join(prepared.index)}, and 'a+b' takes both"
            )
    return [name for name in prepared.index if name in names]


def _rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _wanted(name: str, row: Mapping[str, Any], data: DataConfig) -> bool:
    if data.ids and row["id"] not in data.ids:
        return False
    if name == "brats":
        last = np.inf if data.last_slice < 0 else data.last_slice
        tumour = {"any": True, "yes": row["has_tumour"], "no": row["has_seg"] and not row["has_tumour"]}
        return (
            (not data.patients or row["patient"] in data.patients)
            and data.first_slice <= row["slice_index"] <= last
            and tumour[data.has_tumour]
            and row["brain_fraction"] >= data.min_brain
        )
    return (not data.tissues or row["tissue"] in data.tissues) and row["num_nuclei"] >= data.min_nuclei


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS from recommending OpenCV on every run."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
