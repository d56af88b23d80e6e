"""The reconstruction of a training that was read from PyTorch's files, and whether it is the one that was trained with.

The reference stores each scale's noise amplitude: a tenth of the RMSE between the real image and the reconstruction
below, brought up. What comes out here must give the same number, which shows that every step in between is the same.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from launch.pytorch_runs import PytorchRun, spec_of
from launch.sources import SourceImage
from singan import cohort, handover
from singan.config import CHOICES, Config
from singan.convolution import form_for
from singan.shapes import PyTree
from singan.spec import ScaleSpec
from singan.state import TrainedScale
from singan.trained import image_padding

TOLERANCE = 0.1  # by how much the amplitudes may differ, as a share, before it is told


@dataclasses.dataclass(frozen=True)
class Replay:
    """A scale's reconstruction, float32 [1, h, w, C], and the noise amplitude that follows from the one below it."""

    reconstruction: np.ndarray
    amplitude: float


def choose_hop(found: PytorchRun, config: Config, image: SourceImage, mesh: Mesh) -> tuple[Config, Sequence[Replay]]:
    """Returns the configuration with the 8-bit rule between scales that explains the stored amplitudes, and what each
    scale makes under it. Files do not say the rule: forks for more than three channels have one of their own. Where no
    rule explains them, it is the reference's own."""
    tried = []
    for rule in (name for name in CHOICES["method.between_scales"] if name.startswith("uint8")):
        changed = dataclasses.replace(config, method=dataclasses.replace(config.method, between_scales=rule))
        tried.append((changed, replay(found, changed, image, mesh)))
        if len(found.scales) == 1 or _difference(found, tried[-1][1]) < TOLERANCE:
            return tried[-1]
    return tried[0]


def replay(found: PytorchRun, config: Config, image: SourceImage, mesh: Mesh) -> list[Replay]:
    """Returns what each scale makes of z*, from the coarsest on."""
    spec = spec_of(found, config, form_for(mesh.devices.flat[0].platform))
    padding = image_padding(config, image.value_map)
    made, replays = np.zeros((1, *spec.size, spec.channels), np.float32), []
    for scale, weights in enumerate(found.scales):
        trained = TrainedScale(weights.generator, weights.amplitude)
        noise = found.reconstruction_noise if scale == 0 else None
        program = cohort.parallel(_one_scale(spec.at(scale)), mesh)
        arrays = cohort.stack([(trained, noise, made, found.reals[scale][None], padding)], 1)
        placed = cohort.place(arrays, mesh)
        compiled = cohort.compile_program(program, *placed, precision=config.train.precision)
        made, amplitude = (np.array(result)[0] for result in compiled(*placed))
        replays.append(Replay(made, float(amplitude)))
    return replays


def disagreement(found: PytorchRun, replays: Sequence[Replay]) -> str:
    """Returns a line that says so where the stored amplitudes are not those that follow from the images, else ''."""
    if len(replays) == 1 or _difference(found, replays) < TOLERANCE:
        return ""
    ours, stored = (", ".join(f"{value.amplitude:.4f}" for value in values[1:]) for values in (replays, found.scales))
    return (
        f"noise amplitudes of {ours} follow from the reconstructions here, but NoiseAmp.pth has {stored}: images passed"
        " from scale to scale by another rule in this training, so samples will look somewhat different"
    )


def _difference(found: PytorchRun, replays: Sequence[Replay]) -> float:
    tiny = 1e-6
    pairs = [
        (max(r.amplitude, tiny), max(float(s.amplitude), tiny)) for r, s in zip(replays, found.scales, strict=True)
    ]
    return max((abs(math.log(ours / stored)) for ours, stored in pairs[1:]), default=0.0)


def _one_scale(spec: ScaleSpec):
    def one(trained: PyTree, noise: PyTree, below: PyTree, real: PyTree, padding: PyTree) -> PyTree:
        previous, amplitude = below, jnp.ones(())
        if spec.scale:
            previous, amplitude = handover.open_scale(spec, below, real)
        return handover.reconstruct(spec, trained, noise, previous, padding), amplitude

    return one
