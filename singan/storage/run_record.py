"""Claiming a workdir for a run, and run.json: which run this is and where it was made."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jax.sharding import Mesh

from singan import files
from singan.config import Config, to_mapping
from singan.errors import UserError
from singan.files import AnyPath
from singan.model.convolution import CONV_IMPLS
from singan.parallel import processor
from singan.parallel.processes import Processes
from singan.resuming import resume_differences
from singan.secrets import hidden_arguments
from singan.source_image import SourceImage
from singan.storage import workdir as records
from singan.storage.checkpoint_files import abouts
from singan.storage.layout_files import has_layout, write_layout
from singan.storage.origin import Origin, check_origin, origin_of
from singan.storage.workdir import DamagedRecord, ImageRecord, Workdir
from singan.text import print_warning

T = TypeVar("T")

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "wandb")


@dataclasses.dataclass
class RunRecord:
    """run.json."""

    id: str
    content: dict[str, Any]
    origin: Origin  # of the run's weights
    writes: bool = True  # whether this process is the one that keeps it

    def update(self, workdir: Workdir, **changes: Any) -> None:
        """Changes entries of run.json."""
        self.content.update(changes)
        if self.writes:
            records.write_run(workdir, self.content)

    def conv_impl(self, workdir: Workdir, device: Any, choose: Callable[[], Mapping[str, Any]]) -> str:
        """Returns the convolution's implementation: the one that was recorded for this kind of device, or a new choice.

        Args: choose: returns {"form": the implementation, "why": ..}, which is recorded.
        """
        recorded = self.content.get("convolution", {})
        if recorded.get("device") != device.device_kind or recorded.get("form") not in CONV_IMPLS:
            recorded = {"device": device.device_kind, **choose()}
            self.update(workdir, convolution=recorded)
        return recorded["form"]

    def is_finished(self, workdir: Workdir, scales: int) -> bool:
        """Returns whether the run has ended well and every scale's mark is there."""
        done = all(records.read_done(workdir, scale) is not None for scale in range(scales))
        return done and self.content.get("status") == "finished"


def claim_workdir(
    workdir: Workdir,
    config: Config,
    images: Sequence[SourceImage],
    mesh: Mesh,
    processes: Processes | None = None,
    rows: Sequence[ImageRecord] = (),
) -> RunRecord:
    """Claims the workdir for this run: an empty one is set up, one that holds this run is checked and gone on with.

    Writes config.json, images.json, the pixels of the training images and run.json with a new start, and returns the
    run record, with the status 'running'.

    Args:
      images: those of this process, which writes their pixels.
      processes: all of which call this, where a training has several; the first one writes the records.
      rows: of the images of all processes.

    Raises:
      UserError: the workdir holds a run with another training configuration (the keys are named) or other images, or
        too little is left of its records to know that it is this run.
    """
    processes = processes or Processes()
    rows = rows or [record_of(image) for image in images]
    origin = origin_of(config, rows)
    processes.run_on_first(lambda: _check_same_run(workdir, config, rows, origin))
    processes.run_on_all(lambda: _write_pixels(workdir, images, rows))
    start = start_entry(mesh, processes)
    content: dict[str, Any] = {}
    processes.run_on_first(lambda: content.update(_write_records(workdir, config, start)))
    content = processes.broadcast(content)
    return RunRecord(content["id"], content, origin, writes=processes.first)


def _check_same_run(workdir: Workdir, config: Config, rows: Sequence[ImageRecord], origin: Origin) -> None:
    """Raises UserError unless the workdir is empty or holds this run; writes images.json where it is not whole."""
    old, no_config = _kept(workdir.config, lambda: records.read_config(workdir))
    if old and (different := resume_differences(to_mapping(old), to_mapping(config))):
        preset = old.preset if old.preset != config.preset else ""
        advice = f"give --config.preset={preset} to go on with it" if preset else "give the old values to go on with it"
        raise UserError(
            f"{workdir.path} holds a run with another configuration ({'; '.join(different)}): choose another"
            f" --workdir, or {advice}"
        )
    before, no_images = _kept(workdir.images, lambda: records.read_images(workdir))
    if before:
        _check_images(workdir, before, rows)
    silent = check_origin(workdir, origin)
    # Of an earlier version, config.json and the training images that are kept with the run tell what it is.
    if silent and (no_config or (no_images and not all(records.has_image(workdir, row) for row in rows))):
        raise UserError(
            f"{no_config or no_images}, and {silent[0]}, of an earlier version, does not say what it was trained"
            " from: bring the file back from a copy, or choose another --workdir"
        )
    for why in filter(None, (no_config, no_images)) if (workdir.path / "scales").exists() else ():
        print_warning(f"{why}: written anew, as all that is trained here is of this configuration and these images")
    if not before:
        # images.json before config.json: whoever finds config.json finds both.
        records.write_images(workdir, rows)


