"""What reading makes of checkpoints that are damaged, unreadable, of another Orbax, hostile, or none at all."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import orbax.checkpoint.experimental.v1 as other_orbax
import pytest
import tensorstore

from singan.errors import UserError
from singan.storage.checkpoint_files import FILES, seal
from singan.storage.checkpoints import ScaleCheckpoints, unflatten
from singan.storage.origin import Origin
from singan.storage.stored_checkpoints import Expected, newest_whole, steps
from tests.launch.train.train_test import ROOT
from tests.singan.storage.checkpoints_test import IDS, equal, flip, save, template, tree

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
OLD = ROOT / "tests/data/format_1/scales/01/checkpoints"


def expected(trained_from="", ids=IDS):
    return Expected(Origin(ids, trained_from), {"state": template()})


def read(directory, **changes):
    told = []
    return newest_whole(Path(directory), told.append, None, expected(**changes)), told


def snapshot(directory):
    """Everything below a directory: names, bytes and times."""
    return {
        path.relative_to(directory): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(Path(directory).rglob("*"))
    }


def refused_and_untouched(directory, match):
    """The training and readers alike refuse, and leave everything as it was."""
    before = snapshot(directory)
    with pytest.raises(UserError, match=match) as reading:
        read(directory)
    with ScaleCheckpoints(directory, pytest.fail) as checkpoints, pytest.raises(UserError, match=match):
        checkpoints.latest(None, expected())
    assert snapshot(directory) == before
    assert "\n" not in str(reading.value)


def unseal(directory):
    """Makes checkpoints those of an earlier version, which had no digests of their files."""
    for path in directory.glob(f"*/{FILES}"):
        path.unlink()


@pytest.mark.parametrize("sealed", [True, False])
def test_a_reader_passes_over_a_damaged_checkpoint_and_changes_nothing(tmp_path, sealed):
    save(tmp_path, [10, 20])
    for file in (tmp_path / "20").glob("arrays/**/d/*"):
        flip(file)
    if not sealed:
        unseal(tmp_path)
    before = snapshot(tmp_path)
    found, told = read(tmp_path)
    assert found is not None
    assert found[0] == 10
    equal(unflatten(template(), found[1]), tree(10))
    assert len(told) == 1
    assert told[0].startswith(f"checkpoint {tmp_path / '20'} is damaged and passed over: ")
    assert snapshot(tmp_path) == before


def test_the_training_keeps_the_last_damaged_checkpoint_under_another_name(tmp_path):
    save(tmp_path, [10, 20])
    for step in (20, 10):
        for file in (tmp_path / str(step)).glob("arrays/**/d/*"):
            flip(file)
        damaged = snapshot(tmp_path / str(step))
        told = []
        with ScaleCheckpoints(tmp_path, told.append) as checkpoints:
            found = checkpoints.latest(None, expected())
        assert (found is None) == (step == 10)
        assert told[0].endswith(f"; kept as {step}.damaged")
        assert [path.name for path in tmp_path.glob("*.damaged")] == [f"{step}.damaged"]
        assert snapshot(tmp_path / f"{step}.damaged") == damaged
    save(tmp_path, [20])
    assert read(tmp_path)[0][0] == 20


@pytest.fixture
def open_folder():
    """A folder that every user may look into, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "checkpoints"


@pytest.mark.parametrize("name", ["about/metadata", "arrays/_METADATA", "arrays/**/d/*", "arrays", "."])
def test_a_file_without_permission_is_no_damage(open_folder, name):
    save(open_folder, [10, 20])
    before = snapshot(open_folder)
    for path in [*(open_folder / "20").glob(name)] if name != "." else [open_folder / "20"]:
        path.chmod(0)
    root = os.geteuid() == 0  # which may read everything: so the test is another user while it reads
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(UserError, match=r"^cannot read .*/20\S*: Permission denied; nothing was changed"):
            read(open_folder)
    finally:
        if root:
            os.seteuid(0)
    for path in [open_folder / "20", *(open_folder / "20").rglob("*")]:
        path.chmod(0o755)
    assert snapshot(open_folder) == before


@pytest.mark.parametrize("name", ["about/metadata", "arrays/_METADATA", "arrays/manifest.ocdbt"])
@pytest.mark.parametrize("sealed", [True, False])
def test_an_error_of_the_disk_is_no_damage(tmp_path, name, sealed):
    """The kernel itself says EIO where the start of a process's memory is read as a file."""
    save(tmp_path, [10, 20])
    if not sealed:
        unseal(tmp_path)
    (tmp_path / "20" / name).unlink()
    (tmp_path / "20" / name).symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error"):
        (tmp_path / "20" / name).read_bytes()
    for act in (lambda: read(tmp_path), lambda: ScaleCheckpoints(tmp_path, pytest.fail).latest(None, expected())):
        with pytest.raises(UserError, match=r"^cannot read .*/20.*Input/output error.*; nothing was changed"):
            act()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "20"]


