"""singan.train: arrays in, a workdir out that every command reads."""

import json
import subprocess
import sys

import numpy as np
import pytest

import singan
from launch.report.page import write_report
from singan.array_training import train
from singan.errors import UserError
from singan.storage.metrics_file import read_rows
from singan.storage.workdir_lock.lock import WorkdirLock

CONFIG = {
    "pyramid": {"max_size": 28, "num_scales": 2},
    "network.width": 4,
    "train.steps_per_scale": 4,
    "train.chunk": 2,
    "train.checkpoint_every": 2,
}


def images(count=2):
    rng = np.random.default_rng(0)
    return {f"slice_{i}": rng.integers(0, 4000, (28, 30), dtype=np.uint16) for i in range(count)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place, told = tmp_path_factory.mktemp("api") / "run", []
    return train(images(), place, CONFIG, told.append), place, told


def test_the_api_is_what_dir_shows():
    assert dir(singan) == ["Diverged", "Progress", "TrainedRun", "UserError", "load_run", "train"]
    assert singan.train is train
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        singan.trian  # noqa: B018


def test_a_run_is_returned_and_its_workdir_is_complete(trained):
    run, place, told = trained
    assert run.ids == ("slice_0", "slice_1")
    samples = run.sample(2)
    assert samples["slice_1"].shape == (2, 27, 28, 1)
    assert samples["slice_1"].max() > 300  # in the source's own values
    record = json.loads((place / "run.json").read_text())
    assert (record["status"], len(record["starts"]), record["diverged"]) == ("finished", 1, {})
    assert (place / "config.json").is_file()
    assert (place / "images.json").is_file()
    assert not (place / ".lock").exists()
    assert [(p.scale, p.scales, p.step, p.steps) for p in told] == [
        (0, 2, 2, 4),
        (0, 2, 4, 4),
        (1, 2, 2, 4),
        (1, 2, 4, 4),
    ]
    assert np.isfinite(told[-1].metrics["generator/reconstruction_rmse"])
    assert [row["global_step"] for row in read_rows(place / "metrics.jsonl")] == [2, 4, 6, 8]
    write_report(place)
    assert "slice_0" in (place / "report.html").read_text()


def test_what_progress_raises_ends_it_and_the_same_call_goes_on(trained, tmp_path):
    def interrupt(progress):
        if (progress.scale, progress.step) == (1, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(images(), tmp_path, CONFIG, interrupt)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "stopped"
    again = train(images(), tmp_path, CONFIG)
    whole = trained[0]
    for name in whole.ids:
        np.testing.assert_array_equal(again.sample(1)[name], whole.sample(1)[name])
    assert [row["global_step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [2, 4, 6, 8]


def test_another_run_and_a_workdir_in_use_are_refused(trained, tmp_path):
    place = trained[1]
    with pytest.raises(UserError, match="another configuration"):
        train(images(), place, {**CONFIG, "train.steps_per_scale": 6})
    with pytest.raises(UserError, match="other images"):
        train(images(1), place, CONFIG)
    with WorkdirLock(tmp_path), pytest.raises(UserError, match="is in use"):
        train(images(1), tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("given", "config", "said"),
    [
        ({}, {}, "no images"),
        ({"a/b": np.zeros((30, 30))}, {}, "no id of an image"),
        ({"a": np.eye(30), "A": np.eye(30)}, {}, "upper and lower case"),
        ([np.eye(30), np.eye(31)], {}, "one shape"),
        ([np.full((30, 30), np.nan)], {}, "finite numbers"),
        ([np.eye(30)], {"data.channels": ("a", "b")}, "names 2"),
        ([np.ones((30, 30))], {}, "image_0000: holds the same value"),
        ([np.eye(30)], {"train.chnk": 2}, "did you mean"),
        ([np.eye(8)], {}, "too small"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(given, config, said, tmp_path):
    with pytest.raises(UserError, match=said):
        train(given, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


@pytest.mark.processes
def test_commands_can_be_imported_into_one_process():
    code = "import launch.sample, launch.evaluate.__main__, launch.train.__main__, launch.sweep.__main__"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
