"""Random samples of trained pyramids, from any start scale, of any size, in batches on the device.

Injected images enter a pyramid here too: a sample of a start scale is what that scale makes of the image that enters
it and of fresh noise; random sampling lets the reconstruction enter, manipulation any other image.
"""

import dataclasses
import functools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from singan.errors import UserError
from singan.model.condition import at_finest, condition_levels, in_unit_range
from singan.model.generation import run_trained, upsample_to_next_scale, with_condition
from singan.model.layouts import Layout, Rule, permute
from singan.model.noise import Purpose, image_key_data, layout_generator, noise_map, scale_key
from singan.model.pyramid import resize_matrix
from singan.model.scale_start import reconstruct
from singan.model.spec import ScaleSpec
from singan.model.state import TrainedScale
from singan.parallel import cohort
from singan.parallel.cached_program import Program
from singan.parallel.costs import Memory
from singan.sampling.palette import nearest_colour
from singan.shapes import Array, Float, Int, UInt
from singan.storage.run import Run


@dataclasses.dataclass(frozen=True)
class Batch:
    """Samples first .. first + k - 1 of some images of a run.

    Attributes:
      pixels: float32 [n, k, H, W, C] in [-1, 1]. Of a conditional run the last channels are those that were given.
      layouts: of a conditional run, by image the layouts that were given, on the grid of the training images; else ().
    """

    ids: tuple[str, ...]
    first: int
    pixels: np.ndarray
    layouts: tuple[tuple[Layout, ...], ...] = ()


LayoutSource = Callable[[str, int], Layout]  # (image id, number of the sample) -> what the sample is to show


def resized_spec(spec: ScaleSpec, size: tuple[float, float]) -> ScaleSpec:
    """Returns the spec for images `size` (height, width) times as large as the one that was trained on."""
    return dataclasses.replace(spec, pyramid=spec.pyramid.scaled(*size))


def start_image(
    spec: ScaleSpec,
    trained: tuple[TrainedScale, ...],
    reconstruction_noise: Float[Array, "1 h w 1"],
    padding: Float[Array, "c"],
    start_scale: int,
    size: tuple[float, float] = (1.0, 1.0),
    conditions: Sequence[Float[Array, "1 ..."]] = (),
) -> Float[Array, "1 hh ww c"]:
    """Returns what enters `start_scale` as the previous image: the reconstruction of the scales below, or zeros.

    For another size than the training image's, the reconstruction is made in its own size and then resized, cubic.
    """
    large = resized_spec(spec, size).at(start_scale)
    if start_scale == 0:
        return jnp.zeros((1, *large.size, spec.channels), jnp.float32)
    image = jnp.zeros((1, *spec.pyramid.sizes[0], spec.channels), jnp.float32)
    for scale in range(start_scale):
        noise = reconstruction_noise if scale == 0 else None
        given = conditions[scale] if conditions else None
        image = reconstruct(spec.at(scale), trained[scale], noise, image, padding, given)
        image = upsample_to_next_scale(spec.at(scale + 1), image)
    if size == (1.0, 1.0):
        return image
    rows, columns = (
        resize_matrix(old, new, new / old, spec.pyramid.border).astype(np.float32)
        for old, new in zip(image.shape[1:3], large.size, strict=True)
    )
    return jnp.clip(jnp.einsum("ph,bhwc,qw->bpqc", rows, image, columns, precision="highest"), -1, 1)