def test_an_error_that_passes_is_no_damage(tmp_path, monkeypatch):
    """An error that is gone when the files are looked at again; raised where Orbax would hand it on."""
    import orbax.checkpoint as ocp

    save(tmp_path, [10, 20])
    for error in (
        OSError(5, "Input/output error"),
        OSError(116, "Stale file handle"),
        TimeoutError("timed out"),
        ValueError("DEADLINE_EXCEEDED: Error opening"),
        ValueError("UNAVAILABLE: Error reading [os_error_code='5']"),
    ):

        def fail(*_, error=error, **__):
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(ocp.PyTreeCheckpointHandler, "restore", fail)
            refused_and_untouched(tmp_path, r"^cannot read .*/20: .*; nothing was changed")
    assert read(tmp_path)[0][0] == 20


def test_a_folder_in_place_of_a_file_is_told_as_that(tmp_path):
    save(tmp_path, [10, 20])
    (tmp_path / "20/about/metadata").unlink()
    (tmp_path / "20/about/metadata").mkdir()
    refused_and_untouched(tmp_path, r"20/about/metadata: Is a directory; nothing was changed")


@pytest.mark.filterwarnings("ignore:Use `save` instead:DeprecationWarning")
def test_what_another_orbax_wrote_is_refused_and_left_alone(tmp_path):
    said = r"20 is whole, but Orbax \S+ cannot read it .*: use the version that wrote it"
    save(tmp_path / "a", [10])
    other_orbax.save_pytree(tmp_path / "a" / "20", {"weights": np.zeros((2, 3), np.float32)})
    refused_and_untouched(
        tmp_path / "a", r"20 is whole, but Orbax \S+ cannot read it .*: use the version that wrote it"
    )

    save(tmp_path / "b", [10, 20])  # of ours, in a format of arrays that is not known yet
    manifest = tmp_path / "b/20/arrays/manifest.ocdbt"
    manifest.write_bytes(b"\x0c\xdb\x20\xde" + b"another format" + manifest.read_bytes())
    seal(tmp_path / "b/20")
    refused_and_untouched(
        tmp_path / "b", r"20 is whole, but Orbax \S+ cannot read it .*: use the version that wrote it"
    )

    save(tmp_path / "c", [10, 20])  # of an earlier version of ours, in the form that comes after
    unseal(tmp_path / "c")
    (tmp_path / "c/20/arrays/_METADATA").write_text(json.dumps({"tree": {}, "version": 3}))
    refused_and_untouched(tmp_path / "c", said)


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "arrays/_METADATA"])
@pytest.mark.parametrize("content", [[], {"tree_metadata": []}, {"metrics": [], "init_timestamp_nsecs": {}}])
def test_records_of_another_form_are_read_or_refused_in_words(tmp_path, name, content):
    save(tmp_path, [10, 20])
    (tmp_path / "20" / name).write_text(json.dumps(content))
    seal(tmp_path / "20")
    before = snapshot(tmp_path)
    said = ""
    try:
        with ScaleCheckpoints(tmp_path, pytest.fail) as checkpoints:
            assert checkpoints.latest(None, expected())[0] == 20
    except UserError as error:
        said = str(error)
    assert re.match(r"$|.*Orbax \S+ cannot read .*: use the version that wrote (it|them), which run.json names", said)
    assert not re.search("attribute|NoneType|\n", said)
    assert snapshot(tmp_path) == before


def test_a_folder_whose_name_is_not_utf8_is_refused(tmp_path):
    save(tmp_path / "scale", [10])
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    shutil.copytree(tmp_path / "scale", odd)
    before = snapshot(odd)
    for act in (lambda: read(odd), lambda: ScaleCheckpoints(odd, pytest.fail)):
        with pytest.raises(UserError, match="the name of a folder in this path is not UTF-8"):
            act()
    assert snapshot(odd) == before


