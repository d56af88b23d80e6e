"""Atomic files and the workdir lock: what is written is whole, what fails leaves nothing and says why."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import psutil
import pytest

from singan import files
from singan.errors import UserError
from singan.storage.workdir_lock.lock import WorkdirLock

HOLD = """
    import sys, time
    from singan.storage.workdir_lock.lock import WorkdirLock
    with WorkdirLock(sys.argv[1]):
        print("held", flush=True)
        time.sleep(60)
"""
TRY = """
    import sys, time
    from singan.storage.workdir_lock.lock import WorkdirLock
    from singan.errors import UserError
    while time.time() < float(sys.argv[2]):
        pass
    try:
        with WorkdirLock(sys.argv[1]):
            print("got", flush=True)
            time.sleep(1.5)
    except UserError as error:
        print(error)
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def test_json_comes_back_in_its_order_strict_and_with_a_newline_at_the_end(tmp_path):
    path = tmp_path / "a.json"
    value = {"z": 1, "a": [np.float32(0.5), float("nan"), np.arange(2)], "p": tmp_path, "t": (1, None, True)}
    files.write_json(path, value)
    text = path.read_text()
    assert text.endswith("}\n")
    assert "\n  " in text
    assert list(json.loads(text)) == ["z", "a", "p", "t"]
    assert files.read_json(path) == {"z": 1, "a": [0.5, None, [0, 1]], "p": str(tmp_path), "t": [1, None, True]}
    assert os.listdir(tmp_path) == ["a.json"]


def test_written_files_have_the_permissions_of_ordinary_files(tmp_path):
    files.write_text(tmp_path / "ours", "x")
    (tmp_path / "ordinary").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("where", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "disk full: free space and run the same command again; it resumes"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_a_failed_write_keeps_the_old_file_leaves_no_other_and_names_the_path(
    tmp_path, monkeypatch, where, number, text
):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, where, fail)
    with pytest.raises(UserError, match=text) as caught:
        files.write_text(path, "new")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_interrupt_while_writing_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(*_):
        assert [name for name in os.listdir(tmp_path) if name.startswith(".tmp-")]
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "a.txt", "new")
    assert os.listdir(tmp_path) == []


def test_file_and_directory_are_synced_to_the_disk(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(
        files.os, "fsync", lambda fd: (synced.append(os.path.realpath(f"/proc/self/fd/{fd}")), real(fd))
    )
    files.write_text(tmp_path / "a.txt", "new")
    assert os.path.basename(synced[0]).startswith(".tmp-a.txt")
    assert synced[1:] == [str(tmp_path)]


@pytest.mark.parametrize(("content", "text"), [(None, "is missing"), ("{", "is damaged")])
def test_json_that_cannot_be_read_is_named(tmp_path, content, text):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=text) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)


def test_a_workdir_below_a_file_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run"), WorkdirLock(tmp_path / "file" / "run"):
        pass


@pytest.mark.processes
def test_a_second_process_is_refused_by_name_and_a_killed_one_is_taken_over(tmp_path):
    holder = start(HOLD, tmp_path)
    try:
        assert holder.stdout.readline() == "held\n"
        content = json.loads((tmp_path / ".lock").read_text())
        assert content["pid"] == holder.pid
        assert content["start_time"] == pytest.approx(psutil.Process(holder.pid).create_time(), abs=1)
        with pytest.raises(UserError, match=f"process {holder.pid} on host {content['host']}"):
            WorkdirLock(tmp_path).__enter__()
        assert json.loads((tmp_path / ".lock").read_text()) == content
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with WorkdirLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_the_same_process_cannot_hold_a_workdir_twice_but_again(tmp_path):
    with WorkdirLock(tmp_path), pytest.raises(UserError, match="in use"):
        WorkdirLock(tmp_path).__enter__()
    with WorkdirLock(tmp_path):
        pass


def test_a_pid_that_another_process_has_now_is_stale(tmp_path):
    parent = psutil.Process(os.getppid())
    lock = {"host": socket.gethostname(), "pid": parent.pid, "start_time": parent.create_time() - 100}
    (tmp_path / ".lock").write_text(json.dumps(lock))
    with WorkdirLock(tmp_path):
        pass


def test_content_alone_guards_where_flock_does_not_reach(tmp_path):
    parent = psutil.Process(os.getppid())
    lock = {"host": socket.gethostname(), "pid": parent.pid, "start_time": parent.create_time()}
    (tmp_path / ".lock").write_text(json.dumps(lock))
    with pytest.raises(UserError, match=f"process {parent.pid}"):
        WorkdirLock(tmp_path).__enter__()
    (tmp_path / ".lock").write_text(json.dumps({**lock, "host": "elsewhere"}))
    with pytest.raises(UserError, match=r"on host elsewhere.*delete .*\.lock"):
        WorkdirLock(tmp_path).__enter__()
    assert (tmp_path / ".lock").exists()


@pytest.mark.parametrize("content", ["", '{"host": "a', "[]"])
def test_a_lock_file_that_names_nobody_is_taken_over(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with WorkdirLock(tmp_path):
        pass


@pytest.mark.processes
@pytest.mark.slow
def test_of_processes_that_start_together_on_a_stale_lock_one_gets_it(tmp_path):
    lock = {"host": socket.gethostname(), "pid": 2**22 - 1, "start_time": 1.0}
    (tmp_path / ".lock").write_text(json.dumps(lock))
    moment = time.time() + 1.5
    processes = [start(TRY, tmp_path, moment) for _ in range(6)]
    answers = [process.communicate()[0].strip() for process in processes]
    assert answers.count("got") == 1, answers
    assert sum("in use by process" in answer for answer in answers) == 5, answers


def test_a_lock_file_removed_between_opening_and_locking_is_not_the_lock(tmp_path, monkeypatch):
    real, calls = fcntl.flock, []

    def flock(fd, how):
        if not calls:
            os.unlink(tmp_path / ".lock")  # its holder leaves at this moment
        calls.append(how)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with WorkdirLock(tmp_path):
        assert files.read_json(tmp_path / ".lock")["pid"] == os.getpid()
        assert len(calls) == 2
