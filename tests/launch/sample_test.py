"""python -m launch.sample: what it writes, that equal commands write equal files, and what bad flags get."""

import numpy as np
import pytest
from PIL import Image

from tests.launch.train.train_test import Commands, assert_refused, contents

pytestmark = pytest.mark.processes


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


@pytest.fixture(scope="session")
def sampled(commands, tmp_path_factory):
    """Five samples of each image from both scales as npy, and what the command said."""
    out = tmp_path_factory.mktemp("npy")
    flags = [f"--workdir={commands.finished_run()}", "--num_samples=5", "--start_scales=0,1", "--format=npy"]
    result = commands.run("sample", *flags, f"--out={out}")
    assert result.returncode == 0, result.stderr
    return out, result


def test_npy_holds_different_samples_in_the_values_of_the_source(sampled):
    out, result = sampled
    assert result.stderr == ""
    assert str(out) in result.stdout
    names = [f"start_{scale}/{image}.npy" for scale in ("00", "01") for image in ("left", "right")]
    assert sorted(name for name in contents(out) if name.endswith("npy")) == names
    drawn = [np.load(out / name) for name in names]
    for samples in drawn:
        assert (samples.dtype, samples.shape) == (np.float32, (5, 16, 16, 1))
        assert samples.min() >= 0
        assert 100 < samples.max() <= 255
        assert len({sample.tobytes() for sample in samples}) == 5
    assert len({samples.tobytes() for samples in drawn}) == 4
    # What starts at the finer scale has the coarse layout of the training image: its samples are more alike.
    assert drawn[2].std(0).mean() < drawn[0].std(0).mean()


def test_equal_seeds_give_equal_bytes_whatever_the_company(commands, sampled, tmp_path):
    flags = [f"--workdir={commands.finished_run()}", "--num_samples=5", "--format=npy", "--images=right"]
    result = commands.run("sample", *flags, "--start_scale=0", f"--out={tmp_path / 'same'}")
    assert result.returncode == 0, result.stderr
    here, there = contents(tmp_path / "same"), contents(sampled[0])
    assert here["start_00/right.npy"] == there["start_00/right.npy"]
    assert not [name for name in here if "left" in name or "start_01" in name]
    result = commands.run("sample", *flags, "--seed=1", f"--out={tmp_path / 'other'}")
    assert result.returncode == 0, result.stderr
    other = np.load(tmp_path / "other/start_00/right.npy")
    assert np.abs(other - np.load(sampled[0] / "start_00/right.npy")).mean() > 1


def test_equal_seeds_give_equal_bytes_whatever_the_batch(commands, sampled, tmp_path):
    flags = [f"--workdir={commands.finished_run()}", "--num_samples=5", "--format=npy", "--batch=2"]
    assert commands.run("sample", *flags, f"--out={tmp_path}").returncode == 0
    assert np.allclose(np.load(tmp_path / "start_00/left.npy"), np.load(sampled[0] / "start_00/left.npy"), atol=0.01)
    for name in ("start_00/left.npy", "start_00/right.npy"):
        assert (tmp_path / name).read_bytes() == (sampled[0] / name).read_bytes()


def test_png_holds_the_same_samples_and_a_grid_and_leaves_the_run_alone(commands, sampled, tmp_path):
    workdir = commands.finished_run()
    before = contents(workdir)
    flags = [f"--workdir={workdir}", "--num_samples=5", "--images=left", "--start_scale=1,7", f"--out={tmp_path}"]
    result = commands.run("sample", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "note: scales [7] are left out: this can start at 0 to 1\n"
    cards = {"start_01/DATA_CARD.md", "start_01/data_card.json"}
    assert cards < set(contents(tmp_path))
    pictures = sorted(set(contents(tmp_path)) - cards)
    assert pictures == [*(f"start_01/left_{number:04d}.png" for number in range(5)), "start_01/left_grid.png"]
    samples = np.load(sampled[0] / "start_01/left.npy")[..., 0]
    for number in range(5):
        with Image.open(tmp_path / f"start_01/left_{number:04d}.png") as image:
            assert image.mode == "L"
            assert np.abs(np.asarray(image, np.float32) - samples[number]).max() <= 0.51
    with Image.open(tmp_path / "start_01/left_grid.png") as grid:
        assert grid.width > 5 * 96
    assert contents(workdir) == before


@pytest.mark.parametrize(
    ("flag", "words"),
    {
        "--start_scales=2,7": ("--start_scales=2,7: this can only start at scales 0 to 1",),
        "--start_scales=x": ("--start_scales=x must be whole numbers",),
        "--images=lefd": ("'lefd' is not in this run (did you mean 'left'?)", "left, right"),
        "--num_samples=0": ("num_samples", "0"),
        "--masks=permute": ("train with config.data.condition",),
        "--density=1.2": ("train with config.data.condition",),
        "--format=coco": ("--format=coco needs masks",),
    }.items(),
)
def test_bad_flags_are_refused_and_nothing_is_written(commands, tmp_path, flag, words):
    workdir = commands.finished_run()
    result = commands.run("sample", f"--workdir={workdir}", f"--out={tmp_path / 'out'}", flag)
    assert_refused(result, *words)
    assert not (tmp_path / "out").exists()


def test_a_directory_that_is_no_run_is_refused(commands, tmp_path):
    result = commands.run("sample", f"--workdir={tmp_path}", f"--out={tmp_path / 'out'}")
    assert_refused(result, f"{tmp_path}/config.json does not exist", "launch.train")
    assert list(tmp_path.iterdir()) == []
