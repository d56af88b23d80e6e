"""The presets of the method and the recipes of training: values, by config key, of the keys that are None by default.

A key that is given wins over the recipe (train.recipe), and the recipe over the preset; see singan/config.py.
"""

from typing import Any

_AS_PUBLISHED = {  # what `corrected` and `reference` take from the paper and its code
    "network.max_width": 128,
    "train.recipe": "full",
    "train.step_shares": (),
    "train.crop_size": 0,
    "train.critic_updates": 3,
    "train.generator_updates": 3,
    "train.critic_learning_rate": 5e-4,
    "train.generator_learning_rate": 5e-4,
    "train.reconstruction_weight": 10.0,
    "train.average_decay": 0.0,
    "train.patch_weight": 0.0,
    "train.min_noise_amplitude": 0.0,
    "train.min_noise_decay": 1.0,
}
PRESETS: dict[str, dict[str, Any]] = {
    "corrected": {
        "method.reconstruction_noise": "fixed",
        "method.resize_border": "mirror",
        "method.between_scales": "clip",
        "method.norm_statistics": "sample",
        "method.padding": "background",
        "method.normalized_conv_bias": False,
        **_AS_PUBLISHED,
    },
    "reference": {
        "method.reconstruction_noise": "redrawn",
        "method.resize_border": "reference",
        "method.between_scales": "uint8",
        "method.norm_statistics": "running",
        "method.padding": "zero",
        "method.normalized_conv_bias": True,
        **_AS_PUBLISHED,
    },
}
# The default: what the search in experiments/sample_quality found so far.
PRESETS["tuned"] = {
    **PRESETS["corrected"],
    "method.reconstruction_noise": "redrawn",
    "train.generator_updates": 1,
    "train.critic_learning_rate": 1e-3,
    "train.generator_learning_rate": 1e-3,
    "train.reconstruction_weight": 30.0,
    "train.patch_weight": 3.0,
    "train.average_decay": 0.99,
    "train.min_noise_amplitude": 0.06,
    "train.min_noise_decay": 0.5,
}

RECIPES: dict[str, dict[str, Any]] = {
    "full": {},  # all that the preset says
    # Less work for an image: narrow networks at fine scales too, and fewer steps of one critic update each.
    "fast": {
        "network.max_width": 32,
        "train.critic_updates": 1,
        "train.generator_updates": 1,
        "train.step_shares": (1.0, 0.5, 0.5),
        "train.crop_size": 96,
    },
}
