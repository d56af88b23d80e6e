"""The official implementation beside this project, where the user has a checkout of it: --peer=DIR.

Nothing of it is in this repository. official_runner.py trains and samples with the checkout's own functions, in its own
process: the same image at the same sizes, as many steps. Started again, it goes on at the scale where it was.
"""

from pathlib import Path

import numpy as np

from experiments.reporting import official_checkout
from experiments.sample_quality.curves import Asked, Log
from experiments.sample_quality.variants import Group
from singan import files
from singan.errors import UserError

RUNNER = Path(__file__).with_name("official_runner.py")


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
    levels = {str(s): group.pyramid.level(image.pixels, s).transpose(2, 0, 1)[None] for s in range(len(group.pyramid))}
    np.savez(folder / "reals.npz", allow_pickle=False, **levels)
    request = {
        "seed": seed,
        "steps": steps,
        "width": width,
        "ratio": group.pyramid.ratio,
        "start_scales": [start for start in asked.start_scales if start < len(group.pyramid)],
        "samples": asked.num_samples,
        "cuda": False,
    }
    files.write_json(folder / "request.json", request)
    log(f"{folder.name}: the official implementation trains")
    official_checkout.run(checkout, python, RUNNER, ("request.json", "."), folder)


def seconds(folder: Path) -> list[float]:
    """Returns the seconds of training of each scale."""
    path = folder / "seconds.json"
    return files.read_json(path) if path.exists() else []
