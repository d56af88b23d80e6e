"""Starting a run in Weights & Biases: online, offline, and each step once however often the run was resumed.

- Online, the server knows the last step it has: rows up to it are not sent again, and rows after it are sent.
- Offline, wandb begins a new folder at each start. Earlier folders that were not synced are replaced by the new one,
  which holds their rows, and move to WORKDIR/wandb/superseded, where `wandb sync WORKDIR/wandb` does not look; they
  may be deleted. Folders that were synced stay, and the new one holds only the rows after theirs; its sync appends.
- Of a workdir in a bucket, wandb writes on this machine, in ~/.cache/medisingan/runs/RUN_ID/wandb; an offline record is
  copied into WORKDIR/wandb as the run is closed.
- launch.evaluate goes on with the run: offline in a new folder that holds the training's rows and its command, too.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.runtime import cache_directory
from launch.tracking.sent import Sent
from launch.tracking.wandb_mode import wandb_mode
from launch.tracking.wandb_run import Wandb, one_line
from singan import files
from singan.config import TrackingConfig
from singan.errors import UserError
from singan.secrets import hidden_arguments
from singan.storage import workdir as records
from singan.storage.workdir import Workdir
from singan.text import print_warning

ONLINE_TIMEOUT = 30.0  # seconds to wait for the server before going on offline


def open_wandb(
    tracking: TrackingConfig,
    workdir: Path,
    run_id: str,
    config_mapping: Mapping[str, Any],
    kept: list[dict[str, Any]],
) -> Wandb:
    home, about = local_home(workdir, run_id), _About.of(tracking, workdir)
    earlier = [path for path in (home / "wandb").glob(f"*run-*-{run_id}") if path.is_dir() and not path.is_symlink()]
    uploaded = [path for path in earlier if path.name.startswith("run-") or any(path.glob("*.wandb.synced"))]
    run, logged_through = None, -1
    online = wandb_mode(tracking) == "online"
    _keep_inside(home)
    _wait_for_a_new_name(earlier)
    start = {
        "dir": str(home),
        "id": run_id,
        "project": tracking.project,
        "group": tracking.group or None,
        "name": tracking.name or workdir.name,
        "tags": list(tracking.tags) or None,
        "notes": tracking.notes or None,
        "job_type": tracking.job_type or None,
        "config": files.plain({**about.sent.config(config_mapping), "started": about.started}),
    }
    if online:
        if not uploaded:
            print(f"note: sent to wandb: {about.sent.said()}", file=sys.stderr, flush=True)
        try:
            run = _start_online(start, about)
            print(f"note: in wandb as {run.url}", file=sys.stderr, flush=True)
            last = run.summary.get("global_step") if run.resumed else None
            logged_through = int(last) if last is not None else -1
        except Exception as error:
            print_warning(
                f"wandb is not reachable ({one_line(error)}); going on offline;"
                f" `wandb sync {home / 'wandb'}` uploads the run later"
            )
            _forget_attempt(set((home / "wandb").glob(f"run-*-{run_id}")) - set(earlier))
            online, run = False, None
    if run is None:
        logged_through = max((_last_step(path) for path in uploaded), default=-1)
        run = _start(start, about, mode="offline", resume="allow")  # so that its sync asks the server where to go on
    folder = Path(run.dir).parent
    keep = (lambda: None) if online else (lambda: _copy_to_bucket(folder, workdir, run_id))
    writer = Wandb(run, workdir, logged_through, sent=about.sent, at_close=keep)
    writer.replay(kept)
    if logged_through < 0:
        _send_the_rest(writer, workdir)
    for path in set(earlier) - set(uploaded):  # not before the replay: until then they are the fuller record
        superseded = files.make_directory(home / "wandb" / "superseded")
        shutil.move(path, superseded / path.name)
    return writer


@dataclasses.dataclass(frozen=True)
class _About:
    """What is known of a run before it goes to wandb. Of one that is evaluated, all is its training's."""

    sent: Sent
    command: list[str]
    started: str
    commit: str

    @classmethod
    def of(cls, tracking: TrackingConfig, workdir: Path) -> "_About":
        ids, starts = (), []
        with contextlib.suppress(UserError, OSError):  # a workdir of another's making: wandb alone lacks it
            ids = tuple(record.id for record in records.read_images(Workdir(workdir)))
            starts = records.read_run(Workdir(workdir)).get("starts") or []
        first, last = (starts[0], starts[-1]) if starts else ({}, {})
        command = [str(word) for word in first.get("command") or hidden_arguments(sys.argv)]
        sent = Sent.of(tracking, ids)
        return cls(sent, sent.command(command), str(first.get("time", "")), str(last.get("git_commit") or ""))


