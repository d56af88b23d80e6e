"""The reconstruction of a training that was read from PyTorch's files, and whether it is the one that was trained with.

The reference stores each scale's noise amplitude: a tenth of the RMSE between the real image and the reconstruction
below, brought up. What comes out here must give the same number, which shows that every step in between is the same.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from launch.import_pytorch.read_run import PytorchRun, spec_of
from singan.config import Config
from singan.model import scale_start
from singan.model.convolution import conv_impl_for
from singan.model.spec import ScaleSpec
from singan.model.state import TrainedScale
from singan.parallel import cohort
from singan.shapes import PyTree
from singan.source_image import SourceImage
from singan.storage.finished_scale import image_padding

TOLERANCE = 0.05  # by how much amplitudes may differ, as a share of the stored one, for a rule to explain them
# What may happen to values between scales: the reference's own rule, and that of forks for more than three channels.
RULES = ("uint8", "uint8_rescaled_before_crop")
TINY = 1e-6  # amplitudes below it are as good as it


@dataclasses.dataclass(frozen=True)
class Replay:
    """A scale's reconstruction, float32 [1, h, w, C], and the noise amplitude that follows from the one below it."""

    reconstruction: np.ndarray
    amplitude: float


def choose_rule(source: PytorchRun, config: Config, image: SourceImage, mesh: Mesh) -> tuple[Config, Sequence[Replay]]:
    """Returns the configuration with the rule between scales that explains the stored amplitudes best, and what each
    scale makes under it. Files do not say the rule; where no amplitude tells them apart, the channels do."""
    tried = []
    for rule in RULES if image.pixels.shape[-1] <= 3 else RULES[::-1]:
        changed = dataclasses.replace(config, method=dataclasses.replace(config.method, between_scales=rule))
        tried.append((changed, replay(source, changed, image, mesh)))
    return min(tried, key=lambda pair: misfit(source, pair[1])[0])


def replay(source: PytorchRun, config: Config, image: SourceImage, mesh: Mesh) -> list[Replay]:
    """Returns what each scale makes of z*, from the coarsest on."""
    spec = spec_of(source, config, conv_impl_for(mesh.devices.flat[0].platform))
    padding = image_padding(config, image.value_map)
    made, replays = np.zeros((1, *spec.size, spec.channels), np.float32), []
    for scale, weights in enumerate(source.scales):
        trained = TrainedScale(weights.generator, weights.amplitude)
        noise = source.reconstruction_noise if scale == 0 else None
        program = cohort.parallel(_one_scale(spec.at(scale), config.train.noise_weight), mesh)
        arrays = cohort.stack([(trained, noise, made, source.reals[scale][None], padding)], 1)
        placed = cohort.shard(arrays, mesh)
        compiled = cohort.compile_program(program, *placed, precision=config.train.precision)
        made, amplitude = (np.array(result)[0] for result in compiled(*placed))
        replays.append(Replay(made, float(amplitude)))
    return replays


def misfit(source: PytorchRun, replays: Sequence[Replay]) -> tuple[float, int]:
    """Returns by how much a replayed amplitude is off at worst, as a share of the stored one, and at which scale.

    (0, 0) where scale 0 is the only one: its amplitude is always 1.
    """
    shares = [0.0]
    for ours, scale in zip(replays[1:], source.scales[1:], strict=True):
        share = abs(max(ours.amplitude, TINY) / max(float(scale.amplitude), TINY) - 1)
        shares.append(share if math.isfinite(share) else math.inf)
    worst = max(range(len(shares)), key=shares.__getitem__)
    return shares[worst], worst


def disagreement(source: PytorchRun, config: Config, replays: Sequence[Replay]) -> str:
    """Returns a line that says so where the rule between scales does not explain the stored amplitudes, else ''."""
    share, scale = misfit(source, replays)
    if share <= TOLERANCE:
        return ""
    return (
        f"no known rule for what passes from scale to scale explains {source.folder / 'NoiseAmp.pth'}: the best one,"
        f" {config.method.between_scales}, gives a noise amplitude of {replays[scale].amplitude:.4g} at scale {scale},"
        f" where {source.scales[scale].amplitude:.4g} is stored ({share:.1%} off, {TOLERANCE:.0%} allowed)"
    )


def summary(source: PytorchRun, config: Config, replays: Sequence[Replay]) -> dict[str, Any]:
    """Returns what run.json keeps of a replay: the rule, its misfit (None where nothing could tell) and amplitudes."""
    share = misfit(source, replays)[0]
    return {
        "between_scales": config.method.between_scales,
        "misfit": round(share, 6) if len(replays) > 1 and math.isfinite(share) else None,
        "amplitudes": [float(scale.amplitude) for scale in source.scales],
        "replayed_amplitudes": [one.amplitude if math.isfinite(one.amplitude) else None for one in replays],
    }


def _one_scale(spec: ScaleSpec, noise_weight: float):
    def one(trained: PyTree, noise: PyTree, coarser: PyTree, real: PyTree, padding: PyTree) -> PyTree:
        previous, amplitude = coarser, jnp.ones(())
        if spec.scale:
            previous, amplitude = scale_start.open_scale(spec, coarser, real, noise_weight)
        return scale_start.reconstruct(spec, trained, noise, previous, padding), amplitude

    return one
