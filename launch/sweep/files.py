"""Reading an experiment's sweep.py: `get_sweep()` returns the runs, `CLOUD` the machines that they want by default."""

import importlib.util
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch import studies
from launch.text import described
from singan.errors import UserError


def load_sweep(given: str) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """Returns the runs, as {config key: value}, and the cloud settings of a sweep file.

    Args:
      given: FILE, FILE:ARGUMENT, or a study's name in place of FILE; the argument goes to get_sweep.

    Raises:
      UserError: there is no such file, its code fails, or it gives no list of mappings.
    """
    name, _, argument = studies.find_file(given, "sweep.py").partition(":")
    if not Path(name).is_file():
        raise UserError(studies.no_such_file("sweep", name, "sweep.py"))
    try:
        spec = importlib.util.spec_from_file_location("sweep_file", name)
        if spec is None or spec.loader is None:
            raise UserError("it is no Python file: its name must end in .py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, "get_sweep"):
            raise UserError("it has no function get_sweep()")
        runs = module.get_sweep(*([argument] if argument else []))
    except UserError as error:
        raise UserError(f"the sweep file {name}: {error}") from error
    except (Exception, SystemExit) as error:  # a sweep file runs any code
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f", line {frame.lineno}" for frame in reversed(frames) if frame.filename.endswith(name)), "")
        if isinstance(error, SyntaxError):
            line = f", line {error.lineno}"
        raise UserError(f"the sweep file {name}{line}: {described(error)}") from error
    if not isinstance(runs, list) or not runs or not all(isinstance(run, Mapping) for run in runs):
        raise UserError(
            f"the sweep file {name}: get_sweep() must return a list of runs, such as product({{...}}) gives"
        )
    return runs, getattr(module, "CLOUD", {})
