"""A run in Weights & Biases as something to compare, read by wandb's public API; needs the network and a key."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.compare.compared import AT_END, Compared
from launch.results.quality import Evaluation, Measured
from launch.tracking.wandb_run import one_line
from singan.config import flatten
from singan.errors import UserError

TIMEOUT = 20  # seconds, of a request


def of_wandb(place: str) -> Compared:
    """Returns the run ENTITY/PROJECT/ID.

    Raises:
      UserError: wandb cannot be reached, has no key, or has no such run.
    """
    try:
        import wandb

        return of_run(place, wandb.Api(timeout=TIMEOUT).run(place))
    except Exception as error:  # whatever wandb raises
        raise UserError(
            f"{place} is no directory, and as a wandb run it cannot be read ({one_line(error)}): give a workdir, or"
            " check the network, the run's path and the key (wandb login)"
        ) from error


def of_run(place: str, run: Any) -> Compared:
    """Returns what wandb's public Run holds: the configuration, the last values and the last picture."""
    summary: Mapping[str, Any] = dict(run.summary)
    ends: dict[int, dict[str, Measured]] = {}
    speeds: dict[int, float] = {}
    cohort: dict[str, dict[str, Measured]] = {}
    pictures: dict[int, str] = {}
    for key, value in summary.items():
        number = float(value) if isinstance(value, int | float) else None
        if match := re.fullmatch(r"(?:scale_\d+/)?evaluation/start_(\d+)/(.+)", key):
            if number is not None:
                cohort.setdefault(str(int(match[1])), {})[match[2]] = Measured(number, number, number, 1)
        elif match := re.fullmatch(r"scale_(\d+)/(.+)", key):
            scale, name = int(match[1]), match[2].removeprefix("end/").removesuffix("_mean")
            if name == "image_steps_per_second" and number is not None:
                speeds[scale] = number
            elif name in AT_END and number is not None:
                ends.setdefault(scale, {})[name] = Measured(number, number, number, 1)
            elif name == "samples" and isinstance(value, Mapping) and "path" in value:
                pictures[scale] = str(value["path"])
    config = flatten(
        {key: value for key, value in dict(run.config).items() if not key.startswith("_") and key != "started"}
    )
    settings = {key: summary[f"evaluation/{key}"] for key in ("num_samples", "seed") if f"evaluation/{key}" in summary}
    return Compared(
        str(run.name or place),
        place,
        {"status": f"{run.state}, in wandb", "scales done": str(len(ends))},
        config,
        ends=ends,
        speeds=speeds,
        seconds=float(summary.get("_runtime") or 0.0),
        evaluation=Evaluation(settings, {}, cohort, {}) if cohort else None,
        grid=_picture(run, pictures),
        run_id=place.rsplit("/", 1)[-1],
    )


def _picture(run: Any, pictures: Mapping[int, str]) -> tuple[str, bytes] | None:
    if not pictures:
        return None
    scale = max(pictures)
    with tempfile.TemporaryDirectory() as folder:
        run.file(pictures[scale]).download(root=folder, replace=True).close()
        return f"scale {scale}", (Path(folder) / pictures[scale]).read_bytes()
