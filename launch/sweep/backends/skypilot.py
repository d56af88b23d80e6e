"""SkyPilot managed jobs: it finds machines in any cloud, and finds others when they are taken away."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from launch.cli import DONE, RESUMABLE
from launch.sweep.backends import machines
from launch.sweep.backends.accelerators import find_accelerator
from launch.sweep.backends.machines import CloudSettings, Machine
from launch.sweep.backends.runner import Runner
from launch.sweep.plan import REPOSITORY, PlannedRun, Sweep
from singan import files
from singan.errors import UserError
from singan.files import is_bucket


class SkyPilot:
    """Makes a managed job of each machine's queue of runs."""

    def __init__(self, sweep: Sweep, settings: CloudSettings, folder: str, runner: Runner):
        """Args: folder: where the task files are written."""
        self._sweep, self._settings, self._folder, self._runner = sweep, settings, Path(folder), runner
        if not find_accelerator(settings.accelerator).sky:
            raise UserError(f"SkyPilot does not have {settings.accelerator}: give --backend=gke")

    def require(self) -> None:
        """Raises UserError where sky is not installed, this is no clone, or the bucket is a placeholder."""
        self._runner.require("sky")
        machines.check_start(self._sweep.root)

    def describe(self, runs: Sequence[PlannedRun]) -> str:
        """Returns every file and command that `start` would write and run."""
        return "\n".join(
            f"# {self._file(machine)}\n{self.task(machine)}\n{shlex.join(self._launch(machine))}\n"
            for machine in machines.deal(self._sweep, runs, self._settings)
        )

    def start(self, runs: Sequence[PlannedRun]) -> int:
        """Submits the jobs that are not there already, and returns the exit code."""
        jobs = machines.deal(self._sweep, runs, self._settings)
        _check_data(runs)
        if machines.is_online(runs) and not os.environ.get("WANDB_API_KEY"):
            raise UserError("tracking.wandb is online: set WANDB_API_KEY, which the jobs are given as a secret")
        present = self._present()
        files.make_directory(self._folder)
        for machine in jobs:
            if machine.name in present:
                print(f"{machine.name}: is there already")
                continue
            files.write_text(self._file(machine), self.task(machine))
            self._runner.run(self._launch(machine))
            print(f"{machine.name}: submitted, {len(machine.runs)} run(s)", flush=True)
        print("sky jobs queue shows the jobs; --logs and --status the runs; --delete ends them")
        return DONE

    def logs(self, runs: Sequence[PlannedRun]) -> int:
        """Shows the end of each job's output."""
        for machine in machines.deal(self._sweep, runs, self._settings):
            print(f"--- {machine.name}", flush=True)
            self._runner.show(["sky", "jobs", "logs", "--no-follow", f"--name={machine.name}"])
        return DONE

    def delete(self, runs: Sequence[PlannedRun]) -> int:
        """Ends the jobs, and with them their machines; the workdirs stay."""
        for machine in machines.deal(self._sweep, runs, self._settings):
            self._runner.show(["sky", "jobs", "cancel", "--yes", f"--name={machine.name}"])
        return DONE

    def task(self, machine: Machine) -> str:
        """Returns the task file of a job."""
        accelerator = find_accelerator(self._settings.accelerator)
        resources: dict = {"accelerators": accelerator.sky}
        zone = self._settings.zone
        if accelerator.gcloud or zone:
            resources["infra"] = "/".join(["gcp", *([zone.rsplit("-", 1)[0], zone] if zone else [])])
        if accelerator.runtime:
            resources["accelerator_args"] = {"runtime_version": accelerator.runtime}
        resources |= {
            "use_spot": self._settings.spot,
            "disk_size": self._settings.disk_size,
            # 75 is a run that was stopped and resumes: the job is started again wherever there is a machine.
            "job_recovery": {"recover_on_exit_codes": [RESUMABLE]},
        }
        task = {"name": machine.name, "workdir": str(REPOSITORY), "resources": resources}
        if data := machines.data_of(machine.runs).values():
            task["file_mounts"] = {each.place: each.source for each in data}
        task["setup"] = f"set -e\n{machines.setup_script(accelerator)}"
        task["run"] = machines.train_script(self._sweep, machine, f"exit {RESUMABLE}")
        return machines.as_yaml(task)

    def _file(self, machine: Machine) -> Path:
        return self._folder / f"{machine.name}.yaml"

    def _launch(self, machine: Machine) -> list[str]:
        secret = ["--secret=WANDB_API_KEY"] if machines.is_online(machine.runs) else []
        return ["sky", "jobs", "launch", "--yes", "--detach-run", *secret, str(self._file(machine))]

    def _present(self) -> set[str]:
        """Returns the names of the jobs that wait or run."""
        printed = self._runner.run(["sky", "jobs", "queue", "--skip-finished", "--all", "--output=json"])
        try:
            jobs = json.loads(printed[printed.index("[") :])
            return {job.get("job_name") or job.get("name") for job in jobs}
        except (ValueError, AttributeError):
            raise UserError(
                "sky jobs queue --output=json printed no list of jobs: is SkyPilot at least 0.14?"
            ) from None


def _check_data(runs: Sequence[PlannedRun]) -> None:
    for data in machines.data_of(runs).values():
        if not is_bucket(data.source) and not Path(data.source).exists():
            raise UserError(f"config.data.path: {data.source} does not exist")
