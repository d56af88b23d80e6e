"""Endless pairs of an image and its exact masks, from many conditional pyramids at once, while a segmenter trains."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from singan.errors import UserError
from singan.model.layouts import Layout, Rule
from singan.model.noise import image_key_data
from singan.parallel import cohort
from singan.sampling.samples import drawn_conditions, permuted, sampler
from singan.shapes import Array
from singan.storage.run import Run

Sent = tuple[tuple[str, ...], tuple[tuple[Layout, ...], ...], Array]


class Pairs:
    """Batches of pairs by number: `self[number]` depends on (run, batch, seed, rule, number) alone.

    A batch is one device call. It takes as many pyramids as it has room for, and the next one the pyramids that follow.
    """

    def __init__(
        self,
        run: Run,
        batch: int,
        seed: int = 0,
        ids: Sequence[str] = (),
        rule: Rule | None = None,
        mesh: Mesh | None = None,
    ):
        """Args:
        ids: of the pyramids; () for all.
        rule: how new layouts are made of each image's own.

        Raises:
          UserError: the run is not conditional.
        """
        if not run.spec.condition:
            raise UserError(
                f"{run.workdir.path} makes no pairs: train with config.data.condition to give its pyramids the masks"
            )
        self._run, self._batch, self._seed = run, batch, seed
        self._ids, self._mesh = tuple(ids or run.ids), mesh or cohort.image_mesh()
        self._layouts = permuted(run, seed, rule=rule)
        rows = min(len(self._ids), batch)
        self._each = -(-batch // rows)
        self._rows = cohort.padded_size(rows, self._mesh, 1)
        self._shown = rows
        self._spec = run.spec.at(len(run.scales) - 1)
        group = 1 if self._spec.one_by_one else self._rows // self._mesh.size
        self._program = sampler(self._spec, self._mesh, 0, group, (1.0, 1.0), run.config.train.precision)
        self._placed: tuple[tuple[str, ...], Any] = ((), None)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self._fetch(self._send(number))

    def numbered(self, numbers: Iterator[int]) -> Iterator[dict[str, Any]]:
        """Yields the batches of these numbers. An accelerator works on the next one while the caller has the last."""
        if self._spec.one_by_one:  # a CPU is given one program at a time
            yield from map(self.__getitem__, numbers)
            return
        sent = self._send(next(numbers))
        for number in numbers:
            ahead = self._send(number)
            yield self._fetch(sent)
            sent = ahead

    def _send(self, number: int) -> Sent:
        names = tuple(self._ids[(number * self._shown + i) % len(self._ids)] for i in range(self._shown))
        known, placed = self._placed  # read once: threads may ask at the same time
        if known != names:
            filled = [names[min(i, len(names) - 1)] for i in range(self._rows)]
            keys = np.stack([image_key_data(self._seed, name) for name in filled])
            run = self._run
            trees = run.trained(filled), run.reconstruction_noise(filled), run.padding(filled), keys
            placed = cohort.shard(trees, self._mesh)
            self._placed = names, placed
        numbers = np.arange(number * self._each, (number + 1) * self._each, dtype=np.int32)
        given = tuple(tuple(self._layouts(name, int(one)) for one in numbers) for name in names)
        arrays = (
            np.tile(numbers, (self._rows, 1)),
            np.ones(self._rows, np.float32),  # the temperature
            drawn_conditions(self._run, given, rows=self._rows),
        )
        return names, given, self._program(*placed, *cohort.shard(arrays, self._mesh))

    def _fetch(self, sent: Sent) -> dict[str, Any]:
        names, given, drawn = sent
        pixels = np.array(drawn)
        images, objects, classes, ids = [], [], [], []
        for sample, (row, name) in itertools.product(range(self._each), enumerate(names)):
            shown = given[row][sample].resized(self._spec.size)
            values = self._run.record(name).value_map.invert(pixels[row, sample])
            images.append(values[..., : self._spec.channels])
            objects.append(shown.objects)
            classes.append(shown.classes)
            ids.append(name)
        kept = slice(self._batch)
        return {
            "image": np.stack(images[kept]),
            "objects": np.stack(objects[kept]),
            "classes": np.stack(classes[kept]),
            "ids": tuple(ids[kept]),
        }
