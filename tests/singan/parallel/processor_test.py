"""What the bits of a result depend on besides its program."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from singan.parallel import processor

COUNT = """
import jax, pathlib
from singan.parallel import processor
jax.numpy.ones(3).sum().block_until_ready()
names = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
print(names.count("tf_XLAEigen"), processor.threads())
"""

SUM = """
import jax, numpy as np, sys
x = np.random.default_rng(0).normal(size=(51, 51, 32)).astype(np.float32)
sys.stdout.buffer.write(np.asarray(jax.jit(lambda x: x.mean((0, 1)))(x)).tobytes())
"""


def ran(code, monkeypatch, *prefix, **environment):
    with monkeypatch.context() as patch:
        for name in ("NPROC", "PJRT_NPROC"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        return subprocess.run([*prefix, sys.executable, "-c", code], capture_output=True, check=True).stdout


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux shows them")
@pytest.mark.parametrize(
    "environment",
    [{}, {"NPROC": "3"}, {"NPROC": "0"}, {"NPROC": "many"}, {"PJRT_NPROC": "4", "NPROC": "3"}],
    ids=lambda environment: " ".join(f"{k}={v}" for k, v in environment.items()) or "none",
)
@pytest.mark.slow
def test_the_threads_are_those_that_xla_has(monkeypatch, environment):
    has, told = ran(COUNT, monkeypatch, **environment).split()
    assert has == told


@pytest.mark.processes
@pytest.mark.slow
def test_a_sum_depends_on_the_threads_in_its_last_bits_alone(monkeypatch):
    one, two, again = (np.frombuffer(ran(SUM, monkeypatch, NPROC=n), np.float32) for n in ("1", "2", "2"))
    assert two.tobytes() == again.tobytes()
    if jax.__version__.startswith("0.10."):  # 0.12.0 gives the same
        assert one.tobytes() != two.tobytes(), "what docs/what_survives.md and this module say of threads may go"
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_only_what_differs_and_is_known_is_said():
    now = {"threads": 2, "processor": "A", "instructions": "avx avx2"}
    assert processor.about().keys() == now.keys()
    assert processor.about()["threads"] == processor.threads()
    assert processor.differences(now, now) == processor.differences({}, now) == []
    assert processor.differences({**now, "threads": 4}, now) == ["CPU threads 4, now 2 (NPROC=4 keeps them)"]
    assert processor.differences({**now, "processor": "B", "instructions": "avx"}, now) == ["processor B, now A"]
    assert processor.differences({**now, "instructions": "avx"}, now) == ["other vector instructions"]
