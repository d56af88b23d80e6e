"""Reading an experiment's sweep.py: `get_sweep()` returns the runs, `CLOUD` the machines that they want by default."""

from collections.abc import Mapping
from typing import Any

from launch import studies
from singan.errors import UserError


def load_sweep(given: str) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """Returns the runs, as {config key: value}, and the cloud settings of a sweep file.

    Args:
      given: FILE, FILE:ARGUMENT, or a study's name in place of FILE; the argument goes to get_sweep.

    Raises:
      UserError: there is no such file, its code fails, or it gives no list of mappings.
    """
    runs, module = studies.run_file("sweep", given)
    if not isinstance(runs, list) or not runs or not all(isinstance(run, Mapping) for run in runs):
        raise UserError(
            f"the sweep file {module.__file__}: get_sweep() must return a list of runs, such as product({{...}}) gives"
        )
    return runs, getattr(module, "CLOUD", {})
