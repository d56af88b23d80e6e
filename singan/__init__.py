"""The method and its engine: `singan.train(images, workdir)` trains, `singan.load_run(workdir)` opens a trained run."""

import importlib
from typing import Any

# Imported when asked for: a test of one room, or of a machine without Orbax, does not pay for all of them.
_API = {
    "train": "singan.array_training",
    "Progress": "singan.array_training",
    "load_run": "singan.api",
    "TrainedRun": "singan.api",
    "UserError": "singan.errors",
    "Diverged": "singan.training.scale_run",
}


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'singan' has no attribute {name!r}")
    return getattr(importlib.import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted(_API)
