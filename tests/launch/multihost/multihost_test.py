"""One training over several processes: the weights of one process, to the bit, whatever happens to any of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from launch.multihost import join, peers
from singan.errors import UserError
from tests.launch.train.resume_test import flip_a_byte, whole_checkpoints
from tests.launch.train.train_test import CHUNK, ROOT, SCALES, STEPS, Commands, done, picture, rows, save_png

pytestmark = pytest.mark.processes

IMAGES = 5  # on four devices of two processes
LOST = 5  # seconds without a sign of a process


class Hosts:
    """Starts the same command in several processes with two devices each, as several hosts would."""

    def __init__(self, factory: pytest.TempPathFactory):
        self.commands = Commands(factory)
        self.images = self.commands.root / "five"
        for number in range(IMAGES):
            save_png(self.images / f"image{number}.png", picture(number))
        # Optimised as users' programs are: it is the bits of differently divided programs that are compared.
        self.commands.environment["XLA_FLAGS"] = ""
        devices = "--xla_force_host_platform_device_count=2"
        self.environment = {**self.commands.environment, "XLA_FLAGS": devices, "JAX_PLATFORMS": "cpu"}

    def start(self, workdir: Path, *flags: str, count: int = 2, own: tuple[str, ...] = ()) -> list[subprocess.Popen]:
        """Args: own: flags of the last process alone."""
        with socket.socket() as free:
            free.bind(("", 0))
            address = f"localhost:{free.getsockname()[1]}"
        return [
            self.process(
                workdir,
                *flags,
                *(own if index == count - 1 else ()),
                f"--coordinator={address}",
                f"--num_processes={count}",
                f"--process_id={index}",
            )
            for index in range(count)
        ]

    def process(self, workdir: Path, *flags: str) -> subprocess.Popen:
        given = [
            f"--config={self.commands.config}",
            f"--config.data.path={self.images}",
            f"--workdir={workdir}",
            f"--peer_timeout={LOST}",
            "--join_timeout=60",
        ]
        return subprocess.Popen(
            [sys.executable, "-m", "launch.train", *given, *flags],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def alone(self) -> Path:
        """Returns the workdir of the run of one process on one device."""
        workdir = self.commands.root / "alone"
        if not workdir.exists():
            result = self.commands.train(workdir, f"--config.data.path={self.images}")
            assert result.returncode == 0, result.stderr
        return workdir


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Returns (exit code, stdout, stderr) of each process."""
    try:
        found = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, out, err) for process, (out, err) in zip(processes, found, strict=True)]


