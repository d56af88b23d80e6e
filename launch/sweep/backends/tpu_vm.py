"""TPU VMs through gcloud's queued resources: ask for each machine, wait for it, start its queue of runs, let it go."""

import shlex
import time
from collections.abc import Sequence

from launch.sweep.backends import machines
from launch.sweep.backends.accelerators import find_accelerator
from launch.sweep.backends.machines import CODE, CloudSettings, Data, Machine
from launch.sweep.backends.runner import Runner
from launch.sweep.plan import REPOSITORY, PlannedRun, Sweep
from singan.errors import UserError
from singan.files import is_bucket

DONE = 0
POLL = 20.0  # seconds between two looks at the queue
GONE = ("FAILED", "SUSPENDED", "SUSPENDING")  # a request that will not give a machine any more
ARCHIVE = "/tmp/medisingan-code.tar.gz"
LOCK, LOG = f"$HOME/{CODE}.lock", f"$HOME/{CODE}.log"


class TpuVm:
    """Trains each machine's queue of runs on a TPU VM, on all hosts of a slice."""

    def __init__(self, sweep: Sweep, settings: CloudSettings, runner: Runner, poll: float = POLL):
        self._sweep, self._settings, self._runner, self._poll = sweep, settings, runner, poll
        self._accelerator = find_accelerator(settings.accelerator)
        if not self._accelerator.gcloud:
            raise UserError(
                f"tpu_vm has TPUs only, not {settings.accelerator}: give --accelerator=v5e-8 or --backend=skypilot"
            )

    def require(self) -> None:
        """Raises UserError where gcloud is not installed, this is no clone, or the bucket is a placeholder."""
        self._runner.require("gcloud")
        machines.check_start(self._sweep.root)

    def describe(self, runs: Sequence[PlannedRun]) -> str:
        """Returns every command that `start`, `logs` and `delete` would run."""
        parts = [f"# the code, once\n{shlex.join(self._pack())}\n"]
        for machine in machines.deal(self._sweep, runs, self._settings):
            steps = {
                "ask for the machine": self._create(machine),
                "wait until this says ACTIVE": self._state(machine),
                "is it at work already?": self._is_busy(machine),
                "the code": self._copy(machine),
                "make it ready, on every host": self._set_up(machine),
                "start, on every host, detached": self._train(machine),
                "--logs": self._logs(machine),
                "--delete": self._delete(machine),
            }
            names = ", ".join(run.name for run in machine.runs)
            lines = [f"# {what}\n{shlex.join(command)}" for what, command in steps.items()]
            parts.append("\n".join([f"## {machine.name}: {names}", *lines, ""]))
        return "\n".join(parts)

    def start(self, runs: Sequence[PlannedRun]) -> int:
        """Asks for the machines, starts the runs of each as soon as it is there, and returns the exit code."""
        for data in machines.data_of(runs).values():
            if not is_bucket(data.source):
                raise UserError(
                    f"TPU VMs cannot see {data.source}: gcloud storage cp --recursive {data.source} gs://BUCKET/, and"
                    " give --config.data.path=gs://BUCKET/..."
                )
        waiting = machines.deal(self._sweep, runs, self._settings)
        for machine in waiting:
            self._ask_for(machine)
        self._runner.run(self._pack())
        print(
            "waiting; interrupt whenever you like: the requests stay, and the same command goes on from here",
            flush=True,
        )
        messages: dict[str, str] = {}
        while waiting:
            for machine in list(waiting):
                state = self._runner.run(self._state(machine)).strip()
                if messages.get(machine.name) != state:
                    print(f"{machine.name}: {state.lower() or 'unknown'}", flush=True)
                    messages[machine.name] = state
                if state in GONE:
                    raise UserError(f"{machine.name}: the request has ended ({state}): the same command asks again")
                if state == "ACTIVE":
                    self._begin(machine)
                    waiting.remove(machine)
            if waiting:
                time.sleep(self._poll)
        print("the machines cost money until --delete gives them back; --status shows the runs")
        return DONE

    def logs(self, runs: Sequence[PlannedRun]) -> int:
        """Shows the end of each machine's log."""
        for machine in machines.deal(self._sweep, runs, self._settings):
            print(f"--- {machine.name}", flush=True)
            self._runner.show(self._logs(machine))
        return DONE

    def delete(self, runs: Sequence[PlannedRun]) -> int:
        """Gives the machines back, or withdraws the requests; the workdirs stay."""
        for machine in machines.deal(self._sweep, runs, self._settings):
            if self._runner.run(self._state(machine), check=False).strip():
                self._runner.run(self._delete(machine))
                print(f"{machine.name}: deleted", flush=True)
        return DONE

    def _ask_for(self, machine: Machine) -> None:
        state = self._runner.run(self._state(machine), check=False).strip()  # '' where there is none of that name
        if state in GONE:  # taken away: a spot machine does not come back by itself
            self._runner.run(self._delete(machine))
        if not state or state in GONE:
            self._runner.run(self._create(machine))
            print(f"{machine.name}: asked for", flush=True)

    def _begin(self, machine: Machine) -> None:
        if "busy" in self._runner.run(self._is_busy(machine)):
            print(f"{machine.name}: at work already", flush=True)
            return
        for command in (self._copy(machine), self._set_up(machine), self._train(machine)):
            self._runner.run(command)
        print(f"{machine.name}: started, {len(machine.runs)} run(s)", flush=True)

    def _gcloud(self, verb: str, *arguments: str) -> list[str]:
        project = [f"--project={self._settings.project}"] if self._settings.project else []
        zone = self._settings.zone or self._accelerator.zone
        return [
            "gcloud",
            "compute",
            "tpus",
            "queued-resources",
            verb,
            *arguments,
            f"--zone={zone}",
            *project,
            "--quiet",
        ]

    def _ssh(self, machine: Machine, worker: str, script: str) -> list[str]:
        return self._gcloud("ssh", machine.name, f"--worker={worker}", f"--command={script}")

    def _create(self, machine: Machine) -> list[str]:
        kind, runtime = self._accelerator.gcloud, self._accelerator.runtime
        spot = ["--spot"] if self._settings.spot else []
        flags = [f"--node-id={machine.name}", f"--accelerator-type={kind}", f"--runtime-version={runtime}", *spot]
        return self._gcloud("create", machine.name, *flags)

    def _state(self, machine: Machine) -> list[str]:
        return self._gcloud("describe", machine.name, "--format=value(state.state)")

    def _delete(self, machine: Machine) -> list[str]:
        return self._gcloud("delete", machine.name, "--force")

    def _is_busy(self, machine: Machine) -> list[str]:
        return self._ssh(machine, "0", f"flock -n {LOCK} true && echo idle || echo busy")

    def _pack(self) -> list[str]:
        """What is in the checkout and not ignored, changes too."""
        there, archive = shlex.quote(str(REPOSITORY)), shlex.quote(ARCHIVE)
        listed = f"git -C {there} ls-files -z --cached --others --exclude-standard"
        return ["bash", "-c", f"{listed} | tar -C {there} -czf {archive} --ignore-failed-read --null -T -"]

    def _copy(self, machine: Machine) -> list[str]:
        return self._gcloud("scp", ARCHIVE, f"{machine.name}:{CODE}.tar.gz", "--worker=all")

    def _set_up(self, machine: Machine) -> list[str]:
        copies = [_fetch(data) for data in machines.data_of(machine.runs).values()]
        unpack = [f"mkdir -p $HOME/{CODE}", f"tar -xzf $HOME/{CODE}.tar.gz -C $HOME/{CODE}", f"cd $HOME/{CODE}"]
        return self._ssh(
            machine, "all", "\n".join(["set -e", *unpack, *copies, machines.setup_script(self._accelerator)])
        )

    def _train(self, machine: Machine) -> list[str]:
        script = machines.train_script(self._sweep, machine, "sleep 10")
        queue = f"cd $HOME/{CODE}\n{script}"
        detached = f"setsid nohup flock -n {LOCK} bash -c {shlex.quote(queue)} >> {LOG} 2>&1 < /dev/null &"
        return self._ssh(machine, "all", detached)

    def _logs(self, machine: Machine) -> list[str]:
        return self._ssh(machine, "0", f"tail -n 30 {LOG}")


def _fetch(data: Data) -> str:
    """Returns the script that brings data to a machine: whole or not at all, and once."""
    place, part, name = data.place, shlex.quote(f"{data.place}.part"), data.source.rsplit("/", 1)[-1]
    copy = f"rm -rf {part}; mkdir -p {part}; gcloud storage cp --recursive {shlex.quote(data.source)} {part}/"
    return f"[ -e {shlex.quote(place)} ] || {{ {copy} && mv {part}/{shlex.quote(name)} {shlex.quote(place)}; }}"
