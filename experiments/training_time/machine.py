"""Where, when and by what command something is measured."""

import contextlib
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh


def machine(mesh: Mesh) -> dict[str, Any]:
    """Returns where, when and by what command something is measured."""
    git = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    commit = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout
    device = mesh.devices.flat[0]
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "git_commit": commit.strip(),
        "device": f"{mesh.size} x {device.device_kind} ({device.platform})",
        "host_cores": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def _command() -> str:
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return " ".join(["python", "-m", module.name, *sys.argv[1:]] if module else sys.argv)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
