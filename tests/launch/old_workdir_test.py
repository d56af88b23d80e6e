"""A workdir of format 1 that an earlier version left (tests/data/format_1, stopped in its second scale) is read."""

import json
import shutil

import jaxlib
import pytest

from singan.errors import UserError
from singan.storage import workdir as records
from singan.storage.workdir import FORMAT, Workdir
from tests.launch.train.train_test import ROOT, SCALES, STEPS, Commands, assert_refused, rows

OLD = ROOT / "tests/data/format_1"
WRITTEN_WITH = "0.10.2"  # jaxlib: another goes on with other bits, and says so


@pytest.fixture
def old(tmp_path):
    shutil.copytree(OLD, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.processes
def test_it_is_sampled_and_trained_to_its_end(tmp_path_factory, tmp_path, old):
    commands = Commands(tmp_path_factory)
    result = commands.run("sample", f"--workdir={old}", f"--out={tmp_path / 'out'}", "--num_samples=1")
    assert (result.returncode, "warning" in result.stderr) == (0, False), result.stderr
    assert len(list((tmp_path / "out/start_00").glob("*_0000.png"))) == 2
    before = (old / "scales/00/DONE").read_text()
    assert_refused(commands.train(old), "preset: 'corrected' -> 'tuned'", "--config.preset=corrected")
    result = commands.train(old, "--config.preset=corrected")
    assert result.returncode == 0, result.stderr
    first, *others = result.stderr.splitlines()
    if jaxlib.__version__ != WRITTEN_WITH:
        assert first.startswith(f"note: since the last start jaxlib {WRITTEN_WITH}, now {jaxlib.__version__}: "), first
        first = others[0]
    assert first == f"resuming after {STEPS + 45} steps", result.stderr
    assert "warning" not in result.stderr
    assert (old / "scales/00/DONE").read_text() == before
    assert [line.split()[0] for line in (old / "scales/01/DONE").read_text().splitlines()] == ["left", "right"]
    told = [(row["global_step"], *sorted(row)) for row in rows(old)]
    assert len(set(told)) == len(told) == len(rows(commands.finished_run()))
    assert json.loads((old / "run.json").read_text())["status"] == "finished"
    assert len(list(old.glob("scales/*/DONE"))) == SCALES


@pytest.mark.parametrize("name", ["config.json", "images.json", "run.json"])
def test_a_newer_format_is_refused_saying_what_to_do(old, name):
    content = json.loads((old / name).read_text())
    (old / name).write_text(json.dumps({**content, "format": FORMAT + 1}))
    read = {"config.json": records.read_config, "images.json": records.read_images, "run.json": records.read_run}[name]
    with pytest.raises(UserError, match=rf"{name} has format {FORMAT + 1}, .* reads up to {FORMAT}: use the version"):
        read(Workdir(old))


@pytest.mark.processes
@pytest.mark.slow
def test_a_newer_workdir_is_refused_by_the_commands_and_left_alone(tmp_path_factory, old):
    content = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({**content, "format": FORMAT + 1, "new_key": 1}))
    before = (old / "config.json").read_bytes()
    assert_refused(Commands(tmp_path_factory).train(old), f"has format {FORMAT + 1}")
    assert (old / "config.json").read_bytes() == before


@pytest.mark.parametrize("written", [None, 0, "1", True])
def test_a_file_without_a_format_is_damaged(old, written):
    content = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({**content, "format": written}))
    with pytest.raises(UserError, match=r"config\.json is damaged: .*format"):
        records.read_config(Workdir(old))
