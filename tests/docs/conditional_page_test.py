"""The page on pairs: its programs run as they stand, on a small run, and the segmenters that they train learn."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.launch.train.train_test import Commands

PAGE = Path(__file__).resolve().parents[2] / "docs/conditional.md"
RUN = "runs/pairs"  # as the page calls it

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def program(library: str) -> str:
    """Returns the page's program that imports a library."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = (block for block in blocks if re.search(rf"^import {library}\b", block, re.MULTILINE))
    assert found.count(RUN) == 1
    return found


@pytest.fixture(scope="module")
def conditional_run(tmp_path_factory) -> Path:
    """A run of one image: dark discs on a light ground."""
    root = tmp_path_factory.mktemp("pairs")
    rows, columns = np.indices((24, 24))
    objects = np.zeros((24, 24), np.uint16)
    for label, (y, x) in enumerate(((5, 6), (8, 17), (17, 9)), start=1):
        objects[(rows - y) ** 2 + (columns - x) ** 2 <= 9] = label
    image = np.where(objects[..., None] > 0, (90, 60, 140), (230, 190, 220)).astype(np.uint8)
    for folder, pixels in (("images", image), ("masks", objects)):
        (root / folder).mkdir()
        Image.fromarray(pixels).save(root / folder / "discs.png")
    commands = Commands(tmp_path_factory)
    given = [f"--config.data.path={root}/images", f"--config.data.masks={root}/masks", "--config.data.condition=binary"]
    result = commands.run("train", f"--config={commands.config}", f"--workdir={root}/run", *given)
    assert result.returncode == 0, result.stderr
    return root / "run"


@pytest.mark.parametrize("library", ["flax.linen", "torch"])
def test_a_segmenter_trained_on_endless_pairs_learns(conditional_run, library):
    if importlib.util.find_spec(library.partition(".")[0]) is None:
        pytest.skip(f"{library} is not installed: it comes with the extra bench")
    names: dict = {}
    exec(compile(program(library).replace(RUN, str(conditional_run)), str(PAGE), "exec"), names)
    losses = names["losses"]
    assert len(losses) == 200
    assert np.isfinite(losses).all()
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])


def test_grain_reads_the_pairs_that_the_run_gives(conditional_run):
    names: dict = {}
    exec(compile(program("grain").replace(RUN, str(conditional_run)), str(PAGE), "exec"), names)
    first, second = names["first"], next(names["batches"])
    assert first["image"].shape == (16, 16, 16, 3)
    assert first["inside"].any()
    assert (first["image"] != second["image"]).any()
    same = names["PairSource"](str(conditional_run))[1]
    np.testing.assert_array_equal(same["image"], second["image"])
