"""metrics.jsonl is strict, cut back on resume and never behind; wandb has each step once and stops nobody."""

import gzip
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from launch.tracking import wandb_run
from launch.tracking.wandb_run import Wandb
from launch.tracking.writer import open_writer, open_writer_to_append
from singan.config import TrackingConfig
from singan.errors import UserError
from singan.storage.json_lines import JsonLines

ROOT = pathlib.Path(__file__).resolve().parents[3]
OFF = TrackingConfig(wandb="off")
SECRET = "5ec2e7" * 7


def row(step, scale=0, **values):
    return {"global_step": step, "scale": scale, "scale_step": step % 10, **(values or {"loss": step / 2})}


def strict(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


# metrics.jsonl


def test_rows_are_strict_json_and_on_disk_at_once(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.scalars(row(1, loss=float("nan"), rmse=[np.float32(0.5), float("inf")], n=np.int64(3), word="a"))
    (read,) = strict(lines.path)
    assert read.pop("time") > 1.6e9
    assert read == {
        "global_step": 1,
        "scale": 0,
        "scale_step": 1,
        "loss": None,
        "rmse": [0.5, None],
        "n": 3,
        "word": "a",
    }
    lines.close()


def test_a_row_without_its_step_is_refused(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="scale_step"):
        lines.scalars({"global_step": 1, "scale": 0, "loss": 1.0})
    assert lines.path.read_bytes() == b""
    lines.close()


def test_trim_drops_later_rows_and_half_lines_and_goes_on(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        lines.scalars(row(step))
    lines.close()
    with open(lines.path, "ab") as file:
        file.write(b'{"global_step": 2, "sc')
    before = lines.path.read_bytes().splitlines()
    lines = JsonLines(lines.path)
    lines.trim_after(2)
    lines.scalars(row(3, loss=7))
    lines.close()
    assert lines.path.read_bytes().splitlines()[:2] == before[:2]
    assert [r["global_step"] for r in strict(lines.path)] == [1, 2, 3]
    assert strict(lines.path)[2]["loss"] == 7
    assert sorted(os.listdir(tmp_path)) == ["metrics.jsonl"]


@pytest.mark.parametrize(
    ("damage", "warning"),
    {
        "a broken line": (lambda data: data.replace(b"{", b"(", 1), "1 line(s) that are not rows were dropped"),
        "cut off": (lambda data: data[:100], "its last rows, up to step 3, are missing"),
        "emptied": (lambda data: b"", "its last rows, up to step 3, are missing"),
        "cut in the last row": (lambda data: data[:-9], None),
        "whole": (lambda data: data, None),
    }.values(),
)
def test_rows_that_are_damaged_are_reported(tmp_path, capsys, damage, warning):
    path = tmp_path / "metrics.jsonl"
    writer = open_writer(OFF, tmp_path, "r", {}, None)
    for step in (1, 2, 3, 4):
        writer.scalars(row(step))
    writer.close(0)
    path.write_bytes(damage(path.read_bytes()))
    (tmp_path / "metrics.sum").write_text("{}")  # an earlier version's digest
    open_writer(OFF, tmp_path, "r", {}, 3).close(0)
    assert capsys.readouterr().err == (f"warning: {path} is damaged: {warning}\n" if warning else "")
    if warning is None:
        assert [r["global_step"] for r in strict(path)] == [1, 2, 3]
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_pictures_tables_and_summary_are_files_of_the_workdir(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.pictures(row(1, scale=3), {"samples": tmp_path / "scales" / "03" / "grid.png"})
    lines.table("sifid", [{"image": "a", "value": float("nan")}])
    lines.summary({"a": 1})
    lines.summary({"b": np.float32(2)})
    lines.close()
    assert strict(lines.path)[0]["pictures"] == {"samples": "scales/03/grid.png"}
    assert json.loads((tmp_path / "tables" / "sifid.json").read_text()) == [{"image": "a", "value": None}]
    assert json.loads((tmp_path / "summary.json").read_text()) == {"a": 1, "b": 2.0}


def test_a_full_disk_is_said(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), lines._file._file.fileno())
    with pytest.raises(UserError, match=r"metrics\.jsonl: disk full: free space and run the same command again"):
        lines.scalars(row(1))
    lines.close()


def test_without_wandb_nothing_of_it_is_imported_or_written(tmp_path):
    code = """if True:
        import sys
        from launch.tracking.writer import open_writer
        from singan.config import TrackingConfig
        writer = open_writer(TrackingConfig(wandb="off"), sys.argv[1], "r", {}, None)
        writer.scalars({"global_step": 0, "scale": 0, "scale_step": 0})
        writer.sync()
        writer.close(0)
        print("wandb" in sys.modules)
    """
    done = run_python(code, tmp_path / "run", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
    assert sorted(os.listdir(tmp_path / "run")) == ["metrics.jsonl"]


def test_resume_keeps_rows_up_to_the_step_and_takes_no_row_twice(tmp_path):
    writer = open_writer(OFF, tmp_path, "r", {}, None)
    for step in (1, 2, 3):
        writer.scalars(row(step))
    writer.pictures(row(2, noise=1), {"samples": tmp_path / "a.png"})
    writer.close(0)
    writer = open_writer(OFF, tmp_path, "r", {}, 2)
    writer.scalars(row(2))  # said again: what followed the checkpoint is repeated
    writer.pictures(row(2, noise=1), {"samples": tmp_path / "a.png"})
    writer.scalars(row(2, other=1.0))
    writer.scalars(row(3))
    writer.close(0)
    names = [(r["global_step"], "pictures" in r, "other" in r) for r in strict(tmp_path / "metrics.jsonl")]
    assert names == [(1, False, False), (2, False, False), (2, True, False), (2, False, True), (3, False, False)]


def test_a_start_from_nothing_drops_what_an_unsaved_start_left(tmp_path):
    for _ in range(2):
        writer = open_writer(OFF, tmp_path, "r", {}, None)
        writer.scalars(row(0))
        writer.close(0)
    assert len(strict(tmp_path / "metrics.jsonl")) == 1


def test_what_is_appended_later_keeps_every_row_and_is_kept_where_its_step_is(tmp_path):
    writer = open_writer(OFF, tmp_path, "id0", {}, None)
    for step in range(1, 6):
        writer.scalars(row(step))
    writer.close(0)
    for loss in (1.0, 2.0):  # the same names at the same step: both count
        writer = open_writer_to_append(OFF, tmp_path, "id0", {})
        writer.scalars(row(3, loss=loss))
        writer.close(0)
    told = [(each["global_step"], each["loss"]) for each in strict(tmp_path / "metrics.jsonl")]
    assert told == [(1, 0.5), (2, 1), (3, 1.5), (4, 2), (5, 2.5), (3, 1), (3, 2)]
    open_writer(OFF, tmp_path, "id0", {}, 3).close(0)
    assert [each["global_step"] for each in strict(tmp_path / "metrics.jsonl")] == [1, 2, 3, 3, 3]


# wandb, a stand-in


class FakeRun:
    def __init__(self, fails=0):
        self.logged, self.defined, self.summary, self.calls, self.fails = [], [], {}, 0, fails

    def define_metric(self, name, step_metric=None):
        self.defined.append((name, step_metric))

    def log(self, values):
        self.calls += 1
        if self.calls <= self.fails:
            raise RuntimeError(f"no\nserver {SECRET}")
        self.logged.append(values)

    def finish(self, exit_code):
        self.exit_code = exit_code


def test_values_of_a_scale_stand_against_its_own_step(tmp_path):
    run = FakeRun()
    wandb = Wandb(run, tmp_path)
    wandb.scalars({**row(12, scale=3, loss=0.5, rmse=[1, float("nan"), 3], nan=float("nan")), "time": 5.0})
    wandb.scalars(row(13, scale=3))
    assert run.defined == [("global_step", None), ("scale_03/*", "scale_03/scale_step")]
    assert run.logged[0] == {
        "_timestamp": 5.0,
        "global_step": 12,
        "scale": 3,
        "time": 5.0,
        "scale_03/scale_step": 2,
        "scale_03/loss": 0.5,
        "scale_03/rmse_mean": 2,
        "scale_03/rmse_min": 1,
        "scale_03/rmse_max": 3,
    }


def test_rows_that_the_server_has_are_not_sent_again(tmp_path):
    run = FakeRun()
    wandb = Wandb(run, tmp_path, logged_through=2)
    wandb.replay([{**row(step), "time": 1.0} for step in (1, 2, 3)])
    wandb.scalars(row(2))
    wandb.scalars(row(4))
    assert [values["global_step"] for values in run.logged] == [3, 4]


def test_what_is_appended_to_a_finished_run_is_sent_whatever_its_step(tmp_path):
    run = FakeRun()
    wandb = Wandb(run, tmp_path, logged_through=9)
    wandb.replay([{**row(9), "time": 1.0}])
    wandb.append()
    wandb.scalars(row(9, evaluated=1))
    (logged,) = run.logged
    assert logged["scale_00/evaluated"] == 1


def test_one_failure_is_one_warning_and_three_in_a_row_end_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    warnings = []
    run = FakeRun(fails=2)
    wandb = Wandb(run, tmp_path, warn=warnings.append)
    for step in range(4):
        wandb.scalars(row(step))
    assert len(warnings) == 1
    assert "RuntimeError: no server ***" in warnings[0]
    assert [values["global_step"] for values in run.logged] == [2, 3]
    wandb.close(3)
    assert run.exit_code == 3
    run = FakeRun(fails=100)
    wandb = Wandb(run, tmp_path, warn=warnings.append)
    for step in range(10):
        wandb.scalars(row(step))
    assert run.calls == 3
    assert len(warnings) == 2
    wandb.close(0)


def test_a_picture_that_is_gone_stops_nothing(tmp_path):
    run = FakeRun()
    Wandb(run, tmp_path, warn=lambda _: None).pictures(row(1), {"samples": tmp_path / "absent.png"})
    assert run.logged == []


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_pictures_reach_wandb_as_bytes(tmp_path, mode):
    Image.new(mode, (5, 4)).save(tmp_path / "a.png")
    pixels = wandb_run._pixels(tmp_path / "a.png")
    assert pixels.dtype == np.uint8
    assert pixels.shape[:2] == (4, 5)


# wandb, the real one, in processes of its own

TRAIN = """
import os, socket, sys
import numpy as np
from PIL import Image
from launch.tracking import wandb_start
from launch.tracking.writer import open_writer
from singan.config import TrackingConfig

wandb_start.ONLINE_TIMEOUT = 3
workdir, mode, restored, last, end = sys.argv[1:6]
if len(sys.argv) > 6:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    os.environ["WANDB_BASE_URL"] = "http://127.0.0.1:%d" % server.getsockname()[1]
    if sys.argv[6] == "silent":
        server.listen(20)
    else:
        server.close()
restored = None if restored == "none" else int(restored)
tracking = TrackingConfig(wandb=mode, group="g", project="p")
writer = open_writer(tracking, workdir, "id0", {"train": {"chunk": 5}}, restored)
for step in range((restored or 0) + 1, int(last) + 1):
    row = {"global_step": step, "scale": step // 10, "scale_step": step % 10, "loss": 0.5}
    row["rmse"] = float("nan") if step == 3 else 1.0
    writer.scalars(row)
    if step % 4 == 0:
        path = os.path.join(workdir, "%d.png" % step)
        Image.fromarray(np.full((8, 8, 3), step, np.uint8)).save(path)
        writer.pictures(row, {"samples": path})
if end == "kill":
    os.kill(os.getpid(), 9)
if mode == "offline" and not os.environ.get("WANDB_BASE_URL"):
    writer.table("t", [{"image": "a", "sifid": 0.5}])
writer.summary({"diverged": 0})
writer.close(int(end))
"""


def run_python(code, *arguments, home, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={"PYTHONPATH": str(ROOT), "HOME": str(home), "PATH": os.environ["PATH"], **environment},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )


def inspect(folder):
    """The records of an offline run, as wandb itself reads them."""
    (path,) = folder.glob("*.wandb")
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)],
        env={"HOME": str(folder), "PATH": os.environ["PATH"], "WANDB_ERROR_REPORTING": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def steps(records, key):
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [item["global_step"] for item in items if any(name.endswith(key) for name in item)]


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.mark.processes
def test_an_offline_run_reads_back_whole_and_stays_in_the_workdir(tmp_path, home):
    workdir = tmp_path / "run"
    done = run_python(TRAIN, workdir, "offline", "none", 12, 0, home=home, WANDB_API_KEY=SECRET)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (folder,) = (workdir / "wandb").glob("offline-run-*-id0")
    records = inspect(folder)
    assert steps(records, "/loss") == list(range(1, 13))
    assert steps(records, "/samples.path") == [4, 8, 12]
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert (run["run_id"], run["project"], run["run_group"], run["display_name"]) == ("id0", "p", "g", "run")
    assert run["config"]["update"]["train"] == {"chunk": 5}
    metrics = {m.get("name") or m["glob_name"]: m for m in (r["metric"] for r in records if r["type"] == "metric")}
    assert metrics["scale_01/*"]["step_metric"] == "scale_01/scale_step"
    assert "global_step" in metrics
    assert records[-1]["type"] == "exit"
    assert records[-1]["exit"]["exit_code"] == 0  # a run of a second or more has its runtime beside it
    assert list(home.iterdir()) == []
    assert sorted(os.listdir(tmp_path)) == ["home", "run"]
    for path in workdir.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


APPEND = """
import sys
from launch.tracking.writer import open_writer_to_append
from singan.config import TrackingConfig

writer = open_writer_to_append(TrackingConfig(wandb="offline", project="p"), sys.argv[1], "id0", {})
writer.scalars({"global_step": 12, "scale": 1, "scale_step": 2, "evaluation/swd": 0.5})
writer.table("evaluation", [{"image": "a", "swd": 0.5}])
writer.summary({"evaluation/swd": 0.5})
writer.close(0)
"""


@pytest.mark.processes
@pytest.mark.slow
def test_what_is_appended_joins_the_offline_run_with_its_rows_and_tables(tmp_path, home):
    workdir = tmp_path / "run"
    assert run_python(TRAIN, workdir, "offline", "none", 12, 0, home=home).returncode == 0
    done = run_python(APPEND, workdir, home=home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (folder,) = (workdir / "wandb").glob("offline-run-*-id0")
    records = inspect(folder)
    assert steps(records, "/loss") == list(range(1, 13))
    assert steps(records, "/samples.path") == [4, 8, 12]
    assert steps(records, "/evaluation/swd") == [12]
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [name for name in ("t", "evaluation") if any(item.get(f"{name}._type") for item in items)] == [
        "t",
        "evaluation",
    ]
    summary = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert summary["evaluation/swd"] == 0.5


@pytest.mark.processes
@pytest.mark.slow
def test_a_killed_and_resumed_offline_run_has_each_step_once_in_what_sync_visits(tmp_path, home):
    workdir = tmp_path / "run"
    assert run_python(TRAIN, workdir, "offline", "none", 9, "kill", home=home).returncode == -9
    # Killed again before a checkpoint, and then to the end.
    assert run_python(TRAIN, workdir, "offline", 6, 8, "kill", home=home).returncode == -9
    done = run_python(TRAIN, workdir, "offline", 6, 12, 0, home=home)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = (workdir / "wandb").glob("offline-run-*-id0")
    records = inspect(folder)
    assert steps(records, "/loss") == list(range(1, 13))
    assert steps(records, "/samples.path") == [4, 8, 12]
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert run["run_id"] == "id0"
    rows = strict(workdir / "metrics.jsonl")
    assert [r["global_step"] for r in rows if "pictures" not in r] == list(range(1, 13))
    assert len(list((workdir / "wandb" / "superseded").iterdir())) == 2
    listed = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", str(workdir / "wandb")],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "WANDB_ERROR_REPORTING": "false"},
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert "Would sync 1 run(s)" in listed.stdout + listed.stderr
    assert "superseded" not in listed.stdout + listed.stderr
    assert (workdir / "wandb" / "latest-run").resolve() == folder


class Server(http.server.BaseHTTPRequestHandler):
    """As much of a wandb server as keeps the history of one run: `history[offset]` is a row as JSON text."""

    history: ClassVar[dict[int, str]] = {}

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = json.loads(body)
        query = request.get("query", "")
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
        lines, last = len(self.history), self.history.get(len(self.history) - 1)
        run = {"id": "x", "name": "id0", "displayName": "run", "config": "{}", "historyLineCount": lines}
        answer: dict = {}
        if "UpsertBucket" in query:
            answer = {"upsertBucket": {"bucket": {**run, "project": project}, "inserted": not lines}}
        elif "RunResumeStatus" in query:
            tails = {"historyTail": json.dumps([last]), "eventsTail": "[]", "summaryMetrics": last}
            counts = {"logLineCount": 0, "eventsLineCount": 0, "tags": [], "wandbConfig": '{"t": 1}'}
            answer = {"model": {**project, "bucket": {**run, **tails, **counts} if last else None}}
        elif "CreateRunFiles" in query:
            answer = {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": []}}
        elif "file_stream" in self.path:
            new = (request.get("files") or {}).get("wandb-history.jsonl", {"offset": 0, "content": []})
            self.history.update(enumerate(new["content"], start=new["offset"]))
        text = json.dumps({"data": answer} if query else {"exitcode": None, "limits": {}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def server():
    """The environment in which the server is reached, and its history."""
    Server.history.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield (
            {"WANDB_BASE_URL": f"http://127.0.0.1:{running.server_port}", "WANDB_API_KEY": SECRET[:40]},
            Server.history,
        )
        running.shutdown()
        thread.join()


@pytest.mark.processes
@pytest.mark.slow
def test_the_server_has_each_step_once_however_runs_and_syncs_alternate(tmp_path, home, server):
    workdir = tmp_path / "run"
    environment, history = server

    def train(mode, restored, last, end):
        reach = {"online": environment, "offline": {"WANDB_BASE_URL": "http://127.0.0.1:1"}}[mode]
        done = run_python(TRAIN, workdir, mode, restored, last, end, home=home, **reach)
        assert done.returncode == (-9 if end == "kill" else 0)
        said = [line.split(": ")[1].split(" http")[0] for line in done.stderr.splitlines()]
        # What is sent is said before the first upload alone, and here the first was by wandb sync.
        assert said == (["in wandb as"] if mode == "online" else [])

    def sync():
        command = "import sys; sys.argv[0] = 'wandb'; from wandb.cli.cli import cli; cli()"
        done = run_python(command, "sync", workdir / "wandb", home=home, WANDB_ERROR_REPORTING="false", **environment)
        assert "Finished syncing" in done.stdout + done.stderr, done.stderr

    def on_server(key):
        rows = [json.loads(history[place]) for place in sorted(history)]
        assert [r["_step"] for r in rows] == list(range(len(rows)))
        return [r["global_step"] for r in rows if any(name.endswith(key) for name in r)]

    train("offline", "none", 9, 75)
    sync()
    assert on_server("/loss") == list(range(1, 10))
    train("offline", 6, 12, "kill")  # 7 to 9 are on the server already
    train("offline", 6, 13, 75)
    sync()
    assert on_server("/loss") == list(range(1, 14))
    train("online", 11, 15, 75)
    assert on_server("/loss") == list(range(1, 16))
    train("offline", 14, 17, 0)
    sync()
    assert on_server("/loss") == list(range(1, 18))
    assert on_server("/samples") == [4, 8, 12, 16]
    assert len(list((workdir / "wandb" / "superseded").iterdir())) == 1


@pytest.mark.processes
@pytest.mark.parametrize(
    ("kind", "key"), [("refused", {"WANDB_API_KEY": SECRET}), ("silent", {"WANDB_API_KEY": SECRET}), ("silent", {})]
)
@pytest.mark.slow
def test_online_that_cannot_be_reached_goes_on_offline_with_one_warning(tmp_path, home, kind, key):
    workdir = tmp_path / "run"
    done = run_python(TRAIN, workdir, "online", "none", 4, 0, kind, home=home, **key)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    said, line = done.stderr.splitlines()
    assert said.startswith("note: sent to wandb: metrics, ")
    assert line.startswith("warning: wandb is not reachable")
    assert "going on offline" in line
    (folder,) = (workdir / "wandb").glob("*run-*-id0")
    assert folder.name.startswith("offline-run-")
    assert steps(inspect(folder), "/loss") == [1, 2, 3, 4]
    assert len(strict(workdir / "metrics.jsonl")) == 5
    assert list(home.iterdir()) == []
    for path in workdir.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.processes
@pytest.mark.slow
def test_a_wandb_that_cannot_start_at_all_leaves_metrics_jsonl(tmp_path, home):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "wandb").write_text("a file where wandb wants a folder")
    done = run_python(TRAIN, workdir, "offline", "none", 4, 0, home=home)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("warning: wandb")
    assert len(strict(workdir / "metrics.jsonl")) == 5
