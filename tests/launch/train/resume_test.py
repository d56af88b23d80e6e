"""Runs that are killed, stopped, damaged or short of disk end as an uninterrupted one does, to the bit."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from singan.storage.checkpoints import ScaleCheckpoints
from tests.launch.train.train_test import CHUNK, SCALES, STEPS, Commands, assert_refused, done, rows, wait_for

pytestmark = pytest.mark.processes


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


@pytest.fixture(scope="session")
def stopped_early(commands, tmp_path_factory):
    """A workdir stopped by SIGTERM at scale 0, where it has two checkpoints; and how that went."""
    workdir = tmp_path_factory.mktemp("early") / "run"
    return workdir, stop(commands, workdir, lambda: len(whole_checkpoints(workdir, 0)) == 2)


def stop(commands: Commands, workdir: Path, condition: Callable[[], bool]) -> subprocess.CompletedProcess:
    """Starts the run and sends SIGTERM when the condition holds."""
    with commands.start("train", *commands.train_flags(workdir)) as process:
        wait_for(process, condition)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def kill(process: subprocess.Popen) -> None:
    assert process.poll() is None, "there is no process left to kill"
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def whole_checkpoints(workdir: Path, scale: int) -> list[int]:
    folder = workdir / f"scales/{scale:02d}/checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def unfinished_saves(workdir: Path) -> list[Path]:
    return list(workdir.glob("scales/*/checkpoints/*tmp*"))


def flip_a_byte(checkpoint: Path) -> None:
    """Damages every file of the checkpoint's arrays, in its middle: which of them is read differs from save to save."""
    for file in [path for path in checkpoint.glob("arrays/**/d/*") if path.is_file()]:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0x10
        file.write_bytes(data)


def assert_as_uninterrupted(workdir: Path, whole: Path) -> None:
    assert done(workdir) == done(whole)
    assert rows(workdir) == rows(whole)
    for scale in range(SCALES):
        grid = f"scales/{scale:02d}/samples/grid.png"
        assert (workdir / grid).read_bytes() == (whole / grid).read_bytes()
        assert whole_checkpoints(workdir, scale) == [STEPS]
    assert unfinished_saves(workdir) == []
    assert json.loads((workdir / "run.json").read_text())["status"] == "finished"


def test_a_run_killed_again_and_again_ends_as_an_uninterrupted_one(commands, tmp_path):
    moments, workdir = random.Random(20), tmp_path / "run"
    start = lambda: commands.start("train", *commands.train_flags(workdir))  # noqa: E731

    with start() as process:  # while it starts and compiles
        wait_for(process, (workdir / "run.json").exists)
        time.sleep(moments.uniform(0, 0.4))
        kill(process)
    assert whole_checkpoints(workdir, 0) == []

    for _ in range(8):  # while it saves: a save takes so short that a kill may come just too late
        with start() as process:
            earlier = set(unfinished_saves(workdir))
            wait_for(process, lambda earlier=earlier: set(unfinished_saves(workdir)) - earlier)
            kill(process)
        if unfinished_saves(workdir):
            break
    assert unfinished_saves(workdir)

    with start() as process:  # inside the second scale
        wait_for(process, lambda: whole_checkpoints(workdir, 1))
        time.sleep(moments.uniform(0, 0.3))
        kill(process)
    assert not (workdir / "scales/01/DONE").exists()
    assert whole_checkpoints(workdir, 1)

    result = commands.train(workdir)
    assert result.returncode == 0, result.stderr
    assert STEPS < int(result.stderr.split("resuming after ")[1].split()[0]) < 2 * STEPS
    assert_as_uninterrupted(workdir, commands.finished_run())
    assert len(json.loads((workdir / "run.json").read_text())["starts"]) >= 4


