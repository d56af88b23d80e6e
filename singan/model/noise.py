"""Random numbers of a run: keys that depend on (seed, image, scale, step, purpose) alone, and the maps drawn from them.

Because nothing else enters, an image's training does not depend on its neighbours, its place in the cohort, the
cohort's size or the number of devices, and a resumed run draws what the uninterrupted one would have drawn.
"""

import enum
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from singan.model.spec import ScaleSpec
from singan.shapes import Array, Float, Int, Key, UInt


class Purpose(enum.IntEnum):
    """What a key is for. The numbers are part of the run format: never reuse one."""

    RECONSTRUCTION = 0
    STEP_NOISE = 1
    PREVIOUS = 2
    INTERPOLATION = 3
    SAMPLE = 4
    WEIGHTS = 5
    ANIMATION = 6
    PATCHES = 7
    LAYOUT = 8  # which layout of the pool a step has
    LAYOUT_POOL = 9
    SAMPLED_LAYOUT = 10
    WINDOW = 11


def image_words(image_id: str) -> tuple[int, int]:
    """Returns two 32-bit words that stand for an image id (BLAKE2b)."""
    digest = hashlib.blake2b(image_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def image_key_data(seed: int, image_id: str) -> np.ndarray:
    """Returns the uint32 [2] key data of an image: threefry has room for exactly its two words, mixed with the seed."""
    return np.array([seed, 0], np.uint32) ^ np.array(image_words(image_id), np.uint32)


def scale_key(key_data: UInt[Array, "2"], scale: int, step: Int[Array, ""] | int, purpose: Purpose) -> Key[Array, ""]:
    """Returns the key for one purpose at one step of one scale; fold an update's or sample's number into it."""
    key = jax.random.wrap_key_data(key_data, impl="threefry2x32")
    for number in (scale, step, int(purpose)):
        key = jax.random.fold_in(key, number)
    return key


def noise_map(spec: ScaleSpec, key: Key[Array, ""]) -> Float[Array, "1 h w c"]:
    """Returns the N(0, 1) input of a scale: one map copied to all channels at scale 0, independent channels above."""
    height, width = spec.size
    channels = 1 if spec.scale == 0 else spec.channels
    z = jax.random.normal(key, (1, height, width, channels), jnp.float32)
    return jnp.broadcast_to(z, (1, height, width, spec.channels))


def weights_generator(seed: int, image_id: str, scale: int) -> np.random.Generator:
    """Returns the NumPy generator that fresh weights of an image at a scale are drawn from."""
    words = (seed, *image_words(image_id), scale, int(Purpose.WEIGHTS))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def layout_generator(seed: int, image_id: str, number: int, purpose: Purpose) -> np.random.Generator:
    """Returns the NumPy generator that layout `number` of an image is made with."""
    words = (seed, *image_words(image_id), number, int(purpose))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
