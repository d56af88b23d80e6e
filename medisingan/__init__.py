"""MediSinGAN under one name, in a clone as in an installed wheel: the Python API, `python -m medisingan COMMAND`."""

import importlib
from typing import Any

# Imported when asked for: a command does not pay for the rest.
_API = {"train": "singan.array_training", "load_run": "singan.api", "default_config": "launch.configs"}


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'medisingan' has no attribute {name!r}")
    return getattr(importlib.import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted(_API)
