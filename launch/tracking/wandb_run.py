"""A run in Weights & Biases: online, offline, and each step once however often the run was resumed.

- Online, the server knows the last step it has: rows up to it are not sent again, and rows after it are sent.
- Offline, wandb begins a new folder at each start. Earlier folders that were not synced are replaced by the new one,
  which holds their rows, and move to WORKDIR/wandb/superseded, where `wandb sync WORKDIR/wandb` does not look; they
  may be deleted. Folders that were synced stay, and the new one holds only the rows after theirs; its sync appends.
- Of a workdir in a bucket, wandb's own files stay on this machine, in ~/.cache/medisingan/runs/RUN_ID/wandb.
"""

import io
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.runtime import cache_directory
from singan import files
from singan.config import TrackingConfig
from singan.secrets import hidden, hidden_arguments
from singan.storage.metrics_file import Row, place


class Wandb:
    """Sends rows to a wandb run and never stops the caller: the first exception is a warning, three in a row end it.

    The values of a scale appear as scale_03/NAME against scale_03/scale_step; a list as its mean, min and max.
    """

    def __init__(self, run: Any, workdir: Path, logged_through: int = -1, warn: Callable[[str], None] | None = None):
        """Takes a started run; rows up to global_step `logged_through` are there already and are not sent again."""
        self._run: Any = run  # None once wandb is given up
        self._workdir, self._logged_through = workdir, logged_through
        self._warn = warn or print_warning
        self._scales: set[int] = set()
        self._warned, self._failures = False, 0
        self._try(lambda: run.define_metric("global_step"))

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Sends rows of metrics.jsonl, with the pictures that still exist."""
        for row in rows:
            values = {key: value for key, value in row.items() if key != "pictures"}
            if "pictures" in row:
                paths = {name: self._workdir / path for name, path in row["pictures"].items()}
                self.pictures(values, {name: path for name, path in paths.items() if path.exists()})
            else:
                self.scalars(values)

    def append_to(self, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Sends the run's tables, unless the run is continued where it has them, and from here on rows of any step."""
        if self._logged_through < 0:
            for name, rows in tables.items():
                self.table(name, rows)
        self._logged_through = -1

    def scalars(self, row: Row) -> None:
        self._log(row, dict)

    def pictures(self, row: Row, pictures: Mapping[str, Path]) -> None:
        import wandb

        self._log(place(row), lambda: {name: wandb.Image(_pixels(path)) for name, path in pictures.items()})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        def log() -> None:
            columns: list[Any] = list(dict.fromkeys(key for row in rows for key in row))
            data = [[files.plain(row.get(column)) for column in columns] for row in rows]
            self._run.log({name: wandb.Table(columns=columns, data=data)})

        self._try(log)

    def summary(self, values: Mapping[str, Any]) -> None:
        self._try(lambda: self._run.summary.update(files.plain(values)))

    def sync(self) -> None:
        """Does nothing: wandb writes in its own time, and metrics.jsonl has the rows."""

    def close(self, exit_code: int) -> None:
        self._try(lambda: self._run.finish(exit_code=exit_code))
        self._run = None

    def _log(self, row: Row, more: Callable[[], Mapping[str, Any]]) -> None:
        step = row["global_step"]
        if isinstance(step, int) and step <= self._logged_through:
            return

        def log() -> None:
            self._run.log(self._named(row, more()))

        self._try(log)

    def _named(self, row: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
        values = {key: row[key] for key in ("global_step", "scale", "time") if key in row}
        prefix = f"scale_{row['scale']:02d}"
        if row["scale"] not in self._scales:
            self._run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/scale_step")
            self._scales.add(row["scale"])
        for key, value in {**row, **more}.items():
            if key in values or value is None:
                continue
            value = files.plain(value) if key in row else value
            if isinstance(value, list):
                for name, number in _statistics(value).items():
                    values[f"{prefix}/{key}_{name}"] = number
            elif value is not None:
                values[f"{prefix}/{key}"] = value
        return values

    def _try(self, action: Callable[[], Any]) -> None:
        if self._run is None:
            return
        try:
            action()
            self._failures = 0
        except Exception as error:  # whatever wandb raises, training goes on
            self._failures += 1
            if not self._warned:
                self._warned = True
                self._warn(f"wandb failed ({one_line(error)}); training and metrics.jsonl go on")
            if self._failures >= 3:
                self._run = None


def _statistics(values: list) -> dict[str, float]:
    numbers = [v for v in values if isinstance(v, int | float) and math.isfinite(v)]  # a diverged image's is None
    return {"mean": sum(numbers) / len(numbers), "min": min(numbers), "max": max(numbers)} if numbers else {}


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(files.read_bytes(path))) as image:
        return np.asarray(image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB"), dtype=np.uint8)


def open_wandb(
    tracking: TrackingConfig,
    workdir: Path,
    run_id: str,
    config_mapping: Mapping[str, Any],
    kept: list[dict[str, Any]],
    online_timeout: float,
) -> Wandb:
    home = local_home(workdir, run_id)
    earlier = [path for path in (home / "wandb").glob(f"*run-*-{run_id}") if path.is_dir() and not path.is_symlink()]
    uploaded = [path for path in earlier if path.name.startswith("run-") or any(path.glob("*.wandb.synced"))]
    run, logged_through = None, -1
    _keep_inside(home)
    _wait_for_a_new_name(earlier)
    start = {
        "dir": str(home),
        "id": run_id,
        "project": tracking.project,
        "group": tracking.group or None,
        "name": tracking.name or workdir.name,
        "config": files.plain(config_mapping),
    }
    if tracking.wandb == "online":
        try:
            run = _start_online(start, online_timeout)
            last = run.summary.get("global_step") if run.resumed else None
            logged_through = int(last) if last is not None else -1
        except Exception as error:
            print_warning(
                f"wandb is not reachable ({one_line(error)}); going on offline;"
                f" `wandb sync {home / 'wandb'}` uploads the run later"
            )
            _forget_attempt(set((home / "wandb").glob(f"run-*-{run_id}")) - set(earlier))
    if run is None:
        logged_through = max((_last_step(path) for path in uploaded), default=-1)
        run = _start(start, mode="offline", resume="allow")  # so that its sync asks the server where to go on
    writer = Wandb(run, workdir, logged_through)
    writer.replay(kept)
    for path in set(earlier) - set(uploaded):  # not before the replay: until then they are the fuller record
        superseded = files.make_directory(home / "wandb" / "superseded")
        shutil.move(path, superseded / path.name)
    return writer


def _wait_for_a_new_name(earlier: Iterable[Path]) -> None:
    """wandb names a folder by the second: two starts within one would write to the same."""
    names = [path.name for path in earlier]
    while any(time.strftime("-%Y%m%d_%H%M%S-") in name for name in names):
        time.sleep(0.05)


def local_home(workdir: Path, run_id: str) -> Path:
    """Returns where the run's folder wandb/ lies: the workdir, or for a bucket a folder here."""
    if not files.is_bucket(workdir):
        return workdir
    return files.make_directory(cache_directory() / "runs" / run_id)


def _last_step(folder: Path) -> int:
    """Returns the largest global_step in a wandb folder, as wandb's own command reads it; -1 where there is none."""
    last = -1
    for path in folder.glob("*.wandb"):
        if path.is_symlink() or not path.is_file():
            continue
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, encoding="utf-8", timeout=120, check=False
        )
        for line in done.stdout.splitlines():
            step = json.loads(line).get("history", {}).get("item", {}).get("global_step", -1)
            last = max(last, step)
    return last


