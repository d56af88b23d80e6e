"""Training one scale of finished pyramids a little further, for one input; the run itself is left as it is.

Two uses: ConSinGAN's fine-tuning of harmonisation (Hinz et al. 2021, section 4.2: training goes on with the naive
composite as the generator's input) and paint-to-image with quantised colours (SinGAN paper, section 4: the scale at
which the painting enters is trained on quantised images).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from singan.model.generation import random_previous, run_trained, upsample_to_next_scale
from singan.model.networks import initial_variables
from singan.model.noise import Purpose, image_key_data, noise_map, scale_key, weights_generator
from singan.model.spec import ScaleSpec
from singan.model.state import (
    Hyperparameters,
    ScaleInputs,
    TrainedScale,
    chosen,
    final_generator,
    fresh_state,
    hyperparameters,
)
from singan.model.step import Draw, StepNoise, draw
from singan.parallel import cohort
from singan.sampling.manipulation import Input, entering
from singan.sampling.palette import nearest_colour, palette
from singan.sampling.samples import start_image
from singan.shapes import Array, PyTree
from singan.storage.run import Run

CHUNK = 50  # steps in one device call
RATE = 0.1  # of the run's learning rates, to fine-tune with: with all of them what was pasted in is soon gone


def fine_tune_to_composites(
    run: Run,
    inputs: Sequence[Input],
    start_scale: int,
    steps: int = 500,
    seed: int = 0,
    mesh: Mesh | None = None,
    on_progress: Callable[[int], None] = lambda step: None,
) -> list[tuple[TrainedScale, ...]]:
    """Returns a pyramid for each composite, its finest scale trained further with that composite as its input.

    In each critic update the previous image is the composite, injected at `start_scale` with fresh noise and brought
    up to the finest scale, in place of a random sample: the critic, which knows the training image's patches, is asked
    about harmonised composites. The reconstruction term keeps the generator true to the training image.

    Args:
      on_progress: called with the steps done, after every chunk.
    """

    def drawn(spec: ScaleSpec, given: ScaleInputs, step: Array) -> StepNoise:
        def previous(key):
            image = upsample_to_next_scale(spec.at(start_scale), given.guide)
            for scale in range(start_scale, spec.scale):
                noise = noise_map(spec.at(scale), jax.random.fold_in(key, scale))
                image = run_trained(spec.at(scale), given.trained[scale], noise, image, given.padding)
                image = upsample_to_next_scale(spec.at(scale + 1), image)
            return image

        return _redrawn(spec, given, step, previous)

    guides = [entering(run, one, start_scale)[None] for one in inputs]
    finest = len(run.scales) - 1
    return _train(run, [one.image_id for one in inputs], guides, finest, steps, seed, mesh, drawn, on_progress, RATE)


def quantize(
    run: Run,
    inputs: Sequence[Input],
    colours: int,
    scale: int,
    steps: int = 500,
    seed: int = 0,
    mesh: Mesh | None = None,
    on_progress: Callable[[int], None] = lambda step: None,
) -> tuple[list[np.ndarray], list[tuple[TrainedScale, ...]]]:
    """Returns for each input a palette of its training image, float32 [colours, C], and a pyramid trained on it.

    The colours are those of the training image at the size in which inputs enter.
    """
    names = list(dict.fromkeys(one.image_id for one in inputs))
    level = lambda name: run.spec.pyramid.level(run.pixels(name), scale - 1)  # noqa: E731
    palettes = {name: palette(level(name), colours, seed) for name in names}
    pyramids = retrain_on_palettes(run, names, list(palettes.values()), scale, steps, seed, mesh, on_progress)
    return [palettes[one.image_id] for one in inputs], [pyramids[names.index(one.image_id)] for one in inputs]


def retrain_on_palettes(
    run: Run,
    image_ids: Sequence[str],
    palettes: Sequence[np.ndarray],
    scale: int,
    steps: int,
    seed: int = 0,
    mesh: Mesh | None = None,
    on_progress: Callable[[int], None] = lambda step: None,
) -> list[tuple[TrainedScale, ...]]:
    """Returns a pyramid for each image, one scale trained anew on previous images that a palette quantises.

    Source: the reference's paint2image with quantization_flag: what a painting of few flat colours will look like
    when it enters is what the scale is trained on.

    Args:
      palettes: float32 [k, C] in [-1, 1] for each image (`palette`).
      scale: at which paintings will be injected, 1 .. N.
    """

    def drawn(spec: ScaleSpec, given: ScaleInputs, step: Array) -> StepNoise:
        return _redrawn(
            spec,
            given,
            step,
            lambda key: nearest_colour(random_previous(spec, given.trained, given.padding, key), given.guide),
        )

    return _train(run, image_ids, list(palettes), scale, steps, seed, mesh, drawn, on_progress, quantised=True)


def _redrawn(spec: ScaleSpec, given: ScaleInputs, step: Array, previous: Callable[[Array], Array]) -> StepNoise:
    """The random numbers of an ordinary step, with previous images of another kind."""
    key = scale_key(given.key_data, spec.scale, step, Purpose.PREVIOUS)
    keys = jax.vmap(lambda update: jax.random.fold_in(key, update))(jnp.arange(spec.train.critic_updates))
    ordinary = draw(spec, given, step)  # its own passes are not used, and the compiler leaves them out
    return dataclasses.replace(ordinary, previous=lax.map(previous, keys))


def _train(
    run: Run,
    image_ids: Sequence[str],
    guides: Sequence[np.ndarray],
    scale: int,
    steps: int,
    seed: int,
    mesh: Mesh | None,
    drawn: Draw,
    on_progress: Callable[[int], None],
    rate: float = 1.0,
    quantised: bool = False,
) -> list[tuple[TrainedScale, ...]]:
    mesh = mesh or cohort.image_mesh()
    spec = run.spec.at(scale)
    spec = dataclasses.replace(
        spec, train=dataclasses.replace(spec.train, steps_per_scale=steps, step_shares=(), crop_size=0)
    )
    train = dataclasses.replace(
        run.config.train,
        steps_per_scale=steps,
        critic_learning_rate=rate * chosen(run.config.train.critic_learning_rate),
        generator_learning_rate=rate * chosen(run.config.train.generator_learning_rate),
    )
    hyper = hyperparameters(train, 1, steps)
    entered = _reconstructions(run, image_ids, scale, mesh)
    rows = [
        _of_image(run, spec, hyper, name, image, guide, seed, quantised)
        for name, image, guide in zip(image_ids, entered, guides, strict=True)
    ]
    group = 1 if spec.one_by_one else -(-len(rows) // mesh.size)
    size = cohort.padded_size(len(rows), mesh, group)
    inputs = cohort.shard(cohort.stack([row[0] for row in rows], size), mesh)
    state = cohort.shard(cohort.stack([row[1] for row in rows], size), mesh)
    programs: dict[int, Any] = {}
    done = 0
    while done < steps:
        length = min(CHUNK, steps - done)
        if length not in programs:
            program = cohort.chunk_program(spec, mesh, group, length, drawn)
            programs[length] = cohort.compile_program(program, inputs, state, precision=run.config.train.precision)
        state, _ = programs[length](inputs, state)
        done += length
        on_progress(done)
    host = jax.tree.map(np.array, state)
    pyramids = []
    for i, name in enumerate(image_ids):
        whole = list(jax.tree.map(lambda leaf: leaf[0], run.trained([name])))
        generator = jax.tree.map(lambda leaf, i=i: leaf[i], final_generator(host))
        whole[scale] = dataclasses.replace(whole[scale], generator=generator)
        pyramids.append(tuple(whole))
    return pyramids


def _reconstructions(run: Run, image_ids: Sequence[str], scale: int, mesh: Mesh) -> np.ndarray:
    """Returns what the scale's reconstruction starts from, float32 [n, 1, h, w, C]."""
    size = cohort.padded_size(len(image_ids), mesh, 1)
    names = [image_ids[min(i, len(image_ids) - 1)] for i in range(size)]
    placed = cohort.shard((run.trained(names), run.reconstruction_noise(names), run.padding(names)), mesh)
    program = cohort.parallel(lambda *one: start_image(run.spec, *one, start_scale=scale), mesh)
    return np.array(cohort.compile_program(program, *placed, precision=run.config.train.precision)(*placed))


def _of_image(
    run: Run,
    spec: ScaleSpec,
    hyper: Hyperparameters,
    name: str,
    previous: np.ndarray,
    guide: np.ndarray,
    seed: int,
    quantised: bool,
) -> tuple[ScaleInputs, PyTree]:
    trained = jax.tree.map(lambda leaf: leaf[0], run.trained([name]))
    weights = jax.tree.map(lambda leaf: leaf[0], run.scales[spec.scale].rows([name]))
    real = spec.pyramid.level(run.pixels(name), spec.scale)[None]
    generator, critic = trained[spec.scale].generator, weights["critic"]
    if quantised:
        # As the reference does: the scale is trained anew, on the quantised reconstruction too.
        previous = np.array(nearest_colour(previous, guide))
        rng = weights_generator(seed, name, spec.scale)
        generator = initial_variables(spec.generator, spec.channels, rng)
        critic = initial_variables(spec.critic, spec.channels, rng)
    inputs = ScaleInputs(
        real,
        previous,
        run.padding([name])[0],
        np.asarray(trained[spec.scale].amplitude),
        image_key_data(seed, name),
        trained[: spec.scale],
        hyper,
        guide,
    )
    return inputs, fresh_state(spec, generator, critic, None)