def test_folders_that_are_no_checkpoints_are_neither_read_nor_removed(tmp_path):
    for name in ("5", "2026", "notes", "7.damaged"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text(name)
    (tmp_path / "30").write_text("a file")
    save(tmp_path, [10, 20])
    (tmp_path / "40").symlink_to(tmp_path / "notes")
    assert steps(tmp_path) == [10, 20]
    assert read(tmp_path)[0][0] == 20
    for file in (tmp_path / "20").glob("arrays/**/d/*"):
        flip(file)
    with ScaleCheckpoints(tmp_path, lambda text: None) as checkpoints:
        assert checkpoints.latest(None, expected())[0] == 10
        checkpoints.save(15, tree(15), IDS, {"kind": "state"})
        checkpoints.save(17, tree(17), IDS, {"kind": "state"})
        checkpoints.wait()
        checkpoints.keep_only(17)
        with pytest.raises(UserError, match="5 is no checkpoint and lies where one is to be written"):
            checkpoints.save(5, tree(5), IDS, {"kind": "state"})
    assert steps(tmp_path) == [17]
    for name in ("5", "2026", "notes", "7.damaged"):
        assert (tmp_path / name / "mine.txt").read_text() == name
    assert (tmp_path / "30").is_file()
    assert (tmp_path / "40").is_symlink()


@pytest.mark.parametrize("after", [False, True])
def test_no_kill_leaves_a_checkpoint_without_its_digests(tmp_path, after):
    """Killed before the digests of the files are written, and between them and Orbax's commit."""
    program = f"""
import os, signal
from pathlib import Path
from singan.storage import checkpoints
from tests.singan.storage.checkpoints_test import save
directory, seal = Path({str(tmp_path)!r}), checkpoints.seal
save(directory, [10])
def killed(folder):
    if {after}:
        seal(folder)
    os.kill(os.getpid(), signal.SIGKILL)
checkpoints.seal = killed
save(directory, [20])
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert any(path.name.startswith("20.orbax-checkpoint-tmp") for path in tmp_path.iterdir())
    assert steps(tmp_path) == [10]
    assert (tmp_path / "10" / FILES).exists()
    assert read(tmp_path)[0][0] == 10
    save(tmp_path, [20])
    assert read(tmp_path)[0][0] == 20


def test_digests_of_files_that_are_themselves_damaged_do_not_make_the_arrays_so(tmp_path):
    save(tmp_path, [10, 20])
    flip(tmp_path / "20" / FILES)
    (found, told) = read(tmp_path)
    assert (found[0], told) == (20, [])


def declare(step, name, **changes):
    """Changes what a checkpoint declares of an array; the data stay."""
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{step}/arrays/"}).result()
    key = f"{name}/.zarray".encode()
    declared = {**json.loads(store.read(key).result().value), **changes}
    store.write(key, json.dumps(declared).encode()).result()


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2, 500_000_000], "chunks": [2, 500_000_000]},
        {"shape": [400_000_000, 5], "chunks": [400_000_000, 5]},
        {"chunks": [2, 1_000_000_000]},
    ],
)
def test_what_a_checkpoint_declares_is_checked_before_it_is_read(tmp_path, changes):
    save(tmp_path, [20])
    declare(tmp_path / "20", "weights/bias", **changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, told = read(tmp_path)  # as the files are not those that were sealed
    assert found is None
    assert "is damaged and passed over" in told[0]
    seal(tmp_path / "20")
    refused_and_untouched(tmp_path, "is not of the run that config.json and images.json describe")
    unseal(tmp_path)
    refused_and_untouched(tmp_path, "is not of the run that config.json and images.json describe")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB; it declares 4 GB and more


def test_weights_of_another_run_are_refused_not_taken_for_damaged(tmp_path):
    with ScaleCheckpoints(tmp_path, pytest.fail) as checkpoints:
        checkpoints.save(10, tree(1), IDS, {"kind": "state", "trained_from": "0" * 32})
    assert read(tmp_path, trained_from="0" * 32)[0][0] == 10
    refused_and_untouched(tmp_path, r"10 was trained with another configuration or on other images")
    with pytest.raises(UserError, match="it was trained on other images: b"):
        read(tmp_path, trained_from="0" * 32, ids=("a", "c"))
    assert newest_whole(tmp_path, pytest.fail, None, Expected(Origin(IDS, "0" * 32), {"weights": template()}))[1] == {}


def test_checkpoints_of_an_earlier_version_are_read_and_their_damage_is_told(tmp_path):
    shutil.copytree(OLD, tmp_path / "old")
    assert newest_whole(tmp_path / "old", pytest.fail)[0] == 45
    for file in (tmp_path / "old/45").glob("arrays/**/d/*"):
        flip(file)
    told = []
    assert newest_whole(tmp_path / "old", told.append)[0] == 40
    assert len(told) == 1
    (tmp_path / "old/40/about/metadata").unlink()
    assert newest_whole(tmp_path / "old", told.append) is None
