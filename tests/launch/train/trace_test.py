"""launch.train --profile and --plan on a tiny run."""

import pathlib

import pytest
from absl.testing import flagsaver

from launch.train.trace import check
from singan.errors import UserError
from singan.parallel import trace
from tests.launch.train.train_test import SCALES, Commands


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory)


@pytest.mark.processes
@pytest.mark.slow
def test_a_profile_has_a_trace_of_each_scale_and_tells_the_longest_operations(commands, tmp_path):
    workdir = tmp_path / "run"
    result = commands.train(workdir, "--profile")
    assert result.returncode == 0, result.stderr
    for scale in range(SCALES):
        rows = trace.operations(workdir / "profile" / f"{scale:02d}")
        assert rows
        assert rows[0].name in result.stdout
        assert [row.seconds for row in rows] == sorted((row.seconds for row in rows), reverse=True)
        assert not any(row.name.startswith("while") for row in rows)
        assert f"scale {scale}: the longest operations" in result.stdout


def test_a_folder_without_a_trace_has_no_operations(tmp_path):
    assert trace.operations(tmp_path) == []


def test_the_table_has_the_longest_and_their_share():
    rows = [trace.Operation("convolution.1", 0.03, 2), trace.Operation("fusion", 0.01, 40)]
    lines = trace.table(rows, 1).splitlines()
    assert len(lines) == 2
    assert lines[1].split() == ["30.00", "75.0%", "2", "convolution.1"]


def test_a_profile_into_a_bucket_is_refused(tmp_path):
    bucket = pathlib.PurePosixPath("gs://bucket/run")
    with flagsaver.as_parsed(profile="false"):
        check(bucket)
    with flagsaver.as_parsed(profile="true"):
        check(tmp_path)
        with pytest.raises(UserError, match="--profile writes into a folder of this machine"):
            check(bucket)
