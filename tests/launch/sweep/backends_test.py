"""What the cloud backends write and run: scripts that work in a real shell, commands recorded instead of run."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from launch.configs import default_config
from launch.sweep import state
from launch.sweep.backends.accelerators import find_accelerator
from launch.sweep.backends.machines import CloudSettings, bucket_root, cloud_settings, data_of, deal, train_script
from launch.sweep.backends.runner import Runner, find_program
from launch.sweep.backends.skypilot import SkyPilot
from launch.sweep.backends.tpu_vm import TpuVm
from launch.sweep.language import product
from launch.sweep.plan import plan_sweep
from singan.errors import UserError
from tests.launch.train.train_test import ROOT, Commands, assert_refused

CONFIG = str(ROOT / "experiments/quickstart/config.py")
ZONE = ["--zone=us-west4-a", "--quiet"]


class Recorder(Runner):
    """Notes commands instead of running them, and answers as told: {words of a command: its answers, one a time}."""

    def __init__(self, **answers):
        self.commands, self.answers = [], {key.replace("_", " "): list(value) for key, value in answers.items()}

    def require(self, program):
        pass

    def run(self, command, *, check=True):
        self.commands.append(command)
        for words, answers in self.answers.items():
            if words in " ".join(command):
                return answers.pop(0) if len(answers) > 1 else answers[0]
        return ""

    def show(self, command):
        self.run(command)

    def verbs(self):
        """Returns (verb, name) of the commands of gcloud compute tpus queued-resources."""
        return [(c[4], c[5]) for c in self.commands if c[:4] == ["gcloud", "compute", "tpus", "queued-resources"]]


def make_sweep(runs=3, path="", root="gs://bucket/sweeps/Ratio study", **extra):
    base = default_config()
    base.data.path = path
    shared = {"data.path": path} if path else {}
    return plan_sweep(CONFIG, base.to_dict(), shared, product({"seed": list(range(runs)), **extra}), root)


# Names and settings.


@pytest.mark.parametrize(
    ("name", "gcloud", "sky", "runtime"),
    [
        ("v5e-8", "v5litepod-8", "tpu-v5litepod-8", "v2-alpha-tpuv5-lite"),
        ("tpu-v5litepod-16", "v5litepod-16", "tpu-v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("tpu-v6e-8", "v6e-8", "tpu-v6e-8", "v2-alpha-tpuv6e"),
        ("v5p-8", "v5p-8", "tpu-v5p-8", "v2-alpha-tpuv5"),
        ("v4-32", "v4-32", "tpu-v4-32", "tpu-ubuntu2204-base"),
        ("A100", "", "A100:1", ""),
        ("A100-80GB:4", "", "A100-80GB:4", ""),
    ],
)
def test_accelerators_have_a_name_for_people(name, gcloud, sky, runtime):
    found = find_accelerator(name)
    assert (found.gcloud, found.sky, found.runtime) == (gcloud, sky, runtime)


@pytest.mark.parametrize("name", ["v5-8", "v5e", "v5e-0", "H1000:8", "A100:0", ""])
def test_accelerators_that_do_not_exist_are_refused(name):
    with pytest.raises(UserError, match=f"no accelerator {name!r}.*named like v5e-8"):
        find_accelerator(name)


def test_flags_win_over_the_sweep_file():
    assert cloud_settings({"accelerator": "v6e-8", "spot": False}, {"spot": True, "zone": None}) == CloudSettings(
        accelerator="v6e-8", spot=True
    )
    with pytest.raises(UserError, match=r"'acelerator' that does not exist \(did you mean 'accelerator'"):
        cloud_settings({"acelerator": "v6e-8"})
    with pytest.raises(UserError, match="must be like True, not 'no'"):
        cloud_settings({"spot": "no"})


def test_workdirs_lie_in_a_bucket():
    settings = CloudSettings(bucket="gs://b/")
    assert bucket_root("sweeps/x", settings) == "gs://b/sweeps/x"
    assert bucket_root("gs://c/x", settings) == "gs://c/x"
    with pytest.raises(UserError, match="which the cloud's cannot see: give --workdir=gs://BUCKET/FOLDER"):
        bucket_root("/home/me/x", settings)
    sweep = make_sweep(root="gs://BUCKET/x")
    for backend in (SkyPilot(sweep, settings, "jobs", Recorder()), TpuVm(sweep, settings, Recorder())):
        with pytest.raises(UserError, match="is no bucket: give --bucket"):
            backend.require()


# Machines and their scripts.


def test_a_machine_for_every_run_or_queues():
    sweep = make_sweep(5)
    alone = deal(sweep, sweep.runs, CloudSettings())
    assert [machine.runs for machine in alone] == [(run,) for run in sweep.runs]
    names = [machine.name for machine in alone]
    assert names == [f"ratio-study-{run.id}" for run in sweep.runs]
    queues = deal(sweep, sweep.runs, CloudSettings(machines=2))
    assert [[run.name for run in machine.runs] for machine in queues] == [
        ["seed=0", "seed=2", "seed=4"],
        ["seed=1", "seed=3"],
    ]
    # A run stays with its machine, whatever else is finished.
    left = deal(sweep, sweep.runs[3:4], CloudSettings(machines=2))
    assert [(machine.name, [run.name for run in machine.runs]) for machine in left] == [("ratio-study-m1", ["seed=3"])]
    odd = deal(make_sweep(root="gs://b/2026 " + "very " * 20 + "long"), make_sweep().runs, CloudSettings())
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{0,38}[a-z0-9]", machine.name) for machine in odd)


def test_data_are_found_on_machines():
    paths = ["gs://b/tfds", "local/images", "gs://b/images/*/a?.png", "*.png"]
    sweep = make_sweep(1, **{"data.path": paths})
    data = data_of(sweep.runs)
    assert list(data) == paths
    place = "/tmp/medisingan-data"
    assert [(each.source, each.place, each.path) for each in data.values()] == [
        ("gs://b/tfds", f"{place}/0/tfds", f"{place}/0/tfds"),
        ("local/images", f"{place}/1/images", f"{place}/1/images"),
        ("gs://b/images", f"{place}/2", f"{place}/2/*/a?.png"),
        (".", f"{place}/3", f"{place}/3/*.png"),
    ]
    with pytest.raises(UserError, match=r"needs data that the cloud's machines can get: give --config.data.path=gs://"):
        data_of(make_sweep(1, **{"data.source": "tfds:pannuke"}).runs)


TRAIN = """#!/bin/bash
for flag in "$@"; do case $flag in
  --config.seed=*) seed=${flag#*=}; echo "$flag" >> calls;;
  --config.data.path=*) echo "$flag" >> paths;;
