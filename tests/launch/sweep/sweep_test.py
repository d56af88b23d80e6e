"""Sweeps: the language, the plan, and python -m launch.sweep with real runs that fail, are killed and go on."""

import json
import math
import os
import re
import signal
import time
from pathlib import Path

import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import config_flags

from launch.configs import default_config, load_config
from launch.sweep import state
from launch.sweep.backends.devices import share_out
from launch.sweep.files import load_sweep
from launch.sweep.language import chain, integers, log_uniform, product, sample, uniform, zip_
from launch.sweep.plan import plan_sweep, train_flags
from launch.sweep.wandb_file import wandb_sweep
from singan.errors import UserError
from tests.launch.train.train_test import ROOT, Commands, assert_refused, contents, done, rows

spaces = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]), st.lists(st.integers(), min_size=1, max_size=4, unique=True), min_size=1
)


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


def plan(runs, root="ROOT", config_file="experiments/quickstart/config.py", **shared):
    base = default_config()
    with base.unlocked():
        base.update_from_flattened_dict(shared)
    return plan_sweep(config_file, base.to_dict(), shared, runs, root)


# The language.


def test_the_language_by_example():
    assert product({"a": [1, 2], "b": ["x", "y"], "c": (0, 1)}) == [
        {"a": 1, "b": "x", "c": (0, 1)},
        {"a": 1, "b": "y", "c": (0, 1)},
        {"a": 2, "b": "x", "c": (0, 1)},
        {"a": 2, "b": "y", "c": (0, 1)},
    ]
    assert zip_({"a": [1, 2], "b": [3, 4]}, {"c": 5}) == [{"a": 1, "b": 3, "c": 5}, {"a": 2, "b": 4, "c": 5}]
    assert chain({}, {"a": [1, 2]}, [{"b": 3}]) == [{}, {"a": 1}, {"a": 2}, {"b": 3}]
    assert product(zip_({"a": [1, 2], "b": [3, 4]}), {"c": range(2)})[1] == {"a": 1, "b": 3, "c": 1}


@settings(deadline=None)
@given(spaces)
def test_a_product_has_every_combination_once(space):
    runs = product(space)
    assert len(runs) == math.prod(map(len, space.values()))
    assert len({tuple(run.items()) for run in runs}) == len(runs)
    assert all(list(run) == list(space) and all(run[key] in space[key] for key in space) for run in runs)
    assert runs == product(*({key: values} for key, values in space.items()))  # keys as parts of their own
    assert chain(runs, runs) == [*runs, *runs]


@settings(deadline=None)
@given(spaces, st.integers(0, 2**32), st.integers(1, 20))
def test_a_sample_is_of_the_space_without_repeats_and_grows(space, seed, count):
    everything = product(space)
    count = min(count, len(everything))
    drawn = sample(space, count, seed)
    assert drawn == sample(space, count, seed)
    assert drawn[: count - 1] == sample(space, count - 1, seed)
    assert all(run in everything for run in drawn)
    assert len({tuple(run.items()) for run in drawn}) == count
    with pytest.raises(UserError, match="more different runs"):
        sample(space, len(everything) + 1, seed)


@settings(deadline=None)
@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e3), st.floats(0, 1, exclude_max=True))
def test_intervals_stay_within(low, factor, share):
    high = low * factor
    assert low <= uniform(low, high).at(share) <= high
    assert low <= log_uniform(low, high).at(share) <= high
    assert integers(1, 3).at(share) == 1 + int(share * 3)


