"""A cohort's trained scales as they lie on the host: what a scale leaves, and reading it back."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from singan import files
from singan.config import Config
from singan.model.networks import initial_variables
from singan.model.spec import ScaleSpec
from singan.model.state import TrainedScale
from singan.parallel.processes import Processes, ProcessGroup
from singan.shapes import PyTree
from singan.storage.checkpoints import ScaleCheckpoints, unflatten
from singan.storage.origin import Origin
from singan.storage.stored_checkpoints import Expected, newest_whole
from singan.storage.workdir import Workdir, read_done
from singan.value_map import ValueMap


@dataclasses.dataclass(frozen=True)
class FinishedScale:
    """What a cohort leaves at a scale. All arrays are NumPy's, with one entry per id along their leading axis.

    Where several processes train the cohort, each has the arrays of its own images.
    """

    ids: tuple[str, ...]
    diverged: dict[str, int]  # image id -> the step at which something was not finite
    weights: PyTree  # as weights_template describes them
    digests: dict[str, str]
    held: tuple[str, ...] | None = None  # the ids whose arrays are here, in their order; None: all

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
        held = self.ids if self.held is None else self.held
        index = [held.index(name) for name in ids]
        return jax.tree.map(lambda leaf: leaf[index], self.weights)


def trained_scales(finished: Sequence[FinishedScale], ids: Sequence[str]) -> tuple[TrainedScale, ...]:
    """Returns the trained scales of the named images, coarsest first, each with its newest generator.

    In the sequential schedule a scale's own checkpoint holds its generator. In the concurrent schedule a generator goes
    on training at finer scales, so the checkpoint of the last of those scales holds its newest weights. A scale's noise
    amplitude always comes from its own checkpoint. No other function needs to know this.

    Args:
      finished: scales 0, 1, ... of a run, up to the finest one wanted.
      ids: images that all of them have; the leading axis of the result is in their order.
    """
    rows = [scale.rows(ids) for scale in finished]
    newest: list[PyTree] = []
    for scale, weights in enumerate(rows):
        newest[scale - len(weights["older"]) :] = [*weights["older"], weights["trained"].generator]
    return tuple(TrainedScale(new, row["trained"].amplitude) for new, row in zip(newest, rows, strict=True))


def weights_template(spec: ScaleSpec) -> PyTree:
    """Returns the tree of one image's weights at a scale, as `FinishedScale.weights` has them, with any values.

    trained: the scale's TrainedScale. critic: its variables. older: the variables of the older generators that trained
    with it, coarsest first. reconstruction: the training image as it makes it. reconstruction_noise: z*, at scale 0.
    """
    rng = np.random.default_rng(0)
    height, width = spec.size
    return {
        "trained": TrainedScale(initial_variables(spec.generator, spec.channels, rng), np.zeros((), np.float32)),
        "critic": initial_variables(spec.critic, spec.channels, rng),
        "older": tuple(initial_variables(spec.at(s).generator, spec.channels, rng) for s in spec.co_trained),
        "reconstruction": np.zeros((1, height, width, spec.channels), np.float32),
        "reconstruction_noise": np.zeros((1, height, width, 1), np.float32) if spec.scale == 0 else None,
    }


def read_finished(
    spec: ScaleSpec,
    workdir: Workdir,
    origin: Origin,
    parent_fingerprint: str,
    warn: Callable[[str], None],
    process_group: ProcessGroup | None = None,
    training: bool = False,
) -> FinishedScale | None:
    """Returns a scale whose final weights are there and whole, or None; what is damaged is warned of.

    Args:
      origin: of the run; weights of another one are refused.
      parent_fingerprint: that of the next coarser scale (`FinishedScale.fingerprint`, '' at scale 0); weights that
        were trained on other ones do not count.
      process_group: of a training over several processes, all of which read: each gets the arrays of its own images.
      training: whether the caller holds the workdir: what is damaged is then set aside, and older checkpoints of the
        scale, which a kill at its end has left, are removed. Otherwise nothing is changed on disk.
    """
    directory = files.absolute(workdir.checkpoints(spec.scale))
    processes = process_group.processes if process_group else Processes()
    if not processes.broadcast(directory.is_dir()):
        return None
    own = process_group.assignment.own if process_group else None
    template = weights_template(spec)
    expected = Expected(origin, {"weights": template})

    def is_final(checkpoint: tuple[int, dict[str, np.ndarray], dict[str, Any]] | None) -> bool:
        return (
            checkpoint is not None
            and checkpoint[2].get("kind") == "weights"
            and checkpoint[2].get("below") == parent_fingerprint
        )

    if training:
        with ScaleCheckpoints(directory, warn, processes) as checkpoints:
            checkpoint = checkpoints.latest(own, expected)
            if checkpoint is not None and is_final(checkpoint):
                checkpoints.keep_only(checkpoint[0])
    else:
        checkpoint = newest_whole(directory, warn, own, expected, processes)
    if checkpoint is None or not is_final(checkpoint):
        return None
    _, flat, about = checkpoint
    ids = tuple(about["images"])
    held = None if own is None else tuple(name for name in own if name in ids)
    return FinishedScale(ids, dict(about["diverged"]), unflatten(template, flat), dict(about["digests"]), held)


def all_whole(
    first: ScaleSpec, workdir: Workdir, origin: Origin, warn: Callable[[str], None], process_group: ProcessGroup
) -> bool:
    """Returns whether the weights of every scale are there, whole, and those that DONE names.

    All processes call it, and hold the workdir: what is damaged is set aside.

    Args:
      first: the spec of scale 0.
    """
    parent_fingerprint, here = "", process_group
    for scale in range(len(first.pyramid)):
        finished = read_finished(first.at(scale), workdir, origin, parent_fingerprint, warn, here, training=True)
        if finished is None or process_group.processes.broadcast(read_done(workdir, scale) != finished.digests):
            return False
        parent_fingerprint, here = finished.fingerprint, process_group.of(finished.surviving)
    return True


def image_padding(config: Config, value_map: ValueMap) -> np.ndarray:
    """Returns float32 [C] in [-1, 1]: the background of each channel where the method pads with it, else 0."""
    padding = value_map.padding.astype(np.float32)
    return padding if config.method.padding == "background" else np.zeros_like(padding)
