"""python -m launch.aot: the names of slices, what a table holds, what bad flags get, and a TPU program itself."""

import json
import os
import re
import subprocess
import sys

import pytest

from launch.sweep.backends.accelerators import find_accelerator
from singan.errors import UserError
from singan.parallel.tpu_topologies import TOPOLOGIES, devices_of, find_topology
from tests.launch.train.train_test import ROOT, Commands, assert_refused

TINY = ["--height=20", "--width=20", "--channels=2"]


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


@pytest.mark.parametrize(
    ("name", "grid", "chips"),
    [
        ("v5e-1", "v5e:1x1", 1),
        ("v5e-4", "v5e:2x2", 4),
        ("v5e-8", "v5e:2x4", 8),
        ("v5e-16", "v5e:4x4", 16),
        ("v5litepod-8", "v5e:2x4", 8),
        ("tpu-v5litepod-256", "v5e:16x16", 256),
        ("v6e-8", "v6e:2x4", 8),
        ("v4-8", "v4:2x2x1", 4),
        ("v4-32", "v4:2x2x4", 16),
        ("v5p-8", "v5p:2x2x1", 4),
    ],
)
def test_slices_are_named_as_in_the_cloud(name, grid, chips):
    topology = find_topology(name)
    assert (topology.jax_name, topology.chips) == (grid, chips)


def test_every_slice_can_also_be_rented_under_its_name():
    assert all(find_accelerator(name).gcloud for name in TOPOLOGIES)


@pytest.mark.parametrize(("name", "hint"), [("v5e-9", "v5e-"), ("v6-8", "'v6e-8'"), ("5e-8", "'v5e-8'"), ("", "here")])
def test_a_slice_that_there_is_not_is_refused_and_the_nearest_named(name, hint):
    with pytest.raises(UserError, match=f"there is no TPU topology '{name}'.*{hint}"):
        find_topology(name)


@pytest.mark.processes
def test_the_table_of_this_machine(commands, tmp_path, monkeypatch):
    # Where libtpu is installed JAX loads it to look for a TPU, and it writes to stderr that it finds none.
    monkeypatch.setitem(commands.environment, "JAX_PLATFORMS", "cpu")
    out = tmp_path / "aot.json"
    small = ["--config.train.critic_updates=1", "--config.train.generator_updates=1", "--config.network.num_layers=2"]
    flags = [f"--config={commands.config}", "--topology=here", "--images=3", "--scales=1", f"--out={out}"]
    result = commands.run("aot", *flags, *small, *TINY)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(map(len, lines[:-1])) <= 110  # the last one names the file
    assert re.match(r"3 images of 20x20x2 on 1 x cpu \(here\), precision highest, form direct$", lines[0])
    cells = lines[3].split()
    assert cells[:5] == ["1", "16x16", "4", "3", "1"]
    assert "collectives: 0" in lines[-2]
    assert lines[-1] == f"wrote {out}"
    content = json.loads(out.read_text())
    assert {"time", "git_commit", "host", "versions", "devices"} <= set(content)
    (row,) = content["scales"]
    assert row["collectives"] == 0
    assert row["most"] is None
    assert row["flops"] / row["asked_flops"] == pytest.approx(float(cells[12].removeprefix("x")), abs=0.01)


@pytest.mark.processes
@pytest.mark.slow
def test_what_cannot_be_planned_is_refused(commands):
    config = f"--config={commands.config}"
    assert_refused(commands.run("aot", config, "--topology=here", "--scales=0,2", *TINY), "no scale '2'", "0 to 1")
    assert_refused(commands.run("aot", config, "--topology=v5-8", *TINY), "no TPU topology 'v5-8'", "v5p-8")
    assert_refused(commands.run("aot", config, "--height=9", "--width=16"), "9x16", "too small")


def test_a_missing_compiler_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)  # as Python marks what cannot be imported
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(UserError, match=r"needs its compiler, libtpu: pip install .*tpu-aot"):
        devices_of(find_topology("v5e-8"))


TABLE = """
import json
from singan.parallel.cohort import image_mesh
from singan.config import parse
from singan.model.convolution import conv_impl_for
from singan.parallel.costs import scale_cost
from singan.model.pyramid import make_pyramid
from singan.model.spec import make_spec
from singan.parallel.tpu_topologies import devices_of, find_topology

train = {"critic_updates": 1, "generator_updates": 1, "steps_per_scale": 10, "chunk": 2, "precision": "bf16"}
pyramid = {"min_size": 24, "max_size": 32}
config = parse({"pyramid": pyramid, "network": {"width": 32, "num_layers": 2}, "train": train})
spec = make_spec(config, make_pyramid(32, 32, config.pyramid), 2, conv_impl_for("tpu"))
mesh = image_mesh(devices_of(find_topology("v5e-8")))
for images in (64, 128):
    cost = scale_cost(spec, mesh, images)
    print(json.dumps({"group": cost.group, "memory": cost.memory.temporary + cost.memory.arguments, "most": cost.most,
                      "collectives": cost.collectives, "flops": cost.flops, "asked": cost.asked_flops}))
"""


@pytest.mark.tpu_aot
@pytest.mark.processes
@pytest.mark.slow
def test_a_tpu_program_has_no_collectives_and_memory_linear_in_images():
    pytest.importorskip("libtpu")
    # In a process of its own: libtpu leaves its signal handlers in whatever loads it.
    command = [sys.executable, "-c", TABLE]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    few, many = map(json.loads, result.stdout.splitlines())
    assert (few["group"], many["group"]) == (8, 16)  # all images of a chip at once
    assert few["collectives"] == many["collectives"] == 0
    assert many["memory"] / few["memory"] == pytest.approx(2, rel=0.15)
    assert few["most"] == pytest.approx(many["most"], rel=0.15)
    for cost in (few, many):
        # XLA counts the elementwise operations too, which are a third of so small a network's. What is ruled out is
        # that the images' products are made as one of all of them, which would be 8 and 16 times what was asked.
        assert 0.8 < cost["flops"] / cost["asked"] < 2
