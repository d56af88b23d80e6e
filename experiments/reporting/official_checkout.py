"""A checkout of the official implementation (github.com/tamarott/SinGAN), which the user has: --peer=DIR.

Nothing of it is in this repository. Studies run it with a script of their own, in a process of its own.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from launch.text import one_line
from singan.errors import UserError

NEEDED = ("config.py", *(f"SinGAN/{name}.py" for name in ("training", "models", "functions")))


def check(checkout: str, python: str, runner: Path) -> None:
    """Raises UserError where a folder is no checkout of the official code, or `python` lacks what it needs."""
    missing = [name for name in NEEDED if not (Path(checkout) / name).is_file()]
    if missing:
        raise UserError(
            f"--peer={checkout} is no checkout of the official implementation (github.com/tamarott/SinGAN): it has no"
            f" {missing[0]}"
        )
    run(checkout, python, runner)


def run(
    checkout: str, python: str, runner: Path, arguments: Sequence[str] = (), folder: str | Path | None = None
) -> str:
    """Returns what `runner CHECKOUT ARGUMENTS` prints in a folder; it gives the checkout no compiled files.

    Raises:
      UserError: it ends with an error, in one line.
    """
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, str(runner), str(Path(checkout).resolve()), *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise UserError(f"--peer_python={python} cannot be started: {error.strerror or error}") from error
    if done.returncode:
        said = [text for text in done.stderr.splitlines() if text.strip()]
        why = one_line(said[-1]) if said else f"exit code {done.returncode}"
        advice = ""
        if "ModuleNotFoundError" in why:
            advice = " (install what it needs, or name a Python that has it with --peer_python=FILE)"
        raise UserError(f"--peer={checkout} does not train: {why}{advice}")
    return done.stdout
