"""Where a sweep can run: the backend of a name."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from launch import command_flags as flags
from launch.sweep.backends.gke import Gke
from launch.sweep.backends.local import Local
from launch.sweep.backends.machines import CloudSettings, bucket_root, cloud_settings
from launch.sweep.backends.runner import Runner
from launch.sweep.backends.skypilot import SkyPilot
from launch.sweep.backends.tpu_vm import TpuVm
from launch.sweep.plan import PlannedRun, Sweep
from singan.config import nearest
from singan.errors import UserError


class Backend(Protocol):
    """Turns planned runs into processes or jobs. The methods return exit codes, `describe` the plan as a text."""

    def require(self) -> None: ...  # raises UserError where something is missing that the other methods need

    def describe(self, runs: Sequence[PlannedRun]) -> str: ...

    def start(self, runs: Sequence[PlannedRun]) -> int: ...

    def logs(self, runs: Sequence[PlannedRun]) -> int: ...

    def delete(self, runs: Sequence[PlannedRun]) -> int: ...


BACKENDS = ("local", "skypilot", "gke", "tpu_vm")

# Flags of every command that asks for a backend; they belong to it, so that its --help lists them.
flags.disclaim_key_flags()


def define_flags() -> None:
    """Defines the flags of the backends."""
    flags.DEFINE_string("backend", "local", f"Where the runs are trained: {', '.join(BACKENDS)}.")
    flags.DEFINE_integer(
        "concurrency", 0, "local: runs at once; 0: as many as have devices, on a CPU one.", lower_bound=0
    )
    flags.DEFINE_integer("devices_per_run", 1, "local: GPUs or TPU chips of each run.", lower_bound=1)
    # The defaults are the sweep file's CLOUD, and those of launch.sweep.backends.machines.CloudSettings.
    flags.DEFINE_string("accelerator", None, "cloud: such as v5e-8, v6e-16, v7x-8, A100, H100:8.")
    flags.DEFINE_string("zone", None, "cloud: such as us-west4-a.")
    flags.DEFINE_string("bucket", None, "cloud: such as gs://BUCKET, which a relative --workdir lies in.")
    flags.DEFINE_boolean("spot", None, "cloud: machines that may be taken away, and cost less.")
    flags.DEFINE_integer("machines", None, "cloud: deal the runs out to this many machines; 0: one for every run.")
    flags.DEFINE_string("project", None, "cloud: of Google Cloud; else gcloud's own default.")
    flags.DEFINE_string("jobs", "runs/jobs", "skypilot, gke: folder in which the task files are written.")
    flags.DEFINE_boolean(
        "watch", False, "tpu_vm: stay until all runs have ended, and ask again for machines that are taken away."
    )
    flags.DEFINE_string("image", None, "gke: of the pods, with bash, curl, tar and gcloud.")
    flags.DEFINE_string("service_account", None, "gke: of Kubernetes, that may read and write the bucket.")
    flags.DEFINE_string("namespace", None, "gke: of the jobs and of the secret with wandb's key.")


def chosen_root(workdir: str, backend: str, cloud: Mapping[str, Any]) -> tuple[str, CloudSettings]:
    """Returns where the workdirs lie, and the cloud's settings: the sweep file's CLOUD with the flags on top.

    Raises:
      UserError: there is no such backend, a setting is wrong, or the clouds' machines cannot see the workdir.
    """
    if backend not in BACKENDS:
        raise UserError(f"--backend={backend} is none of {', '.join(BACKENDS)}{nearest(backend, BACKENDS)}")
    names = ("accelerator", "zone", "bucket", "spot", "machines", "project", "image", "service_account", "namespace")
    settings = cloud_settings(cloud, {name: flags.FLAGS[name].value for name in names})
    return workdir if backend == "local" else bucket_root(workdir, settings), settings


def make_backend(name: str, sweep: Sweep, settings: CloudSettings, runner: Runner) -> Backend:
    """Returns the backend of a name, which is one of BACKENDS."""
    if name == "local":
        return Local(sweep, flags.FLAGS.concurrency, flags.FLAGS.devices_per_run)
    if name == "skypilot":
        return SkyPilot(sweep, settings, flags.FLAGS.jobs, runner)
    if name == "gke":
        return Gke(sweep, settings, flags.FLAGS.jobs, runner)
    return TpuVm(sweep, settings, runner, flags.FLAGS.watch)
