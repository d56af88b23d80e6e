"""Where things lie in a run's working directory, and the records that are read back: one place for names and formats.

config.json  run.json  images.json  images/<id>.npy  layouts/<id>.npy  metrics.jsonl  samples/
scales/03/{checkpoints,samples,DONE,trained_from.json}
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from singan import files
from singan.config import Config, parse, to_mapping, with_legacy_defaults
from singan.errors import UserError
from singan.files import AnyPath
from singan.value_map import ValueMap

# Of the whole directory; raised when an older version of this code could misread a newer one. What the older formats
# lack: 1 has no digests in config.json, images.json and run.json, and no metrics in parts. It is read as it is.
FORMAT = 2
DIGESTS_SINCE = 2


@dataclasses.dataclass(frozen=True)
class ImageRecord:
    """One image of the cohort: what is needed to name its outputs and to bring them back to the source's values."""

    id: str
    source: str  # file name within data.path, or the built-in example's name
    shape: tuple[int, int, int]  # height, width, channels
    channels: tuple[str, ...]
    value_map: ValueMap
    digest: str  # of the pixels as they are trained on
    # What else the source says of it, in JSON's own types: patient, slice, affine, tissue, how masks became channels.
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def given(self) -> int:
        """How many channels, the last ones, a conditional pyramid is given (config.data.condition); else 0."""
        return int(self.details.get("condition", {}).get("channels", 0))

    @property
    def condition_classes(self) -> int:
        """How many classes the objects of a layout may have."""
        return int(self.details["condition"]["classes"])

    @property
    def generated(self) -> int:
        """How many channels, the first ones, are generated."""
        return self.shape[2] - self.given


class DamagedRecord(UserError):
    """A record can be read, and is not what was written."""


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Paths of one run, in a directory or in a bucket."""

    path: AnyPath

    @property
    def config(self) -> AnyPath:
        return self.path / "config.json"

    @property
    def run(self) -> AnyPath:
        return self.path / "run.json"

    @property
    def images(self) -> AnyPath:
        return self.path / "images.json"

    @property
    def metrics(self) -> AnyPath:
        return self.path / "metrics.jsonl"

    def image(self, image_id: str) -> AnyPath:
        return self.path / "images" / f"{image_id}.npy"

    def layout(self, image_id: str) -> AnyPath:
        return self.path / "layouts" / f"{image_id}.npy"

    def scale(self, scale: int) -> AnyPath:
        return self.path / "scales" / f"{scale:02d}"

    def checkpoints(self, scale: int) -> AnyPath:
        return self.scale(scale) / "checkpoints"

    def scale_samples(self, scale: int) -> AnyPath:
        return self.scale(scale) / "samples"

    def done(self, scale: int) -> AnyPath:
        return self.scale(scale) / "DONE"

    def trained_from(self, scale: int) -> AnyPath:
        return self.scale(scale) / "trained_from.json"

    def folders(self) -> list[AnyPath]:
        """Returns the folders that there are and that files are written to, the checkpoints' own left out."""
        inner = [
            self.path / "images",
            self.path / "layouts",
            self.path / "tables",
            *self.path.glob("scales/*"),
            *self.path.glob("scales/*/samples"),
        ]
        return [folder for folder in (self.path, *inner) if folder.is_dir()]


def pixel_digest(pixels: np.ndarray) -> str:
    """Returns a digest (32 hex digits) of an image's values and shape."""
    content = f"{pixels.dtype} {pixels.shape}\n".encode() + np.ascontiguousarray(pixels).tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def write_config(workdir: Workdir, config: Config) -> None:
    """Writes config.json: the parsed configuration, the preset's values filled in."""
    _write(workdir.config, to_mapping(config))


def read_config(workdir: Workdir) -> Config:
    """Returns the configuration of a run; keys that did not exist when it was written have their legacy defaults.

    Raises:
      DamagedRecord: it is not what was written.
      UserError: there is no run here, it cannot be read, or a newer version wrote it.
    """
    return parse(with_legacy_defaults(_read(workdir.config)))


def write_run(workdir: Workdir, content: Mapping[str, Any]) -> None:
    """Writes run.json: id, status, starts and whatever else is said of the run as a whole."""
    _write(workdir.run, content)


def read_run(workdir: Workdir) -> dict[str, Any]:
    """Returns what run.json says. Raises UserError where it is missing, damaged, or of a newer version."""
    content = _read(workdir.run)
    starts = content.setdefault("starts", [])
    if not isinstance(content.get("id"), str) or not isinstance(starts, list):
        raise DamagedRecord(_damaged(workdir.run, "it lacks the run's id or starts"))
    if not all(isinstance(start, dict) for start in starts):
        raise DamagedRecord(_damaged(workdir.run, "one of its starts is no object"))
    return content


def write_images(workdir: Workdir, records: Sequence[ImageRecord]) -> None:
    """Writes images.json."""
    _write(workdir.images, {"images": [image_to_json(record) for record in records]})


def image_to_json(record: ImageRecord) -> dict[str, Any]:
    """Returns an image's entry in images.json."""
    return {**dataclasses.asdict(record), "value_map": record.value_map.to_json()}


def image_from_json(row: Mapping[str, Any]) -> ImageRecord:
    """Returns the record of an entry in images.json. Raises KeyError or TypeError where it is none."""
    return ImageRecord(
        row["id"],
        row["source"],
        tuple(row["shape"]),
        tuple(row["channels"]),
        ValueMap.from_json(row["value_map"]),
        row["digest"],
        row.get("details", {}),
    )


