"""What of a run goes to wandb, in one record after resume and evaluation, and what does not."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from launch.tracking.sent import Sent
from launch.tracking.wandb_mode import check_key, wandb_mode
from launch.tracking.wandb_run import Wandb
from launch.tracking.wandb_start import _program
from launch.train.progress import _final
from singan.config import TrackingConfig, parse
from singan.errors import UserError
from singan.storage.workdir import ImageRecord, Workdir, write_images, write_run
from singan.value_map import ValueMap
from tests.launch.tracking import tracking_test
from tests.launch.tracking.tracking_test import inspect, run_python, steps

home = tracking_test.home
COMMAND = ["/code/launch/train/__main__.py", "--config=quickstart", "--config.data.path=/data/patients"]
IDS = ("mueller_1", "mueller_2")


@pytest.mark.parametrize(
    ("key", "mode", "wanted"),
    [
        ("auto", None, "offline"),
        ("auto", "online", "online"),
        ("auto", "disabled", "off"),
        ("auto", "dryrun", "offline"),
        ("offline", "online", "offline"),
        ("online", "disabled", "online"),
        ("off", "online", "off"),
    ],
)
def test_the_key_goes_before_the_environment(monkeypatch, key, mode, wanted):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    assert wandb_mode(TrackingConfig(wandb=key)) == wanted


@pytest.mark.processes
def test_online_without_a_key_is_said_before_anything_is_trained(tmp_path):
    code = "from launch.tracking.wandb_mode import *; check_key(TrackingConfig(wandb='online'))"
    clean = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "WANDB_BASE_URL": "https://api.wandb.ai"}

    def check(**environment):
        return subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True)

    assert "wandb is to be online and has no key" in check().stderr
    assert check(WANDB_API_KEY="a" * 40).returncode == 0
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password " + "a" * 40)
    assert check().returncode == 0
    assert "no key" in check(WANDB_BASE_URL="http://other.example").stderr
    check_key(TrackingConfig())


def test_names_become_numbers_where_they_are_not_to_be_sent():
    all_of_it = Sent.of(TrackingConfig(), IDS)
    config = {"seed": 0, "data": {"path": "/data/patients", "ids": ["mueller_1"], "patients": [], "layout": "auto"}}
    assert (all_of_it.config(config), all_of_it.image("mueller_2"), all_of_it.pictures) == (config, "mueller_2", True)
    little = Sent.of(TrackingConfig(images="off", ids="numbers"), IDS)
    assert little.config(config) == {"seed": 0, "data": {"layout": "auto"}}
    assert little.rows([{"image": "mueller_2", "swd": 1}]) == [{"image": "image 1", "swd": 1}]
    assert little.command(COMMAND) == COMMAND[:1]
    assert little.listed() == "image 0, image 1"
    assert little.said() == "metrics, the configuration, the commit"
    assert "tracking.images=off sends numbers alone" in all_of_it.said()
    assert "mueller" not in json.dumps([little.config(config), little.listed(), little.command(COMMAND)])


def test_weights_are_not_sent_beside_names_that_are_kept_back():
    assert parse({"tracking": {"artifacts": True}}).tracking.artifacts
    for key in ({"images": "off"}, {"ids": "numbers"}):
        with pytest.raises(UserError, match="sends weights"):
            parse({"tracking": {"artifacts": True, **key}})


def test_pictures_stay_here_where_numbers_alone_are_sent(tmp_path):
    run = tracking_test.FakeRun()
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Wandb(run, tmp_path, sent=Sent(pictures=False)).pictures(tracking_test.row(1), {"samples": tmp_path / "a.png"})
    assert run.logged == []


def test_final_metrics_have_names_that_no_pyramid_changes():
    row = {"end/swd": [1.0, 3.0], "end/diversity": [None, None], "end/reconstruction_rmse": [0.5, 0.5]}
    assert _final(row) == {"final/start_0/swd": 2.0, "final/reconstruction_rmse": 0.5}


@pytest.mark.parametrize(
    ("path", "program"),
    [
        ("/code/launch/train/__main__.py", "-m launch.train"),
        ("/v/site-packages/medisingan/launch/sample.py", "-m medisingan.launch.sample"),
        ("/home/me/medisingan/launch/sample.py", "-m launch.sample"),
        ("medisingan train", "medisingan train"),
    ],
)
def test_the_program_is_shown_as_it_is_called(path, program):
    assert _program([path]) == program


TRAIN = """
import sys
from launch.tracking.writer import open_writer, open_writer_to_append
from singan.config import parse, to_mapping
what, workdir = sys.argv[1:3]
config = parse({"tracking": {"tags": ("mri",), "notes": "a note", "artifacts": True}})
sys.argv = ["/code/launch/evaluate/__main__.py"] if what == "evaluate" else sys.argv
if what == "evaluate":
    writer = open_writer_to_append(config.tracking, workdir, "id0", to_mapping(config))
    writer.scalars({"global_step": 4, "scale": 0, "scale_step": 4, "evaluation/swd": 0.5})
    writer.summary({"final/start_1/swd": 0.5})
