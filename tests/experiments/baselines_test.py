"""The training-free baseline: what it makes of an image, and its commands on real files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.baselines.generator import Settings, generate
from experiments.baselines.patch_matching import extract_patches, nearest
from singan.config import PyramidConfig
from singan.errors import UserError
from singan.model.pyramid import make_pyramid

ROOT = Path(__file__).resolve().parents[2]
PYRAMID = make_pyramid(21, 24, PyramidConfig(min_size=12, max_size=24, ratio=0.75), "mirror")
QUICK = Settings(patch_size=5, iterations=3)


def picture(channels: int, seed: int = 0) -> np.ndarray:
    """Grey blocks with a little colour: as in real images, what distinguishes places is small against the noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-0.5, 0.5, (7, 8, 1)) + rng.uniform(-0.1, 0.1, (7, 8, channels))
    return coarse.repeat(3, 0).repeat(3, 1).astype(np.float32)


def test_without_noise_the_image_is_a_fixed_point():
    image = picture(3)
    for start in (0, len(PYRAMID) - 1):
        result = generate(
            image, PYRAMID, 0, 1, start_scale=start, settings=Settings(patch_size=5, noise=0, iterations=3)
        )
        np.testing.assert_allclose(result[0], image, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 4, 9])
def test_samples_are_made_of_the_images_patches_and_differ(channels):
    image = picture(channels)
    samples = generate(image, PYRAMID, 0, 3, settings=QUICK)
    assert samples.shape == (3, 21, 24, channels)
    assert samples.dtype == np.float32
    assert np.abs(samples).max() <= 1
    assert samples.std(axis=0).mean() > 0.05
    noise = np.random.default_rng(0).uniform(-1, 1, image.shape).astype(np.float32)
    keys = extract_patches(image, 5)
    far = [float(np.asarray(nearest(extract_patches(x, 5), keys)[1]).mean()) for x in (samples[0], noise)]
    assert far[0] < 0.2 * far[1]


def test_a_sample_depends_on_seed_image_and_number_alone():
    image = picture(3)
    samples = generate(image, PYRAMID, 5, 3, settings=QUICK)
    assert np.array_equal(generate(image, PYRAMID, 5, 3, settings=QUICK), samples)
    assert np.array_equal(generate(image, PYRAMID, 5, 1, first=2, settings=QUICK)[0], samples[2])
    assert not np.array_equal(generate(image, PYRAMID, 6, 3, settings=QUICK), samples)
    assert not np.array_equal(generate(image, PYRAMID, 5, 3, image_id="other", settings=QUICK), samples)


def test_the_background_of_all_channels_stays_to_the_bit():
    image = picture(2)
    image[:, :9] = -1
    image[:, 9:12, 1] = -1  # background in one channel only: not held
    samples = generate(image, PYRAMID, 0, 4, background=(-1.0, -1.0), settings=QUICK)
    assert (samples[:, :, :9] == -1).all()
    assert samples[:, :, 9:].std(axis=0).mean() > 0.02
    for unknown in (None, (-1.0, None)):
        free = generate(image, PYRAMID, 0, 4, background=unknown, settings=QUICK)
        assert not (free[:, :, :9] == -1).all()


def test_scales_that_are_not_there_or_too_small_are_said():
    with pytest.raises(UserError, match=f"start scale 9 is not there: this pyramid has scales 0 to {len(PYRAMID) - 1}"):
        generate(picture(1), PYRAMID, 0, 1, start_scale=9)
    with pytest.raises(UserError, match="scale 0 of 13x14 pixels is smaller than a patch of 14"):
        generate(picture(1), PYRAMID, 0, 1, settings=Settings(patch_size=14))


@pytest.mark.processes
@pytest.mark.slow
def test_the_commands_write_what_can_be_read_back_and_say_the_effect(tmp_path):
    """On the built-in tissue: samples as arrays, then their style, in the folders and names of launch.sample."""
    common = [sys.executable, "-m"]
    flags = [
        "--config=experiments/quickstart/config.py",
        "--config.data.num_crops=2",
        "--config.data.crop_size=40",
        "--config.pyramid.min_size=24",
        "--config.pyramid.max_size=32",
    ]
    drawing = ["experiments.baselines.gpnn", *flags, "--num_samples=2", "--start_scales=0,1", "--iterations=2"]
    subprocess.run([*common, *drawing, "--format=npy", f"--out={tmp_path}/drawn"], cwd=ROOT, check=True)
    found = sorted(path.relative_to(tmp_path / "drawn").as_posix() for path in (tmp_path / "drawn").rglob("*.npy"))
    assert len(found) == 4
    assert {name.split("/")[0] for name in found} == {"start_00", "start_01"}
    samples = np.load(tmp_path / "drawn" / found[0])
    assert samples.shape == (2, 32, 32, 3)
    assert 0 <= samples.min() < samples.max() <= 255

    name = found[0].split("/")[1].removesuffix(".npy")
    styling = ["experiments.baselines.style_effect", *flags, f"--samples={tmp_path}/drawn/start_00", "--steps=2"]
    result = subprocess.run(
        [*common, *styling, f"--out={tmp_path}/styled"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    table = [line.split() for line in result.stdout.splitlines()]
    assert table[0] == ["image", "strength", "swd", "diversity", "ms_ssim", "rmse", "nearest"]
    before, after = ([float(cell) for cell in line[-5:]] for line in table[1:3])
    assert after[0] < before[0]
    assert (tmp_path / "styled" / f"{name}_0000.png").is_file()

    refused = subprocess.run(
        [*common, *drawing, "--images=nobody", f"--out={tmp_path}/no"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --images: 'nobody' is not in config.data")
    assert not (tmp_path / "no").exists()