def test_intervals_are_drawn_evenly():
    shares = [(i + 0.5) / 1000 for i in range(1000)]
    assert sum(log_uniform(1e-4, 1e-2).at(s) < 1e-3 for s in shares) == 500
    assert sum(uniform(0, 10).at(s) < 1 for s in shares) == 100
    assert [s["x"] for s in sample({"x": integers(0, 1)}, 2, seed=3)] in ([0, 1], [1, 0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: zip_({"a": [1, 2], "b": [1, 2, 3]}), "a has 2, b has 3"),
        (lambda: product({"a": [1]}, {"a": [2]}), "'a' in two parts"),
        (lambda: product({"a": []}), "no values for 'a'"),
        (lambda: chain([]), "without runs"),
        (lambda: product("a"), "mappings and lists of runs"),
        (lambda: product({"a": uniform(0, 1)}), "use sample"),
        (lambda: log_uniform(0, 1), "and positive"),
        (lambda: uniform(2, 1), "the first must be the smaller"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


# The plan.


def test_runs_are_named_by_what_differs():
    runs = chain({}, product({"pyramid.ratio": [0.6, 0.8], "train.steps_per_scale": 500}), {"preset": "reference"})
    planned = plan(runs).runs
    assert [run.name for run in planned] == [
        "base",
        "ratio=0.6,steps_per_scale=500",
        "ratio=0.8,steps_per_scale=500",
        "preset=reference",
    ]
    assert planned[0].workdir == "ROOT/base"
    assert (planned[1].config.pyramid.ratio, planned[1].config.train.steps_per_scale) == (0.6, 500)
    assert planned[3].config.method.padding == "zero"  # of the preset
    assert planned[1].config.tracking.group == "ROOT"
    assert planned[1].config.tracking.name == "ratio=0.6,steps_per_scale=500"
    fixed = plan(product({"pyramid.ratio": [0.6, 0.8], "train.steps_per_scale": 500})).runs
    assert [run.name for run in fixed] == ["ratio=0.6", "ratio=0.8"]


def test_names_are_file_names():
    paths = ["/data/a b/*.png", "/data/" + "x" * 200]
    names = [run.name for run in plan(product({"data.path": paths})).runs]
    assert names[0] == "path=-data-a-b-.png"
    assert len(names[1]) == 100
    assert plan([{"tracking.name": "../up"}, {"seed": 1}]).runs[0].name == "up"


def test_ids_are_those_of_the_overrides_and_the_config_file():
    runs = product({"seed": [0, 1], "train.chunk": [5, 10]})
    ids = [run.id for run in plan(runs).runs]
    assert len(set(ids)) == 4
    assert [run.id for run in plan(runs[::-1], root="gs://bucket/elsewhere").runs] == ids[::-1]
    absolute = str(ROOT / "experiments/quickstart/config.py")
    assert [run.id for run in plan(runs, config_file=absolute).runs] == ids
    assert [run.id for run in plan(runs, **{"data.path": "/else", "tracking.wandb": "off"}).runs] == ids
    assert not set(ids) & {run.id for run in plan(runs, config_file=absolute + ":small").runs}
    assert not set(ids) & {run.id for run in plan(runs, **{"train.steps_per_scale": 7}).runs}
    # Written down: a version that gives other ids would not know its users' runs again.
    assert plan([{"seed": 3, "pyramid.ratio": 0.5}]).runs[0].id == "f0c7dc4d"


VALUES = {
    "seed": st.integers(0, 2**32 - 1),
    "preset": st.sampled_from(["corrected", "reference"]),
    "data.path": st.sampled_from(["/a b/c", "x,y", "it's $HOME", "*.png"]),
    "data.background": st.one_of(
        st.just("none"), st.floats(-1e6, 1e6), st.lists(st.floats(-9, 9), min_size=1, max_size=3).map(tuple)
    ),
    "data.channels": st.lists(st.sampled_from(["t1", "t2", "flair"]), max_size=3, unique=True).map(tuple),
    "data.value_range": st.sampled_from(["auto", (0.0, 4095.0)]),
    "data.group_by_shape": st.booleans(),
    "method.norm_statistics": st.sampled_from([None, "sample", "running"]),
    "method.normalized_conv_bias": st.sampled_from([None, True, False]),
    "train.steps_per_scale": st.integers(1, 10**9),
    "train.generator_learning_rate": st.floats(1e-12, 1e30),
}


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_a_run_is_started_with_the_flags_of_its_plan(overrides):
    sweep = plan([overrides])
    argv = ["train", *(flag for flag in train_flags(sweep, sweep.runs[0]) if flag.startswith("--config."))]
    found = flags.FlagValues()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", argv)  # where ml_collections looks for the overrides to define
        config_flags.DEFINE_config_dict("config", default_config(), flag_values=found)
        found(argv)
    assert load_config(found.config) == sweep.runs[0].config


@pytest.mark.parametrize(
    ("runs", "shared", "words"),
    [
        (
            [{"train.step_per_scale": 5}],
            {},
            r"'train.step_per_scale' is not a config key \(did you mean 'train.steps_p",
        ),
        ([{"chunk": 5}], {}, "'chunk' is not a config key .*'train.chunk'"),
        ([{"train": {"chunk": 5}}], {}, "'train' is not a config key"),
        ([{}, {"train.chunk": "fifty"}], {}, r"run 2 of the sweep: config.train.chunk='fifty' must be of type int"),
        ([{"train.chunk": 5.0}], {}, "must be of type int"),
        ([{"train.chunk": 0}], {}, "at least 1"),
        ([{"preset": "corect"}], {}, "did you mean 'corrected'"),
        ([{"train.chunk": 5}, {"train.chunk": 5}], {}, "runs 1 and 2 of the sweep are the same"),
        ([{}, {"seed": 1}, {"pyramid.ratio": 0.75}], {}, "runs 1 and 3 .* would share a workdir"),
        ([{"tracking.name": "a", "seed": 1}, {"tracking.name": "a"}], {}, "would share the workdir ROOT/a: give them"),
        ([{"train.chunk": 5}], {"train.chunk": 7}, "--config.train.chunk is what the sweep varies"),
        (
            [{"pyramid.ratio": ratio, "pyramid.num_scales": 3} for ratio in (0.7, 0.8)],
            {},
            "runs 1 and 2 .* differ in pyramid.ratio alone, which pyramid.num_scales=3 overrules",
        ),
    ],
)
def test_a_sweep_that_cannot_be_meant_is_refused(runs, shared, words):
    with pytest.raises(UserError, match=words):
        plan(runs, **shared)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_sweep(:", "line 1: SyntaxError"),
        ("x = 1", "no function get_sweep"),
        ("def get_sweep():\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("def get_sweep():\n    return []", "must return a list of runs"),
        ("def get_sweep():\n    return {'seed': 1}", "must return a list of runs"),
        ("from launch.sweep.language import product\ndef get_sweep():\n    return product({'a': []})", "no values"),
    ],
)
def test_a_sweep_file_that_gives_no_sweep_is_named(tmp_path, text, words):
    (tmp_path / "sweep.py").write_text(text)
    with pytest.raises(UserError, match=f"sweep.py.*{words}"):
        load_sweep(str(tmp_path / "sweep.py"))


@pytest.mark.parametrize("name", ["quickstart", "multimodal_mri", "nuclei_masks"])
def test_the_sweeps_of_the_experiments_can_be_planned(name):
    runs, cloud = load_sweep(f"{ROOT}/experiments/{name}/sweep.py")
    planned = plan(runs).runs
    assert len(planned) >= 10
    varied = {key for run in runs for key in run}
    asked = {"method.norm_statistics", "preset", "pyramid.ratio", "train.reconstruction_weight", "train.schedule"}
    assert asked | {"train.generator_learning_rate"} <= varied
    assert cloud["accelerator"] == "v5e-8"


def test_a_wandb_sweep_hands_out_the_same_runs():
    import yaml

    sweep = plan(product({"seed": [0, 1]}))
    content = yaml.safe_load(wandb_sweep(sweep, ["--workdir=ROOT"]))
    assert content["parameters"] == {"only": {"values": ["seed=0", "seed=1"]}}
    assert content["command"][-2:] == ["--workdir=ROOT", "${args}"]


# The machine.


def test_cores_are_shared_out(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    cores = sorted(os.sched_getaffinity(0))
    assert [slot.cores for slot in share_out(0, 1)] == [()]
    shares = [slot.cores for slot in share_out(2, 1)]
    assert sorted({core for share in shares for core in share}) == cores
    assert len(share_out(len(cores) + 3, 1)) == len(cores) + 3
    with pytest.raises(UserError, match="one device"):
        share_out(1, 2)


def test_gpus_are_shared_out(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,8")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in share_out(0, 2)] == ["4,5", "6,7"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in share_out(3, 1)] == ["4", "5", "6"]
    with pytest.raises(UserError, match=r"6 runs at once .* more than the 5 GPU"):
        share_out(6, 1)
    with pytest.raises(UserError, match="lower --concurrency or --devices_per_run"):
        share_out(0, 6)


# Workdirs.


def write_run(sweep, number, status, log="", metrics=""):
    run = sweep.runs[number]
    workdir = Path(run.workdir)
    workdir.mkdir(parents=True)
    (workdir / "run.json").write_text(json.dumps({"id": "a", "status": status, "starts": []}))
    (workdir / "metrics.jsonl").write_text(metrics)
    if log:
        Path(sweep.log(run)).write_text(log)
    return run


@pytest.mark.parametrize(
    ("status", "log", "expected"),
    [
        ("finished", "", (state.DONE, "")),
        ("finished", "--- start a\n--- exit code 0 after 1 s\n", (state.DONE, "")),
        ("running", "", (state.STOPPED, "ended without a word; resumes")),
        ("running", "--- start a\n--- exit code -9 after 1 s\n", (state.STOPPED, "killed by SIGKILL; resumes")),
        ("stopped", "--- start a\nx\n--- exit code 75 after 1 s\n", (state.STOPPED, "resumes")),
        ("stopped", "--- start a\nerror: no\n--- exit code 2 after 1 s\n", (state.FAILED, "error: no")),
        (
            "failed",
            "--- start a\nTraceback\nValueError: x\n--- exit code 1 after 9 s\n",
            (state.FAILED, "ValueError: x"),
        ),
        ("diverged", "", (state.FAILED, "diverged")),
        # The last start counts, and what it is at is not yet known.
        ("running", "--- start a\nerror: no\n--- exit code 2 after 1 s\n--- start b\nscale 0\n", (state.STOPPED, None)),
    ],
)
def test_states_are_read_from_workdirs_and_logs(tmp_path, status, log, expected):
    sweep = plan([{}], root=str(tmp_path))
    found = state.read_state(sweep, write_run(sweep, 0, status, log))
    assert found.state == expected[0]
    assert expected[1] in (None, found.note)


def test_only_the_end_of_the_metrics_is_read(tmp_path):
    sweep = plan([{}], root=str(tmp_path))
    row = {"global_step": 7, "scale": 2, "scale_step": 5, "time": 0.0}
    last = [
        {**row, "end/reconstruction_rmse": [0.25, None, 0.75]},
        {**row, "pictures": {}},
    ]
    metrics = (
        json.dumps({**row, "image_steps_per_second": 3.0})
        + "not JSON\n" * 10**5
        + "\n".join(map(json.dumps, last))
        + '\n{"global_st'
    )
    run = write_run(sweep, 0, "finished", metrics=metrics)
    found = state.read_state(sweep, run)
    assert (found.scale, found.step, found.rmse, found.speed) == (2, 5, 0.5, None)


def test_a_workdir_with_another_configuration_is_refused(tmp_path):
    sweep = plan([{"seed": 1}], root=str(tmp_path))
    run = write_run(sweep, 0, "finished")
    (Path(run.workdir) / "config.json").write_text(json.dumps({"seed": 1, "train": {"steps_per_scale": 3}}))
    with pytest.raises(UserError, match=r"another configuration .*train.steps_per_scale: 3 -> 2000.*choose another"):
        state.read_state(sweep, run)


# The command.


SIX_RUNS = """
from launch.sweep.language import chain


def get_sweep():
    rate = 1e30  # makes every image diverge
    fails = {"train.generator_learning_rate": rate, "train.critic_learning_rate": rate, "tracking.name": "fails"}
    return chain(fails, {"seed": [0, 1, 2, 3, 4]})
"""


@pytest.fixture
def six_runs(commands, tmp_path):
    (tmp_path / "sweep.py").write_text(SIX_RUNS)
    given_flags = [f"--sweep={tmp_path / 'sweep.py'}", "--concurrency=2"]
    return commands.train_flags(tmp_path / "root", *given_flags), tmp_path / "root"


def kill_half_way(workdir: Path) -> None:
    """Kills the process of a run, as a machine does that is short of memory, when it has trained for a while."""
    end = time.monotonic() + 300
    while not (workdir / "metrics.jsonl").exists() or (workdir / "metrics.jsonl").read_text().count("\n") < 6:
        assert time.monotonic() < end
        time.sleep(0.001)
    os.kill(json.loads((workdir / ".lock").read_text())["pid"], signal.SIGKILL)


@pytest.mark.processes
def test_a_sweep_goes_on_past_failures_and_finishes_when_started_again(commands, six_runs):
    given_flags, root = six_runs
    began = time.monotonic()
    with commands.start("sweep", *given_flags) as process:
        kill_half_way(root / "seed=2")
        out, err = process.communicate(timeout=300)
    assert process.returncode == 1, (out, err)
    states = dict(re.findall(r"^(\S+) +(done|failed|stopped)  .*$", out, re.MULTILINE))
    expected = {f"seed={n}": "done" for n in range(5)} | {"fails": "failed", "seed=2": "stopped"}
    assert states == expected
    assert "error: every image has diverged at scale 0" in out
    assert "killed by SIGKILL; resumes" in out
    assert re.search(r"^6 runs: 4 done, 1 stopped, 1 failed$", out, re.MULTILINE)
    # Never more than two at a time: one at most besides the one that has just ended.
    beside = [int(number) for number in re.findall(r"\((\d) running, \d waiting\)$", out, re.MULTILINE)]
    assert (len(beside), max(beside), beside[-1]) == (6, 1, 0)
    first = time.monotonic() - began

    status = commands.run("sweep", *given_flags, "--status")
    assert (status.returncode, status.stderr) == (0, "")
    table, _, after = out[out.index("run  ") :].partition("side by side: ")
    assert status.stdout == table
    assert after == f"python -m launch.compare {root}\n"

    before = {n: contents(root / f"seed={n}") for n in (0, 1, 3, 4)}
    again = commands.run("sweep", *given_flags)
    assert again.returncode == 1, again.stdout
    assert "6 runs of root, 2 of them to do" in again.stdout
    assert "5 done, 1 failed" in again.stdout
    assert {n: contents(root / f"seed={n}") for n in (0, 1, 3, 4)} == before
    record = json.loads((root / "seed=2/run.json").read_text())
    assert (record["status"], len(record["starts"])) == ("finished", 2)
    assert [row["global_step"] for row in rows(root / "seed=2")] == [
        row["global_step"] for row in rows(root / "seed=1")
    ]
    assert done(root / "seed=0") != done(root / "seed=1")
    # wandb's id is that of the run, and the same in both starts.
    config = json.loads((root / "seed=2/config.json").read_text())["tracking"]
    assert (config["group"], config["name"]) == ("root", "seed=2")
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}", record["id"])
    print(f"first call {first:.0f} s, both {time.monotonic() - began:.0f} s")


@pytest.mark.processes
@pytest.mark.slow
def test_a_stop_is_passed_on_to_the_runs(commands, six_runs):
    given_flags, root = six_runs
    long = [*given_flags, *(f"--only=seed={n}" for n in range(3)), "--", "--config.train.steps_per_scale=100000"]
    with commands.start("sweep", *long) as process:
        end = time.monotonic() + 120
        while not all((root / f"seed={n}/metrics.jsonl").exists() for n in (0, 1)):
            assert time.monotonic() < end
            time.sleep(0.01)
        running = commands.run("sweep", *long, "--status")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert "2 running, 1 waiting" in running.stdout
    assert process.returncode == 75, (out, err)
    assert err == "SIGTERM: stopping 2 run(s)\n"
    assert "3 runs: 2 stopped, 1 waiting" in out
    for n in (0, 1):
        assert json.loads((root / f"seed={n}/run.json").read_text())["status"] == "stopped"
        assert not (root / f"seed={n}/.lock").exists()
    assert not (root / "seed=2").exists()


def said(process, count, words):
    """Reads a process's output until `count` lines have the words."""
    lines = []
    while sum(words in line for line in lines) < count:
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    return "".join(lines)


@pytest.mark.processes
@pytest.mark.slow
def test_a_killed_sweep_finds_its_live_runs_again_and_starts_none_twice(commands, six_runs):
    given_flags, root = six_runs
    two = [*given_flags, "--only=seed=0", "--only=seed=1", "--only=seed=2"]
    with commands.start("sweep", *two) as process:
        said(process, 2, ": started on ")
        process.kill()  # the runs are importing: no workdir is locked, and none has a training yet
    again = commands.run("sweep", *two)
    assert again.returncode == 0, again.stdout + again.stderr
    found = re.findall(r"^(\S+): is running already \(process \d+\), waiting for it$", again.stdout, re.MULTILINE)
    assert found == ["seed=0", "seed=1"]
    assert "3 runs: 3 done" in again.stdout
    for n in range(3):
        assert (root / f"seed={n}.log").read_text().count("--- start ") == 1
        assert len(json.loads((root / f"seed={n}/run.json").read_text())["starts"]) == 1
    # seed=2 waited for devices that the runs found alive had.
    assert again.stdout.index("seed=2: started on") > again.stdout.index(": done after")


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("adopted", [False, True])
def test_ctrl_c_ends_runs_that_are_still_importing_with_75(commands, six_runs, adopted):
    given_flags, root = six_runs
    two = [*given_flags, "--only=seed=0", "--only=seed=1"]
    with commands.start("sweep", *two) as process:
        said(process, 2, ": started on ")
        process.send_signal(signal.SIGKILL if adopted else signal.SIGINT)
        process.communicate(timeout=120)
    if adopted:  # and those of a sweep that was killed
        with commands.start("sweep", *two) as process:
            said(process, 2, ": is running already")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
    assert process.returncode == 75
    for n in (0, 1):
        log = (root / f"seed={n}.log").read_text()
        assert not state.log_is_held(root / f"seed={n}.log")
        assert adopted or "--- exit code 75 after" in log


@pytest.mark.processes
def test_bad_sweeps_are_refused_before_anything_starts(commands, six_runs, tmp_path):
    given_flags, root = six_runs
    assert_refused(commands.run("sweep", *given_flags, "--backend=skypilt"), "did you mean 'skypilot'")
    assert_refused(commands.run("sweep", *given_flags, "--only=sed=1"), "no run of that name (did you mean 'seed=1'?)")
    (tmp_path / "sweep.py").write_text("def get_sweep():\n    return [{'train.chunks': 1}]")
    assert_refused(commands.run("sweep", *given_flags), "'train.chunks'", "did you mean 'train.chunk'")
    assert_refused(commands.run("sweep", "--workdir=a"), "--sweep=FILE")
    assert not root.exists()


@pytest.mark.processes
def test_a_dry_run_prints_commands_and_touches_nothing(commands, six_runs, tmp_path):
    given_flags, root = six_runs
    shown = commands.run("sweep", *given_flags, "--dry_run", "--", "--config.data.path=/nowhere")
    assert (shown.returncode, shown.stderr) == (0, "")
    trainings = [line for line in shown.stdout.splitlines() if "-m launch.train" in line]
    assert len(trainings) == 6
    assert "--config.data.path=/nowhere --config.seed=4" in trainings[5]
    assert trainings[5].endswith(f"--workdir={root}/seed=4 >> {root}/seed=4.log 2>&1")
    assert not root.exists()
    two_keys = "product({'seed': [0, 1], 'train.chunk': [5, 6]})"
    (tmp_path / "sweep.py").write_text(SIX_RUNS.replace("import chain", "import product").split("    rate")[0])
    with (tmp_path / "sweep.py").open("a") as file:
        file.write(f"    return {two_keys}\n")
    one = commands.run("sweep", *given_flags, "--dry_run", "--only=seed=1,chunk=6")
    assert one.stdout.count("-m launch.train") == 1
    assert f"--workdir={root}/seed=1,chunk=6 " in one.stdout


@pytest.mark.processes
@pytest.mark.slow
def test_a_run_that_is_refused_leaves_no_workdir(commands, six_runs):
    given_flags, root = six_runs
    result = commands.run("sweep", *given_flags, "--only=seed=1", "--config.data.path=/nowhere")
    assert result.returncode == 1
    assert "failed" in result.stdout
    assert "error: " in result.stdout
    assert [path.name for path in root.iterdir()] == ["seed=1.log"]
