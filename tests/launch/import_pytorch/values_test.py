"""python -m launch.import_pytorch without PyTorch: which rule between scales is found, and which values come back.

The training is made here: random networks, and noise amplitudes that a NumPy version of the networks gives.
"""

import json
import math
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from launch.data_card import read_samples
from launch.import_pytorch import read_run, replay
from singan.model.pyramid import resize_matrix
from singan.parallel.cohort import image_mesh
from singan.pytorch.weights import to_state_dict
from singan.storage.run import load_run
from singan.storage.workdir import Workdir, read_config
from tests.launch.import_pytorch.torch_files import save
from tests.launch.train.train_test import ROOT, Commands, assert_refused

pytestmark = [pytest.mark.processes, pytest.mark.slow]

CHANNELS, WIDTH, LAYERS, SMALLEST, LARGEST, FINEST = 4, 4, 3, 11, 20, 3
RATIO = (SMALLEST / LARGEST) ** (1 / FINEST)
SIZES = [math.ceil(LARGEST * RATIO ** (FINEST - scale)) for scale in range(FINEST + 1)]


def variables(outputs, inputs=CHANNELS, seed=0):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(0, 0.3, shape).astype(np.float32)  # noqa: E731
    params, statistics = {}, {}
    for index in range(LAYERS - 1):
        params[f"block_{index}"] = {"kernel": normal(3, 3, inputs, WIDTH), "bias": normal(WIDTH)}
        params[f"block_{index}"] |= {"scale": 1 + normal(WIDTH), "shift": normal(WIDTH)}
        statistics[f"block_{index}"] = {"mean": normal(WIDTH), "var": 1 + normal(WIDTH) ** 2}
        inputs = WIDTH
    params |= {"kernel": normal(3, 3, WIDTH, outputs), "bias": normal(outputs)}
    return {"params": params, "batch_stats": statistics}


def generate(weights, noise, previous):
    """What the reference's netG makes: [h, w, C], in float64."""

    def convolve(x, layer):
        kernel, (h, w) = layer["kernel"].astype(np.float64), (x.shape[0] - 2, x.shape[1] - 2)
        return sum(x[i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3)) + layer["bias"]

    x = np.pad(noise + previous, [(LAYERS, LAYERS), (LAYERS, LAYERS), (0, 0)])
    for index in range(LAYERS - 1):
        layer, known = weights["params"][f"block_{index}"], weights["batch_stats"][f"block_{index}"]
        x = (convolve(x, layer) - known["mean"]) / np.sqrt(known["var"] + 1e-5) * layer["scale"] + layer["shift"]
        x = np.where(x > 0, x, 0.2 * x)
    return np.tanh(convolve(x, weights["params"])) + previous


def bring_up(image, scale, rule):
    """From 0 to 1 in 8 bits, enlarged, divided by its own largest value or by 255, cropped."""
    growth = 1 / RATIO
    matrix = resize_matrix(SIZES[scale - 1], math.ceil(SIZES[scale - 1] * growth), growth, "reference")
    levels = np.einsum("ph,hwc,qw->pqc", matrix, np.floor((np.clip(image, -1, 1) + 1) * 127.5), matrix)
    largest = levels.max() if rule == "uint8_rescaled_before_crop" else 255
    return np.clip(2 * levels[: SIZES[scale], : SIZES[scale]] / largest - 1, -1, 1)


def write_training(folder, rule, scales=FINEST + 1, lowest=0.0):
    """Writes a training on values from `lowest` to 1 whose last channel is a mask; returns its noise amplitudes."""
    rng = np.random.default_rng(1)
    reals = []
    for size in SIZES:
        real = rng.uniform(max(lowest, 0.1), 0.9, (size, size, CHANNELS)).astype(np.float32)
        real[..., -1] = np.where(np.hypot(*np.indices((size, size)) - size / 2) < size / 4, 1, lowest)
        real[0, 0, -1] = lowest - 0.1 if lowest == 0 else lowest  # as resizing overshoots
        reals.append(real)
    noise = rng.normal(size=(SIZES[0], SIZES[0], 1)).astype(np.float32)
    amplitudes: list = [1]
    image = np.zeros((SIZES[0], SIZES[0], CHANNELS))
    for scale in range(scales):
        if scale:
            image = bring_up(image, scale, rule)
            amplitudes.append(0.1 * math.sqrt(np.square(image - reals[scale]).mean()))
        weights = variables(CHANNELS, seed=scale)
        image = generate(weights, noise if scale == 0 else 0, image)
        (folder / str(scale)).mkdir(parents=True)
        save(to_state_dict(weights, "netG"), folder / str(scale) / "netG.pth")
        save(to_state_dict(variables(1, seed=10 + scale), "netD"), folder / str(scale) / "netD.pth")
    save(np.repeat(noise[None].transpose(0, 3, 1, 2), CHANNELS, 1), folder / "0/z_opt.pth")
    save([real[None].transpose(0, 3, 1, 2) for real in reals], folder / "reals.pth")
    save([1, *(np.array(value, np.float32) for value in amplitudes[1:])], folder / "NoiseAmp.pth")
    return amplitudes


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


