"""What the clouds have in common: the settings, which run goes to which machine, and the script that a machine runs."""

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from launch.sweep.backends.accelerators import Accelerator, find_accelerator
from launch.sweep.plan import REPOSITORY, PlannedRun, Sweep, train_flags
from launch.tracking.wandb_mode import wandb_mode
from singan.config import nearest
from singan.errors import UserError
from singan.files import is_bucket

CODE = "medisingan"  # where the code lies on a machine, in the home directory
DATA = "/tmp/medisingan-data"
ARCHIVE = "/tmp/medisingan-code.tar.gz"
PYTHON = f"$HOME/{CODE}-venv/bin/python"


@dataclasses.dataclass(frozen=True)
class CloudSettings:
    """Where and on what a sweep runs. Defaults, then the sweep file's CLOUD, then flags."""

    accelerator: str = "v5e-8"
    zone: str = ""  # '' leaves it to SkyPilot, or takes the accelerator's usual one for gcloud
    bucket: str = "gs://BUCKET"  # what a relative --workdir lies in
    spot: bool = True
    machines: int = 0  # the runs are dealt out to this many machines, each with a queue; 0: a machine for every run
    project: str = ""  # of Google Cloud; '' takes gcloud's own default
    disk_size: int = 100  # GB
    # gke alone. The image needs bash, curl, tar and gcloud; the code and its packages are brought to it.
    image: str = "google/cloud-sdk:slim"
    service_account: str = ""  # of Kubernetes, that may read and write the bucket (Workload Identity)
    namespace: str = ""


def cloud_settings(*layers: Mapping[str, Any]) -> CloudSettings:
    """Returns the settings that the layers give, a later one winning; None leaves a setting as it is.

    Raises:
      UserError: an unknown setting, or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    fields = {field.name: field for field in dataclasses.fields(CloudSettings)}
    for layer in layers:
        for key, value in layer.items():
            if key not in fields:
                raise UserError(f"CLOUD has a setting {key!r} that does not exist{nearest(str(key), fields)}")
            if value is not None and type(value) is not type(fields[key].default):
                raise UserError(f"CLOUD[{key!r}] must be like {fields[key].default!r}, not {value!r}")
            values |= {} if value is None else {key: value}
    settings = CloudSettings(**values)
    find_accelerator(settings.accelerator)
    if settings.machines < 0 or settings.disk_size < 1:
        raise UserError("CLOUD: machines must be 0 or more, and disk_size at least 1 GB")
    return settings


def bucket_root(workdir: str, settings: CloudSettings) -> str:
    """Returns the URL under which the workdirs lie. Raises UserError where `workdir` is a directory of this machine."""
    if is_bucket(workdir):
        return workdir
    if Path(workdir).is_absolute() or not is_bucket(settings.bucket):
        raise UserError(
            f"--workdir={workdir} is on this machine, which the cloud's cannot see: give --workdir=gs://BUCKET/FOLDER,"
            " or a relative one and --bucket=gs://BUCKET"
        )
    return f"{settings.bucket.rstrip('/')}/{workdir}"


def check_start(root: str) -> None:
    """Raises UserError where this is no clone, which machines get, or `root` is not the URL of a bucket."""
    if not (REPOSITORY / "constraints.txt").is_file():
        raise UserError(
            "the cloud's machines get a clone of the repository, and this is an installed wheel: start there"
        )
    if not re.match(r"\w+://[a-z0-9][a-z0-9._-]+(/|$)", root):
        raise UserError(f"{root} is no bucket: give --bucket=gs://YOUR-BUCKET, or set it in the sweep file's CLOUD")


@dataclasses.dataclass(frozen=True)
class Machine:
    """One machine (a slice of several hosts, too) and the runs that it trains one after another."""

    name: str
    runs: tuple[PlannedRun, ...]


def deal(sweep: Sweep, wanted: Sequence[PlannedRun], settings: CloudSettings) -> list[Machine]:
    """Returns the machines that have something to do. A run stays with its machine, whatever else is finished."""
    chosen = {run.name for run in wanted}
    if settings.machines:
        queues = {f"m{i}": sweep.runs[i :: settings.machines] for i in range(min(settings.machines, len(sweep.runs)))}
    else:
        queues = {run.id: (run,) for run in sweep.runs}
    prefix = re.sub(r"[^a-z0-9]+", "-", sweep.group.lower()).strip("-")
    prefix = prefix[:30].rstrip("-") if prefix[:1].isalpha() else f"sweep-{prefix[:24]}".rstrip("-")
    machines = [
        Machine(f"{prefix}-{suffix}", tuple(run for run in runs if run.name in chosen))
        for suffix, runs in queues.items()
    ]
    return [machine for machine in machines if machine.runs]


def on_machine(sweep: Sweep) -> Sweep:
    """Returns the sweep as a machine sees it: the config file within the code.

    Raises:
      UserError: the config file is not part of this checkout, which is what machines get.
    """
    name, colon, variant = sweep.config_file.partition(":")
    path = Path(name).resolve()
    if not path.is_relative_to(REPOSITORY):
        raise UserError(
            f"--config={name} is outside {REPOSITORY}, which is what the cloud's machines get: move it there"
        )
    return dataclasses.replace(sweep, config_file=path.relative_to(REPOSITORY).as_posix() + colon + variant)


@dataclasses.dataclass(frozen=True)
class Data:
    """A data.path of this machine or a bucket, and where a machine finds it."""

    source: str  # a file or folder
    place: str  # what `source` becomes on the machine
    path: str  # data.path there: `place`, or a pattern within it


def data_of(runs: Sequence[PlannedRun]) -> dict[str, Data]:
    """Returns what the runs read, by their data.path; nothing is looked at.

    Raises:
      UserError: a run reads TFDS data from its default place, which machines do not have.
    """
    folders: dict[str, Data] = {}
    for data in (run.config.data for run in runs):
        if not data.path and data.source.startswith("tfds:"):
            raise UserError(
                f"data.source={data.source} needs data that the cloud's machines can get: give"
                " --config.data.path=gs://BUCKET/FOLDER, a copy of the folder that datasets.build prepared"
            )
        if data.path and data.path not in folders:
            parts, place = data.path.rstrip("/").split("/"), f"{DATA}/{len(folders)}"
            first = next((i for i, part in enumerate(parts) if any(sign in part for sign in "*?[")), None)
            if first is None:
                whole = f"{place}/{parts[-1]}"
                folders[data.path] = Data("/".join(parts), whole, whole)
            else:
                folders[data.path] = Data("/".join(parts[:first]) or ".", place, "/".join([place, *parts[first:]]))
    return folders


def check_data_in_bucket(runs: Sequence[PlannedRun], who: str) -> None:
    """Raises UserError where a run reads data of this machine."""
    for data in data_of(runs).values():
        if not is_bucket(data.source):
            raise UserError(
                f"{who} cannot see {data.source}: gcloud storage cp --recursive {data.source} gs://BUCKET/, and"
                " give --config.data.path=gs://BUCKET/..."
            )


def is_online(runs: Sequence[PlannedRun]) -> bool:
    """Returns whether a run is recorded in wandb as it goes."""
    return any(wandb_mode(run.config.tracking) == "online" for run in runs)


def pack() -> list[str]:
    """Returns the command that packs what is in the checkout and not ignored, changes too, into ARCHIVE."""
    there, archive = shlex.quote(str(REPOSITORY)), shlex.quote(ARCHIVE)
    listed = f"git -C {there} ls-files -z --cached --others --exclude-standard"
    return ["bash", "-c", f"{listed} | tar -C {there} -czf {archive} --ignore-failed-read --null -T -"]


def fetch(data: Data) -> str:
    """Returns the script that brings data to a machine: whole or not at all, and once."""
    place, part, name = data.place, shlex.quote(f"{data.place}.part"), data.source.rsplit("/", 1)[-1]
    copy = f"rm -rf {part}; mkdir -p {part}; gcloud storage cp --recursive {shlex.quote(data.source)} {part}/"
    return f"[ -e {shlex.quote(place)} ] || {{ {copy} && mv {part}/{shlex.quote(name)} {shlex.quote(place)}; }}"


def setup_script(accelerator: Accelerator) -> str:
    """Returns what makes a machine ready, run in the folder with the code; run again it changes nothing."""
    jax = "jax[tpu]" if accelerator.gcloud or accelerator.gke else "jax[cuda12]"
    return f"""\
