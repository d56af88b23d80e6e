"""The script for accelerators: what it needs, in which order it measures, and what it makes of that."""

import subprocess
import sys

import pytest

from experiments.training_time.gpu_report import markdown, whole_image
from experiments.training_time.waves import Job, image_plan, waves_of
from tests.launch.train.train_test import ROOT

BLOCKED = """
import sys
for name in ("ml_collections", "wandb", "tensorflow_datasets", "orbax", "scipy", "skimage", "PIL", "torch"):
    sys.modules[name] = None
import experiments.training_time.gpu
print(*sorted(name for name in sys.modules if name.startswith("launch")))
"""


@pytest.mark.processes
def test_the_script_needs_jax_flax_optax_and_numpy_alone():
    result = subprocess.run([sys.executable, "-c", BLOCKED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def test_every_scale_is_measured_and_both_ends_first():
    waves = waves_of(10, [1, 4, 16, 64])
    jobs = [job for wave in waves for job in wave if job.kind == "steps"]
    assert [job.scale for job in jobs[:5:2]] == [9, 0, 5]
    assert {job.scale for job in jobs if (job.images, job.precision) == (16, "tf32")} == set(range(10))
    assert {job.images for job in jobs if job.scale == 9} == {1, 4, 16, 64}
    assert {job.precision for job in jobs if job.scale == 0} == {"tf32", "bf16", "highest"}
    assert [job.scale for job in waves[0]] == list(range(10))
    assert {job.kind for job in waves[0]} == {"peer"}
    assert Job(9, images=16, form="packed") in jobs


def test_a_cohort_is_split_into_even_groups_that_fit():
    assert image_plan(64, None, 100) == (64, 64)
    assert image_plan(64, 10.0, None) == (64, 64)
    assert image_plan(64, 10.0, 250) == (22, 66)
    assert image_plan(4, 10.0, 1000) == (4, 4)


@pytest.fixture
def results():
    def row(scale, side, ms, images):
        return {
            "scale": scale,
            "height": side,
            "width": side,
            "features": 32,
            "form": "gathered",
            "images": images,
            "group": images,
            "precision": "tf32",
            "ms_per_step_and_image": ms,
            "compile_seconds": 1.0,
            "memory_bytes": 2**20,
            "asked_flops_per_image": 1e9,
            "flops_per_second": 1e12,
            "share_of_matmul": 0.5,
        }

    return {
        "machine": dict.fromkeys(("device", "time", "git_commit", "jax", "python", "host_cores", "command"), "x"),
        "size": [40, 40, 3],
        "steps_per_scale": 1000,
        "scales": [[10, 10], [20, 20], [40, 40]],
        "checks": [{"passed": True, "text": "fine"}],
        "rates": {"tf32": 2e12, "bf16": 4e12},
        "copy_rate": 1e9,
        "forms": [],
        "steps": [row(0, 10, 5.0, 1), row(0, 10, 2.0, 8), row(2, 40, 16.0, 8)],
        "peer": [{"scale": 0, "ms_per_step_and_image": 20.0}],
        "profiles": [],
        "left_out": ["scale 1: no time left"],
    }


def test_a_whole_image_takes_its_best_cohorts_and_says_what_was_not_measured(results):
    # Scale 1 has four times scale 0's pixels: 8 ms. Best at scale 0 is 2 ms.
    assert whole_image(results, "tf32") == (pytest.approx(2.0 + 8.0 + 16.0), [1])
    assert whole_image(results, "bf16") is None


def test_the_page_has_the_ratio_and_what_was_left_out(results):
    page = markdown(results)
    (line,) = [line for line in page.splitlines() if "| 2.000 |" in line]
    assert "| 20.00 | 10.0 |" in line  # PyTorch's milliseconds, and how many times as long that is
    assert "scales [1] from their neighbours" in page
    assert "- scale 1: no time left" in page
