"""Animation from a single image: a random walk of the noise around the reconstruction's. (SinGAN paper, section 4)"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from singan.model.generation import run_trained, upsample_to_next_scale
from singan.model.noise import Purpose, image_key_data, noise_map, scale_key
from singan.model.spec import ScaleSpec
from singan.parallel import cohort
from singan.parallel.cached_program import Program
from singan.storage.run import Run

PULL = 0.1  # alpha: how strongly the walk is pulled back to the training image
KICK = 0.05  # share of fresh noise in the walk's first step, which gives it its first direction


def animate(
    run: Run,
    image_ids: list[str],
    num_frames: int = 60,
    start_scale: int = 0,
    beta: float = 0.9,
    pull: float = PULL,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Returns an animation of each image, float32 [n, num_frames, H, W, C] in [-1, 1].

    At each scale from the start on the noise walks z[t+1] = a z* + (1 - a) (z[t] + b (z[t] - z[t-1]) + (1 - b) u) with
    fresh noise u; coarser scales keep z*. So a finer start scale moves less of the image, and a larger beta moves it
    more smoothly. Source: SinGAN paper, supplement ("Single Image Animation"); the reference's random_walk.

    Args:
      beta: b, 0 .. 1: how much of the last movement goes on.
      pull: a, 0 .. 1.
    """
    mesh = mesh or cohort.image_mesh()
    spec = run.spec.at(len(run.scales) - 1)
    size = cohort.padded_size(len(image_ids), mesh, 1)
    names = [image_ids[min(i, len(image_ids) - 1)] for i in range(size)]
    keys = np.stack([image_key_data(seed, name) for name in names])
    group = 1 if spec.one_by_one else size // mesh.size
    program = _program(spec, mesh, group, num_frames, start_scale, beta, pull, run.config.train.precision)
    placed = cohort.shard((run.trained(names), run.reconstruction_noise(names), run.padding(names), keys), mesh)
    return np.array(program(*placed))[: len(image_ids)]


@functools.lru_cache(maxsize=16)
def _program(
    spec: ScaleSpec, mesh: Mesh, group: int, num_frames: int, start_scale: int, beta: float, pull: float, precision: str
) -> Program:
    walk = lambda *one: _walk(spec, num_frames, start_scale, beta, pull, *one)  # noqa: E731
    name = ("animate", spec, group, num_frames, start_scale, beta, pull)
    return Program(cohort.parallel(walk, mesh, group), precision, name)


def _walk(spec: ScaleSpec, num_frames: int, start_scale: int, beta: float, pull: float, *one):
    trained, reconstruction_noise, padding, key_data = one
    key = scale_key(key_data, start_scale, 0, Purpose.ANIMATION)
    scales = range(spec.scale + 1)
    still = [
        jnp.broadcast_to(reconstruction_noise, (1, *spec.at(s).size, spec.channels))
        if s == 0
        else jnp.zeros((1, *spec.at(s).size, spec.channels), jnp.float32)
        for s in scales
    ]

    def fresh(frame):
        return [noise_map(spec.at(s), jax.random.fold_in(jax.random.fold_in(key, frame), s)) for s in scales]

    def frame(carry, number):
        before, now = carry
        image = jnp.zeros((1, *spec.pyramid.sizes[0], spec.channels), jnp.float32)
        following = []
        for s, u in zip(scales, fresh(number), strict=True):
            moved = beta * (now[s] - before[s]) + (1 - beta) * u
            z = pull * still[s] + (1 - pull) * (now[s] + moved) if s >= start_scale else still[s]
            following.append(z)
            image = run_trained(spec.at(s), trained[s], z, image, padding)
            image = upsample_to_next_scale(spec.at(s + 1), image) if s < spec.scale else jnp.clip(image, -1, 1)
        return (now, following), image[0]

    kicked = [(1 - KICK) * z + KICK * u for z, u in zip(still, fresh(0), strict=True)]
    _, frames = lax.scan(frame, (still, kicked), jnp.arange(1, num_frames + 1))
    return frames
