"""The files of a download, whether it is a folder, a zip or a tar, or a folder that holds such archives.

An archive inside an archive is read too, one level deep. What is a zip is told by its content, not by its name.

Nothing is ever written under a name taken from an archive, so no member can land outside; an archive that holds a
path leading out is refused all the same, because it is not the archive that was distributed.
"""

import dataclasses
import gzip
import hashlib
import lzma
import os
import pathlib
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from datasets.errors import DataError

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)

# What reading a damaged file raises, whichever library meets the damage first.
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError)


@dataclasses.dataclass(frozen=True)
class Member:
    """One file of the download.

    Attributes:
      path: Path inside the folder or archive it lies in, with forward slashes.
      place: The same for messages, with the archive's name in front of it.
      size: Length in bytes after unpacking the archive.
      open: Opens the file for reading from its start; the caller closes it.
    """

    path: str
    place: str
    size: int
    open: Callable[[], IO[bytes]]

    @property
    def name(self) -> str:
        """The file's name without its folders."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The place without the file's name; the same for all files of one folder of one archive."""
        return self.place[: len(self.place) - len(self.name)].rstrip("/")


class Source:
    """All files below a folder, or inside an archive, or inside the archives below a folder or in an archive.

    Args:
      path: The folder or archive.
      wanted: Tells from a member's path whether it can be part of the data set. Other members are only counted.
      scratch: Folder in which the wanted members of a COMPRESSED tar are unpacked until `close`, since such an archive
        can only be read from front to back, and archives that lie in archives. Made when needed.

    Attributes:
      members: The wanted members, ordered by place.
      others: Places of the other files, for messages.

    Raises:
      DataError: The path does not exist or is no folder or archive; an archive is damaged or has a path leading out.
    """

    def __init__(
        self, path: str | os.PathLike, wanted: Callable[[str], bool], scratch: str | os.PathLike | None = None
    ):
        self.path = pathlib.Path(path)
        self._wanted = wanted
        self._scratch_root = scratch
        self._scratch: pathlib.Path | None = None
        self._archives: list[zipfile.ZipFile | tarfile.TarFile] = []
        self._copies = 0
        self.members: list[Member] = []
        self.others: list[str] = []
        if not self.path.exists():
            raise DataError(f"{self.path} does not exist: give the folder or archive of the download as --manual_dir")
        try:
            if self.path.is_dir():
                self._add_folder()
            elif _is_archive(self.path.name):
                self._add_archive(self.path, self.path.name)
            else:
                kinds = ", ".join(_ARCHIVES)
                raise DataError(f"{self.path} is neither a folder nor an archive ({kinds}): give one as --manual_dir")
        except BaseException:
            self.close()
            raise
        self.members.sort(key=lambda member: member.place)

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the archives and removes what was unpacked."""
        for archive in self._archives:
            archive.close()
        self._archives.clear()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def contents(self, limit: int = 5) -> str:
        """Returns what lies at `path` in a few words, for the message that it is the wrong place."""
        names = [member.place for member in self.members] + self.others
        if not names:
            return "found nothing"
        dots = ", ..." if len(names) > limit else ""
        return f"found {len(names)} file{'s' if len(names) > 1 else ''} ({', '.join(sorted(names)[:limit])}{dots})"

    def _add(self, member: Member, inside: bool = False) -> None:
        """Adds a file, or the files in it where it is an archive; `inside` says that it lies in one twice over."""
        if _is_litter(member.path):
            return
        if self._wanted(member.path):
            self.members.append(member)
        elif _is_archive(member.name) and not inside:
            with member.open() as packed:
                self._add_archive(self._copy(packed, member.size, member.place), member.place, inside=True)
        else:
            self.others.append(member.place)

    def _add_folder(self) -> None:
        for file in _walk(self.path):
            place = file.relative_to(self.path).as_posix()
            if _is_archive(file.name) and not _is_litter(place):
                self._add_archive(file, place)
            else:
                self._add(Member(place, place, file.stat().st_size, _opener(file)))

    def _add_archive(self, file: pathlib.Path, place: str, inside: bool = False) -> None:
        try:
            with open(file, "rb") as stream:
                is_zip = stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
            if is_zip or (place.lower().endswith(".zip") and not tarfile.is_tarfile(file)):
                self._add_zip(file, place, inside)
            else:
                self._add_tar(file, place, inside)
        except DAMAGE as error:
            text = " ".join(str(error).split())[:100]
            where = place if inside else file
            raise DataError(f"{where} cannot be read ({text}): it is no archive, or is damaged or cut short") from None

    def _add_zip(self, file: pathlib.Path, place: str, inside: bool) -> None:
        archive = zipfile.ZipFile(file)
        self._archives.append(archive)
        for info in archive.infolist():
            path = _safe(info.filename, place)
            read = self._wanted(path) or (_is_archive(path) and not inside)
            if read and not info.is_dir() and (info.compress_type not in _ZIP_METHODS or info.flag_bits & 1):
                raise DataError(f"{place} is encrypted or packed in a way not read here: unpack it and give the folder")
            if not info.is_dir():
                self._add(Member(path, f"{place}: {path}", info.file_size, _zip_opener(archive, info)), inside)

    def _add_tar(self, file: pathlib.Path, place: str, inside: bool) -> None:
        try:
            archive = tarfile.open(file, "r:")  # noqa: SIM115 - closed in close()
        except tarfile.ReadError:
            self._unpack_tar(file, place, inside)
            return
        self._archives.append(archive)
        for info in archive:
            path = _safe(info.name, place)
            if info.isfile():
                self._add(Member(path, f"{place}: {path}", info.size, _tar_opener(archive, info)), inside)

    def _unpack_tar(self, file: pathlib.Path, place: str, inside: bool) -> None:
        with tarfile.open(file, "r:*") as archive:
            for info in archive:
                path = _safe(info.name, place)
                if not info.isfile():
                    continue
                member = Member(path, f"{place}: {path}", info.size, _tar_opener(archive, info))
                if self._wanted(path) and not _is_litter(path):
                    with member.open() as packed:
                        unpacked = self._copy(packed, info.size, member.place)
                    member = dataclasses.replace(member, open=_opener(unpacked))
                self._add(member, inside)

    def _copy(self, packed: IO[bytes], size: int, place: str) -> pathlib.Path:
        """Returns a file in the scratch folder with the content of a member, which is removed in `close`."""
        if self._scratch is None:
            if self._scratch_root is not None:
                pathlib.Path(self._scratch_root).mkdir(parents=True, exist_ok=True)
            self._scratch = pathlib.Path(tempfile.mkdtemp(prefix=".unpacked_", dir=self._scratch_root))
        if size > (free := shutil.disk_usage(self._scratch).free):
            raise DataError(
                f"{place} has {size} bytes, and only {free} are free: make room to unpack it, or give another place"
                " with --data_dir"
            )
        self._copies += 1
        copy = self._scratch / str(self._copies)
        with open(copy, "wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        return copy


def fingerprint(members: Iterable[Member]) -> dict[str, int | str]:
    """Returns the number of files, their bytes, and a digest of their paths and sizes.

    It tells whether a prepared data set was built from these files without reading them again. Paths are those inside
    the folder or archive, so that the same files moved elsewhere, or packed, count as the same.
    """
    lines = sorted(f"{member.path}\t{member.size}\n" for member in members)
    digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    return {"files": len(lines), "bytes": sum(int(line.rpartition("\t")[2]) for line in lines), "digest": digest}


def _is_archive(name: str) -> bool:
    return name.lower().endswith(_ARCHIVES)


def _is_litter(path: str) -> bool:
    """Files that macOS and Synology add: they carry the names of real files, and no data."""
    parts = path.split("/")
    return bool({"__MACOSX", "@eaDir"} & set(parts)) or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


def _safe(name: str, place: str) -> str:
    path = name.replace("\\", "/")
    if path.startswith("/") or ".." in path.split("/") or path[1:2] == ":":
        raise DataError(f"{place} holds the path {name!r}, which leads out of it: do not use it")
    return path.removeprefix("./").strip("/")


def _walk(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the files below `root`, following links to folders, each real folder once."""
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        for name in sorted(files):
            file = pathlib.Path(folder, name)
            if file.is_file():
                yield file


# Openers are made by functions, not written as lambdas in the loops above: a lambda would see the last loop value.
def _opener(file: pathlib.Path) -> Callable[[], IO[bytes]]:
    return lambda: open(file, "rb")


def _zip_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(info)


def _tar_opener(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    return lambda: _extract(archive, info)


def _extract(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(info)
    assert stream is not None, "only regular files are members"
    return stream
