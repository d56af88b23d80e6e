"""A download gives the same members as a folder, a zip, a tar or a compressed tar, and never leads outside."""

import io
import os
import tarfile
import types
import zipfile
from typing import Any

import pytest

from datasets.archives import Source, fingerprint
from datasets.errors import DataError

FILES = {"a/one.txt": b"1" * 1000, "a/b/two.txt": b"22", "three.bin": b"3"}


def _wanted(path):
    return path.endswith(".txt")


def _pack(path, files, mode: Any = None):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, mode) as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


PACKED = [("x.zip", None), ("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz")]


def _contents(source):
    contents = {}
    for member in source.members:
        with member.open() as stream:
            contents[member.path] = stream.read()
        assert member.size == len(contents[member.path])
    return contents


@pytest.mark.parametrize(("name", "mode"), PACKED)
@pytest.mark.parametrize("inside_a_folder", [False, True])
def test_archives_give_the_members_of_the_folder(tmp_path, name, mode, inside_a_folder):
    for path, content in FILES.items():
        file = tmp_path / "folder" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (tmp_path / "packed").mkdir()
    archive = _pack(tmp_path / "packed" / name, FILES, mode)
    expected = {path: content for path, content in FILES.items() if _wanted(path)}
    with Source(tmp_path / "folder", _wanted) as folder:
        assert _contents(folder) == expected
        assert folder.others == ["three.bin"]
        digest = fingerprint(folder.members)
    scratch = tmp_path / "scratch"
    with Source(tmp_path / "packed" if inside_a_folder else archive, _wanted, scratch) as packed:
        assert _contents(packed) == expected
        assert [member.place for member in packed.members] == [f"{name}: a/b/two.txt", f"{name}: a/one.txt"]
        assert packed.members[0].folder == f"{name}: a/b"
        assert fingerprint(packed.members) == digest
    assert not scratch.exists() or not list(scratch.iterdir())


@pytest.mark.parametrize(("inner", "inner_mode"), PACKED)
@pytest.mark.parametrize(("outer", "outer_mode"), PACKED)
def test_an_archive_in_an_archive_is_read(tmp_path, inner, inner_mode, outer, outer_mode):
    packed = _pack(tmp_path / inner, FILES, inner_mode).read_bytes()
    (tmp_path / "out").mkdir()
    archive = _pack(tmp_path / "out" / outer, {f"data/{inner}": packed, "b/other.txt": b"4"}, outer_mode)
    scratch = tmp_path / "scratch"
    with Source(archive, _wanted, scratch) as source:
        assert _contents(source) == {"a/one.txt": FILES["a/one.txt"], "a/b/two.txt": b"22", "b/other.txt": b"4"}
        assert f"{outer}: data/{inner}: a/one.txt" in [member.place for member in source.members]
        assert source.others == [f"{outer}: data/{inner}: three.bin"]
    assert not list(scratch.iterdir())


def test_archives_are_opened_one_level_deep(tmp_path):
    deepest = _pack(tmp_path / "c.zip", {"deep.txt": b"1"}).read_bytes()
    middle = _pack(tmp_path / "b.zip", {"c.zip": deepest, "middle.txt": b"2"}).read_bytes()
    (tmp_path / "out").mkdir()
    archive = _pack(tmp_path / "out" / "a.zip", {"b.zip": middle})
    with Source(archive, _wanted, tmp_path / "scratch") as source:
        assert list(_contents(source)) == ["middle.txt"]
        assert source.others == ["a.zip: b.zip: c.zip"]


def test_limits_hold_for_archives_in_archives(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    inner = _pack(tmp_path / "b.tar", {"one.txt": b"1", "../evil.txt": b"x"}, "w").read_bytes()
    climbing = _pack(tmp_path / "out" / "a.zip", {"b.tar": inner})
    with pytest.raises(DataError, match=r"a\.zip: b\.tar holds the path .* leads out of it"):
        Source(climbing, _wanted, tmp_path / "scratch")
    damaged = _pack(tmp_path / "out" / "a.zip", {"b.tar": inner[:700]})
    with pytest.raises(DataError, match=r"a\.zip: b\.tar cannot be read"):
        Source(damaged, _wanted, tmp_path / "scratch")
    monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=100))
    with pytest.raises(DataError, match=r"a\.zip: b\.tar has 700 bytes, and only 100 are free: make room"):
        Source(damaged, _wanted, tmp_path / "scratch")
    assert not list((tmp_path / "scratch").iterdir())
    assert not list(tmp_path.rglob("evil.txt"))


@pytest.mark.parametrize(("name", "mode"), [("x.zip", "w"), ("x.tar", None), ("x.tar.gz", "w"), ("x.tar", "w:gz")])
def test_archives_are_told_by_content(tmp_path, name, mode):
    real = _pack(tmp_path / ("real.tar" if mode else "real.zip"), FILES, mode)
    archive = real.rename(tmp_path / name)
    with Source(archive, _wanted, tmp_path / "scratch") as source:
        assert _contents(source) == {path: content for path, content in FILES.items() if _wanted(path)}


@pytest.mark.parametrize(("name", "mode"), PACKED)
@pytest.mark.parametrize("path", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "a\\..\\..\\evil.txt", "C:/evil.txt"])
def test_a_path_that_leads_out_is_refused(tmp_path, name, mode, path):
    archive = _pack(tmp_path / name, {"a/one.txt": b"1", path: b"evil"}, mode)
    with pytest.raises(DataError, match="leads out of it"):
        Source(archive, _wanted, tmp_path / "scratch")
    assert not list(tmp_path.rglob("evil.txt"))
    assert not (tmp_path / "scratch").exists() or not list((tmp_path / "scratch").iterdir())


def test_links_in_a_tar_are_not_followed(tmp_path):
    (tmp_path / "secret.txt").write_bytes(b"secret")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        link = tarfile.TarInfo("a/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.txt")
        archive.addfile(link)
    with Source(tmp_path / "x.tar", _wanted) as source:
        assert source.members == []


@pytest.mark.parametrize(("name", "mode"), PACKED)
def test_a_damaged_archive_says_so(tmp_path, name, mode):
    archive = _pack(tmp_path / name, {"a/one.txt": os.urandom(50000)}, mode)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged or cut short") as caught:
        Source(archive, _wanted, tmp_path / "scratch")
    assert "\n" not in str(caught.value)


def test_no_archive_at_all(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"<html>please log in</html>")
    with pytest.raises(DataError, match=r"x\.zip cannot be read"):
        Source(tmp_path, _wanted)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        Source(tmp_path / "notes.txt", _wanted)
    with pytest.raises(DataError, match="does not exist"):
        Source(tmp_path / "nowhere", _wanted)


def test_an_encrypted_zip_is_told_apart(tmp_path):
    archive = _pack(tmp_path / "x.zip", {"a/one.txt": b"1"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag of encryption in the central directory
    archive.write_bytes(bytes(content))
    with pytest.raises(DataError, match="encrypted"):
        Source(archive, _wanted)


def test_litter_and_loops_of_links(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_bytes(b"1")
    (tmp_path / "a" / "._one.txt").write_bytes(b"x")
    (tmp_path / "a" / "._x.zip").write_bytes(b"x")
    (tmp_path / "a" / "@eaDir").mkdir()
    (tmp_path / "a" / "@eaDir" / "one.txt").write_bytes(b"x")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "folder.zip" / "two.txt").write_bytes(b"1")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    with Source(tmp_path, _wanted) as source:
        assert [member.path for member in source.members] == ["a/one.txt", "folder.zip/two.txt"]
