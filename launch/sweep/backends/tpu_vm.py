"""TPU VMs through gcloud's queued resources: ask for each machine, wait for it, start its queue of runs, let it go.

Google keeps this API for v4 to v6e; later generations are those of GKE (launch/sweep/backends/gke.py).
"""

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from launch.cli import DONE, FAILED
from launch.sweep import state as run_state
from launch.sweep.backends import machines
from launch.sweep.backends.accelerators import find_accelerator
from launch.sweep.backends.machines import CODE, CloudSettings, Machine
from launch.sweep.backends.runner import Runner
from launch.sweep.plan import PlannedRun, Sweep
from singan.errors import UserError

POLL = 20.0  # seconds between two looks at the queue
GONE = ("FAILED", "SUSPENDED", "SUSPENDING")  # a request that will not give a machine any more
LOCK, LOG, KEY = (f"$HOME/{CODE}.{ending}" for ending in ("lock", "log", "key"))


class TpuVm:
    """Trains each machine's queue of runs on a TPU VM, on all hosts of a slice."""

    def __init__(self, sweep: Sweep, settings: CloudSettings, runner: Runner, watch: bool = False, poll: float = POLL):
        """Args: watch: stay until all runs have ended, and ask again for machines that are taken away."""
        self._sweep, self._settings, self._runner, self._watch, self._poll = sweep, settings, runner, watch, poll
        self._accelerator = find_accelerator(settings.accelerator)
        if not self._accelerator.gcloud:
            raise UserError(
                f"tpu_vm has TPUs up to v6e only, not {settings.accelerator}: give --accelerator=v5e-8, or"
                " --backend=skypilot or gke"
            )

    def require(self) -> None:
        """Raises UserError where gcloud is not installed, this is no clone, or the bucket is a placeholder."""
        self._runner.require("gcloud")
        machines.check_start(self._sweep.root)

    def describe(self, runs: Sequence[PlannedRun]) -> str:
        """Returns every command that `start`, `logs` and `delete` would run."""
        parts = [f"# the code, once\n{shlex.join(machines.pack())}\n"]
        for machine in machines.deal(self._sweep, runs, self._settings):
            steps = {
                "ask for the machine": self._create(machine),
                "wait until this says ACTIVE": self._state(machine),
                "is it at work already?": self._is_busy(machine),
                "the code": self._copy(machine),
                **({"wandb's key": self._copy_key(machine, "FILE")} if machines.is_online(machine.runs) else {}),
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
        machines.check_data_in_bucket(runs, "TPU VMs")
        if machines.is_online(runs) and not os.environ.get("WANDB_API_KEY"):
            raise UserError("tracking.wandb is online: set WANDB_API_KEY, which is copied to the machines")
        wanted = machines.deal(self._sweep, runs, self._settings)
        asked = [machine for machine in wanted if self._goes_on(machine, self._ask_for)]
        self._runner.run(machines.pack())
        print(
            "waiting; interrupt whenever you like: the requests stay, and the same command goes on from here",
            flush=True,
        )
        started = self._start_each(asked)
        while self._watch and (left := [machine for machine in started if not self._is_done(machine)]):
            time.sleep(self._poll)
            # One that was taken away is asked for again, and its runs go on from their checkpoints.
            gone = [m for m in left if self._runner.run(self._state(m), check=False).strip() in GONE]
            again = self._start_each([machine for machine in gone if self._goes_on(machine, self._ask_for)])
            started = [machine for machine in started if machine not in gone or machine in again]
        if failed := len(wanted) - len(started):
            print(f"{failed} of {len(wanted)} machines were not started: the same command asks again", file=sys.stderr)
        if started:
            print(f"{len(started)} machine(s) cost money until --delete gives them back; --status shows the runs")
        return FAILED if failed else DONE

    def _start_each(self, asked: Sequence[Machine]) -> list[Machine]:
        """Starts the runs of each machine as soon as it is there; returns the machines that were started."""
        messages: dict[str, str] = {}
        started, waiting = [], list(asked)
        while waiting:
            for machine in list(waiting):
                state = self._runner.run(self._state(machine), check=False).strip()
                if messages.get(machine.name) != state:
                    print(f"{machine.name}: {state.lower() or 'unknown'}", flush=True)
                    messages[machine.name] = state
                if state in GONE:
                    print(f"error: {machine.name}: the request has ended ({state})", file=sys.stderr, flush=True)
                if state == "ACTIVE" and self._goes_on(machine, self._start_runs):
                    started.append(machine)
                if state in (*GONE, "ACTIVE"):
                    waiting.remove(machine)
            if waiting:
                time.sleep(self._poll)
        return started

    def _goes_on(self, machine: Machine, step: Callable[[Machine], None]) -> bool:
        """Takes a step with a machine; one that fails is told of, and does not keep the others."""
        try:
            step(machine)
        except UserError as error:
            print(f"error: {machine.name}: {error}", file=sys.stderr, flush=True)
            return False
        return True

    def _is_done(self, machine: Machine) -> bool:
        """Returns whether a machine's runs have all ended; what failed is not tried again by itself."""
        states = [run_state.read_state(self._sweep, run).state for run in machine.runs]
        return all(state in (run_state.DONE, run_state.FAILED) for state in states)

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

    def _start_runs(self, machine: Machine) -> None:
        if "busy" in self._runner.run(self._is_busy(machine)):
            print(f"{machine.name}: at work already", flush=True)
            return
        self._runner.run(self._copy(machine))
        if machines.is_online(machine.runs):
            with tempfile.NamedTemporaryFile("w", prefix="medisingan-") as file:  # which this user alone can read
                file.write(os.environ["WANDB_API_KEY"])
                file.flush()
                self._runner.run(self._copy_key(machine, file.name))
        for command in (self._set_up(machine), self._train(machine)):
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

    def _copy(self, machine: Machine) -> list[str]:
        return self._gcloud("scp", machines.ARCHIVE, f"{machine.name}:{CODE}.tar.gz", "--worker=all")

    def _copy_key(self, machine: Machine, file: str) -> list[str]:
        return self._gcloud("scp", file, f"{machine.name}:{CODE}.key", "--worker=all")

    def _set_up(self, machine: Machine) -> list[str]:
        copies = [machines.fetch(data) for data in machines.data_of(machine.runs).values()]
        unpack = [f"mkdir -p $HOME/{CODE}", f"tar -xzf $HOME/{CODE}.tar.gz -C $HOME/{CODE}", f"cd $HOME/{CODE}"]
        return self._ssh(
            machine, "all", "\n".join(["set -e", *unpack, *copies, machines.setup_script(self._accelerator)])
        )

    def _train(self, machine: Machine) -> list[str]:
        script = machines.train_script(self._sweep, machine, "sleep 10")
        key = f'chmod 600 {KEY} && export WANDB_API_KEY="$(cat {KEY})"\n' if machines.is_online(machine.runs) else ""
        queue = f"cd $HOME/{CODE}\n{key}{script}"
        detached = f"setsid nohup flock -n {LOCK} bash -c {shlex.quote(queue)} >> {LOG} 2>&1 < /dev/null &"
        return self._ssh(machine, "all", detached)

    def _logs(self, machine: Machine) -> list[str]:
        return self._ssh(machine, "0", f"tail -n 30 {LOG}")
