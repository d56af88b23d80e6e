"""Samples with the texture of their training image, where a command is asked for it: masks and background stay."""

import jax
import jax.numpy as jnp
import numpy as np

from launch.images.mask_channels import kinds_of_channels
from singan.model.noise import image_key_data
from singan.sampling.style import match_style
from singan.source_image import SourceImage
from singan.storage.run import Run
from singan.storage.workdir import ImageRecord


def texture_channels(image: SourceImage | ImageRecord) -> list[int]:
    """Returns the channels that are measured, not drawn: all but those of masks."""
    masks = kinds_of_channels(image.details.get("masks", {}))
    return [channel for channel in range(len(image.channels)) if channel not in masks]


def styled(run: Run, image_id: str, samples: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Returns samples [n, H, W, C] in [-1, 1] with `strength` (0 to 1) of the training image's texture."""
    if not strength:
        return samples
    record = run.record(image_id)
    key = jax.random.wrap_key_data(jnp.asarray(image_key_data(seed, image_id)), impl="threefry2x32")
    matched = match_style(
        samples,
        run.finest(image_id),
        key,
        channels=texture_channels(record),
        background=record.value_map.background_levels,
        strength=strength,
    )
    return np.asarray(matched)
