"""A workdir in a bucket: whole objects, a lock that is refreshed, and a run from training to samples.

The bucket is that of tests/bucket: TensorStore's own client reads and writes checkpoints there over HTTP, and the other
files go through fsspec, to gcsfs where that is installed.
"""

import importlib.util
import json
import os
import queue
import signal
import socket
import sys
import threading
import time

import fsspec
import numpy as np
import pytest
from etils import epath

from launch.results.run_facts import read_facts
from launch.tracking.wandb_start import _copy_to_bucket, local_home
from launch.tracking.writer import open_writer
from singan import files
from singan.config import TrackingConfig
from singan.errors import UserError
from singan.storage import metrics_file
from singan.storage.json_lines import JsonLines
from singan.storage.workdir_lock.bucket_lock import Lease
from singan.storage.workdir_lock.lock import WorkdirLock
from singan.storage.workdir_lock.owner import LEASE_SECONDS, may_be_alive, this_process
from tests.bucket import buckets, server
from tests.launch.train.train_test import CHUNK, SCALES, STEPS, Commands, contents, rows, wait_for

HAS_GCSFS = importlib.util.find_spec("gcsfs") is not None
OFF = TrackingConfig(wandb="off")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder of gs://bucket, in this process."""
    monkeypatch.setenv("FAKE_BUCKETS", str(tmp_path / "buckets"))
    registry = sys.modules["fsspec.registry"]
    monkeypatch.setattr(registry, "_registry", {**registry._registry})
    monkeypatch.setattr(registry, "registry", registry._registry)
    buckets.register()
    folder = tmp_path / "buckets" / "bucket"
    folder.mkdir(parents=True)
    yield folder
    type(epath.backend.fsspec_backend)._get_filesystem.cache_clear()


def row(step, **values):
    return {"global_step": step, "scale": 0, "scale_step": step, "loss": step / 2, **values}


def told(folder):
    return [each["global_step"] for each in metrics_file.read_rows(folder / "metrics.jsonl")]


# files


def test_files_are_whole_objects(bucket):
    place = files.make_directory("gs://bucket/run/images")
    assert not (bucket / "run").exists()  # there are no directories to make
    files.write_json(place / "a.json", {"b": [1, float("nan")]})
    files.write_npy(place / "a.npy", np.arange(3))
    assert files.read_json("gs://bucket/run/images/a.json") == {"b": [1, None]}
    assert files.read_npy(place / "a.npy").tolist() == [0, 1, 2]
    assert sorted(path.name for path in (bucket / "run/images").iterdir()) == ["a.json", "a.npy"]
    files.remove(place / "a.npy")
    files.remove(place / "a.npy")
    with pytest.raises(UserError, match=r"^gs://bucket/run/images/a\.npy is missing$"):
        files.read_json(place / "a.npy")


