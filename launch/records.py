"""Claiming a workdir for a run, and run.json: which run this is and where it was made."""

import dataclasses
import datetime
import importlib.metadata
import platform
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from launch.sources import SourceImage
from singan import files
from singan import workdir as records
from singan.config import Config, resume_differences, to_mapping
from singan.errors import UserError
from singan.workdir import ImageRecord, Workdir

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "wandb")


@dataclasses.dataclass
class RunRecord:
    """run.json."""

    id: str
    content: dict[str, Any]

    def update(self, workdir: Workdir, **changes: Any) -> None:
        """Changes entries of run.json."""
        self.content.update(changes)
        files.write_json(workdir.run, self.content)

    def is_finished(self, workdir: Workdir, scales: int) -> bool:
        """Returns whether the run has ended well and every scale's mark is there."""
        done = all(records.read_done(workdir, scale) is not None for scale in range(scales))
        return done and self.content.get("status") == "finished"


def claim_workdir(workdir: Workdir, config: Config, images: Sequence[SourceImage], mesh: Mesh) -> RunRecord:
    """Makes the workdir that of this run, or finds that it is; returns its run record, marked as running.

    Raises:
      UserError: the workdir holds a run with another training configuration (the keys are named) or other images.
    """
    rows = [record_of(image) for image in images]
    if workdir.config.exists():
        old = records.read_config(workdir)
        if different := resume_differences(to_mapping(old), to_mapping(config)):
            raise UserError(
                f"{workdir.path} holds a run with another configuration ({'; '.join(different)}): choose another"
                " --workdir, or give the old values to go on with it"
            )
        _check_images(workdir, records.read_images(workdir), rows)
    else:
        # images.json before config.json: whoever finds config.json finds both.
        records.write_images(workdir, rows)
    for image in images:
        if not workdir.image(image.id).exists():
            records.write_image(workdir, image.id, image.pixels)
    records.write_config(workdir, config)
    content = files.read_json(workdir.run) if workdir.run.exists() else {"id": secrets.token_hex(4), "starts": []}
    if content.get("status") != "finished":
        content["status"] = "running"
        content["starts"].append(_start(mesh))
        files.write_json(workdir.run, content)
    return RunRecord(content["id"], content)


def record_of(image: SourceImage) -> ImageRecord:
    """Returns what images.json keeps of an image."""
    height, width, channels = image.pixels.shape
    return ImageRecord(
        image.id,
        image.source,
        (height, width, channels),
        image.channels,
        image.value_map,
        records.pixel_digest(image.pixels),
        files.plain(image.details),
    )


def _check_images(workdir: Workdir, old: Sequence[ImageRecord], new: Sequence[ImageRecord]) -> None:
    before, now = ({record.id: record for record in records} for records in (old, new))
    gone, added = sorted(set(before) - set(now)), sorted(set(now) - set(before))
    changed = sorted(name for name in set(before) & set(now) if before[name] != now[name])
    for names, what in ((gone, "missing now"), (added, "new"), (changed, "changed")):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise UserError(f"{workdir.path} was started with other images ({what}: {shown}): choose another --workdir")


def _start(mesh: Mesh) -> dict[str, Any]:
    devices = list(mesh.devices.flat)
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git_commit": _git_commit(),
        "host": platform.node(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "processes": jax.process_count(),
    }


def _git_commit() -> str:
    """Returns the commit of this code, with + where files were changed, or '' outside a checkout."""
    here = Path(__file__).parent
    try:
        command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
