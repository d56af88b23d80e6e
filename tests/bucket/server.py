"""A bucket on this machine: as much of Google Cloud Storage's JSON interface as TensorStore and gcsfs use.

Objects are files of a folder, BUCKET/NAME; each has a generation, on which writes and deletions may depend. What is
uploaded appears whole. Several processes may use it at the same time, also with sitecustomize.py beside it.
"""

import http.server
import json
import os
import re
import secrets
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOCK = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    uploads: dict[str, dict[str, Any]]

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        bucket, name, query = self._target()
        if name is None:
            self._json(200, self._listing(bucket, query) if "/o" in self.path else {"name": bucket, "kind": "bucket"})
            return
        path = self.root / bucket / name
        with LOCK:
            data = path.read_bytes() if path.is_file() else None
        if data is None:
            self._json(404, {"error": {"code": 404, "message": "no such object"}})
            return
        if query.get("alt") != "media":
            self._json(200, self._about(bucket, name))
            return
        generation = str(generation_of(path))
        if query.get("ifGenerationNotMatch") == generation:
            self._reply(304, b"")
            return
        if query.get("ifGenerationMatch", generation) != generation:
            self._json(412, {"error": {"code": 412, "message": "conditionNotMet"}})
            return
        headers, code = {"x-goog-generation": generation}, 200
        if span := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            size = len(data)
            first = int(span[1]) if span[1] else size - int(span[2])
            last = min(int(span[2]), size - 1) if span[1] and span[2] else size - 1
            if first >= size:
                self._json(416, {"error": {"code": 416, "message": "range"}})
                return
            headers["Content-Range"], code, data = f"bytes {first}-{last}/{size}", 206, data[first : last + 1]
        self._reply(code, data, "application/octet-stream", headers)

    def do_POST(self) -> None:
        bucket, _, query = self._target()
        if "upload_id" in query:
            self.do_PUT()
            return
        body = self._body()
        if query.get("uploadType") == "resumable":
            token = secrets.token_hex(8)
            about = json.loads(body or b"{}")
            self.uploads[token] = {"bucket": bucket, "name": query.get("name") or about["name"], **query, "data": b""}
            location = f"http://{self.headers['Host']}{self.path.split('?')[0]}?upload_id={token}"
            self._reply(200, b"", headers={"Location": location})
            return
        name = query.get("name")
        if query.get("uploadType") == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
            assert boundary
            # gcsfs ends lines with a newline alone.
            split = re.split(rb"\r?\n--" + re.escape(boundary[1].encode()), b"\n" + body)[1:3]
            first, second = (re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in split)
            name, body = name or json.loads(first)["name"], second
        self._store(bucket, str(name), body, query)

    def do_PUT(self) -> None:
        _, _, query = self._target()
        upload, body = self.uploads[query["upload_id"]], self._body()
        upload["data"] += body
        if self.headers.get("Content-Range", "/*").endswith("/*") and body:
            self._reply(308, b"", headers={"Range": f"bytes=0-{len(upload['data']) - 1}"})
            return
        self._store(upload["bucket"], upload["name"], upload["data"], upload)

    def do_DELETE(self) -> None:
        bucket, name, query = self._target()
        path = self.root / bucket / str(name)
        with LOCK:
            if not path.is_file():
                found = 404
            elif query.get("ifGenerationMatch", str(generation_of(path))) != str(generation_of(path)):
                found = 412
            else:
                remove_object(path, self.root / bucket)
                found = 204
        self._reply(found, b"") if found == 204 else self._json(found, {"error": {"code": found, "message": "gone"}})

    def _store(self, bucket: str, name: str, data: bytes, query: dict[str, Any]) -> None:
        path = self.root / bucket / name
        with LOCK:
            there = str(generation_of(path)) if path.is_file() else "0"
            met = query.get("ifGenerationMatch", there) == there
            if met:
                write_object(path, data)
        if met:
            self._json(200, self._about(bucket, name))
        else:
            self._json(412, {"error": {"code": 412, "message": "conditionNotMet"}})

    def _listing(self, bucket: str, query: dict[str, str]) -> dict[str, Any]:
        prefix, names, folders = query.get("prefix", ""), [], set()
        for name in sorted(objects(self.root / bucket)):
            if not name.startswith(prefix) or name < query.get("startOffset", ""):
                continue
            if query.get("endOffset") and name >= query["endOffset"]:
                continue
            rest = name[len(prefix) :]
            if "delimiter" in query and "/" in rest:
                folders.add(prefix + rest.split("/")[0] + "/")
            else:
                names.append(name)
        return {"items": [self._about(bucket, name) for name in names], "prefixes": sorted(folders)}

    def _about(self, bucket: str, name: str) -> dict[str, Any]:
        path = self.root / bucket / name
        size, generation = path.stat().st_size, generation_of(path)
        times = {"timeCreated": "2026-01-01T00:00:00.000Z", "updated": "2026-01-01T00:00:00.000Z"}
        return {"kind": "storage#object", "name": name, "bucket": bucket, "size": str(size), **times} | {
            "generation": str(generation),
            "metageneration": "1",
        }

    def _target(self) -> tuple[str, str | None, dict[str, str]]:
        url = urllib.parse.urlsplit(self.path)
        match = re.search(r"/b/([^/]+)(?:/o(?:/(.+))?)?$", url.path)
        assert match, self.path
        name = urllib.parse.unquote(match[2]) if match[2] else None
        return match[1], name, dict(urllib.parse.parse_qsl(url.query))

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, code: int, value: Any) -> None:
        self._reply(code, json.dumps(value).encode(), "application/json")

    def _reply(self, code: int, data: bytes, kind: str = "text/plain", headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def objects(bucket: Path) -> Iterator[str]:
    """Yields the names of a bucket's objects."""
    for parent, _, names in os.walk(bucket):
        yield from (str((Path(parent) / name).relative_to(bucket)) for name in names if not name.startswith(".part-"))


def write_object(path: Path, data: bytes) -> None:
    """Writes an object whole; readers see it or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".part-{secrets.token_hex(6)}"
    part.write_bytes(data)
    os.replace(part, path)


def remove_object(path: Path, bucket: Path) -> None:
    """Removes an object, and the folders that only it has needed: a bucket has none."""
    path.unlink()
    for parent in path.parents:
        if parent == bucket or any(parent.iterdir()):
            break
        parent.rmdir()


def generation_of(path: Path) -> int:
    about = path.stat()
    return about.st_ino * 2**20 + about.st_mtime_ns % 2**20 + 1


@contextmanager
def serving(root: Path, stand_in: bool = True) -> Iterator[dict[str, str]]:
    """Serves the buckets in a folder; gives the environment with which processes find them.

    Args:
      stand_in: whether gs:// is that of buckets.py, or that of gcsfs, which asks the server for everything.
    """
    here = Path(__file__).parent
    handler = type("Served", (Handler,), {"root": root, "uploads": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield {
            "TENSORSTORE_GCS_HTTP_URL": url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "FAKE_BUCKETS": str(root),
            "STORAGE_EMULATOR_HOST": url,
            "PYTHONPATH": os.pathsep.join([*([str(here)] if stand_in else []), str(here.parents[1]), *sys.path]),
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