def _keep_inside(workdir: Path) -> None:
    """Sets the environment in which wandb is silent, reports nothing home and writes to WORKDIR/wandb alone."""
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    for name in ("CACHE", "DATA", "ARTIFACT"):
        os.environ[f"WANDB_{name}_DIR"] = str(workdir / "wandb" / f".{name.lower()}")
    # These would turn the run into another one, or its later sync into an append.
    for name in ("WANDB_RESUME", "WANDB_RUN_ID", "WANDB_MODE"):
        os.environ.pop(name, None)


def _start(start: Mapping[str, Any], **more: Any) -> Any:
    import wandb

    timeout = more.pop("timeout", 60.0)
    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=timeout,
        finish_timeout=60.0,  # an upload that hangs at the end must not hold the machine; `wandb sync` sends the rest
        disable_git=True,
        disable_code=True,
        save_code=False,
        disable_job_creation=True,
    )
    argv, sys.argv = sys.argv, hidden_arguments(sys.argv)  # which wandb records as they are
    try:
        return wandb.init(**start, **more, settings=settings, reinit="create_new")
    finally:
        sys.argv = argv


def _start_online(start: Mapping[str, Any], timeout: float) -> Any:
    import wandb

    deadline = time.monotonic() + timeout
    url = urllib.parse.urlsplit(wandb.setup().settings.base_url)
    host = url.hostname or ""
    if not urllib.request.getproxies() or urllib.request.proxy_bypass(host):
        # wandb itself retries a refused connection until its time-out: this finds out in a moment.
        socket.create_connection((host, url.port or (443 if url.scheme == "https" else 80)), timeout).close()
    return _start(start, mode="online", resume="allow", timeout=max(1.0, deadline - time.monotonic()))


def _forget_attempt(folders: Iterable[Path]) -> None:
    """Ends an attempt that timed out (its run id would stay in use) and removes the empty folders that it began."""
    import wandb

    wandb.teardown(exit_code=1)
    for path in folders:
        shutil.rmtree(path, ignore_errors=True)


def one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return hidden(text)[:200]
