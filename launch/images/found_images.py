"""The images that a configuration names, before they are read; and which keys choose among records."""

import dataclasses
from collections.abc import Callable, Sequence

from singan.config import DataConfig
from singan.source_image import SourceImage

TFDS = "tfds:"

SELECTION = (
    "split",
    "ids",
    "patients",
    "first_slice",
    "last_slice",
    "has_tumour",
    "min_brain",
    "tissues",
    "min_nuclei",
    "every",
    "shuffle_seed",
)


@dataclasses.dataclass(frozen=True)
class FoundImages:
    """The images that the configuration names, sorted by id, none of which is read yet.

    Attributes:
      ids: one per image.
      read: given positions among them, returns these images.
    """

    ids: tuple[str, ...]
    read: Callable[[Sequence[int]], list[SourceImage]]


def selection_keys(data: DataConfig) -> list[str]:
    """Returns the keys that choose records of a TFDS source and were given, in the order of the configuration."""
    default = dataclasses.asdict(DataConfig())
    given = dataclasses.asdict(data)
    return [key for key in SELECTION if given[key] != default[key]]
