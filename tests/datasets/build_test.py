"""The command: exit codes, one clear line, nothing half-written, and the same data set from every packing."""

import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import pytest
import tensorflow_datasets as tfds

from datasets import build as command
from datasets import prepared, streaming
from datasets.brats import make_dummy_data as brats
from datasets.pannuke import make_dummy_data as pannuke

ROOT = pathlib.Path(command.__file__).parents[1]


@pytest.fixture
def download(tmp_path):
    """A small BraTS 2021 download."""
    brats.write_layout(tmp_path / "in", "2021")
    return tmp_path / "in"


def _run(capsys, *arguments):
    code = command.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def _files(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_summary(capsys, download, tmp_path):
    code, out, err = _run(capsys, "brats", f"--manual_dir={download}", f"--data_dir={tmp_path / 'out'}")
    assert code == 0
    assert "brats/slices/1.0.0" in out
    assert "train" in out
    assert "20 examples" in out
    assert "left out: 4 empty slices" in out
    assert "skipped: none" in out
    assert "2 of 2 patients" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give one data set"),
        (["brats"], "--manual_dir"),
        (["brats", "pannuke", "--manual_dir=x"], "give one data set"),
        (["cats", "--manual_dir=x"], "no data set is called 'cats': give one of brats, pannuke"),
        (["brats", "--manual_dir=nowhere"], "nowhere does not exist"),
        (["brats", "--manual_dir=.", "--config=slice"], "give one of slices, volumes"),
        (["pannuke", "--manual_dir=.", "--config=slices"], "it has none"),
        (["brats", "--manual=x"], "manual"),
        (["brats", "--manual_dir=.", "--skip_bad=perhaps"], "perhaps"),
    ],
)
def test_user_errors_are_one_line_and_exit_2(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    code, out, err = _run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert not (tmp_path / "data").exists()


def test_help(capsys):
    code, out, _ = _run(capsys, "--help")
    assert code == 0
    assert "--manual_dir" in out
    assert "Exit codes" in out


def test_building_again_does_nothing_and_other_files_are_refused(capsys, download, tmp_path):
    arguments = ("brats", f"--manual_dir={download}", f"--data_dir={tmp_path / 'out'}")
    assert _run(capsys, *arguments)[0] == 0
    before = _files(tmp_path / "out")
    code, out, _ = _run(capsys, *arguments)
    assert code == 0
    assert "already built" in out
    assert _files(tmp_path / "out") == before
    shutil.rmtree(download / "BraTS2021_00002")
    code, _, err = _run(capsys, *arguments)
    assert code == 2
    assert "was built from other files" in err
    assert _files(tmp_path / "out") == before
    code, out, _ = _run(capsys, *arguments, "--overwrite")
    assert code == 0
    assert "10 examples" in out
    assert not list((tmp_path / "out").rglob(".previous*"))


def test_a_failed_overwrite_keeps_the_old_data_set(capsys, download, tmp_path):
    arguments = ("brats", f"--manual_dir={download}", f"--data_dir={tmp_path / 'out'}")
    assert _run(capsys, *arguments)[0] == 0
    before = _files(tmp_path / "out")
    (download / "BraTS2021_00002" / "BraTS2021_00002_t1.nii.gz").write_bytes(b"x")
    assert _run(capsys, *arguments, "--overwrite")[0] == 2
    assert _files(tmp_path / "out") == before


def test_two_builds_are_equal_to_the_byte(download, tmp_path):
    for out in ("a", "b"):
        command.build("brats", download, data_dir=tmp_path / out)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


@pytest.mark.parametrize("packing", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("name", ["brats", "pannuke"])
def test_an_archive_gives_what_its_folder_gives(tmp_path, name, packing):
    if name == "brats":
        brats.write_layout(tmp_path / "in", "2018")
    else:
        pannuke.write_folds(tmp_path / "in", count=2, size=32)
    (tmp_path / "packed").mkdir()
    shutil.make_archive(str(tmp_path / "packed" / "fold_data"), packing, tmp_path / "in")
    unpacked, _ = command.build(name, tmp_path / "in", data_dir=tmp_path / "a")
    packed, _ = command.build(name, tmp_path / "packed", data_dir=tmp_path / "b")
    assert _files(unpacked) == _files(packed)
    assert not list((tmp_path / "b").rglob(".unpacked*"))


def test_shards_are_read_in_order(download, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "SHARD_BYTES", 20_000)
    folder, _ = command.build("brats", download, data_dir=tmp_path / "out")
    builder: Any = tfds.builder_from_directory(folder)
    assert builder.info.splits["train"].num_shards > 2
    ids = [record["id"].decode() for record in builder.as_data_source("train")]
    assert ids == prepared.metadata(folder)["index"]["train"]["id"] == sorted(ids)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("write() failed: No space left on device")]
)
def test_disk_full(capsys, download, tmp_path, monkeypatch, error):
    class Full:
        def __init__(self, path, options):
            pathlib.Path(path).touch()

        def write(self, record):
            raise error

        def close(self):
            pass

    monkeypatch.setattr(streaming, "ArrayRecordWriter", Full)
    code, out, err = _run(capsys, "brats", f"--manual_dir={download}", f"--data_dir={tmp_path / 'out'}")
    assert code == 2
    assert out == ""
    assert "the disk is full" in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_second_build_waits_its_turn(capsys, download, tmp_path):
    with prepared.only_builder(tmp_path / "out", "brats"):
        code, _, err = _run(capsys, "brats", f"--manual_dir={download}", f"--data_dir={tmp_path / 'out'}")
    assert code == 2
    assert "another build of brats is at work" in err


