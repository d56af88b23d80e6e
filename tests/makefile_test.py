"""Which Python `make` takes, and when it makes the virtual environment again: with stand-ins for the interpreters."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("make", "sh", "touch", "mkdir", "cp", "rm")
# Answers what the Makefile asks of an interpreter. `-m venv` puts a copy of itself into the environment.
INTERPRETER = """#!/bin/sh
case "$1 $2" in
  "-c "*) echo {version};;
  "-m venv") for folder; do :; done; rm -rf "$folder"; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python";;
esac
"""


class Clone:
    """The Makefile in a folder of its own, and a PATH that has these interpreters alone."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder / "clone", folder / "bin"
        self.folder.mkdir()
        self.path.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy2(ROOT / name, self.folder)
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool) or pytest.skip(f"{tool} is not installed"))

    def install(self, name: str, version: str) -> None:
        """Puts an interpreter on PATH; one without a version does not run."""
        text = INTERPRETER.format(version=version) if version else "#!/bin/sh\necho not installed >&2\nexit 127\n"
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.path), "HOME": os.environ.get("HOME", "/")}
        return subprocess.run(
            ["make", *arguments, ".venv/.ready"],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def made_with(self, *arguments: str) -> str | None:
        """Runs make; returns the version that it says it made .venv with, None where it left .venv as it was."""
        done = self.make(*arguments)
        assert done.returncode == 0, done.stderr
        first = done.stdout.splitlines()[0]
        return first.split("Python ")[1].split()[0] if "making" in first else None


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_the_newest_python_that_runs_is_taken(clone):
    clone.install("python3.13", "")  # as a version manager leaves it
    clone.install("python3.12", "3.12.1")
    clone.install("python3.11", "3.11.7")
    assert clone.made_with() == "3.12.1"
    assert clone.made_with() is None


def test_another_python_makes_the_environment_again(clone):
    clone.install("python3.11", "3.11.7")
    assert clone.made_with() == "3.11.7"
    (clone.folder / ".venv/installed").touch()
    clone.install("python3.13", "3.13.0")
    assert clone.made_with() == "3.13.0"
    assert not (clone.folder / ".venv/installed").exists()
    assert clone.made_with("PYTHON=python3.11") == "3.11.7"
    assert clone.made_with("PYTHON=python3.11") is None


def test_new_pins_are_installed_into_the_environment_that_is_there(clone):
    clone.install("python3.13", "3.13.0")
    assert clone.made_with() == "3.13.0"
    (clone.folder / ".venv/installed").touch()
    later = (clone.folder / ".venv/.ready").stat().st_mtime + 10
    os.utime(clone.folder / "constraints.txt", (later, later))
    assert clone.made_with() == "3.13.0"
    assert (clone.folder / ".venv/installed").exists()


def test_an_environment_whose_python_is_gone_is_made_again(clone):
    clone.install("python3.13", "3.13.0")
    assert clone.made_with() == "3.13.0"
    (clone.folder / ".venv/bin/python").write_text("#!/bin/sh\nexit 127\n")
    assert clone.made_with() == "3.13.0"
    (clone.path / "python3.13").unlink()
    assert clone.made_with() is None  # no other Python is on PATH, and this one works


@pytest.mark.parametrize("given", ["python3.13", "python3.9", "python3.12", ""])
def test_without_a_python_that_will_do_one_line_says_so(clone, given):
    clone.install("python3.13", "")
    clone.install("python3.9", "3.9.2")
    done = clone.make(*([f"PYTHON={given}"] if given else []))
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    tried = given or "python3.13 python3.12 python3.11"
    assert lines == [
        f"error: {tried}: no Python 3.11 to 3.13 that runs and has pip (Debian's is in python3-venv);"
        " name another with make PYTHON=/path/to/python3.13"
    ]
    assert not (clone.folder / ".venv").exists()
