"""The snippet of docs/what_survives.md that reads a checkpoint with Orbax and NumPy alone."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from singan.storage.checkpoints import ScaleCheckpoints
from singan.storage.stored_checkpoints import newest_whole

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/what_survives.md"
SCALE = "runs/quickstart/scales/00"
SAVE = """
assert "singan" not in sys.modules
np.savez("read.npz", **{f"{image}:{name}": array for image, read in weights.items() for name, array in read.items()})
"""


def read_as_the_page_says(folder: Path) -> dict[str, np.ndarray]:
    """Runs the page's code in a folder with a run; returns its arrays by 'image:name'."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    command = [sys.executable, "-I", "-c", f"import sys\n{code}{SAVE}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "read.npz") as read:
        return dict(read)


def write_as_now(scale: Path) -> None:
    tree = {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "nested": {"count": np.array([7, 9], np.int32)}}
    with ScaleCheckpoints(scale / "checkpoints", warn=pytest.fail) as checkpoints:
        checkpoints.save(5, tree, ("left", "right"), {"kind": "test"})
        checkpoints.save(10, {**tree, "kernel": tree["kernel"] + 1}, ("left", "right"), {"kind": "test"})


def copy_of_an_older_version(scale: Path) -> None:
    shutil.copytree(ROOT / "tests/data/format_1/scales/00", scale)


@pytest.mark.processes
@pytest.mark.parametrize("make", [write_as_now, copy_of_an_older_version])
def test_plain_orbax_reads_what_a_run_saved(tmp_path, make):
    make(tmp_path / SCALE)
    found = newest_whole(tmp_path / SCALE / "checkpoints", pytest.fail)
    assert found
    _, arrays, about = found
    read = read_as_the_page_says(tmp_path)
    assert set(read) == {f"{image}:{name}" for image in ("left", "right") for name in arrays}
    for row, image in enumerate(about["images"]):
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[f"{image}:{name}"], array[row])
            assert read[f"{image}:{name}"].dtype == array.dtype
