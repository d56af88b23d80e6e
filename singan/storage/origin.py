"""What the weights of a run come from, as a digest that every checkpoint carries and that lies beside every DONE.

So a run whose config.json or images.json is lost or replaced is still known by its weights. Without JAX and Orbax.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from singan import files
from singan.config import Config
from singan.errors import UserError
from singan.resuming import training_values
from singan.storage import checkpoint_files
from singan.storage import workdir as records
from singan.storage.workdir import ImageRecord, Workdir
from singan.value_map import ValueMap


@dataclasses.dataclass(frozen=True)
class Origin:
    """What the weights of a run come from."""

    ids: tuple[str, ...]  # of the images
    digest: str  # 32 hex digits
    pixels_alone: str = ""  # the digest without the images' value maps, which the first checkpoints with digests say

    def is_said_by(self, trained_from: str) -> bool:
        """Returns whether weights that say this digest, which is not '', are of this origin."""
        return trained_from in (self.digest, self.pixels_alone)


class OtherOrigin(UserError):
    """Weights were trained from something else than the run is said to be."""


def origin_of(config: Config, images: Sequence[ImageRecord]) -> Origin:
    """Returns the origin of a run.

    An image's digest is of its pixels in [-1, 1], which do not tell the source's values: 0 to 100 and 0 to 200 may give
    the same. So the value maps belong to it too, without the rules that they were found by.
    """
    alone = origin_of_pixels(config, {image.id: image.digest for image in images})
    maps = {image.id: _as_stored(image.value_map) for image in images}
    return Origin(alone.ids, files.digest(files.plain({"pixels": alone.digest, "value_maps": maps})), alone.digest)


def _as_stored(value_map: ValueMap) -> dict[str, Any]:
    """Returns a map as images.json would give it back, so that 0 and 0.0 are one; rules are notes for people."""
    return {**ValueMap.from_json(value_map.to_json()).to_json(), "rules": []}


def origin_of_pixels(config: Config, images: Mapping[str, str]) -> Origin:
    """Returns the origin of a training on pixels in [-1, 1] whose source values nobody knows.

    Args:
      images: the digest of each image's pixels by its id.
    """
    content = {"config": training_values(config), "images": dict(images)}
    return Origin(tuple(images), files.digest(files.plain(content)))


def check_origin(workdir: Workdir, origin: Origin) -> list[str]:
    """Returns the folders of the scales that do not say what they were trained from: an earlier version's.

    Raises:
      OtherOrigin: a scale says that it was trained from something else.
      UserError: a checkpoint cannot be read.
    """
    silent = []
    for folder in sorted(path for path in workdir.path.glob("scales/*") if path.name.isdecimal()):
        scale = int(folder.name)
        said = [str(about.get("trained_from", "")) for about in checkpoint_files.abouts(workdir.checkpoints(scale))]
        if mark := records.read_trained_from(workdir, scale):
            said.append(mark)
        if any(one and not origin.is_said_by(one) for one in said):
            raise OtherOrigin(
                f"{folder} was trained with another configuration or on other images than this run's: bring back the"
                " run's own config.json and images.json, or choose another --workdir"
            )
        if not any(said) and (said or files.exists(workdir.done(scale))):
            silent.append(str(folder))
    return silent