export PATH="$HOME/.local/bin:$PATH"
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
[ -x {PYTHON} ] || uv venv --python 3.13 $HOME/{CODE}-venv
uv pip install --python {PYTHON} -c constraints.txt -e . '{jax}' gcsfs google-cloud-storage
"""


def train_script(sweep: Sweep, machine: Machine, on_stop: str) -> str:
    """Returns what trains a machine's queue: a failed run does not keep the next ones, and finished ones say so.

    Args:
      on_stop: what happens when a run was stopped and can resume (exit code 75): 'exit 75', or 'continue' its training.
    """
    inside, data = on_machine(sweep), data_of(machine.runs)
    lines = []
    for run in machine.runs:
        path = run.config.data.path
        # WANDB_MODE of this machine is not that of the others, where offline is the default.
        mode = wandb_mode(run.config.tracking)
        changed = {"tracking.wandb": mode} if mode != "offline" else {}
        flags = train_flags(inside, run, **changed, **({"data.path": data[path].path} if path else {}))
        lines.append(f"train {shlex.join(flags)}")
    runs = "\n".join(lines)
    return f"""\
failed=0 child= stopping=
trap 'stopping=1; [ -z "$child" ] || kill -TERM $child' TERM
train() {{
  killed=0
  while true; do
    if [ -n "$stopping" ]; then exit 75; fi
    code=0
    {PYTHON} -m launch.train "$@" & child=$!
    if [ -n "$stopping" ]; then kill -TERM $child; fi
    wait $child || code=$?
    # A stop ends this wait before the run has saved.
    if [ -n "$stopping" ] && [ $code -gt 128 ]; then code=0; wait $child || code=$?; fi
    if [ -n "$stopping" ]; then exit $code; fi
    # Ended by a signal, such as for want of memory: the other hosts of a slice wait for this one.
    if [ $code -gt 130 ] && [ $killed -lt 3 ]; then killed=$((killed + 1)); continue; fi
    if [ $code -ne 75 ]; then break; fi
    {on_stop}
  done
  if [ $code -ne 0 ]; then failed=1; fi
}}
{runs}
exit $failed
"""


def as_yaml(content: Mapping[str, Any]) -> str:
    """Returns a task or manifest as YAML that a person can read: scripts are blocks."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes scripts as blocks, and what stands twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
