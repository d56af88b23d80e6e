"""gs:// for fsspec over the folder that server.py serves, as gcsfs has it: objects, and no directory but by a name."""

import os
import sys
import types
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from tests.bucket.server import objects, remove_object, write_object


class FolderBuckets(AbstractFileSystem):
    """Objects are written whole as a file is closed, and a prefix of a name is a directory."""

    protocol = ("gs", "gcs")
    cachable = False

    def __init__(self, finalize_on_close: bool = True, use_listings_cache: bool = True, **more: Any):
        super().__init__(use_listings_cache=use_listings_cache, **more)

    @property
    def root(self) -> Path:
        return Path(os.environ["FAKE_BUCKETS"])

    def _path(self, path: str) -> tuple[Path, str]:
        bucket, _, name = self._strip_protocol(path).partition("/")
        return self.root / bucket, name

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        bucket, name = self._path(path)
        if name and (bucket / name).is_file():
            found = {name: "file"}
        else:
            prefix, found = f"{name}/" if name else "", {}
            for each in objects(bucket):
                if each.startswith(prefix):
                    first, _, rest = each[len(prefix) :].partition("/")
                    found[prefix + first] = "directory" if rest else "file"
            if name and not found:
                raise FileNotFoundError(path)
        sizes = {each: (bucket / each).stat().st_size if kind == "file" else 0 for each, kind in found.items()}
        rows = [
            {"name": f"{bucket.name}/{each}", "type": found[each], "size": sizes[each], "mtime": 0.0}
            for each in sorted(found)
        ]
        return rows if detail else [row["name"] for row in rows]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        bucket, name = self._path(path)
        if name and (bucket / name).is_file():
            return self.ls(path)[0]
        if name:
            self.ls(path)
        return {"name": self._strip_protocol(path), "type": "directory", "size": 0}

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Does nothing, as in a bucket."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Does nothing, as in a bucket."""

    def rmdir(self, path: str) -> None:
        """Does nothing, as in a bucket."""

    def _rm(self, path: str) -> None:
        bucket, name = self._path(path)
        remove_object(bucket / name, bucket)

    def rm_file(self, path: str) -> None:
        self._rm(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        bucket, name = self._path(path)
        if (bucket / name).is_file():
            self._rm(path)
            return
        inner = [each for each in objects(bucket) if each.startswith(f"{name}/")]
        if not inner or not recursive:
            raise FileNotFoundError(path)
        for each in inner:
            remove_object(bucket / each, bucket)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        (from_bucket, from_name), (to_bucket, to_name) = self._path(path1), self._path(path2)
        write_object(to_bucket / to_name, (from_bucket / from_name).read_bytes())

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        bucket, name = self._path(path)
        return (bucket / name).read_bytes()[start:end]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        bucket, name = self._path(path)
        if mode == "create":
            target = bucket / name
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.parent / f".part-{os.getpid()}-{id(value)}"
            part.write_bytes(value)
            try:
                os.link(part, target)
            finally:
                part.unlink()
            return
        write_object(bucket / name, value)

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        if mode not in ("rb", "wb"):
            raise NotImplementedError(f"a bucket has no mode {mode}")  # such as appending
        if mode == "rb" and self.info(path)["type"] != "file":
            raise FileNotFoundError(path)
        return _Object(self, path, mode, cache_type="none" if mode == "rb" else "readahead")


class _Object(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.cat_file(self.path, start, end)

    def _initiate_upload(self) -> None:
        self._parts: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self._parts.append(self.buffer.getvalue())
        if final:
            self.fs.pipe_file(self.path, b"".join(self._parts))
        return True


def register() -> None:
    """Makes FolderBuckets what gs:// means in this process."""
    for scheme in FolderBuckets.protocol:
        fsspec.register_implementation(scheme, FolderBuckets, clobber=True)


def register_storage() -> None:
    """Answers the one question that Orbax has for Google's own client: whether a bucket has folders of its own."""
    storage: Any = types.ModuleType("google.cloud.storage")
    storage.Client = lambda: types.SimpleNamespace(get_bucket=lambda name: types.SimpleNamespace(name=name))
    sys.modules["google.cloud.storage"] = storage
