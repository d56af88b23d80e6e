"""A checkout of the PyTorch reference beside the benchmark, played by a stand-in with its names and signatures."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.reporting import official_checkout
from experiments.sample_quality import curves, official
from experiments.training_time import reference_peer
from launch.import_pytorch import read_run, replay
from singan import files
from singan.config import parse
from singan.errors import UserError
from singan.model.pyramid import make_pyramid
from singan.model.spec import make_spec
from singan.parallel.cohort import image_mesh
from tests.launch.train.train_test import ROOT

CONFIG = """
import argparse

def get_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--not_cuda", action="store_true")
    parser.add_argument("--scale_factor", type=float, default=0.75)
    return parser
"""
MODELS = """
import torch

def network(width):
    return torch.nn.Sequential(torch.nn.Conv2d(3, width, 1), torch.nn.Conv2d(width, 3, 1))
"""
FUNCTIONS = """
import torch

def post_config(opt):
    opt.device = torch.device("cpu" if opt.not_cuda else "cuda:0")
    return opt

def reset_grads(model, require_grad):
    for parameter in model.parameters():
        parameter.requires_grad_(require_grad)
    return model
"""
# An iteration takes 20 ms and more. The generator is updated three times through one graph, as in
# the reference, which newer versions of torch refuse.
TRAINING = """
import time
import types

import torch
import torch.optim as optim
import SinGAN.models as models

torch.set_num_threads(1)
plt = types.SimpleNamespace()

def init_models(opt):
    return models.network(opt.nfc), models.network(opt.nfc)

def train_single_scale(netD, netG, reals, Gs, Zs, in_s, NoiseAmp, opt, centers=None):
    real = reals[len(Gs)]
    assert len(Gs) == len(Zs) == len(NoiseAmp) and not any(p.requires_grad for G in Gs for p in G.parameters())
    assert real.shape[2] == (20, 30)[len(Gs)] and abs(opt.scale_factor - 2 / 3) < 1e-6 and opt.mode == "train"
    optimizers = [optim.Adam(net.parameters(), lr=1e-4) for net in (netD, netG)]
    for epoch in range(opt.niter):
        time.sleep(0.02)
        for _ in range(opt.Dsteps):
            netD.zero_grad()
            netD(real).mean().backward()
            optimizers[0].step()
        fake = netG(real)
        for _ in range(UPDATES):
            netG.zero_grad()
            netD(fake).mean().backward(retain_graph=True)
            optimizers[1].step()
    torch.save(netG.state_dict(), opt.outf + "/netG.pth")
    opt.noise_amp = 0.1
    return real, in_s, netG
"""
MANIPULATE = """
def SinGAN_generate(Gs, Zs, reals, NoiseAmp, opt, gen_start_scale, num_samples):
    assert len(Gs) == len(Zs) == len(reals) == len(NoiseAmp) == 2 and num_samples == 1
    return Gs[1](reals[1]).detach() * 0 + (-1, 0.5)[gen_start_scale]
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder that is laid out as the reference's checkout."""
    folder = tmp_path / "checkout"
    (folder / "SinGAN").mkdir(parents=True)
    texts = {"config": CONFIG, "SinGAN/models": MODELS, "SinGAN/functions": FUNCTIONS, "SinGAN/manipulate": MANIPULATE}
    for name, text in {**texts, "SinGAN/training": TRAINING.replace("UPDATES", "opt.Gsteps")}.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def _measure(checkout):
    config = parse({"pyramid": {"min_size": 20, "num_scales": 2}})
    pyramid = make_pyramid(30, 30, config.pyramid)
    specs = [make_spec(config, pyramid, 3, "direct", scale) for scale in range(2)]
    return reference_peer.measure(str(checkout), sys.executable, specs, {0: 20.0, 1: 20.0}, 0.1)


@pytest.mark.processes
@pytest.mark.slow
def test_iterations_of_a_checkout_are_timed(checkout):
    pytest.importorskip("torch")
    before = sorted(checkout.rglob("*"))
    official_checkout.check(str(checkout), sys.executable)
    found = _measure(checkout)
    assert [row["scale"] for row in found["rows"]] == [0, 1]
    assert all(row["ms"] >= 20 and row["iterations"] == 7 for row in found["rows"])
    assert sorted(checkout.rglob("*")) == before
    own = {"images": 1, "ms_per_step_and_image": 10.0, "steps": 1000, "pytorch_ms": None}
    text = reference_peer.section(found, [{**own, "scale": scale} for scale in range(2)], 2000)
    first = found["rows"][0]["ms"]
    assert f"| 0 | {first:.1f} | 5 | - | 10.0 | {2 * first:.0f} | 10 | {2 * first / 10:.2f} |" in text


