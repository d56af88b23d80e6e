"""Which numbers a configuration may hold: the ranges of its keys, and what they demand of each other."""

import math
from collections.abc import Mapping
from typing import Any

from singan.errors import UserError

AT_LEAST_ONE = (
    "train.steps_per_scale",
    "train.chunk",
    "train.checkpoint_every",
    "train.critic_updates",
    "train.generator_updates",
    "train.concurrent_scales",
    "network.width",
    "network.max_width",
    "network.width_doubles_every",
    "pyramid.max_size",
    "data.num_crops",
    "data.crop_size",
    "data.every",
    "data.layouts",
    "tracking.num_samples",
    "tracking.max_grid_images",
)
NOT_NEGATIVE = (
    "train.group_size",
    "train.gradient_penalty_weight",
    "train.reconstruction_weight",
    "train.noise_weight",
    "train.min_noise_amplitude",
    "train.min_noise_decay",
    "train.patch_weight",
    "train.crop_size",
    "train.concurrent_learning_rate",
    "data.max_images",
    "data.first_slice",
    "data.min_nuclei",
    "seed",
)
POSITIVE = ("train.critic_learning_rate", "train.generator_learning_rate", "train.learning_rate_decay")
MOST_STEPS = 100  # times the coarsest scale's
CONDITIONS = ("binary", "boundary", "instance", "class", "seg", "region")  # singan/model/encodings.py draws them
PATCH = 7  # pixels of a side of the patches that a loss compares
LARGEST = 2**31 - 1  # steps and sizes are int32 on the device
LARGEST_RATE = 3.4e38  # rates and weights are float32


def check_ranges(flat: Mapping[str, Any]) -> None:
    """Checks that every value of a flat configuration ({'train.chunk': 100, ...}) is in its range.

    Raises:
      UserError: one is not; the text names its key.
    """
    for key, value in flat.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config.{key}={value} must be a finite number")
        if isinstance(value, int) and abs(value) > LARGEST and key != "seed":
            raise UserError(f"config.{key}={value} is too large: it must be below 2**31")
        if isinstance(value, float) and abs(value) > LARGEST_RATE:
            raise UserError(f"config.{key}={value} is too large: it must be below {LARGEST_RATE}")
    for key in AT_LEAST_ONE:
        if flat[key] < 1:
            raise UserError(f"config.{key}={flat[key]} must be at least 1")
    for key in NOT_NEGATIVE:
        if flat[key] < 0:
            raise UserError(f"config.{key}={flat[key]} must not be negative")
    for key in POSITIVE:
        if not flat[key] > 0:
            raise UserError(f"config.{key}={flat[key]} must be positive")
    if flat["seed"] >= 2**32:
        raise UserError(f"config.seed={flat['seed']} must be below 2**32")
    if flat["tracking.artifacts"] and (flat["tracking.images"], flat["tracking.ids"]) != ("on", "names"):
        raise UserError(
            "config.tracking.artifacts=true sends weights, which can give the training images back and name them: leave"
            " it out, or tracking.images=off and tracking.ids=numbers"
        )
    for key in ("train.adam_b1", "train.adam_b2", "train.average_decay"):
        if not 0 <= flat[key] < 1:
            raise UserError(f"config.{key}={flat[key]} must be in [0, 1)")
    if not 0 < flat["train.decay_at"] <= 1:
        raise UserError(f"config.train.decay_at={flat['train.decay_at']} must be in (0, 1]")
    if not 0 <= flat["data.min_brain"] <= 1:
        raise UserError(f"config.data.min_brain={flat['data.min_brain']} must be in [0, 1]")
    given = flat["data.condition"]
    if unknown := [word for word in given if word not in CONDITIONS]:
        raise UserError(f"config.data.condition: {unknown[0]!r} is not one of {', '.join(CONDITIONS)}")
    if len(set(given)) < len(given) or {"class", "seg"} <= set(given):
        raise UserError(f"config.data.condition={','.join(given)} names the same channels twice: give each once")
    if flat["data.masks"] and not given:
        raise UserError(
            "config.data.masks is for conditional runs: say which channels of the masks are given, such as"
            " --config.data.condition=binary,boundary"
        )
    for key in ("data.last_slice", "data.shuffle_seed"):
        if flat[key] < -1:
            raise UserError(f"config.{key}={flat[key]} must be -1 or more")
    if not 0 < flat["pyramid.ratio"] < 1:
        raise UserError(f"config.pyramid.ratio={flat['pyramid.ratio']} must be between 0 and 1")
    if flat["pyramid.num_scales"] != 0 and flat["pyramid.num_scales"] < 2:
        raise UserError(
            f"config.pyramid.num_scales={flat['pyramid.num_scales']} must be at least 2, or 0 for as many as"
            " config.train.schedule takes"
        )
    if flat["network.num_layers"] < 2:
        raise UserError(f"config.network.num_layers={flat['network.num_layers']} must be at least 2")
    receptive_field = 2 * flat["network.num_layers"] + 1
    if flat["pyramid.min_size"] < receptive_field:
        raise UserError(
            f"config.pyramid.min_size={flat['pyramid.min_size']} is below the critic's receptive field of"
            f" {receptive_field} pixels: raise it"
        )
    if 0 < flat["train.crop_size"] < receptive_field:
        raise UserError(
            f"config.train.crop_size={flat['train.crop_size']} is below the critic's receptive field of"
            f" {receptive_field} pixels: raise it, or set it to 0 for whole images"
        )
    for share in flat["train.step_shares"]:
        if not 0 < share <= MOST_STEPS:
            raise UserError(
                f"config.train.step_shares={flat['train.step_shares']}: each must be above 0 and at most {MOST_STEPS}"
            )
    if flat["preset"] == "reference" and flat["train.recipe"] != "full":
        raise UserError(
            f"config.train.recipe={flat['train.recipe']!r}: config.preset=reference trains as published, which is the"
            " recipe full: leave it out, or choose another preset"
        )
    if flat["train.patch_weight"] and flat["pyramid.min_size"] < PATCH:
        raise UserError(
            f"config.pyramid.min_size={flat['pyramid.min_size']} is below the {PATCH} pixels of the patches that"
            " config.train.patch_weight compares: raise it, or set the weight to 0"
        )