def sample_from(
    spec: ScaleSpec,
    trained: tuple[TrainedScale, ...],
    image: Float[Array, "1 h w c"],
    padding: Float[Array, "c"],
    start_scale: int,
    key_data: UInt[Array, "2"],
    number: Int[Array, ""],
    temperature: Float[Array, ""] | float = 1.0,
    reconstruction_noise: Float[Array, "1 h_0 w_0 1"] | None = None,
    conditions: Sequence[Float[Array, "1 ..."]] = (),
) -> Float[Array, "hh ww i"]:
    """Returns sample `number` of `spec.scale`'s size, clipped to [-1, 1]: fresh noise at every scale from the start.

    A sample depends on (key, start scale, number, temperature) alone, whatever batch it is drawn in.

    Args:
      image: what enters `start_scale` as the previous image, of that scale's size.
      temperature: at_temperature's at scale 0; above it, a factor of the noise amplitudes. 1 samples as in training, 0
        gives the reconstruction.
      reconstruction_noise: z*, which a start scale of 0 mixes the noise with; None leaves scale 0 at temperature 1.
      conditions: what is given at scales 0 .. spec.scale; it follows the sample's own channels. () without.
    """
    key = jax.random.fold_in(scale_key(key_data, start_scale, 0, Purpose.SAMPLE), number)
    for scale in range(start_scale, spec.scale + 1):
        here, one = spec.at(scale), trained[scale]
        noise = noise_map(here, jax.random.fold_in(key, scale))
        if scale > 0:
            one = dataclasses.replace(one, amplitude=one.amplitude * temperature)
        elif reconstruction_noise is not None:
            noise = at_temperature(noise, reconstruction_noise, temperature)
        image = run_trained(here, one, noise, image, padding, conditions[scale] if conditions else None)
        image = upsample_to_next_scale(spec.at(scale + 1), image) if scale < spec.scale else jnp.clip(image, -1, 1)
    return with_condition(image, conditions[-1] if conditions else None)[0]


def at_temperature(
    noise: Float[Array, "1 h w c"], reconstruction_noise: Float[Array, "1 h w 1"], temperature: Float[Array, ""] | float
) -> Float[Array, "1 h w c"]:
    """Returns what enters scale 0: sqrt(1 - t^2) z* + t noise, N(0, 1) as in training, with t = min(temperature, 1).

    A factor of the noise alone would not do: the network's normalisation cancels it. Going towards z*, the noise that
    became the training image, keeps the variance, and ends with the reconstruction at t = 0.
    """
    share = jnp.minimum(jnp.asarray(temperature, noise.dtype), 1)
    return jnp.sqrt(1 - jnp.square(share)) * reconstruction_noise + share * noise


def sample_program(
    spec: ScaleSpec, mesh: Mesh, start_scale: int, group: int = 1, size: tuple[float, float] = (1.0, 1.0)
) -> Callable[..., Any]:
    """Returns the cohort program that draws a batch of samples of every image, through scales start .. spec.scale.

    Its arguments are (trained, reconstruction_noise, padding, key_data, numbers, temperatures), all with a leading axis
    of images; numbers is int32 [n, k], the samples wanted of each image, temperatures float32 [n]. It returns float32
    [n, k, H, W, C] in [-1, 1].

    A conditional pyramid takes a seventh, what is given to each sample, uint8 [n, k, H, W, K] at the finest scale,
    and has it, at the samples' own, as K more channels behind C. Above start scale 0 it is the same for all samples of
    an image.
    """
    large = resized_spec(spec, size)

    def of_one(trained, reconstruction_noise, padding, key_data, numbers, temperature, condition=None):
        def levels(finest):
            return tuple(in_unit_range(one)[None] for one in condition_levels(large.pyramid, finest, spec.scale))

        shared = () if condition is None or start_scale == 0 else levels(condition[0])
        image = start_image(spec, trained, reconstruction_noise, padding, start_scale, size, shared)
        known = reconstruction_noise if size == (1.0, 1.0) else None

        def one(given):
            number, finest = given
            conditions = () if finest is None else levels(finest)
            return sample_from(
                large, trained, image, padding, start_scale, key_data, number, temperature, known, conditions
            )

        return spec.map(one, (numbers, condition))

    return cohort.parallel(of_one, mesh, group)