esac; done
read -r code < codes/$seed
sed -i 1d codes/$seed
exit $code
"""


@pytest.mark.parametrize(
    ("on_stop", "codes", "calls", "exit_code"),
    [
        ("exit 75", {0: [0], 1: [1], 2: [0]}, [0, 1, 2], 1),
        ("exit 75", {0: [0], 1: [0], 2: [0]}, [0, 1, 2], 0),
        ("exit 75", {0: [0], 1: [75], 2: [0]}, [0, 1], 75),
        ("sleep 0", {0: [0], 1: [75, 75, 0], 2: [2]}, [0, 1, 1, 1, 2], 1),
        ("sleep 0", {0: [137, 0], 1: [134] * 4, 2: [0]}, [0, 0, 1, 1, 1, 1, 2], 1),
    ],
)
def test_a_queue_goes_on_after_failures(tmp_path, on_stop, codes, calls, exit_code):
    sweep = make_sweep(3, path="it's/$HOME/*.png")
    (machine,) = deal(sweep, sweep.runs, CloudSettings(machines=1))
    python = tmp_path / "medisingan-venv/bin/python"  # the scripts' own, in the home of a machine
    python.parent.mkdir(parents=True)
    python.write_text(TRAIN)
    python.chmod(0o755)
    (tmp_path / "codes").mkdir()
    for seed, each in codes.items():
        (tmp_path / f"codes/{seed}").write_text("\n".join(map(str, each)) + "\n")
    script = train_script(sweep, machine, on_stop)
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == exit_code
    assert (tmp_path / "calls").read_text().split() == [f"--config.seed={seed}" for seed in calls]
    assert set((tmp_path / "paths").read_text().splitlines()) == {"--config.data.path=/tmp/medisingan-data/0/*.png"}


def test_the_config_goes_with_the_code(tmp_path):
    sweep = make_sweep(1)
    (machine,) = deal(sweep, sweep.runs, CloudSettings())
    assert "train --config=experiments/quickstart/config.py --config.seed=0 " in train_script(sweep, machine, "exit 75")
    outside = plan_sweep(str(tmp_path / "config.py"), default_config().to_dict(), {}, [{}], "gs://bucket/x")
    with pytest.raises(UserError, match=r"is outside .*: move it there"):
        train_script(outside, deal(outside, outside.runs, CloudSettings())[0], "exit 75")


# SkyPilot.


def sky(sweep, runner, folder="jobs", **settings):
    return SkyPilot(sweep, CloudSettings(**settings), str(folder), runner)


def test_a_task_says_what_skypilot_has_to_know(tmp_path):
    sweep = make_sweep(2, path="gs://bucket/tfds")
    backend = sky(sweep, Recorder(), tmp_path, machines=1, zone="us-west4-a")
    (machine,) = deal(sweep, sweep.runs, CloudSettings(machines=1))
    task = yaml.safe_load(backend.task(machine))
    assert task["resources"] == {
        "accelerators": "tpu-v5litepod-8",
        "infra": "gcp/us-west4/us-west4-a",
        "accelerator_args": {"runtime_version": "v2-alpha-tpuv5-lite"},
        "use_spot": True,
        "disk_size": 100,
        "job_recovery": {"recover_on_exit_codes": [75]},
    }
    assert task["file_mounts"] == {"/tmp/medisingan-data/0/tfds": "gs://bucket/tfds"}
    assert task["run"].count("--workdir='gs://bucket/sweeps/Ratio study/seed=") == 0  # quoted as a whole
    assert [shlex.split(line)[-1] for line in task["run"].splitlines() if line.startswith("train ")] == [
        "--workdir=gs://bucket/sweeps/Ratio study/seed=0",
        "--workdir=gs://bucket/sweeps/Ratio study/seed=1",
    ]
    assert "'jax[tpu]'" in task["setup"]
    gpu = yaml.safe_load(sky(sweep, Recorder(), accelerator="H100:8", spot=False).task(machine))
    assert (gpu["resources"]["accelerators"], gpu["resources"]["use_spot"]) == ("H100:8", False)
    assert not {"infra", "accelerator_args"} & set(gpu["resources"])
    assert "'jax[cuda12]'" in gpu["setup"]
    for script in (task["setup"], task["run"]):
        assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0


def test_jobs_are_submitted_once(tmp_path, capsys):
    sweep = make_sweep(3)
    here = f'[{{"job_id": 1, "job_name": "ratio-study-{sweep.runs[1].id}", "status": "RUNNING"}}]'
    runner = Recorder(jobs_queue=["Fetching managed jobs...\n" + here])
    assert sky(sweep, runner, tmp_path).start(sweep.runs) == 0
    files = [tmp_path / f"ratio-study-{sweep.runs[n].id}.yaml" for n in (0, 2)]
    assert runner.commands == [
        ["sky", "jobs", "queue", "--skip-finished", "--all", "--output=json"],
        *(["sky", "jobs", "launch", "--yes", "--detach-run", str(file)] for file in files),
    ]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert f"ratio-study-{sweep.runs[1].id}: is there already" in capsys.readouterr().out


def test_wandb_keys_are_secrets(tmp_path, monkeypatch):
    sweep, runner = make_sweep(1, **{"tracking.wandb": "online"}), Recorder(jobs_queue=["[]"])
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UserError, match="set WANDB_API_KEY"):
        sky(sweep, runner, tmp_path).start(sweep.runs)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789")
    sky(sweep, runner, tmp_path).start(sweep.runs)
    assert "--secret=WANDB_API_KEY" in runner.commands[-1]
    shown = [*(path.read_text() for path in tmp_path.iterdir()), str(runner.commands)]
    assert not any("0123456789" in text for text in shown)


def test_data_that_do_not_exist_are_refused(tmp_path):
    sweep = make_sweep(1, path=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="nothing does not exist"):
        sky(sweep, Recorder(), tmp_path).start(sweep.runs)
    assert "nothing" in sky(sweep, Recorder(), tmp_path).describe(sweep.runs)  # a dry run does not look


PARSE = """
import json, sys, sky
for path in sys.argv[1:]:
    task = sky.Task.from_yaml(path)
    (resources,) = task.resources
    print(json.dumps([task.name, resources.accelerators, resources.use_spot, resources.job_recovery, task.file_mounts]))
