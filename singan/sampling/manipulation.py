"""Manipulation of images by injecting them into a trained pyramid: harmonise, edit, paint. (SinGAN paper, section 4)

An image enters at a start scale n of 1..N: brought to the size of scale n - 1, upsampled to scale n as the previous
image, then run through scales n..N with fresh noise. What is coarser than the start scale is kept from the image, what
is finer is made anew from the training image's patches.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from singan.errors import UserError
from singan.model.noise import image_key_data
from singan.model.pyramid import resize_to
from singan.model.spec import ScaleSpec
from singan.model.state import TrainedScale
from singan.parallel import cohort
from singan.parallel.cached_program import Program
from singan.sampling import masks
from singan.sampling.masks import MaskRule
from singan.sampling.samples import check_temperature, injection_program
from singan.storage.run import Run


@dataclasses.dataclass(frozen=True)
class Input:
    """An image that is to be injected into one pyramid of a run."""

    image_id: str  # of the pyramid
    name: str
    pixels: np.ndarray  # float32 [h, w, C] in [-1, 1], through that pyramid's value map
    mask: np.ndarray | None = None  # bool [h, w]


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of one input at one start scale; pixels are float32 [k, H, W, C] in [-1, 1] of the finest scale."""

    input: Input
    start_scale: int
    raw: np.ndarray  # what the pyramid made
    blended: np.ndarray | None  # that inside the mask, the training image outside; None without a mask