def test_a_stopped_run_saves_says_so_and_resumes(commands, stopped_early, tmp_path):
    workdir, result = stopped_early
    assert result.returncode == 75, result.stderr
    assert result.stderr.splitlines()[-1].startswith("SIGTERM: stopped at scale 0, step ")
    assert result.stderr.endswith("the same command resumes\n")
    assert json.loads((workdir / "run.json").read_text())["status"] == "stopped"
    saved = whole_checkpoints(workdir, 0)[-1]
    assert f"scale 0, step {saved};" in result.stderr
    assert rows(workdir)[-1]["global_step"] == saved

    shutil.copytree(workdir, tmp_path / "run")
    resumed = commands.train(tmp_path / "run")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.startswith(f"resuming after {saved} steps\n")
    assert_as_uninterrupted(tmp_path / "run", commands.finished_run())


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(commands, stopped_early, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(stopped_early[0], workdir)
    before, newest = whole_checkpoints(workdir, 0)
    flip_a_byte(workdir / f"scales/00/checkpoints/{newest}")
    result = commands.train(workdir)
    assert result.returncode == 0, result.stderr
    said = result.stderr.splitlines()
    assert said[0].startswith(
        f"warning: checkpoint {workdir}/scales/00/checkpoints/{newest} is damaged and passed over"
    )
    assert said[1] == f"resuming after {before} steps"
    assert before == newest - CHUNK
    assert_as_uninterrupted(workdir, commands.finished_run())


@pytest.mark.slow
def test_damaged_weights_of_a_finished_scale_are_named_and_trained_again(commands, tmp_path):
    workdir = tmp_path / "run"
    result = stop(commands, workdir, (workdir / "scales/00/DONE").exists)
    assert result.returncode == 75, result.stderr
    assert "SIGTERM: stopped at scale 1, step " in result.stderr
    flip_a_byte(workdir / f"scales/00/checkpoints/{STEPS}")
    result = commands.train(workdir)
    assert result.returncode == 0, result.stderr
    said = result.stderr.splitlines()
    assert said[0].startswith(f"warning: checkpoint {workdir}/scales/00/checkpoints/{STEPS} is damaged and passed over")
    assert said[1].startswith("warning: scale 0 has no whole weights")
    assert_as_uninterrupted(workdir, commands.finished_run())


def test_a_second_process_is_refused_naming_the_first(commands, tmp_path):
    with commands.start("train", *commands.train_flags(tmp_path)) as process:
        wait_for(process, (tmp_path / "run.json").exists)
        process.send_signal(signal.SIGSTOP)
        try:
            assert_refused(commands.train(tmp_path), f"is in use by process {process.pid} on host ")
        finally:
            kill(process)


def test_a_full_disk_ends_a_run_that_resumes_when_there_is_room(commands, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted by a root that may")
    try:
        for size in ("16k", "1100k"):  # full from the start, and after some checkpoints
            subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
            result = commands.train(disk / "run")
            assert result.returncode == 2, result.stderr
            *told, last = result.stderr.splitlines()
            assert re.fullmatch(rf"error: .*{disk}/run/\S+: disk full: free space and .* resumes", last), result.stderr
            assert all(re.match("scale 0|resuming", line) for line in told), result.stderr
        assert whole_checkpoints(disk / "run", 0)
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        result = commands.train(disk / "run")
        assert result.returncode == 0, result.stderr
        assert_as_uninterrupted(disk / "run", commands.finished_run())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_an_image_that_diverges_is_reported_and_left_out(commands, tmp_path):
    workdir = tmp_path / "run"
    stop(commands, workdir, lambda: whole_checkpoints(workdir, 0))
    with ScaleCheckpoints(workdir / "scales/00/checkpoints", pytest.fail) as checkpoints:
        step, arrays, about = checkpoints.latest()
        arrays["generator/params/kernel"][about["images"].index("right")] = np.nan
        checkpoints.delete(step)
        checkpoints.save(step, arrays, tuple(about["images"]), {"kind": about["kind"], "below": about["below"]})

    result = commands.train(workdir)
    assert result.returncode == 0, result.stderr
    assert f"warning: image right diverged at step {step} of scale 0: it is left out" in result.stderr
    run = json.loads((workdir / "run.json").read_text())
    assert (run["status"], run["diverged"]) == ("finished", {"right": f"scale 0, step {step}"})
    coarse, fine = (text.splitlines() for text in done(workdir))
    undisturbed = [text.splitlines()[0] for text in done(commands.finished_run())]
    assert coarse[0] == undisturbed[0]
    assert coarse[1].endswith(f"diverged at step {step}")
    assert fine == undisturbed[1:]
    assert [row["images_alive"] for row in rows(workdir) if row["global_step"] == STEPS + CHUNK] == [1]
    result = commands.run("sample", f"--workdir={workdir}", "--images=right", f"--out={tmp_path / 'out'}")
    assert_refused(result, "'right' has diverged and was left out")
