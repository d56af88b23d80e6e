"""What the images of a cohort open a scale with, on the host: their states and the inputs of their training."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from singan.config import Config
from singan.model import scale_start
from singan.model.condition import condition_levels, in_unit_range
from singan.model.generation import upsample_to_next_scale
from singan.model.noise import image_key_data
from singan.model.spec import ScaleSpec
from singan.model.state import ScaleInputs, ScaleState, TrainedScale, hyperparameters
from singan.parallel import cohort
from singan.shapes import PyTree
from singan.storage.finished_scale import FinishedScale, trained_scales


@dataclasses.dataclass(frozen=True)
class TrainingImage:
    """One image of the cohort."""

    id: str
    pixels: np.ndarray  # float32 [H, W, C] in [-1, 1]
    padding: np.ndarray  # float32 [C] in [-1, 1]
    # What a conditional pyramid is given: the layouts that its training draws from, uint8 [P, h, w, K] at the finest
    # scale, the image's own first (condition.make_pool).
    layouts: np.ndarray | None = None


class ScaleSetup:
    """Opens one scale for images, given all finished scales below it."""

    def __init__(
        self,
        config: Config,
        spec: ScaleSpec,
        images: Sequence[TrainingImage],
        finished: Sequence[FinishedScale],
        mesh: Mesh,
    ):
        """Args: mesh: over devices of this process, whose images these are."""
        self._config, self._spec, self._images, self._finished, self._mesh = config, spec, images, finished, mesh
        self._ids = tuple(image.id for image in images)
        self._coarsest = spec.scale - len(spec.co_trained)  # of the scales that train

    def states(self) -> list[ScaleState]:
        """Returns what each image's training starts from."""
        return [self.state(index) for index in range(len(self._images))]

    def state(self, index: int) -> ScaleState:
        """Returns what one image's training starts from."""
        spec, image = self._spec, self._images[index]
        of_image = lambda tree: jax.tree.map(lambda leaf: leaf[index], tree)  # noqa: E731
        inherited = None
        if spec.continues_previous_scale:
            inherited = of_image((self._previous_weights["trained"].generator, self._previous_weights["critic"]))
        co_trained = of_image(tuple(self._trained[scale].generator for scale in spec.co_trained))
        noise = None
        if spec.scale == 0:
            noise = np.asarray(scale_start.starting_noise(spec, image_key_data(self._config.seed, image.id)))
        elif self._coarsest == 0:
            noise = of_image(self._reconstruction_noise)
        return scale_start.starting_state(spec, self._config.seed, image.id, noise, inherited, co_trained)

    def inputs(self) -> list[ScaleInputs]:
        """Returns the inputs of each image; what needs the device is computed image by image in one program."""
        spec, images = self._spec, self._images
        if not images:  # of this process, of several
            return []
        reals = np.stack([spec.pyramid.level(image.pixels, spec.scale)[None] for image in images])
        if spec.scale == 0:
            previous, amplitude = np.zeros_like(reals), np.ones(len(reals), np.float32)
        else:
            program = cohort.parallel(lambda *one: scale_start.open_scale(spec, *one), self._mesh)
            train = self._config.train
            least = (train.min_noise_amplitude or 0) * (train.min_noise_decay or 0) ** (spec.scale - 1)
            numbers = (train.noise_weight, least)
            arrays = (
                self._previous_weights["reconstruction"],
                reals,
                *(np.full(len(reals), number, np.float32) for number in numbers),
            )
            previous, amplitude = self._call(("open", spec), program, *arrays)
        if self._coarsest < spec.scale:
            previous = self._frozen_reconstruction()
        trained, conditions = self._trained[: self._coarsest], self._conditions()
        return [
            ScaleInputs(
                reals[i],
                previous[i],
                image.padding,
                amplitude[i],
                image_key_data(self._config.seed, image.id),
                jax.tree.map(lambda leaf, i=i: leaf[i], trained),
                hyperparameters(self._config.train, len(spec.co_trained) + 1, spec.steps),
                co_trained_amplitudes=tuple(self._trained[scale].amplitude[i] for scale in spec.co_trained),
                conditions=tuple(pools[i] for pools in conditions),
            )
            for i, image in enumerate(images)
        ]

    @functools.cached_property
    def _previous_weights(self) -> PyTree:
        return self._finished[-1].rows(self._ids)

    @functools.cached_property
    def _trained(self) -> tuple[TrainedScale, ...]:
        """All scales below; the older ones that train on are where this scale's training takes them up."""
        return trained_scales(self._finished, self._ids)

    @functools.cached_property
    def _reconstruction_noise(self) -> np.ndarray:
        return self._finished[0].rows(self._ids)["reconstruction_noise"]

    def _conditions(self) -> tuple[np.ndarray, ...]:
        """Returns the pools of layouts at scales 0 .. scale, uint8 [n, P, h, w, K]; () without a condition."""
        spec = self._spec
        if not spec.condition:
            return ()
        program = cohort.parallel(lambda pool: condition_levels(spec.pyramid, pool, spec.scale), self._mesh)
        return self._call(("conditions", spec), program, np.stack([np.asarray(one.layouts) for one in self._images]))

    def _frozen_reconstruction(self) -> np.ndarray:
        """Returns what the frozen scales make of the images at the coarsest scale that trains, [n, 1, h, w, C].

        It is made anew, because those scales have trained on since each of them left its own.
        """
        coarsest, (height, width) = self._spec.at(self._coarsest), self._spec.pyramid.sizes[0]
        start = np.zeros((1, height, width, coarsest.channels), np.float32)
        if coarsest.scale == 0:
            return np.stack([start] * len(self._images))

        def through(trained, reconstruction_noise, padding, own):
            frozen_spec = coarsest.at(coarsest.scale - 1)
            conditions = tuple(in_unit_range(one)[None] for one in own)
            return upsample_to_next_scale(
                coarsest,
                scale_start.reconstruct_through(frozen_spec, trained, reconstruction_noise, start, padding, conditions),
            )

        program = cohort.parallel(through, self._mesh)
        paddings = np.stack([image.padding for image in self._images])
        own = tuple(pools[:, 0] for pools in self._conditions()[: coarsest.scale])
        arrays = self._trained[: coarsest.scale], self._reconstruction_noise, paddings, own
        return self._call(("reconstruct below", self._spec), program, *arrays)

    def _call(self, name: tuple[Any, ...], program: Callable[..., Any], *arrays: PyTree) -> PyTree:
        """Runs a small cohort program on host arrays [n, ...] and returns host arrays [n, ...]."""
        count = len(jax.tree.leaves(arrays)[0])
        size = cohort.padded_size(count, self._mesh, 1)
        index = [min(i, count - 1) for i in range(size)]
        placed = cohort.shard(jax.tree.map(lambda leaf: leaf[index], arrays), self._mesh)
        compiled = cohort.compile_program(program, *placed, precision=self._config.train.precision, name=name)
        return jax.tree.map(lambda leaf: np.array(leaf)[:count], compiled(*placed))
