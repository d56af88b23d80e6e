"""The lock of a workdir after a crash: killed holders, other hosts, clocks that are off, links in its place."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from singan.errors import UserError
from singan.storage.workdir_lock.lock import WorkdirLock
from singan.storage.workdir_lock.owner import may_be_alive, parse_holder, this_process

ROOT = Path(__file__).resolve().parents[3]
REFRESH, LEASE = 0.2, 4.0
HOLD = f"""
    import socket, sys, time
    if len(sys.argv) > 2:
        socket.gethostname = lambda: sys.argv[2]
    from singan.storage.workdir_lock.lock import WorkdirLock
    with WorkdirLock(sys.argv[1], {REFRESH}, {LEASE}):
        print("held", flush=True)
        sys.stdin.read()
"""


def start(workdir, *host, prefix=(), code=HOLD):
    command = [*prefix, sys.executable, "-c", textwrap.dedent(code), str(workdir), *host]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def killed(process):
    process.kill()
    process.communicate()


def ended(process):
    out, err = process.communicate()  # closes stdin
    assert process.returncode == 0, err
    return out, err


def lock_of(workdir, **changes):
    workdir.mkdir(exist_ok=True)
    holder = {**this_process(), "host": "elsewhere", "token": "t", "heartbeat": time.time(), **changes}
    (workdir / ".lock").write_text(json.dumps({key: value for key, value in holder.items() if value is not None}))


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "run"


def taken(workdir):
    began = time.monotonic()
    with WorkdirLock(workdir, REFRESH, LEASE):
        assert parse_holder((workdir / ".lock").read_bytes())["pid"] == os.getpid()
        seconds = time.monotonic() - began
    assert not (workdir / ".lock").exists()
    return seconds


@pytest.mark.processes
@pytest.mark.slow
def test_the_lock_of_a_directory_is_refreshed_and_never_half_written(workdir):
    with WorkdirLock(workdir, refresh=0.001):
        beats = set()
        end = time.monotonic() + 20
        while len(beats) < 20:
            holder = parse_holder((workdir / ".lock").read_bytes())
            assert holder is not None
            assert holder["pid"] == os.getpid()
            beats.add(holder["heartbeat"])
            assert time.monotonic() < end
    assert os.listdir(workdir) == []


@pytest.mark.processes
def test_a_killed_holder_is_waited_for_under_another_host_name_and_taken_over(workdir):
    first = start(workdir)
    assert first.stdout.readline() == "held\n"
    killed(first)
    second = start(workdir, "another-container")
    began = time.monotonic()
    assert second.stdout.readline() == "held\n"
    assert 1 < time.monotonic() - began < 60
    _, err = ended(second)
    waiting, taken_over = err.splitlines()
    who = f"{workdir}/.lock is of process {first.pid} on host {socket.gethostname()}"
    assert waiting.startswith(f"{who}: waiting for up to ")
    assert taken_over == f"{workdir}/.lock was not refreshed: it is taken over"
    assert os.listdir(workdir) == []


@pytest.mark.processes
@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "--uts", "true"], capture_output=True).returncode != 0,
    reason="only root gives a process another host name",
)
@pytest.mark.slow
def test_a_host_name_of_the_kernel_is_another_host_too(workdir):
    renamed = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')
    first = start(workdir, prefix=(*renamed, "container-a"))
    assert first.stdout.readline() == "held\n"
    assert parse_holder((workdir / ".lock").read_bytes())["host"] == "container-a"
    refused = start(workdir, prefix=(*renamed, "container-b"))
    _, err = refused.communicate()
    assert refused.returncode == 1
    assert f"UserError: {workdir} is in use by process {first.pid} on host container-a" in err
    killed(first)
    second = start(workdir, prefix=(*renamed, "container-b"))
    assert second.stdout.readline() == "held\n"
    ended(second)


@pytest.mark.processes
def test_a_killed_holder_of_this_host_is_taken_over_at_once(workdir):
    first = start(workdir)
    assert first.stdout.readline() == "held\n"
    killed(first)
    assert taken(workdir) < 1


@pytest.mark.processes
@pytest.mark.slow
def test_a_process_of_any_name_is_alive(workdir):
    name = f"open('/proc/self/comm', 'wb').write(b'a) \\xff (b')\n{textwrap.dedent(HOLD)}"
    first = start(workdir, code=name)
    assert first.stdout.readline() == "held\n"
    assert may_be_alive(parse_holder((workdir / ".lock").read_bytes()))
    ended(first)


def test_an_old_heartbeat_of_another_host_is_taken_over_at_once_and_said(workdir, capfd):
    lock_of(workdir, heartbeat=time.time() - 300)
    assert taken(workdir) < 1
    (line,) = capfd.readouterr().err.splitlines()
    assert " on host elsewhere, and was not refreshed for 300 s: it is taken over" in line


@pytest.mark.parametrize("ahead", [0.0, 400 * 86400.0])
def test_a_lock_without_a_sign_of_life_is_taken_over_whatever_the_clocks_say(workdir, ahead):
    lock_of(workdir, heartbeat=time.time() + ahead)
    assert taken(workdir) > 1


@pytest.mark.parametrize("offset", [-3.0, 0.0, 10**6])
def test_a_lock_that_is_refreshed_while_one_waits_is_held(workdir, offset):
    """As where flock is kept to one host, and clocks differ."""
    lock_of(workdir, heartbeat=time.time() + offset)
    content = (workdir / ".lock").read_text()
    refresh = "import sys, time; time.sleep(0.5); open(sys.argv[1], 'w').write(sys.argv[2])"
    later = json.dumps({**json.loads(content), "heartbeat": time.time() + offset + 0.5})
    with (
        subprocess.Popen([sys.executable, "-c", refresh, workdir / ".lock", later]),
        pytest.raises(UserError, match=r"is in use by process \d+ on host elsewhere: .*ends by itself within 120 s"),
    ):
        taken(workdir)
    assert (workdir / ".lock").read_text() == later


def test_a_lock_of_another_host_without_a_heartbeat_is_refused_as_it_was(workdir):
    lock_of(workdir, heartbeat=None, token=None)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"on host elsewhere: .*\(if it is gone, delete .*/run/\.lock\)$"):
        taken(workdir)
    assert time.monotonic() - began < 1


def test_who_has_lost_its_lock_ends_and_does_not_refresh_it(workdir, capfd):
    codes = []
    with WorkdirLock(workdir, 0.05, LEASE, end=codes.append):
        lock_of(workdir)  # of another host that does not see this one's flock
        other = (workdir / ".lock").read_text()
        end = time.monotonic() + 10
        while not codes:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert codes == [75]
    assert (workdir / ".lock").read_text() == other
    assert "is no longer this process': it ends at once" in capfd.readouterr().err


def test_a_lock_that_a_person_removes_ends_nothing(workdir):
    codes = []
    with WorkdirLock(workdir, 0.02, LEASE, end=codes.append):
        (workdir / ".lock").unlink()
        time.sleep(0.2)
    assert codes == []


@pytest.mark.parametrize("kind", ["symbolic link", "link to nothing", "hard link", "FIFO", "folder"])
def test_what_lies_in_place_of_the_lock_is_not_written_to(workdir, tmp_path, kind):
    workdir.mkdir()
    thesis, lock = tmp_path / "thesis.txt", workdir / ".lock"
    thesis.write_text("precious")
    if kind == "symbolic link":
        lock.symlink_to(thesis)
    elif kind == "link to nothing":
        lock.symlink_to(tmp_path / "new")
    elif kind == "hard link":
        lock.hardlink_to(thesis)
    elif kind == "FIFO":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    with pytest.raises(UserError, match=r"run/\.lock") as caught:
        taken(workdir)
    assert "\n" not in str(caught.value)
    assert thesis.read_text() == "precious"
    assert os.path.lexists(lock)
    assert not (tmp_path / "new").exists()


def test_leftovers_are_not_looked_for_behind_links(workdir, tmp_path):
    elsewhere, name = tmp_path / "elsewhere", f".tmp-a.json-{2**22 + 1}-0a1b2c3d"
    for folder in (elsewhere, workdir / "tables"):
        folder.mkdir(parents=True)
        (folder / name).write_text("{")
    (workdir / "images").symlink_to(elsewhere)
    taken(workdir)
    assert (elsewhere / name).exists()
    assert not (workdir / "tables" / name).exists()


@pytest.mark.processes
@pytest.mark.slow
def test_a_stopped_holder_is_not_taken_over_on_its_host(workdir):
    first = start(workdir)
    assert first.stdout.readline() == "held\n"
    first.send_signal(signal.SIGSTOP)
    time.sleep(3 * REFRESH)
    with pytest.raises(UserError, match=f"process {first.pid} on host"):
        taken(workdir)
    first.send_signal(signal.SIGCONT)
    ended(first)