"""


def test_skypilot_itself_reads_the_tasks(tmp_path):
    program = find_program("sky") or pytest.skip("SkyPilot is not installed (uv tool install)")
    python = Path(program).resolve().parent / "python"  # of the environment that SkyPilot has for itself
    written = []
    for number, (accelerator, zone) in enumerate([("v5e-8", "us-west4-a"), ("v6e-16", ""), ("A100:2", "")]):
        sweep = make_sweep(4, path="gs://bucket/tfds")
        backend = sky(sweep, Recorder(), accelerator=accelerator, zone=zone, machines=2)
        for machine in deal(sweep, sweep.runs, CloudSettings(machines=2)):
            written.append(tmp_path / f"{number}-{machine.name}.yaml")
            written[-1].write_text(backend.task(machine))
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    command = [str(python), "-c", PARSE, *map(str, written)]
    read = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    tasks = [yaml.safe_load(line) for line in read.stdout.splitlines() if line.startswith("[")]
    assert [task[:3] for task in tasks] == [
        [f"ratio-study-m{number}", accelerators, True]
        for accelerators in ({"tpu-v5litepod-8": 1}, {"tpu-v6e-16": 1}, {"A100": 2})
        for number in range(2)
    ]
    assert all(task[3]["recover_on_exit_codes"] == [75] for task in tasks)
    assert all(task[4] == {"/tmp/medisingan-data/0/tfds": "gs://bucket/tfds"} for task in tasks)


# TPU VMs.


def tpu(sweep, runner, watch=False, **settings):
    return TpuVm(sweep, CloudSettings(zone="us-west4-a", **settings), runner, watch, poll=0)


def test_tpu_vms_are_asked_for_waited_for_and_started(capsys):
    sweep = make_sweep(2, path="gs://bucket/images/*.png")
    first, second = (f"ratio-study-{run.id}" for run in sweep.runs)
    states = {
        f"describe_{first}": ["", "WAITING_FOR_RESOURCES\n", "ACTIVE\n"],  # '' as long as nobody has asked
        f"describe_{second}": ["SUSPENDED\n", "PROVISIONING\n", "PROVISIONING\n", "PROVISIONING\n", "ACTIVE\n"],
        "busy": ["idle\n"],
    }
    runner = Recorder(**states)
    assert tpu(sweep, runner, project="mine").start(sweep.runs) == 0
    begin = ["ssh", "scp", "ssh", "ssh"]  # at work already? the code; make ready; start
    archive = "/tmp/medisingan-code.tar.gz"
    assert runner.verbs() == [
        ("describe", first),
        ("create", first),
        ("describe", second),
        ("delete", second),  # taken away by the cloud: only a new request brings it back
        ("create", second),
        ("describe", first),
        ("describe", second),
        ("describe", first),
        *((verb, archive if verb == "scp" else first) for verb in begin),
        ("describe", second),
        ("describe", second),
        ("describe", second),
        *((verb, archive if verb == "scp" else second) for verb in begin),
    ]
    creation = next(command for command in runner.commands if "create" in command)
    assert creation[5:] == [
        first,
        f"--node-id={first}",
        "--accelerator-type=v5litepod-8",
        "--runtime-version=v2-alpha-tpuv5-lite",
        "--spot",
        "--zone=us-west4-a",
        "--project=mine",
        "--quiet",
    ]
    on_all = [command for command in runner.commands if "--worker=all" in command]
    assert [command[4] for command in on_all] == ["scp", "ssh", "ssh"] * 2
    assert "cost money until --delete" in capsys.readouterr().out


def test_a_machine_at_work_is_left_alone():
    sweep = make_sweep(1)
    runner = Recorder(describe=["ACTIVE\n"], busy=["busy\n"])
    assert tpu(sweep, runner).start(sweep.runs) == 0
    assert [verb for verb, _ in runner.verbs()] == ["describe", "describe", "ssh"]


def test_a_request_that_fails_does_not_leave_others_to_be_billed_in_silence(capsys):
    sweep = make_sweep(3)
    first, second, third = (f"ratio-study-{run.id}" for run in sweep.runs)
    answers = {f"describe_{first}": ["", "FAILED\n"], f"describe_{second}": ["", "ACTIVE\n"], "busy": ["idle\n"]}

    class OneFails(Recorder):
        def run(self, command, *, check=True):
            if "create" in command and third in command:
                raise UserError("no quota")
            return super().run(command, check=check)

    runner = OneFails(**answers)
    assert tpu(sweep, runner).start(sweep.runs) == 1
    out, err = capsys.readouterr()
    assert f"error: {third}: no quota" in err
    assert f"error: {first}: the request has ended (FAILED)" in err
    assert "2 of 3 machines were not started: the same command asks again" in err
    assert "1 machine(s) cost money until --delete gives them back" in out
    assert ("ssh", second) in runner.verbs()


def test_a_machine_that_is_taken_away_is_asked_for_again_while_watched(monkeypatch, capsys):
    sweep = make_sweep(1)
    states = iter(["running", "stopped", "done"])
    monkeypatch.setattr("launch.sweep.state.read_state", lambda *_: state.RunState(next(states)))
    # Not there; asked for; active; taken away, and seen so once more as it is asked for again; active.
    runner = Recorder(describe=["", "ACTIVE\n", "SUSPENDED\n", "SUSPENDED\n", "ACTIVE\n"], busy=["idle\n"])
    assert tpu(sweep, runner, watch=True).start(sweep.runs) == 0
    verbs = [verb for verb, _ in runner.verbs() if verb in ("create", "delete")]
    assert verbs == ["create", "delete", "create"]
    assert capsys.readouterr().out.count("started, 1 run(s)") == 2


def test_wandbs_key_reaches_the_machine_and_no_command_line(monkeypatch):
    sweep = make_sweep(1, **{"tracking.wandb": ["online"]})
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UserError, match="set WANDB_API_KEY"):
        tpu(sweep, Recorder()).start(sweep.runs)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    copied = []

    class Reads(Recorder):
        def run(self, command, *, check=True):
            if command[4:5] == ["scp"] and command[6].endswith(".key"):
                copied.append((Path(command[5]).read_text(), Path(command[5]).stat().st_mode & 0o77))
            return super().run(command, check=check)

    runner = Reads(describe=["ACTIVE\n"], busy=["idle\n"])
    assert tpu(sweep, runner).start(sweep.runs) == 0
    assert copied == [("k" * 40, 0)]
    assert "k" * 40 not in str(runner.commands)
    assert 'export WANDB_API_KEY="$(cat $HOME/medisingan.key)"' in " ".join(runner.commands[-1])


def test_machines_are_given_back():
    sweep = make_sweep(2)
    runner = Recorder(**{f"describe_ratio-study-{sweep.runs[0].id}": ["ACTIVE\n"]})
    assert tpu(sweep, runner).delete(sweep.runs) == 0
    assert [verb for verb, _ in runner.verbs()] == ["describe", "delete", "describe"]  # the second is not there


def test_tpu_vms_have_tpus_and_see_buckets():
    with pytest.raises(UserError, match="has TPUs up to v6e only, not A100"):
        tpu(make_sweep(1), Recorder(), accelerator="A100")
    sweep = make_sweep(1, path="local/images")
    with pytest.raises(UserError, match="gcloud storage cp --recursive local/images gs://BUCKET/"):
        tpu(sweep, Recorder()).start(sweep.runs)


def test_the_scripts_of_tpu_vms_work_in_a_shell(tmp_path):
    """The commands that ssh carries, run in a home of their own with a gcloud that copies files."""
    sweep = make_sweep(1, path="gs://bucket/im ages")
    runner = Recorder(describe=["ACTIVE\n"], busy=["idle\n"])
    tpu(sweep, runner).start(sweep.runs)
    carried = [c.removeprefix("--command=") for command in runner.commands for c in command if "--command=" in c]
    busy, set_up, train = (script.replace("/tmp/medisingan-data", str(tmp_path / "data")) for script in carried)
    tools = tmp_path / "medisingan-venv/bin"
    tools.mkdir(parents=True)
    programs = {
        "gcloud": 'shift 3; mkdir "$2/im ages"; echo "$1" >> "$2/im ages/from"',
        "uv": 'echo "$@" >> $HOME/uv',
        "python": 'echo "$@" >> $HOME/trained; sleep 1',
    }
    for name, body in programs.items():
        (tools / name).write_text(f"#!/bin/bash\nset -e\n{body}\n")
        (tools / name).chmod(0o755)
    pack = next(command for command in runner.commands if command[0] == "bash")
    archive = tmp_path / "medisingan.tar.gz"
    packed = [part.replace("/tmp/medisingan-code.tar.gz", str(archive)) for part in pack]
    subprocess.run(packed, check=True, capture_output=True)
    environment = {"HOME": str(tmp_path), "PATH": f"{tools}:/usr/bin:/bin"}

    def shell(script):
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shell(set_up)
    shell(set_up)  # again, as after an interruption: the data are not fetched twice
    assert (tmp_path / "data/0/im ages/from").read_text() == "gs://bucket/im ages\n"
    assert (tmp_path / "medisingan/launch/train/__main__.py").exists()
    assert (tmp_path / "uv").read_text().count("pip install") == 2
    assert shell(busy) == "idle\n"
    shell(train)
    while not (tmp_path / "trained").exists():
        pass
    assert shell(busy) == "busy\n"
    shell(train)  # a second one does not start beside it
    while shell(busy) == "busy\n":
        pass
    assert (tmp_path / "trained").read_text().count("launch.train") == 1


# The commands, as a person without these programs meets them.


def test_a_tool_is_found_where_uv_puts_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UV_TOOL_BIN_DIR", raising=False)
    monkeypatch.delenv("XDG_BIN_HOME", raising=False)
    with pytest.raises(UserError, match=r"sky is not installed: uv tool install 'skypilot\[gcp\]"):
        Runner().require("sky")
    tools = tmp_path / ".local/bin"
    tools.mkdir(parents=True)
    (tools / "sky").write_text('#!/bin/sh\necho "$@"\n')
    (tools / "sky").chmod(0o755)
    Runner().require("sky")
    assert Runner().run(["sky", "jobs", "queue"]) == "jobs queue\n"


@pytest.mark.processes
@pytest.mark.parametrize(("backend", "program"), [("skypilot", "sky"), ("tpu_vm", "gcloud")])
@pytest.mark.slow
def test_what_is_not_installed_is_named_and_a_dry_run_works(tmp_path_factory, tmp_path, backend, program):
    commands = Commands(tmp_path_factory)
    commands.environment = {**commands.environment, "PATH": str(tmp_path), "HOME": str(tmp_path)}
    experiment = ROOT / "experiments/nuclei_masks"
    given = [
        f"--config={experiment}/config.py",
        f"--sweep={experiment}/sweep.py",
        "--workdir=sweeps/nuclei",
        f"--backend={backend}",
        "--config.data.path=gs://bucket/tensorflow_datasets",
    ]
    shown = commands.run("sweep", *given, "--dry_run")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "12 runs, wandb group nuclei" in shown.stdout
    assert shown.stdout.count("train --config=experiments/nuclei_masks/config.py") == 12
    started = "sky jobs launch" if backend == "skypilot" else "gcloud compute tpus queued-resources create"
    assert shown.stdout.count(started) == 12
    for flag in ("--bucket=gs://bucket", "--logs", "--delete"):
        assert_refused(commands.run("sweep", *given, flag), f"{program} is not installed", "--dry_run shows")
    assert not Path("runs/jobs").exists() or not list(Path("runs/jobs").glob("nuclei-*"))