def test_an_interrupted_replacement_is_undone(tmp_path):
    folder = tmp_path / "1.0.0"
    folder.mkdir()
    (folder / "old").touch()
    folder.rename(tmp_path / ".previous_1.0.0")  # as a killed --overwrite leaves it
    prepared.recover(folder)
    assert (folder / "old").exists()


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("read", ["closed", "first line", "full disk"])
def test_a_build_that_nobody_listens_to_is_done(download, tmp_path, read):
    command = f"{sys.executable} -m datasets.build brats --manual_dir={download} --data_dir={tmp_path / 'out'}"
    listeners = {"closed": "2>&1 | true", "first line": "2>&1 | head -1", "full disk": "> /dev/full"}
    line = f"{command} {listeners[read]}; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines()[-1] == ("1" if read == "full disk" else "0")  # a summary that is lost is told
    said = "error: what was printed is not whole: No space left on device\n"
    assert result.stderr.endswith(said) if read == "full disk" else result.stderr == ""
    (folder,) = (tmp_path / "out").glob("brats/slices/*")
    assert tfds.builder_from_directory(folder).info.splits["train"].num_examples == 20


@pytest.mark.processes
@pytest.mark.slow
def test_a_killed_build_leaves_nothing_that_reads_as_whole(tmp_path):
    for number in range(30):
        name = f"BraTS2021_{number:05d}"
        brats.write_patient(tmp_path / "in" / name, name, brats.volumes(number, (1, 2), shape=(64, 64, 40)))
    out = tmp_path / "out"
    arguments = [sys.executable, "-m", "datasets.build", "brats"]
    arguments += [f"--manual_dir={tmp_path / 'in'}", f"--data_dir={out}"]
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("brats/slices/incomplete.*/*.shard*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = list(out.glob("brats/slices/*"))
    assert [folder.name.split(".")[0] for folder in left] == ["incomplete"]
    with pytest.raises(Exception, match="dataset_info"):
        tfds.builder_from_directory(left[0])
    folder, built = command.build("brats", tmp_path / "in", data_dir=out)
    assert built
    assert list(out.glob("brats/slices/*")) == [folder]
    assert tfds.builder_from_directory(folder).info.splits["train"].num_examples == 30 * 34


@pytest.mark.shared
def test_real_images_where_they_are():
    shared = ROOT.parent / "shared" / "data"
    if not shared.exists():
        pytest.skip("no real images beside the repository")
    with tempfile.TemporaryDirectory() as out:
        folder, _ = command.build("brats", shared / "brats_like", data_dir=out)
        builder: Any = tfds.builder_from_directory(folder)
        source = builder.as_data_source("train")
        assert len(source) == 131
        start = time.monotonic()
        assert len([source[index] for index in range(64)]) == 64
        assert time.monotonic() - start < 2
        folder, _ = command.build("pannuke", shared / "pannuke_like", data_dir=out)
        builder = tfds.builder_from_directory(folder)
        records = list(builder.as_data_source("fold1"))
        assert [record["num_nuclei"] for record in records] == [29, 49, 28, 44, 24, 12]
