"""Unknown channels of an image from its known ones: modality translation and segmentation by injection.

A pyramid that was trained on channels stacked as one image knows how they belong together (the MediSinGAN paper names
translation and segmentation as uses of that). A new image of which some channels are unknown enters it with a guess in
their place; wherever the pyramid has made an image, the channels that are known are put back before it goes on.

    level n - 1 (guess and known) -> hop -> [generator n -> known channels of level n] -> hop -> ... -> scale N

so that what is known steers every scale, and leaves the last one as it came, to the bit.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from scipy import ndimage, spatial

from singan.errors import UserError
from singan.model.generation import run_trained, upsample_to_next_scale
from singan.model.noise import Purpose, image_key_data, noise_map, scale_key
from singan.model.pyramid import resize_to
from singan.model.spec import ScaleSpec
from singan.parallel import cohort
from singan.parallel.cached_program import Program
from singan.sampling.manipulation import Input
from singan.storage.run import Run

GUESSES = {
    "mean": "the mean of the training image's channel over its subject",
    "matched": "the mean of the training image's channel over the pixels whose known channels are most alike",
    "smoothed": "the matched one, blurred: what is known of the places around takes part",
    "copy": "the training image's channel as it is, pixel by pixel",
}
NOISES = {
    "all": "in every channel, as when samples are drawn",
    "unknown": "in the channels that are made",
    "none": "nowhere, as when the training image is reconstructed: all samples are one",
}
SMOOTHING = 64  # of the blur's standard deviations make the longer side
GREY_LEVEL = 1 / 127.5  # of 8 bits, in [-1, 1]: what is nearer to the background than this is background


@dataclasses.dataclass(frozen=True)
class Partial(Input):
    """An image of which some channels are unknown; its pixels hold a guess there.

    Attributes:
      known: which of the C channels are known.
    """

    known: tuple[bool, ...] = ()


def fill(run: Run, one: Input, known: Sequence[bool], rule: str = "matched") -> Partial:
    """Returns an image with a guess in its unknown channels, at its pyramid's training image's size.

    Args:
      one: pixels of all channels; those of unknown channels are not looked at.
      known: which channels are known.
      rule: one of GUESSES.

    Raises:
      UserError: the channels are not those of the pyramid, or none is known and the guess needs one.
    """
    record = run.record(one.image_id)
    _check(run, one, known)
    new = resize_to(one.pixels, record.shape[:2])
    guessed = guess(rule, run.pixels(one.image_id), new, known, record.value_map.background_levels)
    return Partial(one.image_id, one.name, guessed, None, tuple(map(bool, known)))


def guess(
    rule: str, training: np.ndarray, new: np.ndarray, known: Sequence[bool], background: Sequence[float | None]
) -> np.ndarray:
    """Returns `new` with its unknown channels guessed from the training image, float32 [H, W, C] in [-1, 1].

    'mean' and 'matched' look at the subject alone: the pixels of both images at which some known channel that has a
    background is not background. Outside the subject of `new` an unknown channel is given its own background, where it
    has one, else the mean. 'matched' is nearest-neighbour regression on intensities: at each pixel the mean over the k
    training pixels whose known channels are nearest (Euclidean, in [-1, 1]), k being the root of the subject's pixels.
    'smoothed' blurs that within the subject by a Gaussian of 1/64 of the longer side.

    Args:
      rule: one of GUESSES.
      training: [H, W, C] in [-1, 1].
      new: [H, W, C] in [-1, 1], of the same size.
      known: which channels are known.
      background: of each channel, in [-1, 1]; None where it has none.
    """
    if rule not in GUESSES:
        raise UserError(f"{rule!r} is no guess: choose among {', '.join(GUESSES)}")
    kept = np.asarray(known, bool)
    made = np.array(new, np.float32)
    if rule == "copy":
        made[..., ~kept] = training[..., ~kept]
        return made
    seen = [value if here else None for value, here in zip(background, kept, strict=True)]
    there, here = subject(training, seen), subject(new, seen)
    there = there if there.any() else np.ones_like(there)
    if rule == "mean":
        values = np.broadcast_to(training[there][:, ~kept].mean(0), (int(here.sum()), int((~kept).sum())))
        anywhere = values[:1]
    else:
        if not kept.any():
            raise UserError("intensities cannot be matched where no channel is known: guess by 'mean' or 'copy'")
        values = _regress(training[there][:, kept], training[there][:, ~kept], new[here][:, kept])
        anywhere = training[there][:, ~kept].mean(0, keepdims=True)
    for place, channel in enumerate(np.flatnonzero(~kept).tolist()):
        outside = background[channel]
        made[..., channel] = anywhere[0, place] if outside is None else outside
        made[here, channel] = values[:, place]
        if rule == "smoothed":
            made[here, channel] = _blurred(made[..., channel], here)[here]
    return made


def subject(image: np.ndarray, background: Sequence[float | None]) -> np.ndarray:
    """Returns bool [H, W]: where some channel of an image [H, W, C] that has a background is not background.

    True everywhere where no channel has one.
    """
    distances = [np.abs(image[..., c] - value) for c, value in enumerate(background) if value is not None]
    return np.max(distances, axis=0) > GREY_LEVEL if distances else np.ones(image.shape[:2], bool)


def translate(
    run: Run,
    partials: Sequence[Partial],
    start_scale: int,
    num_samples: int = 1,
    seed: int = 0,
    noise: str = "unknown",
    mesh: Mesh | None = None,
    batch: int = 64,
) -> list[np.ndarray]:
    """Returns each image with its unknown channels made, float32 [num_samples, H, W, C] in [-1, 1] of the finest scale.

    Known channels are those of the image at that scale, to the bit. All images of all pyramids, whatever is unknown of
    them, go through the device together, up to `batch` in a call. A sample depends on its image and on (seed, id of
    the pyramid, start scale, its number) alone; with nothing known it is that of manipulation.inject.

    Args:
      start_scale: 1 .. N. The guess enters at the size of the scale below: what is finer in it does not matter.
      noise: one of NOISES.

    Raises:
      UserError: the run has no such scale, or an image has not the channels of its pyramid.
    """
    if not 1 <= start_scale < len(run.scales):
        raise UserError(f"an image is injected at a scale of 1 to {len(run.scales) - 1}, not at {start_scale}")
    if noise not in NOISES:
        raise UserError(f"{noise!r} is no choice of noise: choose among {', '.join(NOISES)}")
    for one in partials:
        _check(run, one, one.known)
    mesh = mesh or cohort.image_mesh()
    last = run.spec.at(len(run.scales) - 1)
    levels = [levels_of(run, one, start_scale) for one in partials]
    known = np.array([one.known for one in partials], bool)
    noisy = {"all": known | True, "unknown": ~known, "none": known & False}[noise].astype(np.float32)
    # Rows of the cohort are pyramids; each has as many images as the one with most.
    rows: dict[str, list[tuple[int, int]]] = {}
    for index, one in enumerate(partials):
        rows.setdefault(one.image_id, []).extend((index, number) for number in range(num_samples))
    width = min(max(len(jobs) for jobs in rows.values()), batch)
    calls = [(name, jobs[i : i + width]) for name, jobs in rows.items() for i in range(0, len(jobs), width)]
    together = min(max(batch // width // mesh.size, 1) * mesh.size, cohort.padded_size(len(calls), mesh, 1))
    group = 1 if last.one_by_one else together // mesh.size
    program = _translator(last, mesh, start_scale, group, run.config.train.precision)
    results: list[list[np.ndarray]] = [[] for _ in partials]
    for begin in range(0, len(calls), together):
        some = calls[begin : begin + together]
        names = [some[min(i, len(some) - 1)][0] for i in range(together)]
        jobs = [some[min(i, len(some) - 1)][1] for i in range(together)]
        padded = np.array([[row[min(i, len(row) - 1)] for i in range(width)] for row in jobs], np.int32)
        chosen, numbers = padded[..., 0], padded[..., 1]
        arguments = (
            run.trained(names),
            run.padding(names),
            np.stack([image_key_data(seed, name) for name in names]),
            tuple(np.stack([[each[i] for i in row] for row in chosen]) for each in zip(*levels, strict=True)),
            known[chosen],
            noisy[chosen],
            numbers,
        )
        made = np.array(program(*cohort.shard(arguments, mesh)))
        for (_, done), row in zip(some, made, strict=False):
            for (index, _), pixels in zip(done, row, strict=False):
                results[index].append(pixels)
    return [np.stack(images) for images in results]


def levels_of(run: Run, one: Input, start_scale: int) -> list[np.ndarray]:
    """Returns an image at the scales start_scale - 1, ..., N of its pyramid, each float32 [h, w, C] in [-1, 1]."""
    pixels = resize_to(one.pixels, run.record(one.image_id).shape[:2])
    return [run.spec.pyramid.level(pixels, scale) for scale in range(start_scale - 1, len(run.scales))]


def translation_program(spec: ScaleSpec, mesh: Mesh, start_scale: int, group: int = 1) -> Callable[..., Any]:
    """Returns the cohort program that runs images through scales start .. spec.scale, holding their known channels.

    Its arguments are (trained, padding, key_data, levels, known, noisy, numbers), all with a leading axis of pyramids;
    levels are the images at the scales start - 1 .. spec.scale, float32 [n, k, h, w, C] each, known is bool [n, k, C],
    noisy float32 [n, k, C] what the noise of each channel is multiplied with, numbers int32 [n, k] choose the noise. It
    returns float32 [n, k, H, W, C] in [-1, 1].
    """

    def of_one(trained, padding, key_data, levels, known, noisy, numbers):
        def one(job):
            levels, known, noisy, number = job
            key = jax.random.fold_in(scale_key(key_data, start_scale, 0, Purpose.SAMPLE), number)
            image = levels[0][None]
            for level, scale in zip(levels[1:], range(start_scale, spec.scale + 1), strict=True):
                here = spec.at(scale)
                noise = noisy * noise_map(here, jax.random.fold_in(key, scale))
                made = run_trained(here, trained[scale], noise, upsample_to_next_scale(here, image), padding)
                image = jnp.where(known, level[None], jnp.clip(made, -1, 1))
            return image[0]

        jobs = (levels, known, noisy, numbers)
        return spec.map(one, jobs)

    return cohort.parallel(of_one, mesh, group)


@functools.lru_cache(maxsize=16)
def _translator(spec: ScaleSpec, mesh: Mesh, start_scale: int, group: int, precision: str) -> Program:
    name = ("translate", spec, start_scale, group)
    return Program(translation_program(spec, mesh, start_scale, group), precision, name)


def _blurred(plane: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Returns a plane [H, W] blurred as if there were nothing outside: each pixel's mean over those inside near it."""
    weights, values = (
        ndimage.gaussian_filter(each.astype(np.float64), max(plane.shape) / SMOOTHING, mode="constant")
        for each in (inside, plane * inside)
    )
    return values / np.maximum(weights, 1e-12)


def _regress(inputs: np.ndarray, targets: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns for each row of `wanted` [m, i] the mean of the targets [n, t] whose inputs [n, i] are nearest to it."""
    count = math.isqrt(len(inputs) - 1) + 1
    _, nearest = spatial.KDTree(inputs).query(wanted, k=count)
    chosen = np.asarray(targets[np.reshape(nearest, (len(wanted), count))], np.float64)
    return np.mean(chosen, axis=1).astype(np.float32)


def _check(run: Run, one: Input, known: Sequence[bool]) -> None:
    channels = run.record(one.image_id).shape[-1]
    if one.pixels.shape[-1] != channels or len(known) != channels:
        raise UserError(
            f"{one.name} has {one.pixels.shape[-1]} channels, {len(known)} of them said to be known or not;"
            f" {one.image_id} was trained on {channels}"
        )
