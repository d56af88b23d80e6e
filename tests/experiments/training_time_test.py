"""The benchmark of an accelerator: what it needs, and in which order it measures."""

import json
import os
import subprocess
import sys

import pytest

from experiments.training_time.bench import most_telling_first
from tests.launch.train.train_test import ROOT

# Starts the benchmark where nothing but jax, flax, optax, absl and numpy is installed.
BLOCKED = """
import runpy, sys
for name in ("ml_collections", "wandb", "tensorflow_datasets", "orbax", "scipy.stats", "skimage", "PIL", "torch"):
    sys.modules[name] = None
runpy.run_module("experiments.training_time.gpu", run_name="__main__", alter_sys=True)
"""


@pytest.mark.processes
@pytest.mark.slow
def test_a_tiny_run_needs_jax_flax_optax_absl_and_numpy_alone(tmp_path):
    arguments = ["--tiny", "--cohorts=2", "--seconds=0.01", "--minutes=60", "--precision=tf32,bf16"]
    command = [sys.executable, "-c", BLOCKED, *arguments, f"--out={tmp_path}/gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert len(results["checks"]) > 5
    assert all(check["passed"] for check in results["checks"])
    assert {row["form"] for row in results["steps"]} <= {row["form"] for row in results["forms"]}
    measured = {(row["scale"], row["images"], row["precision"]) for row in results["steps"]}
    assert measured == {(scale, 2, name) for scale in (0, 1) for name in ("tf32", "bf16")}
    page = (tmp_path / "gpu.md").read_text()
    assert "## Steps, bf16" in page
    assert "## Forms of the convolution" in page


@pytest.mark.processes
@pytest.mark.slow
def test_what_the_time_does_not_allow_is_listed(tmp_path):
    arguments = ["--tiny", "--minutes=0.0001", "--nochecks", f"--out={tmp_path}/gpu"]
    command = [sys.executable, "-m", "experiments.training_time.gpu", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "- scale 1, N = 1, tf32: no time left" in (tmp_path / "gpu.md").read_text()


def test_every_scale_is_measured_and_both_ends_first():
    jobs = most_telling_first(["tf32", "bf16", "highest"], 10, [1, 4, 16, 64])
    assert jobs[:3] == [("tf32", 9, 16), ("tf32", 0, 16), ("tf32", 5, 16)]
    assert {scale for precision, scale, images in jobs[:16] if (precision, images) == ("tf32", 16)} == set(range(10))
    assert len(set(jobs)) == len(jobs) == 3 * 10 * 4
    assert most_telling_first(["tf32"], 1, [2]) == [("tf32", 0, 2)]
