import hashlib
import http.server
import os
import threading
from functools import partial

import pytest

from launch.evaluate.inception_weights import FID_WEIGHTS, FLAG, Download, inception_weights_file
from singan.errors import UserError

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path):
    """Address of an HTTP server of this machine that has weights.pth, cut.pth (breaks off) and nothing else."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "weights.pth").write_bytes(CONTENT)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/cut.pth":
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
            self.close_connection = True
            return None

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Runs inception_weights_file on a cache of its own: cached(url, **options)."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    said = []

    def run(url, sha256=SHA256, size=SIZE, **options):
        download = Download(url, sha256, size)
        return inception_weights_file(cache=tmp_path / "cache", download=download, log=said.append, **options)

    run.folder, run.said = tmp_path / "cache", said
    return run


def refused(function, *args, **options):
    with pytest.raises(UserError) as error:
        function(*args, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_file_that_was_given_is_taken_and_a_missing_one_named(tmp_path, cached):
    mine = tmp_path / "mine.npz"
    mine.write_bytes(b"anything")
    assert cached("http://127.0.0.1:9/none", given=str(mine)) == mine
    assert FLAG in refused(cached, "http://127.0.0.1:9/none", given=tmp_path / "absent.npz")
    assert cached.said == []


def test_it_is_fetched_once(server, cached):
    path = cached(f"{server}/weights.pth")
    assert path == cached.folder / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert len(cached.said) == 1
    assert cached("http://127.0.0.1:9/weights.pth") == path  # from the cache: nothing answers there
    assert cached("http://127.0.0.1:9/weights.pth", fetch=False) == path
    assert len(cached.said) == 1
    assert os.listdir(cached.folder) == ["weights.pth"]


def test_it_is_fetched_from_a_local_file_too(tmp_path, cached):
    source = tmp_path / "copy of.pth"
    source.write_bytes(CONTENT)
    assert cached(source.as_uri()).name == "copy of.pth"


def test_a_damaged_file_in_the_cache_is_fetched_again(server, cached):
    path = cached(f"{server}/weights.pth")
    path.write_bytes(CONTENT[:-1])
    assert "is damaged, and the network is not to be used" in refused(cached, f"{server}/weights.pth", fetch=False)
    assert cached(f"{server}/weights.pth").read_bytes() == CONTENT


def test_nothing_is_kept_of_a_download_that_fails(server, cached):
    for url, options, why in (
        (f"{server}/weights.pth", {"sha256": "0" * 64}, f"begins with {SHA256[:8]}, not 00000000"),
        (f"{server}/weights.pth", {"size": 1000}, "holds another file"),
        (f"{server}/cut.pth", {}, f"broke off after 1000 of {len(CONTENT)} bytes"),
        (f"{server}/absent.pth", {}, "HTTP status 404, File not found"),
        ("http://127.0.0.1:9/weights.pth", {}, "refused"),
        ("http://no.such.host.invalid/weights.pth", {}, "cannot fetch"),
        ("file:///no/such/file.pth", {}, "cannot fetch"),
    ):
        text = refused(cached, url, **options)
        assert why in text
        assert f"{FLAG}=FILE" in text
        assert str(cached.folder) in text
        assert os.listdir(cached.folder) == []


def test_without_network_and_file_the_message_says_what_to_give(cached):
    text = refused(cached, "https://example.org/a/weights.pth", fetch=False)
    assert text.startswith(f"{cached.folder / 'weights.pth'} is not there, and the network is not to be used")
    assert "--inception_weights=FILE" in text
    assert "copy https://example.org/a/weights.pth to" in text
    assert not cached.folder.exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, server):
    (tmp_path / "occupied").write_text("a file")
    download = Download(f"{server}/weights.pth", SHA256, len(CONTENT))
    text = refused(inception_weights_file, cache=tmp_path / "occupied", download=download, log=str)
    assert str(tmp_path / "occupied") in text


def test_the_weights_name_carries_their_checksum_and_lie_in_the_project_s_cache(monkeypatch, tmp_path):
    assert FID_WEIGHTS.name == f"pt_inception-2015-12-05-{FID_WEIGHTS.sha256[:8]}.pth"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = refused(inception_weights_file, fetch=False)
    assert text.startswith(f"{tmp_path}/medisingan/inception/{FID_WEIGHTS.name} is not there")
