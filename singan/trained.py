"""A cohort's trained scales as they lie on the host, and the run that they were read from."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from singan import workdir as records
from singan.checkpoints import ScaleCheckpoints, unflatten
from singan.config import Config
from singan.errors import UserError
from singan.networks import initial_variables
from singan.pyramid import plan
from singan.shapes import PyTree
from singan.spec import ScaleSpec, make_spec
from singan.state import TrainedScale
from singan.value_map import ValueMap
from singan.workdir import ImageRecord, Workdir


@dataclasses.dataclass(frozen=True)
class FinishedScale:
    """What a cohort leaves at a scale; every array has a leading axis, one entry per id. All arrays are NumPy's."""

    ids: tuple[str, ...]
    diverged: dict[str, int]  # image id -> the step at which something was not finite
    weights: PyTree  # {'trained': TrainedScale, 'critic': variables, 'reconstruction', 'reconstruction_noise'}
    digests: dict[str, str]

    @property
    def surviving(self) -> tuple[str, ...]:
        """The ids that go on to the next scale."""
        return tuple(name for name in self.ids if name not in self.diverged)

    @property
    def fingerprint(self) -> str:
        """A digest of all that the next scale is trained on."""
        text = "\n".join(f"{name} {self.digests[name]}" for name in self.surviving)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def rows(self, ids: Sequence[str]) -> PyTree:
        """Returns the weights of the named images, in their order."""
        index = [self.ids.index(name) for name in ids]
        return jax.tree.map(lambda leaf: leaf[index], self.weights)


def weights_template(spec: ScaleSpec) -> PyTree:
    """Returns the tree of one image's weights at a scale, as `FinishedScale.weights` has them, with any values."""
    rng = np.random.default_rng(0)
    height, width = spec.size
    return {
        "trained": TrainedScale(initial_variables(spec.generator, spec.channels, rng), np.zeros((), np.float32)),
        "critic": initial_variables(spec.critic, spec.channels, rng),
        "reconstruction": np.zeros((1, height, width, spec.channels), np.float32),
        "reconstruction_noise": np.zeros((1, height, width, 1), np.float32) if spec.scale == 0 else None,
    }


def read_finished(spec: ScaleSpec, workdir: Workdir, below: str, warn: Callable[[str], None]) -> FinishedScale | None:
    """Returns a scale whose final weights are there and whole, or None; what is damaged is warned of and removed.

    Args:
      below: the fingerprint of the scale below (`FinishedScale.fingerprint`, '' at scale 0); weights that were trained
        on other ones do not count.
    """
    directory = workdir.checkpoints(spec.scale)
    if not directory.is_dir():
        return None
    with ScaleCheckpoints(directory, warn) as checkpoints:
        found = checkpoints.latest()
    if found is None or found[2].get("kind") != "weights" or found[2].get("below") != below:
        return None
    _, flat, about = found
    weights = unflatten(weights_template(spec), flat)
    return FinishedScale(tuple(about["images"]), dict(about["diverged"]), weights, dict(about["digests"]))


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has been trained, or is so in part: its configuration, images and finished scales."""

    workdir: Workdir
    config: Config
    images: tuple[ImageRecord, ...]
    spec: ScaleSpec  # of scale 0; spec.at(s) gives the others
    scales: tuple[FinishedScale, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The images that every finished scale has trained without diverging."""
        return self.scales[-1].surviving

    def image(self, image_id: str) -> ImageRecord:
        return next(record for record in self.images if record.id == image_id)

    def trained(self, ids: Sequence[str]) -> tuple[TrainedScale, ...]:
        """Returns the trained scales of the named images, leading axis in their order."""
        return tuple(scale.rows(ids)["trained"] for scale in self.scales)

    def reconstruction_noise(self, ids: Sequence[str]) -> np.ndarray:
        """Returns z* of scale 0, float32 [n, 1, h, w, 1]."""
        return self.scales[0].rows(ids)["reconstruction_noise"]

    def padding(self, ids: Sequence[str]) -> np.ndarray:
        """Returns what surrounds the previous image, float32 [n, C]."""
        return np.stack([image_padding(self.config, self.image(name).value_map) for name in ids])


def image_padding(config: Config, value_map: ValueMap) -> np.ndarray:
    """Returns float32 [C] in [-1, 1]: the background of each channel where the method pads with it, else 0."""
    padding = value_map.padding.astype(np.float32)
    return padding if config.method.padding == "background" else np.zeros_like(padding)


def load_run(path: str | os.PathLike, form: str = "", warn: Callable[[str], None] = lambda text: None) -> Run:
    """Returns the run of a working directory with all scales that are finished so far.

    Args:
      form: the convolution's (convolution.FORMS); '' for that of the present platform.
      warn: told, in one line, of damaged files that are passed over.

    Raises:
      UserError: there is no run, it is damaged, or no scale is finished yet.
    """
    from singan.convolution import form_for

    workdir = Workdir(Path(path))
    config = records.read_config(workdir)
    images = tuple(records.read_images(workdir))
    height, width, channels = images[0].shape
    pyramid = plan(height, width, config.pyramid, str(config.method.resize_border))
    spec = make_spec(config, pyramid, channels, form or form_for(jax.default_backend()))
    scales: list[FinishedScale] = []
    while len(scales) < len(pyramid):
        below = scales[-1].fingerprint if scales else ""
        finished = read_finished(spec.at(len(scales)), workdir, below, warn)
        if finished is None:
            break
        scales.append(finished)
    if not scales:
        raise UserError(f"{workdir.path} has no finished scale yet: train it further with launch.train")
    return Run(workdir, config, images, spec, tuple(scales))
