"""Which keys of a configuration may change when a run is resumed, and what a change of the others is called."""

from collections.abc import Mapping
from typing import Any

from singan.config import Config, flatten, to_mapping
from singan.legacy_defaults import LEGACY_DEFAULTS
from singan.presets import PRESETS

# The keys that may differ when a run is resumed: they change what is seen and when, never a weight.
# (train.group_size changes how images share the device: the same training within rounding.)
# A new key, of these or not, also has its entry in singan/legacy_defaults.py: what runs without it were trained with.
RESUMABLE_KEYS = (
    "tracking.*",
    "train.checkpoint_every",
    "train.group_size",
    "train.compile_ahead",
    "data.path",
    "data.masks",
)


def resume_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns the keys, as 'key: old -> new', whose change would change the training of a run that exists.

    A key that one side lacks has its legacy default there. Where the preset changes, what presets decide is left out.

    Args:
      old: the mapping of the run's config.json.
      new: the mapping now asked for.
    """
    old_flat, new_flat = flatten(old), flatten(new)
    result = {}
    for key in sorted({*old_flat, *new_flat}):
        before, now = (flat.get(key, LEGACY_DEFAULTS.get(key)) for flat in (old_flat, new_flat))
        if before != now and not _resumable(key):
            result[key] = f"{key}: {before!r} -> {now!r}"
    decided = PRESETS["corrected"] if "preset" in result else {}
    return [text for key, text in result.items() if key not in decided]


def training_values(config: Config) -> dict[str, Any]:
    """Returns what of a configuration decides on the weights, flat: the keys that may not change on resuming, where
    they differ from their legacy defaults. A key that is added later does not change it for runs without it."""
    flat = flatten(to_mapping(config))
    return {k: value for k, value in flat.items() if value != LEGACY_DEFAULTS.get(k) and not _resumable(k)}


def _resumable(key: str) -> bool:
    return any(key == k or (k.endswith("*") and key.startswith(k[:-1])) for k in RESUMABLE_KEYS)
