"""The benchmark: what it writes, and what its report makes of measurements."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from experiments.training_time import device_scaling, report
from tests.launch.train.train_test import ROOT


@pytest.mark.processes
@pytest.mark.slow
def test_a_run_writes_every_table(tmp_path):
    arguments = ["--tiny", "--size=30", "--cohorts=2", "--seconds=0.01", "--notorch", "--devices"]
    command = [sys.executable, "-m", "experiments.training_time.bench", *arguments, f"--out={tmp_path}/new/bench"]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["bench.json", "bench.md", "bench.png"]
    written = ", ".join(f"{tmp_path}/new/bench.{ending}" for ending in ("json", "md", "png"))
    assert done.stdout.splitlines()[-1] == f"wrote {written}"
    results = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert [(row["scale"], row["images"]) for row in results["steps"]] == [(0, 2), (1, 2)]
    for row in results["steps"]:
        assert row["warm_compile_seconds"] > 0  # None where the cache was not read
        assert row["share_of_matmul"] == pytest.approx(row["flops_per_second"] / row["matmul_rate"])
        assert row["bytes_per_image"] > 4 * row["height"] * row["width"] * 3
    assert [row["devices"] for row in results["devices"]] == [1, 2]
    assert results["devices"][0]["efficiency"] == 1
    page = (tmp_path / "new" / "bench.md").read_text()
    assert device_scaling.DEMONSTRATION in page
    assert "python -m experiments.training_time.bench --tiny" in page
    assert "PyTorch / this project" not in page


@pytest.mark.processes
def test_a_wrong_size_is_one_line():
    command = [sys.executable, "-m", "experiments.training_time.bench", "--size=128x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--size=128x must be" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_devices_are_doubled_up_to_all_of_them():
    assert device_scaling.device_counts(1) == [1]
    assert device_scaling.device_counts(6) == [1, 2, 4, 6]
    assert device_scaling.device_counts(8) == [1, 2, 4, 8]


def _results(times, pytorch):
    """Results of scales of 20, 40 and 80 pixels: milliseconds of N = 1 and 8, and PyTorch's."""
    sides = (20, 40, 80)
    rows = [
        {
            "scale": scale,
            "height": side,
            "width": side - 5,
            "features": 32,
            "precision": "highest",
            "images": images,
            "group": 1,
            "ms_per_step_and_image": ms,
            "steps": 2000,
            "pytorch_ms": peer,
            "ratio": peer and peer / ms,
            "compile_seconds": 8.0,
            "warm_compile_seconds": 1.0,
            "memory_bytes": images * 2**20,
            "asked_flops_per_image": 2e9,
            "bytes_per_image": 1e9,
            "flops_per_second": 2e12 / ms,
            "matmul_rate": 1e12,
            "share_of_matmul": 2 / ms,
        }
        for scale, (side, peer) in enumerate(zip(sides, pytorch, strict=True))
        for images, ms in zip((1, 8), times[scale], strict=True)
    ]
    names = ("time", "git_commit", "processor", "jax", "python", "host_cores", "command")
    return {
        "machine": {"device": "1 x cpu (cpu)", **dict.fromkeys(names, "x")},
        "torch": "torch x",
        "size": [80, 75, 3],
        "precision": "highest",
        "recipe": "full",
        "tiny": False,
        "steps_per_scale": 2000,
        "scales": [[side, side - 5] for side in sides],
        "cohorts": [1, 8],
        "copy_rate": 1e11,
        "steps": rows,
        "checks": [],
        "forms": [],
        "devices": [],
        "reference": None,
        "left_out": [],
    }


def test_targets_are_met_or_missed_by_the_geometric_means():
    results = _results([(10, 10), (20, 20), (100, 100)], [40, 40, 90])  # ratios 4, 2 and 0.9
    by_range = {(one["images"], one["pixels"]): one["mean"] for one in report.means(results)}
    assert by_range[1, None] == pytest.approx((4 * 2 * 0.9) ** (1 / 3))
    assert by_range[8, 33] == pytest.approx(4)
    assert by_range[8, 54] == pytest.approx(8**0.5)
    assert [one["met"] for one in report.targets(results)] == [False, False, True, True]
    text = report.summary(results)
    assert "target MISSED: N = 1, every scale faster than PyTorch: the least ratio is 0.90" in text
    assert "target met: N = 8, scales up to 33 px, geometric mean of at least 3.5: it is 4.00" in text


def test_no_target_is_judged_before_every_scale_was_measured():
    results = _results([(10, 10), (20, 20), (30, 30)], [40, 80, 120])
    results["steps"] = results["steps"][:-1]
    assert report.targets(results) == []
    assert report.whole_training(results, 8)[-1]["training"] is None


def test_a_whole_training_is_its_steps_and_its_compilation():
    results = _results([(10, 10), (20, 20), (30, 30)], [40, 80, 120])
    *scales, total = report.whole_training(results, 8)
    assert [row["training"] for row in scales] == [pytest.approx(2 * 8 * ms) for ms in (10, 20, 30)]
    assert total["cold"] == pytest.approx(2 * 8 * 60 + 3 * 8)
    assert total["warm"] == pytest.approx(2 * 8 * 60 + 3 * 1)
    assert total["pytorch"] == pytest.approx(2 * 8 * 240)
    assert f"| all | 960 | 984 | 963 | 3840 | {3840 / 984:.2f} | {3840 / 963:.2f} |" in report.markdown(results)


def test_the_roof_is_memory_where_few_operations_are_made_with_a_byte():
    page = report.markdown(_results([(10, 10), (20, 20), (30, 30)], [None] * 3))
    # 2 FLOP a byte at 1e11 B/s are 200 GFLOP/s, below the matrix product's 1000; 2 GFLOP in 10 ms are 200 GFLOP/s.
    assert "| 0 | 1 | 2 | 1 | 2.0 | 1000 | 200 | 200 | 20% | 100% |" in page


def test_rows_are_told_with_and_without_pytorch():
    with_peer, without = (_results([(10, 10)] * 3, peer)["steps"][0] for peer in ([40] * 3, [None] * 3))
    assert "  40.0   4.00  " in report.line(with_peer)
    assert np.ptp([len(report.line(row)) for row in (with_peer, without)]) == 0
