"""Files of studies by name, from any folder (quickstart is experiments/quickstart/config.py), and running them."""

import importlib.machinery
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from launch.text import described
from singan.config import nearest
from singan.errors import UserError

HOME = Path(__file__).resolve().parents[1]  # the repository, or in an installed wheel the package medisingan


def names(file: str = "config.py") -> list[str]:
    """Returns the studies that have a file of this name."""
    return sorted(path.parent.name for path in HOME.glob(f"experiments/*/{file}"))


def find_file(given: str, file: str) -> str:
    """Returns the path that a flag's value stands for, with the argument that may follow its colon.

    Args:
      given: PATH, PATH:ARGUMENT, STUDY or STUDY:ARGUMENT. A file of this name goes before a study of this name.
      file: of a study: config.py or sweep.py.
    """
    name, colon, argument = given.partition(":")
    for path in (HOME / "experiments" / name / file, HOME / name):
        if name and not Path(name).is_file() and path.is_file() and path.is_relative_to(HOME / "experiments"):
            return f"{path}{colon}{argument}"
    return given


def run_file(kind: str, given: str) -> tuple[Any, types.ModuleType]:
    """Returns what a file's get_config() or get_sweep() returns, and the file as a module.

    Args:
      kind: config or sweep.
      given: as in `find_file`; the argument goes to the function.

    Raises:
      UserError: there is no such file, or its code fails, which is any code: the text names the line.
    """
    path, _, argument = find_file(given, f"{kind}.py").partition(":")
    if not Path(path).is_file():
        known = names(f"{kind}.py")
        raise UserError(
            f"--{kind}={path}: there is no such file{nearest(path, known)}; by name there are {', '.join(known)}"
        )
    loader = importlib.machinery.SourceFileLoader(f"{kind}_file", path)
    module = types.ModuleType(loader.name)
    module.__file__ = path
    sys.modules[loader.name] = module  # where dataclasses look for it
    try:
        loader.exec_module(module)
        if not hasattr(module, f"get_{kind}"):
            raise UserError(f"it has no function get_{kind}()")
        return getattr(module, f"get_{kind}")(*([argument] if argument else [])), module
    except SyntaxError as error:
        raise UserError(
            f"the {kind} file {error.filename or path}, line {error.lineno}: SyntaxError: {error.msg}"
        ) from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f", line {frame.lineno}" for frame in reversed(frames) if frame.filename == path), "")
        text = str(error) if isinstance(error, UserError) else described(error)
        raise UserError(f"the {kind} file {path}{line}: {text}") from error
