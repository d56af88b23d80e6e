"""The wheel: one package, beside other people's `datasets`, whose command does what the clone's does."""

import ast
import importlib.util
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests import pythons

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("setup_file", ROOT / "setup.py")
assert spec
assert spec.loader
setup_file = importlib.util.module_from_spec(spec)
spec.loader.exec_module(setup_file)
FOLDERS = setup_file.FOLDERS
FILES = [path for folder in (*FOLDERS, "medisingan") for path in sorted((ROOT / folder).rglob("*.py"))]
TINY = ["--config.data.num_crops=1", "--config.train.steps_per_scale=2", "--config.train.chunk=1"]
TINY += ["--config.pyramid.max_size=26", "--config.pyramid.num_scales=2", "--config.tracking.wandb=off"]


def test_modules_are_renamed_and_files_are_not():
    source = (
        "from launch.train import a\nfrom singan import b\n"
        'command = ["-m", "launch.train", f"datasets.{name}"]  # as launch.train\n'
        'path = "experiments/quickstart/config.py"\nroot = "runs/singan.png"; own.launch.train; launch = 1\n'
    )
    assert setup_file.in_one_package(source) == (
        "from medisingan.launch.train import a\nfrom medisingan.singan import b\n"
        'command = ["-m", "medisingan.launch.train", f"medisingan.datasets.{name}"]  # as medisingan.launch.train\n'
        'path = "experiments/quickstart/config.py"\nroot = "runs/singan.png"; own.launch.train; launch = 1\n'
    )


@pytest.mark.parametrize("folder", [*FOLDERS, "medisingan"])
def test_no_module_of_the_wheel_asks_for_a_folder_of_the_clone(folder):
    left = []
    for path in (path for path in FILES if path.relative_to(ROOT).parts[0] == folder):
        for node in ast.walk(ast.parse(setup_file.in_one_package(path.read_text(encoding="utf-8")))):
            named = [node.module] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            # Strings that are a folder or a module of one, such as what importlib is given.
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "/" not in node.value:
                named += [node.value] if node.value.split(".")[0] in FOLDERS and "." in node.value else []
            left += [f"{path.name}: {name}" for name in named if name and name.split(".")[0] in FOLDERS]
    assert left == []


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        list(command), cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False, timeout=600
    )


def done(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = run(*command, cwd=cwd, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder of commands of a new environment with the wheel and Hugging Face's datasets."""
    root = tmp_path_factory.mktemp("installed")
    python = next(filter(None, map(pythons.find, pythons.VERSIONS)))
    done(python, "-m", "venv", root / "venv", cwd=root)
    pip = [root / "venv/bin/python", "-m", "pip", "--disable-pip-version-check"]
    source = root / "source"  # a build leaves folders behind
    for folder in (*FOLDERS, "medisingan"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    built = run(*pip, "wheel", "--quiet", "--no-deps", f"--wheel-dir={root}", source, cwd=root)
    if "No matching distribution found for setuptools" in built.stderr:
        pytest.skip("the package index cannot be reached")
    assert built.returncode == 0, built.stderr
    (wheel,) = root.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"medisingan", f"{wheel.name.split('-py3')[0]}.dist-info"}
    for file in ("datasets/pannuke/README.md", "launch/report/report.html", "experiments/quickstart/config.py"):
        assert f"medisingan/{file}" in names
    constraints = ["--constraint", ROOT / "constraints.txt"]
    done(*pip, "install", "--quiet", "--no-compile", *constraints, wheel, cwd=root)
    other = run(*pip, "install", "--quiet", "--no-compile", *constraints, "datasets", cwd=root)
    if other.returncode:
        assert "No matching distribution found for datasets" in other.stderr, other.stderr
    return root / "venv/bin"


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.processes
def test_quickstart_runs_outside_the_repository(installed, tmp_path):
    medisingan, python = installed / "medisingan", installed / "python"
    assert done(medisingan, "--version", cwd=tmp_path) == "medisingan 0.1.0\n"
    helped = done(medisingan, "--help", cwd=tmp_path)
    assert "quickstart" in helped
    assert "pyramid.max_size=250" in helped
    done(medisingan, "train", "--config=quickstart", *TINY, "--workdir=run", cwd=tmp_path)
    done(medisingan, "sample", "--workdir=run", "--num_samples=1", "--out=samples", cwd=tmp_path)
    done(medisingan, "evaluate", "--workdir=run", "--num_samples=2", cwd=tmp_path)
    assert (tmp_path / "run/report.html").is_file()
    assert (tmp_path / "run/evaluation.json").is_file()
    api = "import medisingan; print(len(medisingan.load_run('run').sample(1)))"
    assert done(python, "-c", api, cwd=tmp_path) == "1\n"
    # A study's variant by name, and a sweep by name, whose runs are processes of the wheel.
    refused = run(medisingan, "train", "--config=multimodal_mri:smal", "--workdir=other", cwd=tmp_path)
    assert (refused.returncode, "there is no variant 'smal'" in refused.stderr) == (2, True)
    sweep = ["--config=quickstart", "--sweep=quickstart", "--workdir=sweep", "--only=base", "--"]
    sweep += [flag for flag in TINY if "num_scales" not in flag]  # it would overrule the ratio that the sweep varies
    done(medisingan, "sweep", *sweep, cwd=tmp_path)
    assert (tmp_path / "sweep/base/scales/00/DONE").is_file()


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.processes
def test_data_sets_are_built_beside_hugging_faces_datasets(installed, tmp_path):
    python = installed / "python"
    done(python, "-m", "medisingan.datasets.pannuke.make_dummy_data", "--out=dummy", cwd=tmp_path)
    done(installed / "medisingan", "build-dataset", "pannuke", "--manual_dir=dummy", "--data_dir=data", cwd=tmp_path)
    assert list(tmp_path.glob("data/pannuke/*/dataset_info.json"))
    if run(python, "-c", "import pyarrow", cwd=tmp_path).returncode:
        assert run(python, "-c", "import datasets", cwd=tmp_path).returncode  # the index has none, and neither have we
        pytest.skip("the package index has no datasets")
    command = "import datasets; print(datasets.Dataset.from_dict({'a': [1, 2]})['a'][1])"
    assert done(python, "-c", command, cwd=tmp_path) == "2\n"
