"""The console command: what it lists, and that it does what python -m launch.COMMAND does."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from launch import main
from singan.config import default_mapping, flatten

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def medisingan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "medisingan", *arguments)


def test_the_console_command_is_declared():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"medisingan": "medisingan.__main__:main"}


def test_every_command_of_the_readme_is_one():
    commands = {module for module, _ in main.COMMANDS.values()}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = {
        line.split("`")[1].removeprefix("python -m ") for line in readme.splitlines() if line.startswith("| `python")
    }
    assert commands == listed


def test_help_lists_commands_and_every_key_with_its_comment():
    lines = main.usage().splitlines()
    for name in main.COMMANDS:
        assert any(line.startswith(f"  {name} ") for line in lines)
    named = lines.index("Configurations that --config takes by name, beside files of your own:")
    assert "quickstart" in lines[named + 1]
    keys = [line.split("=")[0].strip() for line in lines if line.startswith("  ") and line[2] != " " and "=" in line]
    assert keys == list(flatten(default_mapping()))
    place = lines.index("  pyramid.max_size=250")
    assert lines[place + 1] == "      pixels of the longer side at the finest scale"
    assert max(map(len, lines)) <= 120


def test_version_and_help_end_well(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["medisingan", "--version"])
    assert main.main() == 0
    assert capsys.readouterr().out == f"medisingan {importlib.metadata.version('medisingan')}\n"
    for arguments in (["--help"], []):
        monkeypatch.setattr(sys, "argv", ["medisingan", *arguments])
        assert main.main() == 0
        assert capsys.readouterr().out == main.usage() + "\n"


def test_a_command_that_does_not_exist_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["medisingan", "tain"])
    assert main.main() == 2
    assert capsys.readouterr().err == (
        "error: there is no command 'tain' (did you mean 'train'?): medisingan --help lists them\n"
    )


@pytest.mark.processes
def test_a_command_does_what_its_module_does(tmp_path):
    given = ["--workdir", str(tmp_path / "absent"), f"--out={tmp_path}"]
    ours, module = medisingan("sample", *given), run("-m", "launch.sample", *given)
    assert (ours.returncode, ours.stdout, ours.stderr) == (module.returncode, module.stdout, module.stderr)
    assert ours.returncode == 2
    assert ours.stderr.startswith("error: ")
    helped = medisingan("sample", "--help")
    assert helped.returncode == 0
    assert "--num_samples" in helped.stdout
    built = medisingan("build-dataset", "--help")
    assert built.returncode == 0
    assert "--manual_dir" in built.stdout
