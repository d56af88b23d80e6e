"""What the weights of a run come from, as a digest that every checkpoint carries and that lies beside every DONE.

So a run whose config.json or images.json is lost or replaced is still known by its weights. Without JAX and Orbax.
"""

import dataclasses
from collections.abc import Mapping

from singan import files
from singan.config import Config, training_values
from singan.errors import UserError
from singan.storage import checkpoint_files
from singan.storage import workdir as records
from singan.storage.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Origin:
    """What the weights of a run come from."""

    ids: tuple[str, ...]  # of the images
    digest: str  # 32 hex digits


class OtherOrigin(UserError):
    """Weights were trained from something else than the run is said to be."""


def origin_of(config: Config, images: Mapping[str, str], donor: str = "") -> Origin:
    """Returns the origin of a run.

    Args:
      images: the digest of each image's pixels by its id.
      donor: the digest of weights that the training starts from, where there are such.
    """
    content = {"config": training_values(config), "images": dict(images), **({"donor": donor} if donor else {})}
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
        said = checkpoint_files.origins(workdir.checkpoints(scale))
        if mark := records.read_trained_from(workdir, scale):
            said.append(mark)
        if any(one not in ("", origin.digest) for one in said):
            raise OtherOrigin(
                f"{folder} was trained with another configuration or on other images than this run's: bring back the"
                " run's own config.json and images.json, or choose another --workdir"
            )
        if origin.digest not in said and (said or files.exists(workdir.done(scale))):
            silent.append(str(folder))
    return silent
