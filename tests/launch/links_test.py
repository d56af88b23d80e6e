"""Links and special files below a working directory: refused by name, by every command, and never followed."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.compare import load
from launch.images import image_folders
from launch.results.run_facts import read_facts
from singan import files, links
from singan.errors import UserError
from singan.storage.json_lines import JsonLines
from singan.storage.metrics_file import read_rows
from singan.storage.run import load_run
from tests.fuzz.workdirs import template
from tests.launch.train.train_test import Commands, contents


@pytest.fixture
def run(tmp_path) -> Path:
    """A whole run of two images and two scales; through a link, as the path that is given may be."""
    (tmp_path / "real").mkdir()
    shutil.copytree(template(), tmp_path / "real" / "run")
    (tmp_path / "given").symlink_to(tmp_path / "real")
    return tmp_path / "given" / "run"


@pytest.fixture
def precious(tmp_path) -> Path:
    """A folder of somebody else, with what would be taken for steps of a checkpoint."""
    for name in ("1/notes.txt", "2/notes.txt", "thesis.txt", ".tmp-thesis.txt-4194305-0a1b2c3d"):
        path = tmp_path / "precious" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("years of work")
    return tmp_path / "precious"


def replaced(path: Path, link: Path | None) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(link) if link else os.mkfifo(path)


READERS: dict[str, Callable[[Path], object]] = {
    "load_run": load_run,
    "read_facts": read_facts,
    "compare": lambda path: load.load([str(path), str(template())]),
}
FOLDERS = ("images", "scales", "scales/00", "scales/00/checkpoints", "scales/01/checkpoints/2", "tables", "wandb")
FILES = ("config.json", "run.json", "images.json", "evaluation.json", "metrics.jsonl", "scales/00/DONE", "images/x.npy")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_run_whose_path_is_a_link_is_read_and_every_link_below_is_refused_by_name(run, precious, tmp_path, read):
    read(run)
    before = contents(precious)
    for name in (*FOLDERS, *FILES):
        copy = Path(shutil.copytree(run, tmp_path / "copy"))
        replaced(copy / name, precious / "thesis.txt" if name in FILES else precious)
        with pytest.raises(
            UserError, match="is a symbolic link, and below a working directory none is followed"
        ) as said:
            read(copy)
        assert str(said.value).startswith(f"{copy / name} is"), name
        shutil.rmtree(copy)
    assert contents(precious) == before


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_would_make_a_reader_wait_is_refused_by_name(run, read):
    for name in FILES:
        kept = (run / name).read_bytes() if (run / name).exists() else None
        replaced(run / name, None)
        with pytest.raises(UserError, match="is a FIFO, which is not part of a run") as said:
            read(run)
        assert str(run / name) in str(said.value)
        (run / name).unlink()
        if kept is not None:
            (run / name).write_bytes(kept)
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(run)  # a socket's path may have some hundred characters only
        listening.bind("socket")
        os.chdir(here)
    with pytest.raises(UserError, match="/socket is a socket"):
        read(run)


def test_links_of_wandb_are_its_own_and_not_followed(run, precious):
    (run / "wandb" / "run-1").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to("run-1")
    (run / "wandb" / "debug.log").symlink_to("/var/log/of-wandb")
    (run / "wandb" / "elsewhere").symlink_to(precious)
    assert load_run(run).ids
    (run / "scales" / "wandb").symlink_to(precious)
    with pytest.raises(UserError, match="scales/wandb is a symbolic link"):
        load_run(run)


def test_a_thousand_images_are_looked_at_in_milliseconds(tmp_path):
    for number in range(1000):
        files.make_directory(tmp_path / "images")
        (tmp_path / "images" / f"{number}.npy").touch()
        files.make_directory(tmp_path / f"scales/{number % 10:02d}/checkpoints/{number}")
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        links.check_workdir(tmp_path)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.2  # some 10 ms on a machine that does nothing else


def test_opened_is_the_file_itself(tmp_path):
    path = tmp_path / "a"
    (tmp_path / "b").write_text("{}")
    path.symlink_to("b")
    for act in (files.read_bytes, lambda path: files.open_plain(path, "ab")):
        with pytest.raises(OSError, match="a symbolic link, which is not followed here"):
            act(path)
    with pytest.raises(UserError, match=r"^cannot read .*/a: a symbolic link, which is not followed here$"):
        files.read_json(path)
    files.write_text(path, "new")
    assert (path.is_symlink(), path.read_text(), (tmp_path / "b").read_text()) == (False, "new", "{}")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"^cannot read .*/a: no plain file$"):
        files.read_json(path)
    with pytest.raises(OSError, match="No such device"):  # no reader, and none is waited for
        files.open_plain(path, "ab")


def test_rows_are_not_appended_to_a_copy_of_hard_links(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.scalars({"global_step": 1, "scale": 0, "scale_step": 1})
    lines.close()
    os.link(tmp_path / "metrics.jsonl", tmp_path / "backup.jsonl")
    before = (tmp_path / "backup.jsonl").read_bytes()
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.scalars({"global_step": 2, "scale": 0, "scale_step": 2})
    lines.close()
    assert (tmp_path / "backup.jsonl").read_bytes() == before
    assert [row["global_step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2]


@pytest.mark.processes
def test_every_command_refuses_a_link_and_a_fifo_in_one_line_and_harms_nothing(tmp_path_factory, tmp_path, precious):
    commands = Commands(tmp_path_factory)
    whole = commands.finished_run()
    before = contents(precious)
    work = {
        "train": lambda run: ("train", *commands.train_flags(run)),
        "sample": lambda run: ("sample", f"--workdir={run}", f"--out={tmp_path / 'out'}"),
        "manipulate": lambda run: (
            *("manipulate", "--task=harmonize", f"--workdir={run}", f"--input={commands.images}/left.png"),
            *("--images=left", f"--out={tmp_path / 'out'}", f"--mask={commands.images}/left.png"),
        ),
        "evaluate": lambda run: ("evaluate", f"--workdir={run}", "--num_samples=1"),
        "data_card": lambda run: ("data_card", f"--workdir={run}", f"--samples={precious}"),
        "report": lambda run: ("report", f"--workdir={run}"),
        "compare": lambda run: ("compare", run, whole, f"--out={tmp_path / 'out'}"),
    }
    for number, (name, flags_of) in enumerate(work.items()):
        both = [("scales/00/checkpoints", precious), ("run.json", None)]
        for place, link in both if name == "train" else both[number % 2 :][:1]:
            run = Path(shutil.copytree(whole, tmp_path / f"{number}{place.replace('/', '-')}"))
            replaced(run / place, link)
            result = commands.run(*flags_of(run))
            assert result.returncode == 2, (name, result.stderr)
            line = result.stderr.splitlines()[-1]
            assert line.startswith(f"error: {run / place} is a {'symbolic link' if link else 'FIFO'}"), (name, line)
            assert not (run / ".lock").exists()
    assert contents(precious) == before


def test_a_reader_study_takes_no_image_from_elsewhere(tmp_path, capfd):
    for folder, name in (("real", "a.png"), ("secret", "b.png")):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / folder / name)
    real = tmp_path / "real"
    (real / "b.png").symlink_to(tmp_path / "secret" / "b.png")
    (real / "same.png").symlink_to("a.png")
    (real / "folder").symlink_to(tmp_path / "secret")
    (real / "circle.png").symlink_to("circle.png")
    os.mkfifo(real / "fifo.png")
    (tmp_path / "given").symlink_to(real)
    for given in (real, tmp_path / "given"):
        assert [entry.source for entry in image_folders.list_entries(str(given), "real")] == ["a.png", "same.png"]
        assert "2 symbolic links to elsewhere left out" in capfd.readouterr().err
    for name in ("a.png", "same.png"):
        (real / name).unlink()
    with pytest.raises(UserError, match=r"holds no image \(2 symbolic links to elsewhere left out\)"):
        image_folders.list_entries(str(real), "real")


@pytest.mark.processes
@pytest.mark.slow
def test_a_picture_from_elsewhere_does_not_come_into_a_comparison(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_bytes((template() / "evaluation.json").read_bytes())
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "a" / "grid.png").symlink_to(tmp_path / "secret.txt")
    command = [sys.executable, "-m", "launch.compare", "a", "b", "--out=out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "c2VjcmV0" not in (tmp_path / "out" / "compare.html").read_text()
