"""Crops that a segmenter is shown: cut anywhere, perhaps turned, scaled, deformed and restained."""

import numpy as np

from experiments.augmentation_study.pairs import Pair
from experiments.augmentation_study.settings import Study
from experiments.baselines.deformation import LINEAR, displacement, warp
from experiments.baselines.stain_jitter import jitter_stain
from singan.model.encodings import EDGE, HEART, encode_instances

# Chosen once on training patients; the same for every condition that is augmented.
SCALE = 1.3  # largest factor of size, either way
AMPLITUDE, SPACING = 1.5, 16.0  # pixels; of the elastic deformation
GAIN, OFFSET = 0.2, 0.1  # largest changes of brightness where there is no stain to change


def targets_of(instances: np.ndarray, nuclei: bool) -> np.ndarray:
    """Returns float32 [H, W, 2]: inside as 0 or 1, and the distance to the edge, from 0 there to 1 at the heart."""
    inside = (instances > 0).astype(np.float32)
    if not nuclei:
        return np.stack([inside, inside], -1)
    drawn = encode_instances(instances)[..., 0].astype(np.float32)
    return np.stack([inside, np.clip((drawn - EDGE + 1) / (HEART - EDGE + 1), 0, 1)], -1)


def stacked(image: np.ndarray, instances: np.ndarray, nuclei: bool) -> np.ndarray:
    """Returns float32 [H, W, C + 2]: uint8 pixels in [0, 1] and their targets."""
    return np.concatenate([image.astype(np.float32) / 255, targets_of(instances, nuclei)], -1)


def stack_of(pair: Pair, study: Study) -> np.ndarray:
    """Returns what `stacked` does, of a pair."""
    return stacked(pair.pixels, pair.instances, study.task == "nuclei")


def crop(stack: np.ndarray, side: int, augmented: bool, rng: np.random.Generator) -> np.ndarray:
    """Returns float32 [side, side, C + 2], from anywhere in a stack [H, W, C + 2]."""
    limits = np.array(stack.shape[:2]) - side
    corner = rng.uniform(0, 1, 2) * limits
    if not augmented:
        y, x = np.rint(corner).astype(int)
        return stack[y : y + side, x : x + side]
    angle, scale = rng.uniform(0, 2 * np.pi), SCALE ** rng.uniform(-1, 1)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        turn[:, 1] *= -1
    middle = (side - 1) / 2
    places = np.einsum("ij,jhw->ihw", turn, np.indices((side, side)) - middle)
    places += (corner + middle)[:, None, None] + displacement((side, side), rng, AMPLITUDE, SPACING)
    cut = warp(stack, places.astype(np.float32), LINEAR)
    channels = stack.shape[-1] - 2
    if channels == 3:
        cut[..., :3] = jitter_stain(cut[..., :3], rng)
    else:
        gains, offsets = rng.uniform(1 - GAIN, 1 + GAIN, channels), rng.uniform(-OFFSET, OFFSET, channels)
        cut[..., :channels] = np.clip(cut[..., :channels] * gains + offsets, 0, 1)
    return cut
