"""What a trained run can do, from Python: `singan.load_run(workdir)`.

Everything takes and gives arrays in the source's own values, [H, W, C] with the run's channels, and returns float32.
The modules underneath (sampling, manipulation, super_resolution, animation) work on [-1, 1] and on whole cohorts.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from singan.errors import UserError
from singan.model.layouts import Rule
from singan.sampling import animation, fine_tuning, manipulation, masks, pairs, samples, super_resolution
from singan.sampling.manipulation import Input
from singan.sampling.masks import MaskRule
from singan.storage import run


class TrainedRun(run.Run):
    """A run with its images (`ids`), and everything that can be made with it."""

    def sample(
        self,
        num_samples: int = 16,
        start_scale: int = 0,
        images: Sequence[str] = (),
        size: tuple[float, float] = (1.0, 1.0),
        seed: int = 0,
        batch: int = 64,
        temperature: float = 1.0,
    ) -> dict[str, np.ndarray]:
        """Returns random samples by image id, each [num_samples, H, W, C].

        Of a conditional run the last channels are those that the samples were given: at start scale 0 new layouts of
        the image's objects, above it the image's own.

        Args:
          start_scale: at which fresh noise begins; what is coarser is the training image's.
          images: ids; () for all.
          size: height and width in multiples of the training image's.
          temperature: faithful or various: 0 gives the reconstruction, 1 samples as in training, more goes beyond it.
        """
        names = list(images) or list(self.ids)
        drawn: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for some in samples.draw(self, names, num_samples, start_scale, size, seed, batch, temperature=temperature):
            for name, pixels in zip(some.ids, some.pixels, strict=True):
                drawn[name].append(self._values(name, pixels))
        return {name: np.concatenate(parts) for name, parts in drawn.items()}

    def pairs(
        self,
        batch: int = 16,
        seed: int = 0,
        worker: int = 0,
        workers: int = 1,
        images: Sequence[str] = (),
        density: float = 1.0,
    ) -> Iterator[dict[str, Any]]:
        """Yields batches of new images and their exact masks without end, from many pyramids in one device call.

        A batch depends on (seed, its number) alone; of several workers each yields every `workers`-th.

        Args:
          images: ids of the pyramids; () for all.
          density: objects per area, in multiples of the training image's.

        Yields:
          image: float32 [batch, H, W, C] in the source's values. objects: int32 [batch, H, W], an id at each pixel of
          an object. classes: uint8 [batch, H, W]. ids: of the pyramids that made them.

        Raises:
          UserError: the run is not conditional.
        """
        source = pairs.Pairs(self, batch, seed, images, Rule(density))
        return source.numbered(itertools.count(worker, workers))

    def harmonize(
        self,
        image: str,
        composites: Sequence[np.ndarray],
        composite_masks: Sequence[np.ndarray],
        start_scale: int = 2,
        rule: MaskRule = masks.HARMONIZE,
        num_samples: int = 1,
        seed: int = 0,
        fine_tune_steps: int = 0,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Returns composites made to fit the training image, [number of composites, num_samples, H, W, C].

        Args:
          composites: the training image with something pasted in.
          composite_masks: [H, W], where it was pasted: labels that are not 0, or grey above its middle.
          fine_tune_steps: train the finest scale that much further on each composite (ConSinGAN).
          temperature: a factor of the noise that is added on the way.
        """
        self.check_unconditional()
        inputs = [
            Input(image, f"composite {i}", self._unit(image, pixels), masks.binary_mask(mask, f"mask {i}"))
            for i, (pixels, mask) in enumerate(zip(composites, composite_masks, strict=True))
        ]
        tuned = None
        if fine_tune_steps:
            tuned = fine_tuning.fine_tune_to_composites(self, inputs, start_scale, fine_tune_steps, seed)
        made = manipulation.harmonize(
            self, inputs, start_scale, rule, num_samples, seed, trained=tuned, temperature=temperature
        )
        return np.stack([self._values(image, _blended(result)) for result in made])

    harmonise = harmonize

    def edit(
        self,
        image: str,
        edited: Sequence[np.ndarray],
        edit_masks: Sequence[np.ndarray],
        start_scale: int = 2,
        num_samples: int = 1,
        seed: int = 0,
    ) -> np.ndarray:
        """Returns edited images made to look real: `harmonize` with the mask rule of editing."""
        return self.harmonize(image, edited, edit_masks, start_scale, masks.EDIT, num_samples, seed)

    def paint(
        self, image: str, paintings: Sequence[np.ndarray], start_scale: int = 1, num_samples: int = 1, seed: int = 0
    ) -> np.ndarray:
        """Returns paintings turned into images, [number of paintings, num_samples, H, W, C]."""
        self.check_unconditional()
        inputs = [Input(image, f"painting {i}", self._unit(image, pixels)) for i, pixels in enumerate(paintings)]
        made = manipulation.paint(self, inputs, start_scale, num_samples, seed)
        return np.stack([self._values(image, result.raw) for result in made])

    def super_resolve(self, image: str, factor: float = 4.0, pixels: np.ndarray | None = None) -> np.ndarray:
        """Returns the training image, or another, `factor` times as large."""
        self.check_unconditional()
        given = self.finest(image) if pixels is None else self._unit(image, pixels)
        return self._values(image, super_resolution.super_resolve(self, [image], [given], factor)[0])

    def animate(self, image: str, num_frames: int = 60, start_scale: int = 0, beta: float = 0.9) -> np.ndarray:
        """Returns an animation of the training image, [num_frames, H, W, C]."""
        self.check_unconditional()
        return self._values(image, animation.animate(self, [image], num_frames, start_scale, beta)[0])

    def _values(self, image: str, pixels: np.ndarray) -> np.ndarray:
        return self.record(image).value_map.invert(pixels)

    def _unit(self, image: str, values: np.ndarray) -> np.ndarray:
        value_map, given = self.record(image).value_map, np.asarray(values)
        if given.ndim != 3 or given.shape[-1] != len(value_map.low):
            raise UserError(f"an image of this run is [H, W, {len(value_map.low)}], not {list(given.shape)}")
        return value_map.apply(given)


def load_run(path: str | os.PathLike, form: str = "", warn: Callable[[str], None] = lambda text: None) -> TrainedRun:
    """Returns the run of a working directory with all scales that are finished so far; see run.load_run."""
    trained_run = run.load_run(path, form, warn)
    return TrainedRun(**{field.name: getattr(trained_run, field.name) for field in dataclasses.fields(trained_run)})


def _blended(result: manipulation.Result) -> np.ndarray:
    assert result.blended is not None  # there was a mask
    return result.blended