def inject(
    run: Run,
    inputs: Sequence[Input],
    start_scale: int,
    num_samples: int = 1,
    seed: int = 0,
    mesh: Mesh | None = None,
    trained: Sequence[tuple[TrainedScale, ...]] | None = None,
    palettes: Sequence[np.ndarray] | None = None,
    batch: int = 64,
    temperature: float = 1.0,
) -> list[np.ndarray]:
    """Returns for each input float32 [num_samples, H, W, C] in [-1, 1], of the finest scale.

    Inputs of any size, but of the training image's proportions, are brought to its size first. All inputs of all
    pyramids go through the device together, up to `batch` images in a call. A sample depends on (seed, image id, start
    scale, its number) alone.

    Args:
      start_scale: 1 .. N.
      trained: a pyramid for each input to use in place of the run's own, as fine-tuning makes them.
      palettes: with `trained`, colours [k, C] for each input to quantise it with as it enters.
      temperature: a factor of the noise that every scale adds; 0 adds none.

    Raises:
      UserError: the run has no such scale to inject at, or the temperature is below 0.
    """
    check_temperature(temperature, start_scale)
    if not 1 <= start_scale < len(run.scales):
        raise UserError(f"an image is injected at a scale of 1 to {len(run.scales) - 1}, not at {start_scale}")
    mesh = mesh or cohort.image_mesh()
    last = run.spec.at(len(run.scales) - 1)
    levels = [entering(run, one, start_scale) for one in inputs]
    # Rows of the cohort are pyramids; each has as many inputs as the one with most.
    keys: list[object] = list(range(len(inputs))) if trained is not None else [one.image_id for one in inputs]
    rows: dict[object, list[tuple[int, int]]] = {}
    for index, key in enumerate(keys):
        rows.setdefault(key, []).extend((index, number) for number in range(num_samples))
    width = min(max(len(jobs) for jobs in rows.values()), batch)
    calls = [(key, jobs[i : i + width]) for key, jobs in rows.items() for i in range(0, len(jobs), width)]
    together = min(max(batch // width // mesh.size, 1) * mesh.size, cohort.padded_size(len(calls), mesh, 1))
    group = 1 if last.one_by_one else together // mesh.size
    results: list[list[np.ndarray]] = [[] for _ in inputs]
    program = _injector(last, mesh, start_scale, group, run.config.train.precision)
    for begin in range(0, len(calls), together):
        some = calls[begin : begin + together]
        filled = [some[min(i, len(some) - 1)] for i in range(together)]
        firsts = [jobs[0][0] for _, jobs in filled]
        names = [inputs[first].image_id for first in firsts]
        weights = run.trained(names) if trained is None else _stacked([trained[first] for first in firsts])
        padded = [[jobs[min(i, len(jobs) - 1)] for i in range(width)] for _, jobs in filled]
        arguments = (
            weights,
            run.padding(names),
            np.stack([image_key_data(seed, name) for name in names]),
            np.stack([[levels[index] for index, _ in row] for row in padded]),
            np.array([[number for _, number in row] for row in padded], np.int32),
            None if palettes is None else np.stack([palettes[first] for first in firsts]),
            np.full(together, temperature, np.float32),
        )
        placed = cohort.shard(arguments, mesh)
        made = np.array(program(*placed))
        for (_, jobs), row in zip(some, made, strict=False):
            for (index, _), pixels in zip(jobs, row, strict=False):
                results[index].append(pixels)
    return [np.stack(images) for images in results]


@functools.lru_cache(maxsize=16)
def _injector(spec: ScaleSpec, mesh: Mesh, start_scale: int, group: int, precision: str) -> Program:
    return Program(injection_program(spec, mesh, start_scale, group), precision, ("inject", spec, start_scale, group))


def entering(run: Run, one: Input, start_scale: int) -> np.ndarray:
    """Returns an input at the size in which it enters: that of start_scale - 1, float32 [h, w, C] in [-1, 1].

    Raises:
      UserError: it has other channels than the training image, or other proportions.
    """
    shape = run.record(one.image_id).shape
    if one.pixels.shape[-1] != shape[-1]:
        raise UserError(f"{one.name} has {one.pixels.shape[-1]} channels, {one.image_id} was trained on {shape[-1]}")
    check_proportions(one.name, one.pixels.shape, one.image_id, shape)
    return run.spec.pyramid.level(resize_to(one.pixels, shape[:2]), start_scale - 1)


def check_proportions(name: str, shape: Sequence[int], other: str, wanted: Sequence[int]) -> None:
    """Raises a UserError where an image [h, w, ...] would have to be squeezed to the proportions of another one.

    Each of its sides may be a pixel off: whoever scaled it had to round.
    """
    (h, w), (height, width) = shape[:2], wanted[:2]
    if abs(h * width - w * height) >= height + width:
        raise UserError(
            f"{name} is {h}x{w} pixels (height x width), {other} is {height}x{width}: it would be squeezed, crop or pad"
            " it to the same proportions"
        )


def harmonize(
    run: Run,
    inputs: Sequence[Input],
    start_scale: int,
    rule: MaskRule = masks.HARMONIZE,
    num_samples: int = 1,
    seed: int = 0,
    mesh: Mesh | None = None,
    trained: Sequence[tuple[TrainedScale, ...]] | None = None,
    temperature: float = 1.0,
) -> list[Result]:
    """Returns composites made to fit their background: the training image outside the mask, the result inside.

    Source: SinGAN paper, section 4 (Harmonization); the reference's harmonization.py. Editing is the same with
    masks.EDIT (paper: Editing), where the unmasked result is of interest too.

    Args:
      inputs: composites with a mask each: the training image with a foreign object pasted in.
    """
    made = inject(run, inputs, start_scale, num_samples, seed, mesh, trained, temperature=temperature)
    results = []
    for one, raw in zip(inputs, made, strict=True):
        if one.mask is None:
            raise UserError(f"{one.name} has no mask: give one that marks what was pasted in")
        background = run.finest(one.image_id)
        weights = masks.soft_mask(mask_at(one.mask, background.shape[:2]), rule)
        results.append(Result(one, start_scale, raw, masks.blend(background[None], raw, weights)))
    return results


def mask_at(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a bool mask [h, w] on another grid: a pixel is in where at least half of it is."""
    if mask.shape == tuple(size):
        return mask
    resized = resize_to(mask[..., None].astype(np.float32) * 2 - 1, size)[..., 0] >= 0
    if not resized.any():
        raise UserError(f"nothing is left of a mask of {int(mask.sum())} pixels at {size[0]}x{size[1]} pixels")
    return resized


def paint(
    run: Run,
    inputs: Sequence[Input],
    start_scale: int,
    num_samples: int = 1,
    seed: int = 0,
    mesh: Mesh | None = None,
    trained: Sequence[tuple[TrainedScale, ...]] | None = None,
    palettes: Sequence[np.ndarray] | None = None,
    temperature: float = 1.0,
) -> list[Result]:
    """Returns paintings turned into images (SinGAN paper, section 4: Paint-to-image): injection without a mask.

    Args:
      trained, palettes: of fine_tuning.quantize, for paintings in few flat colours.
    """
    made = inject(run, inputs, start_scale, num_samples, seed, mesh, trained, palettes, temperature=temperature)
    return [Result(one, start_scale, raw, None) for one, raw in zip(inputs, made, strict=True)]


def _stacked(pyramids: Sequence[tuple[TrainedScale, ...]]) -> tuple[TrainedScale, ...]:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *pyramids)
