"""A checkout of the official implementation (github.com/tamarott/SinGAN), which the user has: --peer=DIR.

Nothing of it is in this repository. official_runner.py trains and samples with the checkout's own functions, in a
process of its own.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.text import one_line
from singan import files
from singan.errors import UserError

RUNNER = Path(__file__).with_name("official_runner.py")
NEEDED = ("config.py", *(f"SinGAN/{name}.py" for name in ("training", "models", "functions", "manipulate")))


def check(checkout: str, python: str) -> None:
    """Raises UserError where a folder is no checkout of the official code, or `python` lacks what it needs."""
    missing = [name for name in NEEDED if not (Path(checkout) / name).is_file()]
    if missing:
        raise UserError(
            f"--peer={checkout} is no checkout of the official implementation (github.com/tamarott/SinGAN): it has no"
            f" {missing[0]}"
        )
    _run(checkout, python)


def train(
    checkout: str,
    python: str,
    folder: Path,
    reals: Sequence[np.ndarray],
    *,
    steps: Sequence[int],
    widths: Sequence[int],
    ratio: float,
    seed: int = 0,
    samples: int = 0,
    start_scales: Sequence[int] = (),
    of_iterations: bool = False,
    cuda: bool = False,
) -> dict[str, Any]:
    """Trains on one image in `folder`, or goes on there, and leaves the files that official_runner.py names.

    Args:
      checkout: a folder that `check` accepts.
      python: the program that runs it.
      reals: the image at each scale, float32 [h, w, C] in [-1, 1].
      steps, widths: iterations and hidden channels of each scale.
      ratio: of neighbouring scales.
      samples: of each of `start_scales`, in samples.npz.
      of_iterations: seconds are the median of an iteration, of five or more, and not of all together.

    Returns:
      {"seconds": of each scale, "torch": its version, "threads": how many it has}.

    Raises:
      UserError: the checkout does not train, in one line.
    """
    levels = {str(scale): real.transpose(2, 0, 1)[None] for scale, real in enumerate(reals)}
    np.savez(folder / "reals.npz", allow_pickle=False, **levels)
    request = {"steps": steps, "widths": widths, "ratio": ratio, "seed": seed, "samples": samples}
    request |= {"start_scales": start_scales, "of_iterations": of_iterations, "cuda": cuda}
    files.write_json(folder / "request.json", request)
    _run(checkout, python, str(folder.resolve()))
    return files.read_json(folder / "result.json")


def _run(checkout: str, python: str, *arguments: str) -> None:
    """Starts the runner and waits for it; it gives the checkout no compiled files."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, str(RUNNER), str(Path(checkout).resolve()), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise UserError(f"--peer_python={python} cannot be started: {error.strerror or error}") from error
    if done.returncode:
        said = [text for text in done.stderr.splitlines() if text.strip()]
        why = one_line(said[-1]) if said else f"exit code {done.returncode}"
        advice = ""
        if "ModuleNotFoundError" in why:
            advice = " (install what it needs, or name a Python that has it with --peer_python=FILE)"
        raise UserError(f"--peer={checkout} does not train: {why}{advice}")
