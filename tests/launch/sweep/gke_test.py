"""The JobSets of the gke backend: their fields, against a schema, and a pod's script in a real shell."""

import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.sweep.backends.gke import Gke
from launch.sweep.backends.machines import CloudSettings
from singan.errors import UserError
from tests.launch.sweep.backends_test import Recorder, make_sweep

SCHEMA = yaml.safe_load(Path(__file__).with_name("jobset_schema.yaml").read_text())
PUBLISHED = (
    "https://raw.githubusercontent.com/kubernetes-sigs/jobset/main/"
    "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml"
)
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def wrong(value: Any, schema: dict[str, Any], place: str = "") -> Iterator[str]:
    """Yields what of a value is not as a schema in the form of a CRD's has it: fields that it does not know, too."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str):
            yield f"{place}: {value!r} is neither a number nor a word"
        return
    if not isinstance(value, TYPES[schema["type"]]):
        yield f"{place}: {value!r} is no {schema['type']}"
        return
    if value not in schema.get("enum", [value]):
        yield f"{place}: {value!r} is none of {schema['enum']}"
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)) or not re.search(schema.get("pattern", ""), value):
            yield f"{place}: {value!r} is no such text"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from wrong(item, schema["items"], f"{place}[{number}]")
    elif isinstance(value, dict):
        yield from (f"{place}: lacks {key}" for key in schema.get("required", []) if key not in value)
        for key, item in value.items():
            inside = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if inside:
                yield from wrong(item, inside, f"{place}.{key}")
            elif schema.get("properties"):  # metadata is left open by a CRD
                yield f"{place}: has no {key}"


def gke(sweep, runner=None, folder="jobs", **settings):
    return Gke(sweep, CloudSettings(**settings), str(folder), runner or Recorder())


def manifests(sweep, **settings) -> list[dict[str, Any]]:
    described = gke(sweep, **settings).describe(sweep.runs)
    return [yaml.safe_load(part) for part in re.findall(r"^apiVersion:.*?(?=^kubectl apply)", described, re.S | re.M)]


@pytest.mark.parametrize("wandb", ["offline", "online"])
@pytest.mark.parametrize("settings", [{}, {"accelerator": "v7x-16", "spot": False, "namespace": "n", "machines": 1}])
def test_manifests_have_the_fields_of_a_jobset(wandb, settings):
    sweep = make_sweep(2, path="gs://bucket/tfds", **{"tracking.wandb": [wandb]})
    made = manifests(sweep, service_account="trainer", **settings)
    assert len(made) == settings.get("machines", 2)
    for manifest in made:
        assert list(wrong(manifest, SCHEMA)) == []
    assert list(wrong({**made[0], "kind": "Job", "spec": {"replicas": 1}}, SCHEMA)) == [
        ".kind: 'Job' is none of ['JobSet']",
        ".spec: lacks replicatedJobs",
        ".spec: has no replicas",
    ]


@pytest.mark.network
def test_manifests_are_as_the_published_schema_has_them():
    try:
        if given := os.environ.get("JOBSET_CRD"):  # a copy of the file, where the address cannot be reached
            text = Path(given).read_bytes()
        else:
            text = urllib.request.urlopen(PUBLISHED, timeout=30).read()
    except (urllib.error.URLError, TimeoutError) as error:
        pytest.skip(f"the published schema cannot be reached: {error}")
    version = yaml.safe_load(text)["spec"]["versions"][0]
    sweep = make_sweep(1, path="gs://bucket/tfds", **{"tracking.wandb": ["online"]})
    for manifest in manifests(sweep, service_account="trainer", namespace="n"):
        assert list(wrong(manifest, version["schema"]["openAPIV3Schema"])) == []


@pytest.mark.parametrize(
    ("name", "label", "topology", "hosts", "chips"),
    [
        ("v5e-1", "tpu-v5-lite-podslice", "1x1", 1, 1),
        ("v5e-8", "tpu-v5-lite-podslice", "2x4", 1, 8),
        ("v6e-16", "tpu-v6e-slice", "4x4", 4, 4),
        ("v5p-8", "tpu-v5p-slice", "2x2x1", 1, 4),
        ("v4-32", "tpu-v4-podslice", "2x2x4", 4, 4),
        ("v7x-128", "tpu7x", "4x4x4", 16, 4),
    ],
)
def test_a_slice_is_asked_for_by_label_and_topology(name, label, topology, hosts, chips):
    (manifest,) = manifests(make_sweep(1), accelerator=name)
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": label,
        "cloud.google.com/gke-tpu-topology": topology,
        "cloud.google.com/gke-spot": "true",
    }
    assert (job["completions"], job["parallelism"]) == (hosts, hosts)
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}


def test_a_stop_is_no_failure_and_the_key_is_a_secret():
    (manifest,) = manifests(make_sweep(1, **{"tracking.wandb": ["online"]}))
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    rules = job["podFailurePolicy"]["rules"]
    assert rules[0] == {
        "action": "Ignore",
        "onExitCodes": {"containerName": "train", "operator": "In", "values": [75]},
    }
    assert rules[1]["onPodConditions"][0]["type"] == "DisruptionTarget"
    (env,) = job["template"]["spec"]["containers"][0]["env"]
    assert env["valueFrom"]["secretKeyRef"] == {"name": "medisingan-wandb", "key": "WANDB_API_KEY"}
    script = job["template"]["spec"]["containers"][0]["command"][2]
    assert "'--workdir=gs://bucket/sweeps/Ratio study/base'" in script
    assert "gcloud storage cp 'gs://bucket/sweeps/Ratio study/code.tar.gz'" in script


def test_what_gke_cannot_have_is_refused():
    with pytest.raises(UserError, match="A100 is none it knows"):
        gke(make_sweep(1), accelerator="A100")
    with pytest.raises(UserError, match="Pods cannot see local/images"):
        gke(make_sweep(1, path="local/images")).start(make_sweep(1, path="local/images").runs)
    online = make_sweep(1, **{"tracking.wandb": ["online"]})
    with pytest.raises(UserError, match="has no secret medisingan-wandb: kubectl create secret generic"):
        gke(online).start(online.runs)


def test_jobs_are_applied_once_and_again_when_they_have_ended(tmp_path, capsys):
    sweep = make_sweep(3)
    there, ended, absent = (f"ratio-study-{run.id}" for run in sweep.runs)
    runner = Recorder(**{f"get_jobset_{there}": [f"{there} "], f"get_jobset_{ended}": [f"{ended} Failed"]})
    assert gke(sweep, runner, tmp_path).start(sweep.runs) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"{there}: is there already",
        f"{ended}: applied, 1 run(s)",
        f"{absent}: applied, 1 run(s)",
    ]
    said = [" ".join(command) for command in runner.commands if command[0] == "kubectl" and command[1] != "get"]
    assert said == [
        f"kubectl delete jobset {ended} --ignore-not-found",
        f"kubectl apply --filename={tmp_path}/{ended}.yaml",
        f"kubectl apply --filename={tmp_path}/{absent}.yaml",
    ]
    assert yaml.safe_load((tmp_path / f"{ended}.yaml").read_text())["metadata"]["name"] == ended


@pytest.mark.processes
def test_the_end_of_a_pod_reaches_the_training_and_its_exit_code_the_cluster(tmp_path):
    """A pod's first process is the shell, to which alone Kubernetes sends SIGTERM."""
    (manifest,) = manifests(make_sweep(2), machines=1)
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    script = pod["containers"][0]["command"][2].partition("\nset +e\n")[2]
    python = tmp_path / "medisingan-venv/bin/python"
    python.parent.mkdir(parents=True)
    body = 'trap "sleep 0.3; exit 75" TERM; echo "$@" >> $HOME/trained; while :; do sleep 0.1; done'
    python.write_text(f"#!/bin/bash\n{body}\n")
    python.chmod(0o755)
    with subprocess.Popen(["bash", "-c", script], env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}) as shell:
        while not (tmp_path / "trained").exists():
            time.sleep(0.05)
        shell.send_signal(signal.SIGTERM)
        assert shell.wait(timeout=60) == 75
    assert (tmp_path / "trained").read_text().count("launch.train") == 1  # the next of its queue has not begun
