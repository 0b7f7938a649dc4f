"""Downloads from a server of the test's own: cut, corrupt, missing, interrupted, repeated."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lib.networks import download
from lib.networks.download import DownloadError, KnownFiles, ask_publisher, fetch
from lib.networks.sources import SHARDS, WEIGHTS

CONTENT = b"weights" * 100_000
ZENODO, HUB, BUCKET = WEIGHTS["resnet50_dcls"], WEIGHTS["resnet50"], SHARDS["val-3"]


class Server(ThreadingHTTPServer):
    """Serves CONTENT under every address; `trouble` maps a path's end to what goes wrong."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.trouble: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.md5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        server: Server = self.server
        server.asked.append(f"{self.command} {self.path}")
        if "/api/records/" in self.path:
            name = ZENODO.url.rpartition("/")[2]
            file = {"key": name, "checksum": f"md5:{server.md5}", "size": len(CONTENT)}
            return self.send(json.dumps({"files": [file]}).encode())
        troubles = next((t for end, t in server.trouble.items() if self.path.endswith(end)), [])
        trouble = troubles.pop(0) if troubles and body else ""
        if trouble == "missing":
            return self.send_error(404)
        content = CONTENT[:-1] + b"x" if trouble == "corrupt" else CONTENT
        self.send(content, body, cut=trouble == "cut")

    def send(self, content: bytes, body: bool = True, cut: bool = False):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        digest = hashlib.md5(CONTENT).digest()
        if "storage.googleapis.com" in self.path:
            self.send_header(
                "x-goog-hash", f"crc32c=AAAAAA==, md5={base64.b64encode(digest).decode()}"
            )
        if "huggingface.co" in self.path:
            self.send_header("X-Linked-ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(CONTENT)))
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut else content)


@pytest.fixture
def server(monkeypatch):
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("DCLS_MIRROR", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    yield server
    server.shutdown()
    server.server_close()


def test_every_publishers_checksum_and_size_are_found(server):
    md5, sha256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()
    assert ask_publisher(ZENODO) == download.Published(f"md5:{md5}", len(CONTENT))
    assert ask_publisher(BUCKET) == download.Published(f"md5:{md5}", len(CONTENT))
    assert ask_publisher(HUB) == download.Published(f"sha256:{sha256}", len(CONTENT))


def test_files_are_fetched_known_and_not_fetched_again(server, tmp_path):
    said = []
    fetch([ZENODO, HUB, BUCKET], tmp_path, said.append)
    for source in (ZENODO, HUB, BUCKET):
        assert (tmp_path / source.place).read_bytes() == CONTENT
    assert said[0].startswith(f"[1/3] {ZENODO.place}: 1 MB (md5), http://127.0.0.1:")
    known = json.loads((tmp_path / "known_files.json").read_text())
    assert known[HUB.place]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert known[BUCKET.place]["publishers_checksum"].startswith("md5:")
    server.asked.clear()
    fetch([ZENODO, HUB, BUCKET], tmp_path, said.append)
    assert server.asked == []
    assert not (tmp_path / ".downloads").exists()


@pytest.mark.parametrize("trouble", ["cut", "corrupt", "missing"])
def test_what_fails_at_first_is_tried_again(server, tmp_path, trouble):
    server.trouble[".tar"] = [trouble, trouble]
    fetch([ZENODO], tmp_path)
    assert (tmp_path / ZENODO.place).read_bytes() == CONTENT
    assert sum(line.startswith("GET") and line.endswith(".tar") for line in server.asked) == 3


@pytest.mark.parametrize("trouble", ["cut", "corrupt", "missing"])
def test_what_fails_for_good_is_named_and_the_rest_is_fetched(server, tmp_path, trouble):
    server.trouble[".tar"] = [trouble] * 99
    with pytest.raises(DownloadError, match="1 of 2 files could not be fetched") as caught:
        fetch([ZENODO, BUCKET], tmp_path)
    assert ZENODO.place in str(caught.value)
    assert ZENODO.address in str(caught.value)
    left = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["known_files.json", "val-3.tfrecords"]


def test_without_a_connection_every_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("DCLS_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    with pytest.raises(DownloadError, match="2 of 2 files") as caught:
        fetch([ZENODO, HUB], tmp_path)
    assert "ConnectionError" in str(caught.value)


def test_an_interrupted_download_leaves_nothing_and_starts_anew(server, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(download.pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch([ZENODO], tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    monkeypatch.undo()
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads" / ZENODO.url.rpartition("/")[2]).write_bytes(b"half of a killed run")
    monkeypatch.setenv("DCLS_MIRROR", f"http://127.0.0.1:{server.server_port}")
    fetch([ZENODO], tmp_path)
    assert (tmp_path / ZENODO.place).read_bytes() == CONTENT


def test_files_put_there_by_hand_become_known_and_changed_ones_are_told(tmp_path):
    path = tmp_path / ZENODO.place
    path.parent.mkdir()
    path.write_bytes(b"mine")
    assert KnownFiles(tmp_path).check([path]) == []
    assert json.loads((tmp_path / "known_files.json").read_text())[ZENODO.place]["origin"]
    assert KnownFiles(tmp_path).check([path]) == []
    path.write_bytes(b"other")
    assert KnownFiles(tmp_path).check([path]) == [ZENODO.place]
    (tmp_path / "known_files.json").write_text("{")
    with pytest.raises(ValueError, match="restore it, or delete it"):
        KnownFiles(tmp_path)
