"""Downloads for datasets.build: archives with climbing paths, links, devices, lies about sizes, and damage."""

import io
import tarfile
import warnings
import zipfile
from pathlib import Path

from hypothesis import strategies as st

from datasets import build
from datasets.archives import DAMAGE, Source
from datasets.errors import DataError
from tests.fuzz import strategies
from tests.fuzz.areas import Area
from tests.fuzz.bombs import npy_header
from tests.fuzz.images import good_files
from tests.fuzz.oracle import Fault

CLIMBING = [
    "../x",
    "a/../../x",
    "/etc/x",
    "C:\\x",
    "..\\x",
    "a/..",
    "\\\\host\\x",
    "./../x",
    "..",
    "a\x00b",
    "",
    ".",
    "/",
]
PLAIN = [
    "BraTS20_Training_001/BraTS20_Training_001_t1.nii.gz",
    "fold1/images.npy",
    "fold1/types.npy",
    "Part 1/Masks/masks.npy",
    "t1.nii",
    "imagesTr/X_0000.nii.gz",
    "imagesTr/X.nii.gz",
    "labelsTr/X.nii.gz",
    "dataset.json",
    "inner.zip",
    "inner.tar.gz",
    "a.txt",
    "é/ b.nii",
]
KINDS = {
    "file": tarfile.REGTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "folder": tarfile.DIRTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE,
}
names = st.one_of(st.sampled_from(CLIMBING), st.sampled_from(PLAIN), st.sampled_from(PLAIN), strategies.NAMES)
contents = st.one_of(
    st.binary(max_size=50),
    st.sampled_from([npy_header((2**40, 256)), npy_header((2, 2), "|O"), good_files()["volume.nii.gz"]]),
    st.sampled_from([b'{"channel_names": {"0": "T1"}, "labels": {"edema": 1}}', b"[" * 5000]),
    st.sampled_from(["zip", "climbing", "tar"]).map(lambda kind: INNER[kind]),
)
members = st.lists(st.tuples(names, st.sampled_from(sorted(KINDS)), contents), min_size=1, max_size=5)


def packed(entries: list[tuple[str, str, bytes]], suffix: str) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        if suffix == ".zip":
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, kind, content in entries:
                    info = zipfile.ZipInfo(name or "x")
                    info.external_attr = (0o120777 if kind == "link" else 0o100644) << 16
                    archive.writestr(info, content)
        else:
            mode = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.xz": "w:xz", ".tar.bz2": "w:bz2"}[suffix]
            with tarfile.open(fileobj=buffer, mode=mode) as archive:
                for name, kind, content in entries:
                    info = tarfile.TarInfo(name)
                    info.type, info.size, info.linkname = KINDS[kind], len(content), "/etc/passwd"
                    archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# Archives to lie in archives; not compressed, whose bytes would differ from run to run.
INNER = {
    "zip": packed([("t1.nii", "file", good_files()["volume.nii.gz"]), ("deeper.zip", "file", b"PK\3\4")], ".zip"),
    "climbing": packed([("../x", "file", b"x")], ".tar"),
    "tar": packed([("fold1/images.npy", "file", npy_header((2, 2))), ("a", "link", b"")], ".tar"),
}


@st.composite
def archives(draw) -> tuple[str, bytes]:
    suffix = draw(st.sampled_from([".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2"]))
    try:
        data = packed(draw(members), suffix)
    except (ValueError, UnicodeEncodeError):
        data = b"not to be packed"
    return f"x{suffix}", draw(strategies.damage(data)) if draw(st.booleans()) and data else data


def use(example: tuple[str, bytes], folder: Path) -> None:
    """Reads every member, as a builder does; nothing may lie outside of the scratch folder."""
    name, data = example
    (folder / name).write_bytes(data)
    with Source(folder / name, lambda path: True, scratch=folder / "scratch") as source:
        for member in source.members:
            if ".." in member.path.split("/") or member.path.startswith("/"):
                raise Fault(f"a path that climbs: {member.path}")
            try:
                with member.open() as stream:
                    stream.read(1000)
            except DAMAGE as error:
                raise DataError(f"{member.place} is damaged ({error}), download it again") from None
        source.contents()
    if left := [path.name for path in folder.rglob("*") if path.name not in (name, "scratch")]:
        raise Fault(f"left behind: {left}")


def use_build(example: tuple[str, bytes, str], folder: Path) -> None:
    name, data, which = example
    (folder / name).write_bytes(data)
    build.build(which, folder / name, data_dir=folder / "data")


AREAS = [
    Area("archives", archives(), use, 120, 1000, (DataError,)),
    Area(
        "builds of data sets",
        st.tuples(archives(), st.sampled_from(["brats", "pannuke"])).map(lambda both: (*both[0], both[1])),
        use_build,
        15,
        100,
        (DataError,),
    ),
]