def wait_until(processes: list[subprocess.Popen], condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        assert all(process.poll() is None for process in processes), ends(processes)
        time.sleep(0.005)


def assert_like(workdir: Path, whole: Path) -> None:
    assert done(workdir) == done(whole)
    assert rows(workdir) == rows(whole)
    for scale in range(SCALES):
        grid = f"scales/{scale:02d}/samples/grid.png"
        assert (workdir / grid).read_bytes() == (whole / grid).read_bytes()
        assert whole_checkpoints(workdir, scale) == [STEPS]
    assert (workdir / "images.json").read_bytes() == (whole / "images.json").read_bytes()
    assert {path.name for path in (workdir / "images").iterdir()} == {f"image{i}.npy" for i in range(IMAGES)}
    assert not (workdir / ".lock").exists()


@pytest.fixture(scope="session")
def hosts(tmp_path_factory):
    return Hosts(tmp_path_factory)


@pytest.mark.slow
def test_a_lost_process_ends_the_other_and_the_same_command_resumes(hosts, tmp_path):
    workdir = tmp_path / "run"
    processes = hosts.start(workdir)
    wait_until(processes, lambda: len(whole_checkpoints(workdir, 1)) == 2)
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    (code, _, err), (lost, _, nothing) = ends(processes)
    assert (code, lost, nothing) == (75, -signal.SIGKILL, "")
    assert time.monotonic() - killed < 3 * LOST
    last = err.splitlines()[-1]
    assert last.startswith(f"process 1 of 2 (host {socket.gethostname()}) is gone: no sign of it for ")
    assert last.endswith(" s; the same command resumes")
    assert "Traceback" not in err
    assert json.loads((workdir / "run.json").read_text())["status"] == "stopped"
    assert not (workdir / "scales/01/DONE").exists()

    (code, out, err), other = ends(hosts.start(workdir))
    assert (code, other) == (0, (0, "", "")), err + other[2]
    assert STEPS < int(err.split("resuming after ")[1].split()[0]) < SCALES * STEPS
    assert out.startswith("done\n")
    assert f"{IMAGES} images on 4 device(s) of 2 processes" in err
    run = json.loads((workdir / "run.json").read_text())
    assert (run["status"], run["starts"][-1]["processes"]) == ("finished", 2)
    assert_like(workdir, hosts.alone())


def test_a_signal_to_one_process_stops_all_and_another_number_of_them_resumes(hosts, tmp_path):
    workdir = tmp_path / "run"
    processes = hosts.start(workdir)
    wait_until(processes, lambda: len(whole_checkpoints(workdir, 0)) == 2)
    processes[1].send_signal(signal.SIGTERM)
    found = ends(processes)
    assert [code for code, _, _ in found] == [75, 75], found
    step = whole_checkpoints(workdir, 0)[-1]
    line = (
        f"SIGTERM on process 1 (host {socket.gethostname()}): stopped at scale 0, step {step}; the same command resumes"
    )
    assert found[0][2].splitlines()[-1] == line
    assert found[1][2] == f"process 1: {line}\n"
    assert rows(workdir)[-1]["global_step"] == step
    assert json.loads((workdir / "run.json").read_text())["status"] == "stopped"

    flip_a_byte(workdir / f"scales/00/checkpoints/{step}")
    result = hosts.commands.train(workdir, f"--config.data.path={hosts.images}")
    assert result.returncode == 0, result.stderr
    assert f"checkpoints/{step} is damaged and passed over" in result.stderr
    assert f"resuming after {step - CHUNK} steps" in result.stderr
    assert_like(workdir, hosts.alone())


@pytest.mark.slow
def test_the_first_process_lost_ends_the_others_in_one_line(hosts, tmp_path):
    processes = hosts.start(tmp_path / "run", count=3)
    wait_until(processes, (tmp_path / "run/run.json").exists)
    processes[0].send_signal(signal.SIGKILL)
    for index, (code, out, err) in list(enumerate(ends(processes)))[1:]:
        assert (code, out) == (75, "")
        assert err.count("\n") == 1
        assert err.removeprefix(f"process {index}: ").startswith("process 0 of 3 (host ")
        assert err.endswith("; the same command resumes\n")


@pytest.mark.slow
@pytest.mark.parametrize(("count", "stopped"), [(2, 0), (2, 1), (4, 2)])
def test_a_process_that_slept_too_long_ends_as_the_others_did(hosts, tmp_path, count, stopped):
    """A suspended laptop: the others do not wait for it, and when it wakes it goes on with nothing."""
    workdir = tmp_path / "run"
    processes = hosts.start(workdir, count=count)
    wait_until(processes, lambda: len(whole_checkpoints(workdir, 0)) >= 1)
    processes[stopped].send_signal(signal.SIGSTOP)
    for index, process in enumerate(processes):
        if index != stopped:
            assert process.wait(timeout=6 * LOST) == 75
    time.sleep(LOST)
    processes[stopped].send_signal(signal.SIGCONT)
    for index, (code, _, err) in enumerate(ends(processes)):
        assert code == 75, (index, err)
        assert err.splitlines()[-1].endswith("the same command resumes"), (index, err)
        assert "Traceback" not in err
    assert not (workdir / "scales/01/DONE").exists()
    (code, _, err), *others = ends(hosts.start(workdir))
    assert [code, *(other[0] for other in others)] == [0, 0], err
    assert_like(workdir, hosts.alone())


@pytest.mark.slow
def test_different_configurations_are_refused_everywhere(hosts, tmp_path):
    own = ("--config.train.critic_updates=2", "--config.seed=4")
    for index, (code, out, err) in enumerate(ends(hosts.start(tmp_path / "run", own=own))):
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        host = socket.gethostname()
        assert f"error: process 0 (host {host}) and process 1 (host {host}) differ in their configuration" in err
        assert "train.critic_updates: '3' and '2'" in err
        assert "seed: '0' and '4'" in err
        assert err.startswith("process 1: " if index else "error: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_error_of_one_process_is_told_by_all(hosts, tmp_path):
    own = (f"--config.data.path={tmp_path / 'nowhere'}",)
    for code, _, err in ends(hosts.start(tmp_path / "run", own=own)):
        assert code == 2
        assert f"error: process 1 (host {socket.gethostname()}): config.data.path=" in err
        assert err.count("\n") == 1


@pytest.mark.slow
def test_a_coordinator_that_cannot_be_reached_is_named_in_time(hosts, tmp_path):
    started = time.monotonic()
    flags = ("--coordinator=localhost:9", "--num_processes=2", "--process_id=1", "--join_timeout=2")
    ((code, out, err),) = ends([hosts.process(tmp_path / "run", *flags)])
    assert (code, out) == (2, "")
    assert err.startswith("process 1: error: the coordinator localhost:9 cannot be reached within 2 s (")
    assert err.count("\n") == 1
    assert time.monotonic() - started < 60
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_that_do_not_come_are_waited_for_so_long(hosts, tmp_path):
    with socket.socket() as free:
        free.bind(("", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = (f"--coordinator={address}", "--num_processes=2", "--process_id=0", "--join_timeout=2")
    ((code, _, err),) = ends([hosts.process(tmp_path / "run", *flags)])
    assert code == 2
    assert err.startswith(f"error: not all of the 2 processes came to {address} within 2 s: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coordinator": "a:1"}, "--num_processes, --process_id: needed as well"),
        ({"process_id": 0, "num_processes": 2}, "--coordinator=HOST:PORT: needed as well"),
        ({"coordinator": "a", "num_processes": 2, "process_id": 0}, "is not HOST:PORT"),
        ({"coordinator": "a:99999", "num_processes": 2, "process_id": 0}, "is not HOST:PORT"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "there are 2 processes, the last one is 1"),
    ],
)
def test_flags_that_do_not_fit_together(given, message, monkeypatch):
    _no_cluster(monkeypatch)
    with flagsaver.flagsaver(**given), pytest.raises(UserError, match=message):
        join._place()


def test_who_trains_alone_joins_nothing(monkeypatch):
    _no_cluster(monkeypatch)
    assert join._place() is None
    with flagsaver.flagsaver(coordinator="a:1", num_processes=1, process_id=0):
        assert join._place() is None


def test_slurm_and_the_environment_say_where_the_others_are(monkeypatch):
    _no_cluster(monkeypatch)
    slurm = {"JOB_ID": "7", "STEP_NODELIST": "node[3-4]", "NTASKS": "2", "PROCID": "1", "LOCALID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert join._place() == ("node3:61447", 2, 1, True)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert join._place() is None
    for name, value in {"COORDINATOR_ADDRESS": "h:5", "NUM_PROCESSES": "3", "PROCESS_ID": "2"}.items():
        monkeypatch.setenv(f"JAX_{name}", value)
    assert join._place() == ("h:5", 3, 2, False)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as taken, pytest.raises(UserError, match="cannot be used here"):
        peers._check_port(f"localhost:{taken.getsockname()[1]}")


def _no_cluster(monkeypatch) -> None:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # not by arguments: other commands' required flags are known to this process too
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_", "JAX_"))]:
        monkeypatch.delenv(name)
