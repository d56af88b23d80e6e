"""TPU slices of a Google Kubernetes Engine cluster, as JobSets: manifests for kubectl apply.

Each machine's queue of runs is a JobSet of one Job, with a pod on each host of its slice. Exit code 75, and a node that
is taken away, are no failures: the pod failure policy has such a pod replaced, and its runs resume from the bucket.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.cli import DONE
from launch.sweep.backends import machines
from launch.sweep.backends.accelerators import find_accelerator
from launch.sweep.backends.machines import CODE, CloudSettings, Machine
from launch.sweep.backends.runner import Runner
from launch.sweep.plan import PlannedRun, Sweep
from singan import files
from singan.errors import RESUMABLE, UserError

SECRET = "medisingan-wandb"
GRACE = 120  # seconds from the notice to the end of a pod: a chunk of steps and a checkpoint take less
DISRUPTED = "DisruptionTarget"  # Kubernetes' condition of pods whose node is drained, preempted or gone


class Gke:
    """Makes a JobSet of each machine's queue of runs."""

    def __init__(self, sweep: Sweep, settings: CloudSettings, folder: str, runner: Runner):
        """Args: folder: where the manifests are written."""
        self._sweep, self._settings, self._folder, self._runner = sweep, settings, Path(folder), runner
        accelerator = find_accelerator(settings.accelerator)
        if accelerator.gke is None:
            raise UserError(
                f"gke has TPU slices, and {settings.accelerator} is none it knows: give --accelerator=v6e-8, or"
                " --backend=skypilot"
            )
        self._accelerator, self._slice = accelerator, accelerator.gke

    def require(self) -> None:
        """Raises UserError where kubectl or gcloud is not installed, this is no clone, or the bucket a placeholder."""
        self._runner.require("kubectl")
        self._runner.require("gcloud")
        machines.check_start(self._sweep.root)

    def describe(self, runs: Sequence[PlannedRun]) -> str:
        """Returns every manifest and command that `start` would write and run."""
        parts = [f"# the code, once\n{shlex.join(machines.pack())}\n{shlex.join(self._upload())}\n"]
        parts += [
            f"# {self._file(machine)}\n{self.manifest(machine)}\n{shlex.join(self._apply(machine))}\n"
            for machine in machines.deal(self._sweep, runs, self._settings)
        ]
        return "\n".join(parts)

    def start(self, runs: Sequence[PlannedRun]) -> int:
        """Applies the manifests of the JobSets that are not at work already, and returns the exit code."""
        machines.check_data_in_bucket(runs, "Pods")
        if machines.is_online(runs) and not self._runner.run(self._kubectl("get", "secret", SECRET), check=False):
            raise UserError(
                f"tracking.wandb is online, and the cluster has no secret {SECRET}: kubectl create secret generic"
                f" {SECRET} --from-env-file=FILE, where FILE has the line WANDB_API_KEY=..."
            )
        jobs = machines.deal(self._sweep, runs, self._settings)
        self._runner.run(machines.pack())
        self._runner.run(self._upload())
        files.make_directory(self._folder)
        for machine in jobs:
            path = "jsonpath={.metadata.name} {.status.terminalState}"
            name, _, ended = self._runner.run(
                self._kubectl("get", "jobset", machine.name, "--ignore-not-found", f"--output={path}"), check=False
            ).partition(" ")
            if name and not ended.strip():
                print(f"{machine.name}: is there already")
                continue
            if name:  # a JobSet that has ended does not start again by itself
                self._runner.run(self._delete(machine))
            files.write_text(self._file(machine), self.manifest(machine))
            self._runner.run(self._apply(machine))
            print(f"{machine.name}: applied, {len(machine.runs)} run(s)", flush=True)
        print("kubectl get jobsets,pods shows the jobs; --logs and --status the runs; --delete ends them")
        return DONE

    def logs(self, runs: Sequence[PlannedRun]) -> int:
        """Shows the end of the output of each pod."""
        for machine in machines.deal(self._sweep, runs, self._settings):
            print(f"--- {machine.name}", flush=True)
            label = f"--selector=jobset.sigs.k8s.io/jobset-name={machine.name}"
            self._runner.show(self._kubectl("logs", label, "--prefix", "--tail=30"))
        return DONE

    def delete(self, runs: Sequence[PlannedRun]) -> int:
        """Ends the JobSets; an autoscaled node pool then gives its nodes back. The workdirs stay."""
        for machine in machines.deal(self._sweep, runs, self._settings):
            self._runner.show(self._delete(machine))
        return DONE

    def manifest(self, machine: Machine) -> str:
        """Returns the JobSet of a machine, as YAML."""
        job = {
            "completionMode": "Indexed",
            "completions": self._slice.hosts,
            "parallelism": self._slice.hosts,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",  # never two pods of one host
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onExitCodes": {"containerName": "train", "operator": "In", "values": [RESUMABLE]},
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": DISRUPTED, "status": "True"}]},
                ]
            },
            "template": {"spec": self._pod(machine)},
        }
        content = {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {
                "name": machine.name,
                **({"namespace": self._settings.namespace} if self._settings.namespace else {}),
                "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
            },
            "spec": {
                "failurePolicy": {"maxRestarts": 0},  # what failed otherwise fails again
                "replicatedJobs": [{"name": "slice", "replicas": 1, "template": {"spec": job}}],
            },
        }
        return machines.as_yaml(content)

    def _pod(self, machine: Machine) -> dict[str, Any]:
        place, spot = self._slice, "cloud.google.com/gke-spot"
        chips = {"google.com/tpu": place.chips_per_host}
        secret = {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "WANDB_API_KEY"}}}
        return {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE,
            **({"serviceAccountName": self._settings.service_account} if self._settings.service_account else {}),
            "nodeSelector": {
                "cloud.google.com/gke-tpu-accelerator": place.accelerator,
                "cloud.google.com/gke-tpu-topology": place.topology,
                **({spot: "true"} if self._settings.spot else {}),
            },
            **(
                {"tolerations": [{"key": spot, "operator": "Equal", "value": "true", "effect": "NoSchedule"}]}
                if self._settings.spot
                else {}
            ),
            "containers": [
                {
                    "name": "train",
                    "image": self._settings.image,
                    "command": ["bash", "-c", self._script(machine)],
                    "ports": [{"containerPort": 8471}],  # by which the hosts of a slice find each other
                    **({"env": [secret]} if machines.is_online(machine.runs) else {}),
                    "resources": {"requests": chips, "limits": chips},
                }
            ],
        }

    def _script(self, machine: Machine) -> str:
        fetched = [f"gcloud storage cp {shlex.quote(self._code())} {CODE}.tar.gz", f"mkdir -p $HOME/{CODE}"]
        unpack = [f"tar -xzf {CODE}.tar.gz -C $HOME/{CODE}", f"cd $HOME/{CODE}"]
        copies = [machines.fetch(data) for data in machines.data_of(machine.runs).values()]
        ready = "\n".join(["set -e", *fetched, *unpack, *copies, machines.setup_script(self._accelerator), "set +e"])
        return f"{ready}\n{machines.train_script(self._sweep, machine, f'exit {RESUMABLE}')}"

    def _code(self) -> str:
        return f"{self._sweep.root}/code.tar.gz"

    def _file(self, machine: Machine) -> Path:
        return self._folder / f"{machine.name}.yaml"

    def _upload(self) -> list[str]:
        return ["gcloud", "storage", "cp", machines.ARCHIVE, self._code()]

    def _apply(self, machine: Machine) -> list[str]:
        return ["kubectl", "apply", f"--filename={self._file(machine)}"]

    def _delete(self, machine: Machine) -> list[str]:
        return self._kubectl("delete", "jobset", machine.name, "--ignore-not-found")

    def _kubectl(self, *arguments: str) -> list[str]:
        where = [f"--namespace={self._settings.namespace}"] if self._settings.namespace else []
        return ["kubectl", *arguments, *where]