@pytest.mark.processes
@pytest.mark.slow
def test_a_checkout_trains_once_and_draws_samples(checkout, tmp_path):
    pytest.importorskip("torch")
    reals = [np.zeros((20, 20, 3), np.float32), np.zeros((30, 30, 3), np.float32)]
    settings = {"steps": (3, 3), "widths": (4, 4), "ratio": 2 / 3, "samples": 2, "start_scales": [0, 1]}
    first = official_checkout.train(str(checkout), sys.executable, tmp_path, reals, **settings)
    assert len(first["seconds"]) == 2
    assert min(first["seconds"]) >= 0.06
    assert files.read_json(tmp_path / "seconds.json") == first["seconds"]
    with np.load(tmp_path / "samples.npz") as drawn:
        assert {name: (drawn[name].shape, float(drawn[name].mean())) for name in drawn.files} == {
            "start_0": ((2, 30, 30, 3), 0.0),
            "start_1": ((2, 30, 30, 3), 0.75),
        }
    assert official_checkout.train(str(checkout), sys.executable, tmp_path, reals, **settings) == first


@pytest.mark.processes
@pytest.mark.slow
def test_its_networks_imported_are_a_curve_over_temperatures(tmp_path):
    pytest.importorskip("torch")
    from tests.launch.import_pytorch.import_pytorch_test import write_training

    said, mesh = [], image_mesh(jax.devices()[:1])
    write_training(tmp_path / "first")
    source = read_run.read_run(tmp_path / "first")
    image = read_run.image_of(source, "slice_7", (), "auto")
    _, replays = replay.choose_rule(source, read_run.config_of(source), image, mesh)
    write_training(tmp_path / "official", [float(one.amplitude) for one in replays])  # those that fit its networks
    workdir = official.imported(tmp_path / "official", "slice_7", said.append)
    assert workdir is not None, said
    asked = curves.Asked((0, 1), (0.5, 1.0, 2.0), 2)
    measured = curves.measure_run(workdir, tmp_path / "measured.json", asked, mesh, said.append)
    keys = [(row["image"], row["start_scale"], row["temperature"]) for row in measured.rows]
    assert keys == [("slice_7", start, t) for start in (0, 1) for t in (0.5, 1.0, 2.0)]
    assert official.imported(tmp_path / "official", "slice_7", said.append) == workdir
    assert not said
    (tmp_path / "nothing").mkdir()
    assert official.imported(tmp_path / "nothing", "slice_7", said.append) is None
    assert "nothing is one point, not a curve: error: " in said[0]


def test_what_is_saved_after_the_first_and_the_last_iteration_is_not_counted():
    pytest.importorskip("torch")
    from experiments.reporting.official_runner import median_iteration

    iterations = [0.0, 9.0, 10.0, 12.0]  # when each ends; the second has the pictures of the first in it
    assert median_iteration([end - 0.1 * left for end in iterations for left in (5, 4, 3, 2, 1, 0)], 4) == 2
    with pytest.raises(RuntimeError, match="23 Adam updates in 4 iterations, and not 6 in each"):
        median_iteration([0.0] * 23, 4)


@pytest.mark.processes
@pytest.mark.slow
def test_a_checkout_that_does_not_train_is_one_line(checkout):
    pytest.importorskip("torch")
    (checkout / "SinGAN" / "training.py").write_text(TRAINING.replace("UPDATES", "2"))
    with pytest.raises(UserError, match=r"does not train: RuntimeError: 35 Adam updates in 7 iterations"):
        _measure(checkout)
    (checkout / "SinGAN" / "functions.py").write_text("import a_package_that_it_needs")
    with pytest.raises(UserError, match=r"does not train: ModuleNotFoundError.*--peer_python=FILE") as caught:
        official_checkout.check(str(checkout), sys.executable)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"--peer_python=/no/python cannot be started"):
        official_checkout.check(str(checkout), "/no/python")


@pytest.mark.processes
@pytest.mark.slow
def test_a_folder_that_is_no_checkout_ends_before_anything_is_measured(tmp_path):
    command = [sys.executable, "-m", "experiments.training_time.bench", f"--peer={tmp_path}", f"--out={tmp_path}/bench"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "is no checkout of the official implementation" in line
    assert "config.py" in line
    assert list(tmp_path.iterdir()) == []
