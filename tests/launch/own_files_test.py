"""Files of users import from this project: what they import is kept wherever it moves to."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "tests" / "data" / "own_files"


def test_a_config_and_a_sweep_of_before_are_planned(tmp_path):
    command = [sys.executable, "-m", "launch.sweep", f"--config={OWN / 'config.py'}", f"--sweep={OWN / 'sweep.py'}"]
    command += [f"--workdir={tmp_path}", "--dry_run"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "6 runs" in result.stdout


def test_the_names_that_scripts_import_are_there():
    import singan
    from launch.configs import default_config, load_config

    assert callable(singan.load_run)
    assert callable(default_config)
    assert callable(load_config)
