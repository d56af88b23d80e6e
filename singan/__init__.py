"""The method and its engine. `singan.load_run(workdir)` opens a trained run."""

from typing import Any


def __getattr__(name: str) -> Any:
    # Imported when asked for: a test of one room, or of a machine without Orbax, does not pay for all of them.
    if name == "load_run":
        from singan.api import load_run

        return load_run
    raise AttributeError(f"module 'singan' has no attribute {name!r}")
