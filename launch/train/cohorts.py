"""The cohorts that a command is to train: each process finds all images, reads its own, and knows of the others'."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from launch.images.find import check_comparable, find_images, shape_key
from singan.config import Config, flatten, to_mapping
from singan.errors import UserError
from singan.files import AnyPath
from singan.model.pyramid import Pyramid, pyramid_of
from singan.model.spec import make_spec
from singan.parallel.processes import Processes, shares
from singan.source_image import SourceImage
from singan.storage.run_record import code_version, record_of
from singan.storage.workdir import ImageRecord, Workdir, image_from_json, image_to_json


@dataclasses.dataclass(frozen=True, eq=False)
class Cohort:
    """Images of one shape, which train together.

    Attributes:
      images: those of this process.
      rows: of all images, in the cohort's order.
      by_process: the ids of each process's images.
    """

    workdir: Workdir
    images: list[SourceImage]
    rows: list[ImageRecord]
    by_process: list[list[str]]
    pyramid: Pyramid

    @property
    def most(self) -> int:
        """Images of the process that has the most."""
        return max(map(len, self.by_process))

    @property
    def channels(self) -> tuple[str, ...]:
        return self.rows[0].channels

    @property
    def generated(self) -> int:
        """How many channels, the first ones, are generated."""
        return self.rows[0].generated

    @property
    def given(self) -> int:
        """How many channels, the last ones, are given; 0 unless the run is conditional."""
        return self.rows[0].given

    def widest(self, config: Config) -> int:
        """Returns the features of its widest network, which is the finest scale's."""
        return make_spec(config, self.pyramid, len(self.channels), "direct", len(self.pyramid) - 1).width


def load_cohorts(config: Config, root: AnyPath, processes: Processes | None = None) -> list[Cohort]:
    """Returns the cohorts that the configuration names: one, or one per shape; nothing is written.

    Raises:
      UserError: as launch.images.find does; the processes run different code, configurations or images; an image is too
        small. It is raised in all processes.
    """
    everyone = processes or Processes()
    listed = everyone.run_on_all(lambda: find_images(config.data))
    check_same(everyone, config, root, listed.ids)
    own = shares(len(listed.ids), everyone.count)[everyone.index]
    images = everyone.run_on_all(lambda: listed.read(own))
    parts = everyone.all_gather([image_to_json(record_of(image)) for image in images])
    parts = [[image_from_json(row) for row in part] for part in parts]
    rows = [row for part in parts for row in part]
    everyone.run_on_all(lambda: check_comparable(config.data, [(row.source, row.shape, row.channels) for row in rows]))
    shapes = sorted({row.shape for row in rows}, key=lambda shape: shape[:2])
    cohorts = []
    for shape in shapes:
        of_shape = [row for row in rows if row.shape == shape]
        cohorts.append(
            Cohort(
                Workdir(root / shape_key(shape) if config.data.group_by_shape else root),
                [image for image in images if image.pixels.shape == shape],
                of_shape,
                [[row.id for row in part if row.shape == shape] for part in parts],
                everyone.run_on_all(lambda shape=shape: pyramid_of(shape, config)),
            )
        )
    return cohorts


def check_same(processes: Processes, config: Config, root: AnyPath, ids: Sequence[str]) -> None:
    """Raises UserError, in all processes, where they were not started with the same code for the same training."""
    if processes.count == 1:
        return
    names = hashlib.blake2b("\n".join(ids).encode(), digest_size=8).hexdigest()
    here = {
        "code": flatten(code_version()),
        "configuration": {key: str(value) for key, value in flatten(to_mapping(config)).items()},
        "workdir": {"--workdir": str(root)},
        "list of images": {"images": f"{len(ids)} images, {ids[0]} to {ids[-1]}, digest {names}"},
    }
    everyone = processes.all_gather(here)

    def compare() -> None:
        for index, there in enumerate(everyone):
            for what, first in everyone[0].items():
                keys = [key for key in {**first, **there[what]} if first.get(key) != there[what].get(key)]
                if keys:
                    values = "; ".join(
                        f"{key}: {_shown(first, key)} and {_shown(there[what], key)}" for key in keys[:3]
                    )
                    more = f"; and {len(keys) - 3} more" if len(keys) > 3 else ""
                    raise UserError(
                        f"{processes.name(0)} and {processes.name(index)} differ in their {what} ({values}{more}):"
                        " start the same command from the same code on every host"
                    )

    processes.run_on_all(compare)


def _shown(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "nothing"