@pytest.fixture(scope="module")
def imported(commands, tmp_path_factory):
    """A training on [0, 1] by a fork of four channels, its run, and what the import printed."""
    folder = tmp_path_factory.mktemp("fork")
    amplitudes = write_training(folder / "trained", "uint8_rescaled_before_crop")
    result = commands.run("import_pytorch", f"--from={folder / 'trained'}", f"--workdir={folder / 'run'}")
    assert result.returncode == 0, result.stderr
    return folder / "run", amplitudes, result


def test_the_rule_is_found_and_written_down(imported):
    workdir, amplitudes, result = imported
    told = json.loads((workdir / "run.json").read_text())["imported"]
    assert told["between_scales"] == "uint8_rescaled_before_crop"
    assert told["misfit"] < 1e-3
    assert told["amplitudes"] == pytest.approx(amplitudes, rel=1e-6)
    assert told["replayed_amplitudes"] == pytest.approx(amplitudes, rel=1e-3)
    assert read_config(Workdir(workdir)).method.between_scales == "uint8_rescaled_before_crop"
    assert result.stderr == ""
    assert "between scales: uint8_rescaled_before_crop, which replays the noise amplitudes within 0.0" in result.stdout


def test_values_come_back_from_0_to_1_and_0_is_black(commands, imported, tmp_path):
    workdir = imported[0]
    (row,) = json.loads((workdir / "images.json").read_text())["images"]
    assert (row["value_map"]["least"], row["value_map"]["high"]) == ([0.0] * CHANNELS, [1.0] * CHANNELS)
    given = (f"--workdir={workdir}", "--num_samples=2", "--start_scales=1")
    for form in ("npy", "png"):
        result = commands.run("sample", *given, f"--out={tmp_path / form}", f"--format={form}")
        assert (result.returncode, result.stderr) == (0, "")
    samples = np.load(tmp_path / "npy/start_01/trained.npy")
    assert 0 == samples.min() < samples.max() <= 1
    for number in range(2):
        shown = np.asarray(Image.open(tmp_path / f"png/start_01/trained_{number:04d}_channel_3.png"))
        np.testing.assert_allclose(shown, np.rint(samples[number, ..., 3] * 255), atol=1)
    card = (tmp_path / "png/start_01/DATA_CARD.md").read_text()
    assert "PyTorch SinGAN; between scales uint8_rescaled_before_crop, which replays the stored noise" in card
    # Pictures are read back as what they show.
    found = read_samples.read_samples(tmp_path / "png/start_01", load_run(workdir))
    np.testing.assert_allclose(found.samples["trained"], samples, atol=0.6 / 255)


def test_a_training_of_no_known_rule_is_refused_but_if_asked_for(commands, tmp_path):
    amplitudes = write_training(tmp_path / "trained", "uint8")
    save([1, *(np.array(value * 0.7, np.float32) for value in amplitudes[1:])], tmp_path / "trained/NoiseAmp.pth")
    given = (f"--from={tmp_path / 'trained'}", f"--workdir={tmp_path / 'run'}")
    result = commands.run("import_pytorch", *given)
    assert_refused(result, "NoiseAmp.pth: the best one, uint8, gives", "(42.9% off, 5% allowed)", "--accept_mismatch")
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]
    result = commands.run("import_pytorch", *given, "--accept_mismatch")
    assert result.returncode == 0
    assert result.stderr.startswith("warning: no known rule")
    assert result.stderr.count("\n") == 1
    told = json.loads((tmp_path / "run/run.json").read_text())["imported"]
    assert (told["between_scales"], told["misfit"]) == ("uint8", pytest.approx(0.3 / 0.7, rel=1e-3))


