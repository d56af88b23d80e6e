"""What is printed ends no command: pipes that nobody reads, full disks, closed streams, locales without letters."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from singan.storage.metrics_file import read_rows
from tests.launch.train.train_test import ROOT, SCALES, STEPS, Commands, done

pytestmark = pytest.mark.processes

COMMANDS = (
    *("train", "sample", "manipulate", "evaluate", "compare", "sweep", "import_pytorch", "reader_study", "data_card"),
    "report",
)
PRINTING = """
import sys
from absl import flags
from launch import cli

DO = flags.DEFINE_string("do", "", "")


def main(argv):
    if DO.value == "names":
        print("Fréchet 13×11 \\udcff")
        print("warning: é", file=sys.stderr)
    elif DO.value == "escapes":
        print("a\\x1b[2Jb\\rc\\x9b1md\\u202ee\\tf")
        print("\\rbar\\x1b[2J\\rand", file=sys.stderr)
    elif DO.value == "file":
        open("é.npy")
    elif DO.value == "child":
        import subprocess
        subprocess.run(["echo", "of a child"], check=True)
        print(sys.stderr.isatty(), sys.stdout.fileno())
        open("done", "w").close()
    else:
        for line in range(20000):
            print("line", line)
            print("line", line, file=sys.stderr)
        open("done", "w").close()
        return int(DO.value or 0)


cli.run(main)
"""
PLAIN = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
ASCII = {**PLAIN, "LC_ALL": "C", "PYTHONUTF8": "0"}


@pytest.fixture
def shell(tmp_path):
    """Runs a line of bash in which $COMMAND is a command that prints much; exit codes of a pipe are in its output."""
    (tmp_path / "printing.py").write_text(PRINTING)

    def call(line: str, environment: dict[str, str] = PLAIN) -> subprocess.CompletedProcess:
        given = {**environment, "COMMAND": f"{sys.executable} printing.py"}
        return subprocess.run(["bash", "-c", line], cwd=tmp_path, env=given, capture_output=True, check=False)

    return call


@pytest.mark.parametrize("code", [0, 1, 75])
def test_a_command_whose_reader_has_left_comes_to_its_end_and_keeps_its_code(shell, tmp_path, code):
    result = shell(f"$COMMAND --do={code} 2>&1 | head -1; echo ${{PIPESTATUS[0]}}")
    assert result.stdout.decode().splitlines() == ["line 0", str(code)]
    assert (tmp_path / "done").exists()


def test_results_that_a_full_disk_did_not_take_are_no_success(shell, tmp_path):
    result = shell("$COMMAND > /dev/full")
    assert result.returncode == 1
    assert result.stderr.decode().splitlines()[-1] == "error: what was printed is not whole: No space left on device"
    assert shell("$COMMAND 2> /dev/full").returncode == 0  # progress is no result


def test_closed_streams_are_nobodys(shell, tmp_path):
    assert shell("$COMMAND >&- 2>&- <&-").returncode == 0
    assert shell("$COMMAND --do=child >&- 2>&-").returncode == 0
    assert (tmp_path / "done").read_bytes() == b""  # what would have got the number of a closed stream


def test_letters_that_the_locale_lacks_are_escapes(shell):
    result = shell("$COMMAND --do=names", ASCII)
    assert (result.returncode, result.stdout) == (0, b"Fr\\xe9chet 13\\xd711 \\udcff\n")
    assert result.stderr == b"warning: \\xe9\n"
    result = shell("$COMMAND --do=names", {**PLAIN, "LC_ALL": "C.UTF-8"})
    assert (result.returncode, result.stdout) == (0, "Fréchet 13×11 \\udcff\n".encode())


def test_a_file_that_the_locale_cannot_name_is_one_line(shell):
    result = shell("$COMMAND --do=file", ASCII)
    assert result.returncode == 2
    (line,) = result.stderr.decode().splitlines()
    assert line == "error: '\\xe9.npy' cannot be the name of a file in this locale (ascii): set LC_ALL=C.UTF-8"


@pytest.mark.slow
def test_nothing_that_is_printed_moves_the_cursor_but_a_progress_bar(shell):
    result = shell("$COMMAND --do=escapes", {**PLAIN, "LC_ALL": "C.UTF-8"})
    assert result.stdout == b"a\\x1b[2Jb\\rc\\x9b1md\\u202ee\tf\n"
    assert result.stderr == b"\rbar\\x1b[2J\\rand\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_printed_in_every_locale_and_to_nobody(command):
    line = f"{sys.executable} -m launch.{command} --help | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], cwd=ROOT, env=ASCII, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines()[-1] == "0"
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_training_goes_on_when_nobody_reads_what_it_says(tmp_path_factory, tmp_path: Path):
    commands, workdir = Commands(tmp_path_factory), tmp_path / "run"
    whole = commands.finished_run()
    command = [sys.executable, "-m", "launch.train", *map(str, commands.train_flags(workdir))]
    read, write = os.pipe()
    with subprocess.Popen(command, cwd=ROOT, env=commands.environment, stdout=write, stderr=write) as process:
        os.close(write)
        assert os.read(read, 1)  # the first of its lines, and no other
        os.close(read)
        assert process.wait(300) == 0
    assert json.loads((workdir / "run.json").read_text())["status"] == "finished"
    assert done(workdir) == done(whole)
    assert max(row["global_step"] for row in read_rows(workdir / "metrics.jsonl")) == SCALES * STEPS


@pytest.mark.slow
def test_commands_on_a_run_speak_in_every_locale(tmp_path_factory, tmp_path):
    commands = Commands(tmp_path_factory)
    run = commands.finished_run()
    environment = {key: value for key, value in commands.environment.items() if not key.startswith("LC_")}
    commands.environment = {**environment, "LC_ALL": "C", "PYTHONUTF8": "0"}
    other = tmp_path / "other"
    other.symlink_to(run)
    for name, *flags in (
        ("compare", run, other, f"--out={tmp_path / 'compared'}"),
        ("sample", f"--workdir={run}", f"--out={tmp_path / 'samples'}", "--num_samples=1"),
        ("report", f"--workdir={run}"),
    ):
        result = commands.run(name, *flags)
        assert (result.returncode, result.stderr) == (0, ""), name
    assert "\\xd7" in commands.run("compare", run, other, f"--out={tmp_path / 'compared'}").stdout  # 13×11 pixels
