"""A run that has been trained, read back from its working directory, and what it can do."""

import dataclasses
import os
from collections.abc import Callable, Sequence

import jax
import numpy as np

from singan import files, links
from singan.config import Config
from singan.errors import UserError
from singan.model.condition import at_finest, condition_level, in_unit_range
from singan.model.convolution import conv_impl_for
from singan.model.layouts import Layout
from singan.model.pyramid import pyramid_of
from singan.model.spec import ScaleSpec, make_spec
from singan.model.state import TrainedScale
from singan.storage import workdir as records
from singan.storage.finished_scale import FinishedScale, image_padding, read_finished, trained_scales
from singan.storage.layout_files import read_layout
from singan.storage.origin import origin_of
from singan.storage.workdir import ImageRecord, Workdir


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

    def record(self, image_id: str) -> ImageRecord:
        return next(record for record in self.images if record.id == image_id)

    def pixels(self, image_id: str) -> np.ndarray:
        """Returns a training image, float32 [H, W, C] in [-1, 1], as it was read from its source."""
        return records.read_image(self.workdir, self.record(image_id))

    def finest(self, image_id: str) -> np.ndarray:
        """Returns a training image at the finest scale that is finished, float32 [h, w, C] in [-1, 1]."""
        pixels, channels, scale = self.pixels(image_id), self.spec.channels, len(self.scales) - 1
        level = self.spec.pyramid.level(pixels[..., :channels], scale)
        if not self.spec.condition:
            return level
        words, classes = self.config.data.condition, self.record(image_id).condition_classes
        drawn = at_finest(self.layout(image_id), words, classes, self.spec.pyramid)
        given = in_unit_range(condition_level(self.spec.pyramid, scale, drawn))
        return np.concatenate([level, np.asarray(given)], axis=-1)

    def layout(self, image_id: str) -> Layout:
        """Returns the layout of a training image of a conditional run. Raises UserError where it is damaged."""
        return read_layout(self.workdir, self.record(image_id))

    def check_unconditional(self) -> None:
        """Raises a UserError where the run is conditional: an image to be manipulated has no layout to give it."""
        if self.spec.condition:
            given = ", ".join(self.config.data.condition)
            raise UserError(
                f"{self.workdir.path} is conditional: beside every image its networks are given {given}, which an image"
                " to be manipulated has not; sample from it, or train a run without config.data.condition"
            )

    def trained(self, ids: Sequence[str]) -> tuple[TrainedScale, ...]:
        """Returns the trained scales of the named images, leading axis in their order."""
        return trained_scales(self.scales, ids)

    def reconstruction_noise(self, ids: Sequence[str]) -> np.ndarray:
        """Returns z* of scale 0, float32 [n, 1, h, w, 1]."""
        return self.scales[0].rows(ids)["reconstruction_noise"]

    def padding(self, ids: Sequence[str]) -> np.ndarray:
        """Returns what surrounds the previous image, float32 [n, C]."""
        paddings = [image_padding(self.config, self.record(name).value_map) for name in ids]
        return np.stack(paddings)[:, : self.spec.channels]


def load_run(path: str | os.PathLike, conv_impl: str = "", warn: Callable[[str], None] = lambda text: None) -> Run:
    """Returns the run of a working directory with all scales that are finished so far.

    Args:
      conv_impl: one of convolution.CONV_IMPLS; '' for that of the present platform.
      warn: told, in one line, of damaged files that are passed over.

    Raises:
      UserError: there is no run, it is damaged, cannot be read or holds links, its records are not those it was
        trained with, or no scale is finished yet.
    """
    workdir = Workdir(files.as_path(path))
    links.check_workdir(workdir.path)
    config = records.read_config(workdir)
    images = tuple(records.read_images(workdir))
    pyramid = pyramid_of(images[0].shape, config)
    conv_impl = conv_impl or conv_impl_for(jax.default_backend())
    spec = make_spec(config, pyramid, images[0].generated, conv_impl, condition=images[0].given)
    if _imported_wrongly(config, images[0]):
        warn(
            f"{workdir.path} was imported by an older version, which mistook what passes from scale to scale: its"
            " samples are not those of the model; import it again with launch.import_pytorch"
        )
    origin = origin_of(config, images)
    scales: list[FinishedScale] = []
    while len(scales) < len(pyramid):
        parent_fingerprint = scales[-1].fingerprint if scales else ""
        finished = read_finished(spec.at(len(scales)), workdir, origin, parent_fingerprint, warn)
        if finished is None:
            break
        scales.append(finished)
    if not scales:
        raise UserError(f"{workdir.path} has no finished scale yet: train it further with launch.train")
    return Run(workdir, config, images, spec, tuple(scales))


def _imported_wrongly(config: Config, image: ImageRecord) -> bool:
    """Returns whether an older version imported a run from PyTorch under a rule between scales that may be wrong.

    It had the rule for more than three channels wrong, and took the reference's where no rule fitted.
    """
    rule, unchecked = config.method.between_scales, "misfit" not in image.details and image.shape[2] > 3
    return "imported" in image.details and (rule == "uint8_rescaled" or unchecked)