def read_images(workdir: Workdir) -> list[ImageRecord]:
    """Returns the cohort of a run in its order. Raises UserError where images.json is missing or damaged."""
    content = _read(workdir.images)
    try:
        rows = [image_from_json(row) for row in content["images"]]
        wrong = _wrong(rows)
    except (KeyError, TypeError, AttributeError) as error:
        wrong = f"{type(error).__name__} {error}"
    if wrong:
        raise DamagedRecord(_damaged(workdir.images, wrong))
    return rows


def _wrong(rows: Sequence[ImageRecord]) -> str:
    """Returns what in the records of images cannot be, or ''."""
    if not rows or len({row.id for row in rows}) < len(rows):
        return "it names no images, or one twice"
    for row in rows:
        if not re.fullmatch(r"[^/\\\0]{1,200}", row.id) or row.id in (".", ".."):
            return "an id that is no name of a file"  # and might lead out of the workdir
        if len(row.shape) != 3 or not all(type(side) is int and side > 0 for side in row.shape):
            return f"the shape of {row.id}"
        if not len(row.channels) == len(row.value_map.low) == row.shape[2]:
            return f"the channels of {row.id}"
        if not 0 <= row.given < row.shape[2]:
            return f"the condition of {row.id}"
        if not all(isinstance(text, str) for text in (row.source, row.digest, *row.channels)):
            return f"the text of {row.id}"
        if not isinstance(row.details, Mapping):
            return f"the details of {row.id}"
    return ""


def write_image(workdir: Workdir, image_id: str, pixels: np.ndarray) -> None:
    """Keeps a training image, float32 [H, W, C] in [-1, 1], with the run: its source may move, and commands need it."""
    path = workdir.image(image_id)
    files.make_directory(path.parent)
    files.write_npy(path, pixels)


def read_image(workdir: Workdir, record: ImageRecord) -> np.ndarray:
    """Returns a training image, float32 [H, W, C] in [-1, 1]. Raises UserError where it is missing or damaged."""
    return read_kept_array(workdir.image(record.id), record.digest)


def read_kept_array(path: AnyPath, digest: str) -> np.ndarray:
    """Returns an array that is kept with the run. Raises UserError where it is missing or not of this digest."""
    try:
        array = files.read_npy(path)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): start the training command again, which writes it anew"
        ) from None
    if pixel_digest(array) != digest:
        raise DamagedRecord(f"{path} is damaged: start the training command again, which writes it anew")
    return array


def has_image(workdir: Workdir, record: ImageRecord) -> bool:
    """Returns whether a training image is kept with the run, and whole."""
    try:
        read_image(workdir, record)
    except UserError:
        return False
    return True


def write_done(
    workdir: Workdir, scale: int, digests: Mapping[str, str], diverged: Mapping[str, int], trained_from: str = ""
) -> None:
    """Marks a scale as finished: one line per image with the digest of its weights, so that `cat` compares two runs.

    Args:
      trained_from: the digest of the run's origin, which is kept beside it.
    """
    lines = [
        f"{name} {digest}" + (f" diverged at step {diverged[name]}" if name in diverged else "")
        for name, digest in sorted(digests.items())
    ]
    if trained_from:
        _write(workdir.trained_from(scale), {"trained_from": trained_from})
    files.write_text(workdir.done(scale), "\n".join(lines) + "\n")


def read_trained_from(workdir: Workdir, scale: int) -> str | None:
    """Returns the digest of what a finished scale was trained from; None where it is missing or damaged."""
    if not files.exists(workdir.trained_from(scale)):
        return None
    try:
        digest = _read(workdir.trained_from(scale)).get("trained_from")
    except DamagedRecord:
        return None
    return digest if isinstance(digest, str) else None


def read_done(workdir: Workdir, scale: int) -> dict[str, str] | None:
    """Returns the digests by image id of a finished scale, or None where it is not finished or DONE is damaged."""
    try:
        lines = files.read_bytes(workdir.done(scale)).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    rows = [re.fullmatch(r"(\S+) ([0-9a-f]{32})(?: diverged at step \d+)?", line) for line in lines]
    if not rows or not all(rows):
        return None
    return {row[1]: row[2] for row in rows if row}


def _write(path: AnyPath, content: Mapping[str, Any]) -> None:
    content = files.plain(content)
    files.write_json(path, {"format": FORMAT, "digest": files.digest(content), **content})


def _read(path: AnyPath) -> dict[str, Any]:
    """Returns what `_write` was given; a file of an older format has no digest, and run.json of one no format."""
    if not files.exists(path):
        raise UserError(f"{path} does not exist: --workdir must be a directory that launch.train has trained in")
    try:
        content = files.read_json(path)
    except UserError as error:
        if str(error).startswith("cannot"):
            raise
        raise DamagedRecord(_damaged(path, str(error).partition(": ")[2])) from error
    if not isinstance(content, dict):
        raise DamagedRecord(_damaged(path, "it holds no JSON object"))
    written, digest = content.pop("format", 1 if path.name == "run.json" else None), content.pop("digest", None)
    if type(written) is not int or written < 1:
        raise DamagedRecord(_damaged(path, f"its format is {written!r}"))
    if written > FORMAT:
        raise UserError(
            f"{path} has format {written}, this version reads up to {FORMAT}: use the version of this project that"
            " wrote it, or a newer one"
        )
    if digest != files.digest(content) and (
        digest is not None or (written >= DIGESTS_SINCE and path.name != "run.json")
    ):
        raise DamagedRecord(_damaged(path, "its digest does not hold"))
    return content


def _damaged(path: AnyPath, why: str) -> str:
    advice = "bring it back from a copy"
    if path.name in ("config.json", "images.json"):
        advice += ", or start the run's own training command again: it writes the file anew where the weights tell"
        advice += " that they are of the same configuration and images"
    return f"{path} is damaged: {why}; {advice}"
