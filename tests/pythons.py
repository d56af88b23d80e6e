"""The Pythons of this machine that this project runs on: on PATH, or where pyenv puts them."""

import os
import subprocess
from pathlib import Path

VERSIONS = ("3.13", "3.12", "3.11")


def find(version: str) -> str | None:
    """Returns the path of a Python of this version that runs and can make environments; None where there is none.

    The same search, in shell, is in .ci/run.
    """
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    pyenv = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin"), reverse=True)
    for folder in [*folders, *pyenv]:
        python = folder / f"python{version}"
        if python.is_file() and not subprocess.run([python, "-c", "import ensurepip"], capture_output=True).returncode:
            return str(python)
    return None
