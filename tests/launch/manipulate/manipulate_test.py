"""python -m launch.manipulate: each task on a tiny run, and what bad flags, inputs and masks get."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from singan.storage.run import load_run
from tests.launch.train.train_test import Commands, assert_refused, contents, save_png

pytestmark = pytest.mark.processes


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


@pytest.fixture
def files(tmp_path):
    """A composite, a mask of it as 0 and 255, and some that do not do."""
    rng = np.random.default_rng(0)
    composite, mask = rng.integers(0, 255, (20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    mask[8:12, 8:12] = 255
    for name, pixels in {
        "composite": composite,
        "mask": mask,
        "empty": 0 * mask,
    }.items():
        save_png(tmp_path / f"{name}.png", pixels)
    return tmp_path


def flags(commands, files, task="harmonize", **changes):
    given = {
        "workdir": commands.finished_run(),
        "task": task,
        "images": "left",
        "input": files / "composite.png",
        "mask": files / "mask.png",
        "start_scales": "1",
        "out": files / "out",
        **changes,
    }
    return [f"--{key}={value}" for key, value in given.items() if value is not None]


def test_a_composite_is_harmonised_and_compared_and_the_run_left_alone(commands, files):
    before = contents(commands.finished_run())
    result = commands.run(
        "manipulate", *flags(commands, files, format="npy", mask_dilation=2, mask_blur=0, start_scales="0,1")
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == "note: scales [0] are left out: this can start at 1 to 1\n"
    assert "1 input(s) at start scale(s) 1: see" in result.stdout
    made, raw = (np.load(files / f"out/start_01/composite{end}.npy") for end in ("", "_unmasked"))
    assert raw.shape == (1, 16, 16, 1)
    assert made.shape == (1, 20, 20, 1)  # of the training image's size, which it is outside the mask
    run = load_run(commands.finished_run())
    source = run.record("left").value_map.invert(run.pixels("left"))
    outside = np.ones((20, 20), bool)
    outside[8:12, 8:12] = False
    np.testing.assert_array_equal(made[0][outside], source[outside])
    assert (made[0] != source)[~outside].mean() > 0.8
    with Image.open(files / "out/comparison.png") as picture:
        assert picture.width > 4 * 96
    assert contents(commands.finished_run()) == before


def test_the_other_tasks(commands, files):
    result = commands.run("manipulate", *flags(commands, files, "edit", fine_tune_steps=3, num_samples=2))
    assert result.returncode == 0, result.stderr
    assert "fine-tuning: 3 of 3 steps" in result.stderr
    assert {f"start_01/composite{end}_{n:04d}.png" for n in (0, 1) for end in ("", "_unmasked")} <= set(
        contents(files / "out")
    )
    painted = flags(commands, files, "paint", mask=None, quantize=3, retrain_steps=2, out=files / "painted")
    result = commands.run("manipulate", *painted)
    assert result.returncode == 0, result.stderr
    assert "painted/start_01/composite_0000.png" in {f"painted/{name}" for name in contents(files / "painted")}
    moved = flags(
        commands, files, "animate", input=None, mask=None, start_scales="0,1", num_frames=4, out=files / "film"
    )
    result = commands.run("manipulate", *moved)
    assert result.returncode == 0, result.stderr
    for scale in (0, 1):
        with Image.open(files / f"film/start_{scale:02d}/left.gif") as film:
            frames = [np.asarray(frame.convert("L"), float) for frame in ImageSequence.Iterator(film)]
            assert len(frames) == 4
            assert film.info["loop"] == 0
        assert np.abs(np.diff(frames, axis=0)).max() > 0


def test_what_cannot_be_done_leaves_nothing_behind(commands, files):
    for changes, text in (
        ({"mask": files / "empty.png"}, "empty.png is empty"),
        ({"mask": None}, "--task=harmonize needs --mask=FILE"),
        ({"images": None}, "this run has 2 pyramids: say with --images=ID which"),
        ({"task": "super_resolve", "input": None, "factor": 8}, "--config=experiments/super_resolution/config.py:8"),
    ):
        result = commands.run("manipulate", *flags(commands, files, **changes))
        assert_refused(result, text)
        assert not (files / "out").exists(), changes