@functools.lru_cache(maxsize=16)
def sampler(
    spec: ScaleSpec, mesh: Mesh, start_scale: int, group: int, size: tuple[float, float], precision: str
) -> Program:
    """Returns `sample_program` as one that is kept, here and on disk."""
    name = ("sample", spec, start_scale, group, size)
    return Program(sample_program(spec, mesh, start_scale, group, size), precision, name)


def injection_program(spec: ScaleSpec, mesh: Mesh, start_scale: int, group: int = 1) -> Callable[..., Any]:
    """Returns the cohort program that runs injected images through scales start .. spec.scale with fresh noise.

    Its arguments are (trained, padding, key_data, images, numbers, palettes, temperatures), all with a leading axis of
    pyramids. images is float32 [n, k, h, w, C] in [-1, 1], of the size of scale start - 1 (SinGAN paper, section 4:
    "injected" images are downsampled and fed into a scale below the finest), numbers int32 [n, k] choose the noise,
    palettes float32 [n, colours, C] quantise what enters, or are None, temperatures are float32 [n]. It returns float32
    [n, k, H, W, C] in [-1, 1].
    """

    def of_one(trained, padding, key_data, images, numbers, palette, temperature):
        def one(injected):
            image, number = injected
            previous = upsample_to_next_scale(spec.at(start_scale), image[None])
            if palette is not None:
                previous = nearest_colour(previous, palette)
            return sample_from(spec, trained, previous, padding, start_scale, key_data, number, temperature)

        return spec.map(one, (images, numbers))

    return cohort.parallel(of_one, mesh, group)