def _send_the_rest(writer: Wandb, workdir: Path) -> None:
    """Sends what no row has: tables, the summary and the weights of finished scales."""
    for path in sorted((workdir / "tables").glob("*.json")):
        writer.table(path.stem, files.read_json(path))
    if (summary := workdir / "summary.json").exists():
        writer.summary(files.read_json(summary))
    for path in sorted((workdir / "scales").glob("*/DONE")):
        writer.weights(int(path.parent.name))


def _copy_to_bucket(folder: Path, workdir: Path, run_id: str) -> None:
    """Copies the offline record of a run in a bucket beside it; earlier ones, whose rows it holds, are removed."""
    if not files.is_bucket(workdir):
        return
    kept = workdir / "wandb"
    earlier: list[Any] = [path for path in kept.glob(f"offline-run-*-{run_id}") if path.name != folder.name]
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        target = kept / folder.name / path.relative_to(folder).as_posix()
        files.make_directory(target.parent)
        files.write_bytes(target, path.read_bytes())
    for path in earlier:
        path.rmtree()


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


def _start(start: Mapping[str, Any], about: _About, **more: Any) -> Any:
    import wandb

    timeout = more.pop("timeout", 60.0)
    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=timeout,
        finish_timeout=60.0,  # an upload that hangs at the end must not hold the machine; `wandb sync` sends the rest
        disable_git=True,
        git_commit=about.commit or None,
        program=_program(about.command),
        disable_code=True,
        save_code=False,
        disable_job_creation=True,
    )
    argv, sys.argv = sys.argv, about.command  # which wandb records as they are
    try:
        return wandb.init(**start, **more, settings=settings, reinit="create_new")
    finally:
        sys.argv = argv


def _start_online(start: Mapping[str, Any], about: _About) -> Any:
    import wandb

    deadline = time.monotonic() + ONLINE_TIMEOUT
    url = urllib.parse.urlsplit(wandb.setup().settings.base_url)
    host = url.hostname or ""
    if not urllib.request.getproxies() or urllib.request.proxy_bypass(host):
        # wandb itself retries a refused connection until its time-out: this finds out in a moment.
        socket.create_connection((host, url.port or (443 if url.scheme == "https" else 80)), ONLINE_TIMEOUT).close()
    return _start(start, about, mode="online", resume="allow", timeout=max(1.0, deadline - time.monotonic()))


def _program(command: Sequence[str]) -> str | None:
    """Returns the program as wandb shows it: of launch/train/__main__.py '-m launch.train'."""
    parts = Path(command[0]).with_suffix("").parts if command else ()
    # In the wheel the folders lie in the package medisingan; a clone may lie in a folder of any name.
    roots = [i for i, part in enumerate(parts) if part in ("launch", "experiments")]
    if not roots or not command[0].endswith(".py"):
        return command[0] if command else None
    wheel = parts[max(roots[-1] - 2, 0) : roots[-1]] == ("site-packages", "medisingan")
    return f"-m {'.'.join(parts[roots[-1] - wheel :]).removesuffix('.__main__')}"


def _forget_attempt(folders: Iterable[Path]) -> None:
    """Ends an attempt that timed out (its run id would stay in use) and removes the empty folders that it began."""
    import wandb

    wandb.teardown(exit_code=1)
    for path in folders:
        shutil.rmtree(path, ignore_errors=True)
