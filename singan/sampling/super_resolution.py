"""Super-resolution: the finest generator applied again and again to an image that grows. (SinGAN paper, section 4)

Detail recurs across the scales of natural images, so the generator that adds it at the finest scale adds it beyond.
It wants a run trained for it: a ratio between scales of about 1 / f, with f ** k the wanted factor, and a
reconstruction weight of 100 (experiments/super_resolution).
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from singan.errors import UserError
from singan.model.generation import run_trained
from singan.model.noise import Purpose, image_key_data, noise_map, scale_key
from singan.model.pyramid import resize_matrix
from singan.model.spec import ScaleSpec
from singan.model.state import chosen
from singan.parallel import cohort
from singan.parallel.cached_program import Program
from singan.sampling.samples import resized_spec
from singan.storage.run import Run

FACTORS = (2.0, 8.0)
MIN_WEIGHT = 50.0  # of the reconstruction in a run that is meant for this; the reference trains with 100
TOLERANCE = 0.05  # relative, between the growth of a step and that from scale to scale in training
CONFIG = "experiments/super_resolution/config.py"


def check_factor(factor: float) -> None:
    """Raises a UserError where a factor is not in FACTORS."""
    if not FACTORS[0] <= factor <= FACTORS[1]:
        raise UserError(f"a super-resolution factor of {factor:g} is not between {FACTORS[0]:g} and {FACTORS[1]:g}")


def wanted_ratio(factor: float) -> float:
    """Returns the ratio between scales to train with: 1 / f of about 2 ** (1 / 3) steps; 1 / 1.26 for a factor of 4.

    Source: the reference's SR.py.
    """
    check_factor(factor)
    return factor ** (-1 / round(3 * math.log2(factor)))


def steps_of(factor: float, growth: float) -> int:
    """Returns how many steps lead to a factor by about the `growth` from scale to scale that was trained.

    The reference's pyramid bends the ratio that was asked for, so that the scales meet both sizes; the steps follow
    the ratio that came of it.
    """
    return max(1, round(math.log(factor) / math.log(growth)))


def super_resolve(
    run: Run,
    image_ids: Sequence[str],
    images: Sequence[np.ndarray],
    factor: float = 4.0,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> list[np.ndarray]:
    """Returns images `factor` times as large, float32 [ceil(h factor), ceil(w factor), C] in [-1, 1].

    Args:
      image_ids: the pyramid that each image goes through.
      images: float32 [h, w, C] in [-1, 1], mostly the training images themselves at the run's finest scale. Images of
        one size go through the device in one call.

    Raises:
      UserError: the factor is out of range, or the run was not trained for it.
    """
    check_factor(factor)
    growth = 1 / run.spec.pyramid.ratio
    steps = steps_of(factor, growth)
    advice = f"train one for it with --config={CONFIG}:{factor:g}"
    if (weight := chosen(run.config.train.reconstruction_weight)) < MIN_WEIGHT:
        raise UserError(f"this run's reconstruction weight of {weight:g} is not made for super-resolution: {advice}")
    if abs(factor ** (1 / steps) / growth - 1) > TOLERANCE:
        raise UserError(
            f"super-resolution by {factor:g} grows {factor ** (1 / steps):.3f} a step, this run's scales {growth:.3f}:"
            f" {advice}"
        )
    mesh = mesh or cohort.image_mesh()
    results: list[np.ndarray | None] = [None] * len(images)
    for shape in sorted({image.shape for image in images}):
        index = [i for i, image in enumerate(images) if image.shape == shape]
        names = [image_ids[i] for i in index]
        size = cohort.padded_size(len(index), mesh, 1)
        filled = [min(i, len(index) - 1) for i in range(size)]
        keys = np.stack([image_key_data(seed, name) for name in names])
        pixels = np.stack([images[i] for i in index])
        arguments = (run.trained(names)[-1], run.padding(names), keys, pixels)
        placed = cohort.shard(jax.tree.map(lambda leaf, rows=filled: np.asarray(leaf)[rows], arguments), mesh)
        last, precision = run.spec.at(len(run.scales) - 1), run.config.train.precision
        made = np.array(_program(last, mesh, (shape[0], shape[1]), factor, steps, precision)(*placed))
        for i, image in zip(index, made, strict=False):
            results[i] = image
    return [image for image in results if image is not None]


@functools.lru_cache(maxsize=16)
def _program(spec: ScaleSpec, mesh: Mesh, size: tuple[int, int], factor: float, steps: int, precision: str) -> Program:
    growth = factor ** (1 / steps)

    def of_one(trained, padding, key_data, pixels):
        key = scale_key(key_data, spec.scale, 0, Purpose.SAMPLE)
        image = pixels[None]
        for step in range(1, steps + 1):
            # Each size is counted from the input, so that the last is the factor's to the pixel.
            wanted = tuple(math.ceil(side * growth**step - 1e-9) for side in size)
            rows, columns = (
                resize_matrix(old, new, new / old, spec.pyramid.border).astype(np.float32)
                for old, new in zip(image.shape[1:3], wanted, strict=True)
            )
            image = jnp.clip(jnp.einsum("ph,bhwc,qw->bpqc", rows, image, columns, precision="highest"), -1, 1)
            here = resized_spec(spec, (wanted[0] / spec.size[0], wanted[1] / spec.size[1]))
            image = run_trained(here, trained, noise_map(here, jax.random.fold_in(key, step)), image, padding)
            image = jnp.clip(image, -1, 1)
        return image[0]

    return Program(cohort.parallel(of_one, mesh), precision, ("enlarge", spec, size, factor, steps))