def draw(
    run: Run,
    ids: Sequence[str],
    num_samples: int,
    start_scale: int = 0,
    size: tuple[float, float] = (1.0, 1.0),
    seed: int = 0,
    batch: int = 64,
    mesh: Mesh | None = None,
    log_memory: Callable[[int, Memory], None] = lambda images, memory: None,
    temperature: float = 1.0,
    layouts: LayoutSource | None = None,
) -> Iterator[Batch]:
    """Yields `num_samples` samples of each named image, at most about `batch` at a time, whatever their number.

    All batches of an image follow one another. An accelerator works on the next batch while the caller has the last
    one, and no more than two are held. A CPU is given one program at a time (launch/runtime.py says why).
    A sample depends on (seed, image id, start scale, size, temperature, its number, its layout) alone.

    Args:
      size: height and width, in multiples of the training image's.
      batch: samples in one device call, over all images; at least one for each device.
      log_memory: told once how many samples a call makes, and what memory that takes.
      temperature: 0 gives the reconstruction, 1 samples as in training, more exaggerates what finer scales change. Of
        the same number, samples of all temperatures have the same noise.
      layouts: of a conditional run, what samples are to show, on the training images' grid times `size`; None: new
        layouts (`permuted`), but above start scale 0 that of the training image, of which everything coarser is.

    Raises:
      UserError: the temperature is not of `check_temperature`'s; a conditional run is asked for another size, or for
        given layouts, above start scale 0.
    """
    check_temperature(temperature, start_scale, size)
    if run.spec.condition:
        if start_scale and (layouts or size != (1.0, 1.0)):
            raise UserError(
                "above start scale 0 what is coarser is the training image's, and so are size and layout: start at"
                " scale 0, or leave them out"
            )
        layouts = layouts or ((lambda name, number: run.layout(name)) if start_scale else permuted(run, seed, size))
    mesh = mesh or cohort.image_mesh()
    last = run.spec.at(len(run.scales) - 1)
    each = min(batch, num_samples)
    together = min(max(batch // each // mesh.size, 1) * mesh.size, cohort.padded_size(len(ids), mesh, 1))
    group = 1 if last.one_by_one else together // mesh.size
    program = sampler(last, mesh, start_scale, group, size, run.config.train.precision)
    ahead = 0 if last.one_by_one else 1
    sent: deque[tuple[tuple[str, ...], int, Array, tuple[tuple[Layout, ...], ...]]] = deque()
    for begin in range(0, len(ids), together):
        some = tuple(ids[begin : begin + together])
        names = [some[min(i, len(some) - 1)] for i in range(together)]
        keys = np.stack([image_key_data(seed, name) for name in names])
        placed = cohort.shard((run.trained(names), run.reconstruction_noise(names), run.padding(names), keys), mesh)
        for first in range(0, num_samples, each):
            numbers = cohort.shard(np.tile(np.arange(first, first + each, dtype=np.int32), (together, 1)), mesh)
            arguments = (*placed, numbers, cohort.shard(np.full(together, temperature, np.float32), mesh))
            given: tuple[tuple[Layout, ...], ...] = ()
            if layouts is not None:
                given = tuple(tuple(layouts(name, first + i) for i in range(each)) for name in some)
                arguments += (cohort.shard(drawn_conditions(run, given, size, together), mesh),)
            if begin == first == 0:
                log_memory(together * each, program.memory(*arguments))
            sent.append((some, first, program(*arguments), given))
            while len(sent) > ahead:
                yield _fetch(*sent.popleft(), num_samples)
    while sent:
        yield _fetch(*sent.popleft(), num_samples)


def by_image(batches: Iterable[Batch], count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (image id, all `count` samples of it, [count, H, W, C]) from what `draw` yields."""
    parts: dict[str, list[np.ndarray]] = {}
    for some in batches:
        for name, pixels in zip(some.ids, some.pixels, strict=True):
            parts.setdefault(name, []).append(pixels)
            if some.first + len(pixels) == count:
                yield name, np.concatenate(parts.pop(name))


def check_temperature(temperature: float, start_scale: int, size: tuple[float, float] = (1.0, 1.0)) -> None:
    """Raises a UserError for a temperature that is not finite or below 0, or for which there is no z* of that size."""
    if not 0 <= temperature < math.inf:
        raise UserError(
            f"a temperature of {temperature:g} is not possible: give 0 (the reconstruction) or more, 1 as in training"
        )
    if temperature < 1 and start_scale == 0 and size != (1.0, 1.0):
        raise UserError(
            "a temperature below 1 mixes in the reconstruction's noise, which scale 0 has at the image's own size only:"
            " leave the size out, or start at scale 1 or above"
        )


def permuted(run: Run, seed: int, size: tuple[float, float] = (1.0, 1.0), rule: Rule | None = None) -> LayoutSource:
    """Returns the source of new layouts of a conditional run: each image's objects, moved and turned by (seed, id,
    number) alone.

    Args:
      size: in multiples of the training image's. rule: how dense, how large, ...
    """
    sources = {name: run.layout(name) for name in run.ids}
    grid = run.spec.pyramid.scaled(*size).source

    def layout(name: str, number: int) -> Layout:
        rng = layout_generator(seed, name, number, Purpose.SAMPLED_LAYOUT)
        return permute([sources[name]], rng, rule, grid)

    return layout


def drawn_conditions(
    run: Run, given: Sequence[Sequence[Layout]], size: tuple[float, float] = (1.0, 1.0), rows: int = 0
) -> np.ndarray:
    """Returns what the layouts of each image give at the finest scale, uint8 [rows, k, H, W, K]; the last image's fill
    up what `rows` has more of."""
    words, classes = run.config.data.condition, run.images[0].condition_classes
    pyramid = run.spec.pyramid.scaled(*size)
    drawn = [np.stack([at_finest(one, words, classes, pyramid) for one in some]) for some in given]
    return np.stack([*drawn, *[drawn[-1]] * (rows - len(drawn))])


def _fetch(
    ids: tuple[str, ...], first: int, sent: Array, given: tuple[tuple[Layout, ...], ...], num_samples: int
) -> Batch:
    kept = num_samples - first
    return Batch(ids, first, np.array(sent)[: len(ids), :kept], tuple(some[:kept] for some in given))
