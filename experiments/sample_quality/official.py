"""The official implementation beside this project, where the user has a checkout of it: --peer=DIR.

It trains on the same image at the same sizes, with as many steps. Started again, it goes on at the scale where it was.
It has no temperature: its own samples are one point. Its networks, imported, make a curve.
"""

import subprocess
import sys
from pathlib import Path

from experiments.reporting import official_checkout
from experiments.sample_quality.curves import Asked, Log
from experiments.sample_quality.variants import Group
from launch.text import one_line
from singan import files
from singan.errors import UserError


def train(
    checkout: str, python: str, folder: Path, group: Group, seed: int, steps: int, width: int, asked: Asked, log: Log
) -> None:
    """Trains on a group's one image in `folder`, and leaves samples.npz there; nothing where that is there already.

    Raises:
      UserError: the group has several images, or the checkout does not train, in one line.
    """
    if len(group.images) != 1:
        raise UserError("--peer trains images one by one: give them with --images=FILE,FILE")
    if (folder / "samples.npz").exists():
        return
    files.make_directory(folder)
    (image,) = group.images
    scales = range(len(group.pyramid))
    log(f"{folder.name}: the official implementation trains")
    official_checkout.train(
        checkout,
        python,
        folder,
        [group.pyramid.level(image.pixels, scale) for scale in scales],
        steps=[steps] * len(scales),
        widths=[min(width * 2 ** (scale // 4), 128) for scale in scales],
        ratio=group.pyramid.ratio,
        seed=seed,
        samples=asked.num_samples,
        start_scales=[start for start in asked.start_scales if start in scales],
    )


def imported(folder: Path, image_id: str, log: Log) -> Path | None:
    """Returns a workdir of the networks that `train` left in `folder`; None where they cannot be imported, and says so.

    The import has a process of its own, as it uses JAX, which this one has not started yet.
    """
    workdir = folder / "imported"
    if not workdir.exists():
        command = [sys.executable, "-m", "launch.import_pytorch", f"--from={folder}", f"--workdir={workdir}"]
        done = subprocess.run([*command, f"--name={image_id}"], capture_output=True, text=True, check=False)
        if done.returncode:
            log(f"note: {folder.name} is one point, not a curve: {one_line(done.stderr)}")
            return None
    return workdir


def seconds(folder: Path) -> list[float]:
    """Returns the seconds of training of each scale."""
    path = folder / "seconds.json"
    return files.read_json(path) if path.exists() else []
