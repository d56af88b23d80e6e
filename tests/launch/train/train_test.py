"""python -m launch.train as a person meets it: what a run leaves behind, and what bad input gets."""

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[3]
STEPS, CHUNK, SCALES = 60, 5, 2
CONFIG = f"""
from launch.configs import default_config


def get_config():
    config = default_config()
    config.network.width = 4
    config.network.num_layers = 3
    config.pyramid.min_size = 12
    config.pyramid.max_size = 16
    config.pyramid.ratio = 0.5
    config.train.steps_per_scale = {STEPS}
    config.train.chunk = {CHUNK}
    config.train.checkpoint_every = {CHUNK}
    config.train.generator_learning_rate = 1e-2
    config.train.critic_learning_rate = 5e-3
    config.tracking.wandb = "off"
    return config
"""


class Commands:
    """Runs the commands on tiny images, with one compilation cache and one finished run for all tests of a session."""

    def __init__(self, factory: pytest.TempPathFactory):
        base = factory.getbasetemp()
        # Workers of pytest-xdist have a folder each within the session's.
        self.root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "commands"
        self.images, self.config = self.root / "images", self.root / "config.py"
        self.root.mkdir(exist_ok=True)
        with self._one_at_a_time():
            if not self.config.exists():
                save_png(self.images / "left.png", picture(0))
                save_png(self.images / "right.png", picture(1))
                self.config.write_text(CONFIG)
        self.environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(self.root / "compiled")}

    def start(self, command: str, *flags: str | Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", f"launch.{command}", *map(str, flags)],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, *flags: str | Path) -> subprocess.CompletedProcess:
        with self.start(command, *flags) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def train_flags(self, workdir: Path, *flags: str | Path) -> list[str | Path]:
        given = [f"--config={self.config}", f"--config.data.path={self.images}", f"--workdir={workdir}"]
        return [*given, *flags]

    def train(self, workdir: Path, *flags: str | Path) -> subprocess.CompletedProcess:
        return self.run("train", *self.train_flags(workdir, *flags))

    def finished_run(self) -> Path:
        """Returns the workdir of an uninterrupted run, trained on first need."""
        workdir = self.root / "finished"
        with self._one_at_a_time():
            if not workdir.exists():
                result = self.train(workdir)
                assert result.returncode == 0, result.stderr
        return workdir

    @contextlib.contextmanager
    def _one_at_a_time(self):
        with (self.root / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def picture(seed: int, side: int = 20, dtype: str = "uint8") -> np.ndarray:
    """A bright, noisy square on black."""
    image = np.zeros((side, side), dtype)
    inner = slice(side // 4, -(side // 4))
    image[inner, inner] = np.random.default_rng(seed).integers(90, 250, image[inner, inner].shape)
    return image


def save_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_npy(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def rows(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl without what differs from run to run: time and speed."""
    varying = {"time", "steps_per_second", "image_steps_per_second", "end/metrics_seconds"}
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in varying} for line in lines]


def done(workdir: Path) -> list[str]:
    """The DONE files, which hold the digests of the weights."""
    return [(workdir / f"scales/{scale:02d}/DONE").read_text() for scale in range(SCALES)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_for(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Returns as soon as the condition holds while the process lives."""
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        assert time.monotonic() < end
        time.sleep(0.001)


def assert_refused(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: "), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stdout == ""
    assert [word for word in words if word not in result.stderr] == [], result.stderr


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


def test_a_run_leaves_what_the_contract_says(commands):
    workdir = commands.finished_run()
    run = json.loads((workdir / "run.json").read_text())
    assert (run["status"], run["diverged"], len(run["starts"])) == ("finished", {}, 1)
    assert json.loads((workdir / "config.json").read_text())["train"]["steps_per_scale"] == STEPS
    images = json.loads((workdir / "images.json").read_text())["images"]
    assert [(image["id"], image["source"]) for image in images] == [("left", "left.png"), ("right", "right.png")]
    for scale in range(SCALES):
        with Image.open(workdir / f"scales/{scale:02d}/samples/grid.png") as grid:
            assert min(grid.size) > 100
        lines = (workdir / f"scales/{scale:02d}/DONE").read_text().splitlines()
        assert [line.split()[0] for line in lines] == ["left", "right"]
    assert not (workdir / f"scales/{SCALES:02d}").exists()


def test_metrics_count_up_and_say_nothing_twice(commands):
    told = rows(commands.finished_run())
    chunks = [row["global_step"] for row in told if "critic/real" in row]
    assert chunks == list(range(CHUNK, SCALES * STEPS + 1, CHUNK))
    assert [row["global_step"] for row in told] == sorted(row["global_step"] for row in told)
    kinds = [(row["global_step"], *sorted(row)) for row in told]
    assert len(set(kinds)) == len(kinds) == SCALES * (STEPS // CHUNK + 2)
    assert all(row["global_step"] == row["scale"] * STEPS + row["scale_step"] for row in told)


def test_a_finished_run_says_so_and_is_left_alone(commands):
    workdir = commands.finished_run()
    before = contents(workdir)
    result = commands.train(workdir)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"the run in {workdir} is finished" in result.stdout
    assert contents(workdir) == before


def test_plan_writes_nothing(commands, tmp_path):
    result = commands.train(tmp_path / "run", "--plan")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"2 images, channels intensity; {SCALES} scales of {STEPS} steps: 12x12 16x16" in result.stdout
    lines = result.stdout.splitlines()
    assert re.match(r"1 x cpu, precision highest: matrix products at [\d.]+ TFLOP/s$", lines[1])
    for scale, line in enumerate(lines[4:-2]):
        assert line.split()[:2] == [str(scale), ("12x12", "16x16")[scale]]
        assert line.split()[3:5] == ["2", "1"]  # images of the device, and how many of them at once
    assert re.match(r"at least [\d.e-]+ hours with --config.train.recipe=fast$", lines[-1])
    assert len(lines) == 6 + SCALES
    assert not (tmp_path / "run").exists()


def test_shapes_are_trained_each_in_a_directory_of_its_own(commands, tmp_path):
    for side in (20, 24):
        for name in "ab":
            save_png(tmp_path / f"images/{name}{side}.png", picture(side, side))
    flags = [f"--config.data.path={tmp_path / 'images'}", "--config.data.group_by_shape=true"]
    result = commands.train(tmp_path / "run", *flags)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["20x20", "24x24"]
    for side in (20, 24):
        assert [line.split()[0] for line in done(tmp_path / f"run/{side}x{side}")[-1].splitlines()] == [
            f"a{side}",
            f"b{side}",
        ]


@pytest.mark.slow
def test_the_background_of_samples_stays_black(commands, tmp_path):
    for name, seed in (("one", 2), ("two", 3)):
        save_npy(tmp_path / f"images/{name}.npy", picture(seed, dtype="int16") * 16 - 1000)
    # Long enough for the corners to be learnt: after a dozen steps they are still chance.
    steps = ["--config.train.steps_per_scale=150", "--config.train.chunk=30", "--config.train.checkpoint_every=150"]
    result = commands.train(tmp_path / "run", f"--config.data.path={tmp_path / 'images'}", *steps)
    assert result.returncode == 0, result.stderr
    flags = [f"--workdir={tmp_path / 'run'}", "--format=npy", "--start_scales=1", f"--out={tmp_path / 'out'}"]
    assert commands.run("sample", *flags).returncode == 0
    for name in ("one", "two"):
        samples = np.load(tmp_path / f"out/start_01/{name}.npy")
        low, high = samples.min(), 16 * 249 - 1000
        assert low == -1000  # the file's own units
        corners = samples[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners.mean() < low + 0.05 * (high - low)
        assert samples[:, 6:10, 6:10].mean() > low + 0.25 * (high - low)


def cut(path: Path) -> None:
    save_png(path, picture(0))
    path.write_bytes(path.read_bytes()[:-60])


BAD_IMAGES = {
    "missing folder": (lambda folder: None, ("does not exist: give a folder",)),
    "empty folder": (lambda folder: folder.mkdir(), ("holds no image",)),
    "five dimensions": (lambda folder: save_npy(folder / "a.npy", np.zeros((1, 2, 8, 8, 1))), ("a.npy", "5 dimens")),
    "objects": (lambda folder: save_npy(folder / "a.npy", np.array([{}])), ("a.npy", "Python objects")),
    "not a number": (lambda folder: save_npy(folder / "a.npy", np.full((20, 20), np.nan)), ("a.npy", "NaN")),
    "constant": (lambda folder: save_png(folder / "a.png", np.zeros((20, 20), "uint8")), ("a.png", "the same value")),
    "truncated": (lambda folder: cut(folder / "a.png"), ("a.png", "cannot be read")),
    "too small": (lambda folder: save_png(folder / "a.png", picture(0, 12)), ("12x12", "min_size")),
    "two shapes": (
        lambda folder: [save_png(folder / f"{side}.png", picture(0, side)) for side in (20, 24)],
        ("20x20", "20.png", "24x24", "24.png", "--config.data.group_by_shape=true"),
    ),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_refused_before_anything_is_written(commands, tmp_path, case):
    make, words = BAD_IMAGES[case]
    make(tmp_path / "images")
    result = commands.train(tmp_path / "run", f"--config.data.path={tmp_path / 'images'}")
    assert_refused(result, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "words"),
    {
        "--config.train.steps_per_scale=-5": ("config.train.steps_per_scale=-5", "at least 1"),
        "--config.train.steps_per_scale=0": ("config.train.steps_per_scale=0", "at least 1"),
        "--config.train.step_per_scale=5": ("config.train.step_per_scale", "did you mean config.train.steps_per_scale"),
    }.items(),
)
def test_bad_flags_are_refused_before_anything_is_written(commands, tmp_path, flag, words):
    assert_refused(commands.train(tmp_path / "run", flag), *words)
    assert not (tmp_path / "run").exists()


def test_a_workdir_must_be_given(commands):
    assert_refused(commands.run("train", f"--config={commands.config}"), "--workdir=DIR")


def test_a_workdir_of_another_run_is_refused_and_left_alone(commands, tmp_path):
    workdir = commands.finished_run()
    before = contents(workdir)
    other_config = commands.train(workdir, "--config.train.steps_per_scale=40", "--config.seed=3")
    assert_refused(other_config, f"train.steps_per_scale: {STEPS} -> 40", "seed: 0 -> 3", "choose another --workdir")
    save_png(tmp_path / "left.png", picture(0))
    save_png(tmp_path / "right.png", picture(7))
    other_images = commands.train(workdir, f"--config.data.path={tmp_path}")
    assert_refused(other_images, "other images", "changed: right", "choose another --workdir")
    assert contents(workdir) == before


def test_a_workdir_that_cannot_be_written_is_named(commands, tmp_path):
    (tmp_path / "file").touch()
    assert_refused(commands.train(tmp_path / "file/run"), str(tmp_path / "file/run"))
    closed = Path("/sys/medisingan")  # where even root may not write
    if os.geteuid() != 0:
        tmp_path.chmod(0o555)
        closed = tmp_path / "run"
    result = commands.train(closed)
    assert_refused(result, str(closed))
    assert "no permission" in result.stderr or "read-only" in result.stderr


@pytest.mark.slow
def test_a_run_whose_images_all_diverge_fails(commands, tmp_path):
    rates = ["--config.train.generator_learning_rate=1e30", "--config.train.critic_learning_rate=1e30"]
    result = commands.train(tmp_path / "run", *rates)
    assert result.returncode == 1, result.stderr
    assert result.stderr.splitlines()[-1].startswith(
        f"error: every image has diverged at scale 0 by step {CHUNK}: lower"
    )
    assert result.stderr.count("\n") == 2
    assert "Traceback" not in result.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "diverged"