def _write_pixels(workdir: Workdir, images: Sequence[SourceImage], rows: Sequence[ImageRecord]) -> None:
    """Writes the images of this process that the workdir does not hold yet."""
    if not workdir.images.exists():
        raise UserError(
            f"{workdir.path} is not the same folder as on process 0: where a training has several hosts, --workdir"
            " must be a folder that all of them see"
        )
    known = {row.id: row for row in rows}
    for image in images:
        if not records.has_image(workdir, known[image.id]):
            records.write_image(workdir, image.id, image.pixels)
        if image.layout is not None and not has_layout(workdir, known[image.id]):
            write_layout(workdir, image.id, image.layout)


def _write_records(workdir: Workdir, config: Config, start: dict[str, Any]) -> dict[str, Any]:
    """Writes config.json, and run.json with `start` unless the run has finished; returns what run.json holds."""
    records.write_config(workdir, config)
    content = records.read_run(workdir) if files.exists(workdir.run) else _new_run(workdir)
    if content.get("status") != "finished":
        content["status"] = "running"
        content["starts"].append(start)
        records.write_run(workdir, content)
        if different := changes(content["starts"]):
            print(
                f"note: since the last start {'; '.join(different)}: from here on the weights differ from those of an"
                " uninterrupted run, as they do by chance",
                file=sys.stderr,
            )
    return content


def _kept(path: AnyPath, read: Callable[[], T]) -> tuple[T | None, str]:
    """Returns what a record of the workdir says and '', or None and why it says nothing, in one line."""
    if not files.exists(path):
        return None, f"{path} is missing"
    try:
        return read(), ""
    except DamagedRecord as error:
        return None, str(error).partition(";")[0]


def _new_run(workdir: Workdir) -> dict[str, Any]:
    """Returns the run.json of a run that has none; where scales are trained, it says that it was lost."""
    new = {"id": secrets.token_hex(4), "starts": []}
    trained = sorted(folder / "checkpoints" for folder in workdir.path.glob("scales/*"))
    if not trained:
        return new
    print_warning(
        f"{workdir.run} is missing: written anew under a new id, which makes it another run in wandb and has it"
        " evaluated again; which devices, threads and versions have trained it so far is no longer known"
    )
    said = [about["convolution"] for place in trained for about in abouts(place) if "convolution" in about]
    return {**new, "lost": "what it said of earlier starts", **({"convolution": said[-1]} if said else {})}


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
    changed = sorted(name for name in set(before) & set(now) if before[name] != _as_recorded(now[name], before[name]))
    for names, what in ((gone, "missing now"), (added, "new"), (changed, "changed")):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise UserError(f"{workdir.path} was started with other images ({what}: {shown}): choose another --workdir")


def _as_recorded(record: ImageRecord, before: ImageRecord) -> ImageRecord:
    """Returns a record without the details that were not noted yet when `before` was written."""
    return dataclasses.replace(record, details={k: v for k, v in record.details.items() if k in before.details})


def code_version() -> dict[str, Any]:
    """Returns which code this is: the commit and the packages' versions."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # wandb need not be here
            versions[name] = importlib.metadata.version(name)
    return {"git_commit": _git_commit(), "versions": versions}


def start_entry(mesh: Mesh, processes: Processes) -> dict[str, Any]:
    """Returns what run.json keeps of a start, all that the bits of what it trains depend on among it."""
    devices = list(mesh.devices.flat)
    return {
        "time": datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat(timespec="seconds"),
        "command": hidden_arguments(sys.argv),
        **code_version(),
        "host": platform.node(),
        "python": platform.python_version(),
        "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        **({"cpu": processor.about()} if devices[0].platform == "cpu" else {}),
        "processes": processes.count,
        **({"hosts": processes.hosts} if processes.count > 1 else {}),
    }


def changes(starts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns in what the last start of a run differs from the one before, where that changes the bits of a training.

    The number of devices does not: an image trains on one.
    """
    if len(starts) < 2:
        return []
    before, now = starts[-2:]
    kinds = [str(start.get("devices", "")).partition(" x ")[2] for start in (before, now)]
    differences = [f"device {kinds[0]}, now {kinds[1]}"] if kinds[0] != kinds[1] else []
    versions = [_part(start, "versions").get("jaxlib") for start in (before, now)]
    if versions[0] != versions[1]:
        differences.append(f"jaxlib {versions[0]}, now {versions[1]}")
    return differences + processor.differences(_part(before, "cpu"), _part(now, "cpu"))


def _part(start: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns what a start says under a name; nothing where a file of others says no more than a word."""
    return part if isinstance(part := start.get(name), Mapping) else {}


def _git_commit() -> str:
    """Returns the commit of this code, with + where files were changed, or '' outside a checkout."""
    here = Path(__file__)
    try:
        # An installed wheel may lie in the checkout of another project.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