def replayed(folder):
    found = read_run.read_run(folder)
    image = read_run.image_of(found, "", (), "auto")
    config, replays = replay.choose_rule(found, read_run.config_of(found), image, image_mesh(jax.devices()[:1]))
    return found, config, replays


def test_the_nearest_rule_is_taken_and_five_percent_is_the_limit(tmp_path):
    amplitudes = write_training(tmp_path / "trained", "uint8", lowest=-1.0)
    for factor, fits in ((1.0, True), (1.04, True), (1.06, False), (0.96, True), (0.94, False)):
        stored = [1, *(np.array(value, np.float32) for value in amplitudes[1:-1])]
        save([*stored, np.array(amplitudes[-1] / factor, np.float32)], tmp_path / "trained/NoiseAmp.pth")
        if factor == 1:
            found, config, replays = replayed(tmp_path / "trained")
            assert config.method.between_scales == "uint8"
            assert not read_run.is_unit(found, "uint8")
        found = read_run.read_run(tmp_path / "trained")
        assert replay.misfit(found, replays)[0] == pytest.approx(abs(factor - 1), abs=1e-3)
        assert (replay.disagreement(found, config, replays) == "") == fits


def test_one_scale_alone_tells_no_rule(tmp_path):
    write_training(tmp_path / "trained", "uint8_rescaled_before_crop", scales=1)
    found, config, replays = replayed(tmp_path / "trained")
    assert replay.disagreement(found, config, replays) == ""
    assert replay.summary(found, config, replays)["misfit"] is None
    assert config.method.between_scales == "uint8_rescaled_before_crop"


# As launch.import_pytorch chose before: the old rule, whatever fits.
OLDER_IMPORT = """
import dataclasses, runpy
from launch.import_pytorch import replay

def older(found, config, image, mesh):
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, between_scales="uint8_rescaled"))
    return config, replay.replay(found, config, image, mesh)

replay.choose_rule = older
runpy.run_module("launch.import_pytorch", run_name="__main__")
"""


def test_a_run_of_an_older_import_says_to_import_it_again(commands, imported, tmp_path):
    told = []
    load_run(imported[0], warn=told.append)
    assert told == []
    run = tmp_path / "older"
    flags = [f"--from={imported[0].parent / 'trained'}", f"--workdir={run}", "--accept_mismatch"]
    command = [sys.executable, "-c", OLDER_IMPORT, *flags]
    done = subprocess.run(command, cwd=ROOT, env=commands.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert load_run(run, warn=told.append).spec.method.between_scales == "uint8_rescaled"
    result = commands.run("sample", f"--workdir={run}", f"--out={tmp_path / 'out'}", "--num_samples=1", "--nocard")
    assert len(told) == 1
    assert "import it again with launch.import_pytorch" in told[0]
    assert (result.returncode, result.stderr) == (0, f"warning: {told[0]}\n")


CONTENTS = {
    "amplitudes_of_lists": ("NoiseAmp.pth", [1, [1.0], [[2.0] * 3] * 3, 1], "finite ones"),
    "amplitudes_beyond_float32": ("NoiseAmp.pth", [1, 1e300, 1.0, 1.0], "finite ones"),
    "complex_reals": ("reals.pth", [np.zeros((1, 4, side, side), np.complex64) for side in SIZES], "complex"),
    "reals_beyond_float32": ("reals.pth", [np.full((1, 4, side, side), 1e300) for side in SIZES], r"outside \[-1, 1\]"),
    "complex_noise": ("0/z_opt.pth", np.zeros((1, 4, SIZES[0], SIZES[0]), np.complex64), "no noise|not a noise"),
    "weights_of_no_name": ("1/netG.pth", {3: np.zeros((1, 1, 3, 3), np.float32)}, "not a state dict"),
    "complex_weights": ("1/netG.pth", {"head.conv.weight": np.zeros((1, 1, 3, 3), np.complex64)}, "not a state dict"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTENTS)
def test_contents_of_another_kind_are_one_clear_line(tmp_path, case):
    name, value, message = CONTENTS[case]
    write_training(tmp_path / "trained", "uint8")
    save(value, tmp_path / "trained" / name)
    with pytest.raises(read_run.UserError, match=message) as caught:
        read_run.read_run(tmp_path / "trained")
    assert name in str(caught.value)
