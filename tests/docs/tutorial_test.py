"""The tutorial's notebook runs from top to bottom, as readers run it but for fewer steps, and shows what it says."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs/tutorial.ipynb"
STEPS = "train.steps_per_scale=100"  # for readers without a GPU; they are what takes the time


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert [
        cell.id for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)
    ] == []


@pytest.mark.processes
@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # what jupyter_core would otherwise warn of
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # no profile of whoever runs the tests
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for train in (cell for cell in notebook.cells if STEPS in cell.source):
        train.source = train.source.replace(STEPS, "train.steps_per_scale=20")
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "error:" not in printed
    for line in ("scale 2 done: ", "8 samples, 44x44 pixels, of each of 2 image(s)", "diversity", "step 200: loss 0."):
        assert line in printed
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert shown.count("image/png") == 8  # images 2, grids of training 1 and samples 2, wide samples 2, pairs 1
    assert shown.count("text/markdown") == 1  # the data card
    work = tmp_path / "runs/tutorial"
    assert sorted(path.name for path in (work / "run/images").iterdir()) == ["gland.npy", "stroma.npy"]
    assert len(list((work / "samples/start_01").glob("stroma_0*.png"))) == 8
    assert (work / "run/evaluation.json").is_file()
