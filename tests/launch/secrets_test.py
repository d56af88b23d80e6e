"""No password, key or token is written down with a run, sent to wandb, or shown."""

import json

import pytest

from launch.configs import load_config
from singan.errors import UserError
from singan.secrets import HIDDEN, hidden, hidden_arguments
from tests.launch.train.train_test import Commands

KEY, TOKEN = "6b65792d" * 5, "746f6b656e2d5a5a5a5a"
CONFIG = """
from launch.configs import default_config


def get_config(note):
    config = default_config()
    config.data.num_crops = 2
    config.data.crop_size = 18
    config.pyramid.min_size = 11
    config.pyramid.num_scales = 2
    config.network.width = 2
    config.network.num_layers = 2
    config.train.steps_per_scale = 2
    config.train.chunk = 2
    return config
"""


@pytest.mark.processes
def test_a_real_run_holds_no_secret_anywhere(tmp_path, tmp_path_factory, monkeypatch):
    commands = Commands(tmp_path_factory)
    for name, value in (("WANDB_API_KEY", KEY), ("HOSPITAL_TOKEN", TOKEN)):
        monkeypatch.setitem(commands.environment, name, value)
    config, workdir = tmp_path / "config.py", tmp_path / "run"
    config.write_text(CONFIG)
    result = commands.run("train", f"--config={config}:{TOKEN}", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    compared = commands.run("compare", workdir, workdir / ".." / "run", f"--out={tmp_path / 'compared'}")
    assert compared.returncode in (0, 2)
    said = result.stdout + result.stderr + compared.stdout + compared.stderr
    assert KEY not in said
    assert TOKEN not in said
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in found)
    for path in found:
        for secret in (KEY, TOKEN):
            assert secret.encode() not in path.read_bytes(), path
    (start,) = json.loads((workdir / "run.json").read_text())["starts"]
    assert start["command"][1] == f"--config={config}:{HIDDEN}"


def test_command_lines_are_written_down_without_secrets(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", KEY)
    monkeypatch.setenv("SHORT_KEY", "on")
    given = [
        "x",
        f"--a={KEY}z",
        "--workdir=https://me:pa:ss@host/run",
        "--api_key=abc",
        "--key_file=a",
        "https://host/a@b",
    ]
    shown = ["x", "--a=***z", "--workdir=https://***@host/run", "--api_key=***", "--key_file=a", "https://host/a@b"]
    assert hidden_arguments(given) == shown
    assert hidden("connection on https://u:@h failed") == "connection on https://***@h failed"


@pytest.mark.parametrize("path", ["s3://name:word@bucket/images", f"x/{KEY}/y"])
def test_a_configuration_with_a_secret_is_refused_without_telling_it(monkeypatch, path):
    monkeypatch.setenv("SOME_SECRET", KEY)
    with pytest.raises(UserError, match=r"^config\.data\.path holds (a password|the value of \$SOME_SECRET)") as error:
        load_config({"data": {"path": path}})
    assert KEY not in str(error.value)
    assert "word@" not in str(error.value)