def test_of_two_who_create_an_object_one_succeeds(bucket):
    path, won = files.as_path("gs://bucket/run/.lock"), []
    threads = [threading.Thread(target=lambda n=n: won.append(files.create(path, b"%d" % n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_a_bucket_that_cannot_be_written_is_one_line(bucket, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("403:\n no access")

    monkeypatch.setattr(buckets.FolderBuckets, "_open", refuse)
    with pytest.raises(UserError, match=r"^cannot write gs://bucket/a: RuntimeError: 403: no access$"):
        files.write_text("gs://bucket/a", "")


def test_a_missing_client_is_said_with_what_to_install(monkeypatch):
    monkeypatch.setattr(fsspec, "get_filesystem_class", lambda _: (_ for _ in ()).throw(ImportError("no gcsfs")))
    with pytest.raises(UserError, match=r"^gs://bucket/run: no gcsfs; for gs:// that is pip install -e '\.\[bucket\]'"):
        files.as_path("gs://bucket/run")


# metrics


def test_rows_are_one_object_that_grows(bucket):
    lines = JsonLines("gs://bucket/run/metrics.jsonl")
    lines.scalars(row(1))
    assert told(bucket / "run") == []  # not at every row
    lines.sync()
    assert told(bucket / "run") == [1]
    for step in range(2, 8):
        lines.scalars(row(step))
    lines.close()
    assert [each["global_step"] for each in rows(bucket / "run")] == list(range(1, 8))
    assert [each["global_step"] for each in lines.rows()] == list(range(1, 8))
    assert [each["global_step"] for each in metrics_file.last_rows(lines.path, 1)] == []  # a part of a line
    assert [each["global_step"] for each in metrics_file.last_rows(lines.path, 10**6)] == list(range(1, 8))


def test_rows_are_flushed_as_time_goes(bucket, monkeypatch):
    monkeypatch.setattr(metrics_file, "FLUSH_SECONDS", 0.05)
    lines = JsonLines("gs://bucket/run/metrics.jsonl")
    lines.scalars(row(1))
    time.sleep(0.06)
    lines.scalars(row(2))
    assert told(bucket / "run") == [1, 2]


def leave_parts(run):
    """Leaves steps 1 to 6 as an earlier version did in a bucket: three parts, and half a row."""
    (run / "metrics").mkdir(parents=True)
    for number in range(3):
        lines = "".join(json.dumps(row(step)) + "\n" for step in (2 * number + 1, 2 * number + 2))
        (run / f"metrics/{number:05d}.jsonl").write_text(lines + '{"global_step": 1, "sc' * (number == 2))


@pytest.mark.parametrize("restored", [None, 1, 3, 6])
def test_a_resumed_run_joins_the_parts_of_an_earlier_version(bucket, restored):
    leave_parts(bucket / "run")
    assert told(bucket / "run") == list(range(1, 7))
    assert [each["global_step"] for each in metrics_file.last_rows(bucket / "run/metrics.jsonl", 400)][-1] == 6
    writer = open_writer(OFF, "gs://bucket/run", "r", {}, restored)
    kept = [step for step in range(1, 7) if step <= (restored or 0)]
    assert told(bucket / "run") == [each["global_step"] for each in rows(bucket / "run")] == kept
    assert list((bucket / "run/metrics").glob("*")) == []
    writer.scalars(row((restored or 0) + 1))
    writer.close(0)
    assert [each["global_step"] for each in rows(bucket / "run")] == [*kept, (restored or 0) + 1]


@pytest.mark.parametrize("of", ["gs://bucket/run", "a directory"])
def test_parts_that_were_joined_as_the_run_was_stopped_are_not_joined_twice(bucket, of):
    leave_parts(bucket / "run")
    # As a stop leaves it after metrics.jsonl is written and before the parts are gone.
    lines = [line for part in sorted((bucket / "run/metrics").iterdir()) for line in part.read_text().splitlines()]
    (bucket / "run/metrics.jsonl").write_text("".join(f"{line}\n" for line in lines[:3]))
    writer = open_writer(OFF, of if of.startswith("gs:") else bucket / "run", "r", {}, 5)
    writer.scalars(row(6))
    writer.close(0)
    assert told(bucket / "run") == [r["global_step"] for r in rows(bucket / "run")] == list(range(1, 7))


def test_a_run_copied_into_or_out_of_a_bucket_goes_on(bucket):
    for place in (bucket / "run", "gs://bucket/run", bucket / "run"):
        restored = len(told(bucket / "run")) or None
        writer = open_writer(OFF, place, "r", {}, restored)
        writer.scalars(row((restored or 0) + 1))
        writer.close(0)
    assert [r["global_step"] for r in rows(bucket / "run")] == [1, 2, 3]


def test_the_offline_record_of_wandb_is_kept_in_the_bucket(bucket, tmp_path):
    workdir = files.as_path("gs://bucket/run")
    for name in ("offline-run-1-id0", "offline-run-2-id0"):
        (tmp_path / name / "files").mkdir(parents=True)
        (tmp_path / name / "run-id0.wandb").write_bytes(b"rows")
        (tmp_path / name / "files/a.png").write_bytes(b"picture")
        _copy_to_bucket(tmp_path / name, workdir, "id0")
    # The second holds the rows of the first, which is removed when it is whole.
    kept = sorted(path.relative_to(bucket).as_posix() for path in bucket.rglob("*") if path.is_file())
    assert kept == ["run/wandb/offline-run-2-id0/files/a.png", "run/wandb/offline-run-2-id0/run-id0.wandb"]


def test_the_files_of_wandb_stay_on_this_machine(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert local_home(files.as_path("gs://bucket/run"), "id0") == tmp_path / "cache/medisingan/runs/id0"
    assert local_home(tmp_path / "run", "id0") == tmp_path / "run"


# the lock


def holder(**changes):
    return {**this_process(), "token": "t", "heartbeat": time.time(), **changes}


def leave(folder, held):
    (folder / "run").mkdir(parents=True, exist_ok=True)
    (folder / "run/.lock").write_text(held if isinstance(held, str) else json.dumps(held))


def lease(refresh=0.05):
    return Lease(files.as_path("gs://bucket/run/.lock"), refresh, settle=0.05)


def test_a_held_bucket_is_refused_naming_who_holds_it(bucket):
    with WorkdirLock("gs://bucket/run"):
        held = json.loads((bucket / "run/.lock").read_text())
        assert (held["host"], held["pid"]) == (socket.gethostname(), os.getpid())
        with (
            pytest.raises(UserError, match=rf"^gs://bucket/run is in use by process {os.getpid()} on host "),
            WorkdirLock("gs://bucket/run"),
        ):
            pass
        assert json.loads((bucket / "run/.lock").read_text())["token"] == held["token"]
    assert not (bucket / "run/.lock").exists()


def test_the_lock_is_refreshed_while_it_is_held(bucket):
    held = lease()
    held.take()
    first = json.loads((bucket / "run/.lock").read_text())
    end = time.monotonic() + 10
    while json.loads((bucket / "run/.lock").read_text())["heartbeat"] == first["heartbeat"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    held.give_back()
    assert not (bucket / "run/.lock").exists()


@pytest.mark.parametrize(
    "left",
    {
        "gone from this machine": holder(pid=2**22 + 1),
        "another process of the same pid": holder(ticks=1, start_time=1.0),
        "of an earlier boot": holder(boot="other", heartbeat=time.time() - 2 * LEASE_SECONDS),
        "silent on another machine": holder(host="elsewhere", heartbeat=time.time() - 2 * LEASE_SECONDS),
        "of a clock that went ahead": holder(host="elsewhere", heartbeat=time.time() + 10**6),
        "half written": '{"host": "els',
    }.items(),
    ids=lambda case: case[0],
)
def test_a_lock_that_nobody_refreshes_is_taken_over(bucket, left):
    leave(bucket, left[1])
    held = lease()
    held.take()
    assert json.loads((bucket / "run/.lock").read_text())["pid"] == os.getpid()
    held.give_back()


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"boot": "of a machine of the same name"}])
def test_a_lock_that_was_refreshed_lately_elsewhere_is_watched_for_its_whole_lease(bucket, other):
    leave(bucket, holder(**other))
    refresh = threading.Timer(1.5, leave, (bucket, holder(**other)))
    refresh.start()
    with pytest.raises(UserError, match=r"process \d+ on host .*ends by itself within 120 s"):
        lease().take()  # two refreshes and a second are over by then
    refresh.join()
    held, began = Lease(files.as_path("gs://bucket/run/.lock"), 0.05, settle=0.05, lease=4.0), time.monotonic()
    held.take()
    assert time.monotonic() - began > 2
    held.give_back()


def test_a_lock_with_an_old_heartbeat_is_watched_before_it_is_taken_over(bucket):
    leave(bucket, holder(host="elsewhere", heartbeat=0))
    refresh = threading.Timer(0.2, leave, (bucket, holder(host="elsewhere", heartbeat=1)))
    refresh.start()
    with pytest.raises(UserError, match="on host elsewhere"):
        lease(refresh=0.5).take()
    refresh.join()


def test_who_has_lost_its_lock_ends_at_once(bucket, capfd):
    codes = queue.SimpleQueue()
    held = Lease(files.as_path("gs://bucket/run/.lock"), 0.05, end=codes.put)
    held.take()
    leave(bucket, holder())
    assert codes.get(timeout=10) == 75
    assert "is no longer this process'" in capfd.readouterr().err
    held.give_back()
    assert (bucket / "run/.lock").exists()  # that of the other


def test_a_holder_is_known_by_the_boot_and_not_by_the_clock():
    process = this_process()
    assert may_be_alive(process)
    assert may_be_alive({**process, "start_time": 0.0})  # the clock was set since
    assert not may_be_alive({**process, "pid": 2**22 + 1})
    assert may_be_alive({key: process[key] for key in ("host", "pid", "start_time")})  # as older versions wrote it
    assert not may_be_alive({})


# a run


@pytest.mark.processes
@pytest.mark.parametrize(
    "client",
    ["folder", pytest.param("gcsfs", marks=pytest.mark.skipif(not HAS_GCSFS, reason="needs the extra bucket"))],
)
@pytest.mark.slow
def test_a_run_in_a_bucket_is_killed_resumes_and_is_sampled(client, tmp_path_factory, tmp_path):
    commands, here = Commands(tmp_path_factory), tmp_path / "bucket" / "run"
    whole = commands.finished_run()
    here.parent.mkdir()
    with server.serving(tmp_path, stand_in=client == "folder") as environment:
        commands.environment = {**commands.environment, **environment}
        flags = commands.train_flags("gs://bucket/run", f"--config.train.checkpoint_every={4 * CHUNK}")
        with commands.start("train", *flags) as process:
            wait_for(process, lambda: list(here.glob("scales/00/checkpoints/*/commit_success.txt")))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert json.loads((here / ".lock").read_text())["pid"] == process.pid
        result = commands.run("train", *flags)
        assert result.returncode == 0, result.stderr
        assert "\nresuming after " in f"\n{result.stderr}", result.stderr
        assert "warning" not in result.stderr
        assert not (here / ".lock").exists()
        for scale in range(SCALES):
            for name in (f"scales/{scale:02d}/DONE", f"scales/{scale:02d}/samples/grid.png"):
                assert (here / name).read_bytes() == (whole / name).read_bytes()
        varying = {"time", "steps_per_second", "image_steps_per_second", "end/metrics_seconds"}
        found = [
            {k: v for k, v in r.items() if k not in varying} for r in metrics_file.read_rows(here / "metrics.jsonl")
        ]
        assert found == rows(whole)
        facts = read_facts(here)
        assert (facts.problems, facts.finished, facts.history[0].steps) == ((), (0, 1), STEPS)

        result = commands.run("sample", "--workdir=gs://bucket/run", "--out=gs://bucket/out", "--format=npy")
        assert result.returncode == 0, result.stderr
        result = commands.run("sample", f"--workdir={whole}", f"--out={tmp_path / 'out'}", "--format=npy")
        for name in ("left", "right"):
            drawn = (tmp_path / f"bucket/out/start_00/{name}.npy").read_bytes()
            assert drawn == (tmp_path / f"out/start_00/{name}.npy").read_bytes()
        if client == "folder":
            flags = ["--num_samples=2", "--start_scales=0", "--metrics=diversity"]
            result = commands.run("evaluate", "--workdir=gs://bucket/run", *flags)
            assert result.returncode == 0, result.stderr
            assert (here / "evaluation.json").exists()
            result = commands.run("compare", "gs://bucket/run", str(whole), f"--out={tmp_path / 'compared'}")
            assert result.returncode == 0, result.stderr
            assert_damage_is_set_aside(commands, here, whole)


def assert_damage_is_set_aside(commands, here, whole):
    """A bucket renames nothing: what is damaged is copied aside and removed, by the training alone."""
    step = here / f"scales/01/checkpoints/{STEPS}"
    for file in [path for path in step.glob("arrays/**/d/*") if path.is_file()]:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0x10
        file.write_bytes(data)
    damaged, before = contents(step), contents(here)
    said = f"warning: checkpoint gs://bucket/run/scales/01/checkpoints/{STEPS} is damaged and passed over: "
    result = commands.run("sample", "--workdir=gs://bucket/run", "--out=gs://bucket/out2", "--num_samples=1")
    assert said in result.stderr, result.stderr
    assert contents(here) == before
    flags = commands.train_flags("gs://bucket/run", f"--config.train.checkpoint_every={4 * CHUNK}")
    result = commands.run("train", *flags)
    assert (result.returncode, said in result.stderr) == (0, True), result.stderr
    assert contents(step.with_name(f"{STEPS}.damaged")) == damaged
    assert (here / "scales/01/DONE").read_bytes() == (whole / "scales/01/DONE").read_bytes()