else:
    first = 1 if what == "train" else 3
    writer = open_writer(config.tracking, workdir, "id0", to_mapping(config), None if what == "train" else 2)
    for step in range(first, first + 2):
        row = {"global_step": step, "scale": 0, "scale_step": step, "loss": 0.5, "time": 1.7e9 + step}
        writer.scalars(row)
        writer.pictures(row, {"samples": writer._lines.path.with_name("a.png")})
    if what == "resume":
        writer.table("scale_00", [{"image": "mueller_1", "swd": 1.0}])
        writer.weights(0)
        writer.summary({"final/start_0/swd": 1.0})
writer.close(0)
"""


@pytest.mark.processes
@pytest.mark.slow
def test_train_resume_and_evaluate_are_one_offline_record(tmp_path, home):
    workdir = Workdir(tmp_path / "run")
    workdir.checkpoints(0).mkdir(parents=True)
    (workdir.checkpoints(0) / "weights").write_bytes(b"w")
    value_map = ValueMap((0.0,), (1.0,), (None,), "float32")
    write_images(workdir, [ImageRecord(i, f"{i}.png", (8, 8, 1), ("grey",), value_map, "0" * 16) for i in IDS])
    write_run(workdir, {"id": "id0", "starts": [{"command": COMMAND, "time": "2026-01-01", "git_commit": "c" * 40}]})
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(workdir.path / "a.png")
    for what in ("train", "resume", "evaluate"):
        done = run_python(TRAIN, what, workdir.path, home=home)
        assert (done.returncode, done.stderr) == (0, "")
        workdir.done(0).touch()
    (folder,) = (workdir.path / "wandb").glob("offline-run-*-id0")
    found = inspect(folder)
    assert steps(found, "/loss") == [1, 2, 3, 4]
    assert steps(found, "/evaluation/swd") == [4]
    assert steps(found, "/samples.path") == [1, 2, 3, 4]
    history = [record["history"]["item"] for record in found if record["type"] == "history"]
    pictures = [item["scale_00/samples.caption"] for item in history if "scale_00/samples.caption" in item]
    assert set(pictures) == {f"scale 0, step {n}: a row for each image, mueller_1, mueller_2" for n in (1, 2, 3, 4)}
    assert [item["_timestamp"] for item in history if "scale_00/loss" in item] == [1.7e9 + n for n in (1, 2, 3, 4)]
    (run,) = [record["run"] for record in found if record["type"] == "run"]
    assert (run["job_type"], run["tags"], run["notes"]) == ("train", ["mri"], "a note")
    assert run["git"]["commit"] == "c" * 40
    assert run["config"]["update"]["started"] == "2026-01-01"
    environment = {}
    for record in found:
        environment |= record.get("environment", {})
    assert (environment["program"], environment["args"]) == ("-m launch.train", COMMAND[1:])
    summary = {}
    for record in found:
        summary |= record.get("summary", {}).get("update", {})
    assert (summary["final/start_0/swd"], summary["final/start_1/swd"]) == (1.0, 0.5)
    artifacts = [record["artifact"] for record in found if record["type"] == "artifact"]
    assert {artifact["name"] for artifact in artifacts} >= {"id0-scale_00"}
    assert found[-1]["type"] == "exit"
