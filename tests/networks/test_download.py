"""Downloads from a server of the test's own: cut, corrupt, resumed, hostile, without a checksum."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import itertools
import json
import re
import struct
import threading
import time
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic

import pytest
import requests
from filelock import FileLock

from lib.networks import requesting, transfer
from lib.networks.download import fetch
from lib.networks.known_files import KnownFiles
from lib.networks.publishers import Published, ask_publisher
from lib.networks.requesting import DownloadError
from lib.networks.sources import SHARDS, WEIGHTS, Source

CONTENT = bytes(range(256)) * 2000
N, LAST = len(CONTENT), len(CONTENT) - 1
ZENODO, HUB, BUCKET = WEIGHTS["resnet50_dcls"], WEIGHTS["resnet50"], SHARDS["val-3"]
RECORD = "records/8373830"
ENDLESS = 2**28  # bytes: more than anybody here may take
DENIED = "its checksum is unavailable"


def crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, reflected, as RFC 3720 gives it."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0x82F63B78 * (value & 1)
        table.append(value)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Reply:
    """An answer other than the usual one. headers : instead of the usual ones, None for without"""

    status: int | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None  # bytes after which the connection ends
    endless: bool = False
    silent: bool = False
    reason: str | None = None


BARE = {"x-goog-hash": None, "X-Linked-ETag": None}
UNTOLD = {"Content-Length": None}


class Server(ThreadingHTTPServer):
    """Serves `content` under every address.

    replies : {"GET .tar": [Reply, …]}: the next answers to a method and an address's end
    asked   : [(method, path, headers), …]
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = CONTENT, '"one"'
        self.replies: dict[str, list[Reply]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.outlasted = False  # by somebody who took what has no end, or waited for it
        self.closing = threading.Event()

    def handle_error(self, *_):
        """Nothing: those who were asking may go."""

    def ranges(self, end: str, method: str = "GET") -> list[str]:
        """The Range of each request for it, "" for the whole."""
        return [h.get("Range", "") for m, p, h in self.asked if m == method and p.endswith(end)]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        server: Server = self.server
        server.asked.append((self.command, self.path, dict(self.headers)))
        asked = f"{self.command} {self.path}"
        replies = next(
            (r for key, r in server.replies.items()
             if asked.startswith(key.split()[0]) and asked.endswith(key.split()[1])), []
        )  # fmt: skip
        reply = replies.pop(0) if replies else Reply()
        status, headers, body = self.usual()
        if reply.body is not None:
            body = reply.body
            headers["Content-Length"] = str(len(body))
        headers |= reply.headers
        if reply.silent:
            server.outlasted |= not server.closing.wait(3)
            return
        self.send_response(reply.status or status, reply.reason)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if reply.endless:
            for _ in range(0, ENDLESS, 2**20):
                self.wfile.write(bytes(2**20))
            server.outlasted = True
        elif self.command == "GET":
            self.wfile.write(body[: reply.cut])

    def usual(self) -> tuple[int, dict[str, str | None], bytes]:
        content, etag = self.server.content, self.server.etag
        if "/api/records/" in self.path:
            body = json.dumps(listing(content)).encode()
            return 200, {"Content-Length": str(len(body))}, body
        headers: dict[str, str | None] = {"Content-Type": "application/octet-stream"}
        headers |= {"ETag": etag} if etag else {}
        if "storage.googleapis.com" in self.path:
            crc = in_base64(struct.pack(">I", crc32c(b"not asked")))
            headers["x-goog-hash"] = f"crc32c={crc}, md5={in_base64(hashlib.md5(content).digest())}"
        if "huggingface.co" in self.path:
            headers["X-Linked-ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(content))
        start = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if start and self.headers.get("If-Range", etag) == etag:
            end = int(start[2] or len(content) - 1)
            body = content[int(start[1]) : end + 1]
            headers["Content-Range"] = f"bytes {start[1]}-{end}/{len(content)}"
            return 206, headers | {"Content-Length": str(len(body))}, body
        return 200, headers | {"Content-Length": str(len(content))}, content


def listing(content: bytes, **changed: object) -> dict:
    """A record of Zenodo's, the file's entry changed."""
    name = ZENODO.url.rpartition("/")[2]
    entry = {"key": name, "checksum": f"md5:{hashlib.md5(content).hexdigest()}"}
    other = {"key": "notes.txt", "checksum": None, "size": 0}
    return {"files": [other, entry | {"size": len(content)} | changed]}


@pytest.fixture
def server(monkeypatch, waits):
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("DCLS_MIRROR", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Seconds that would have been waited."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


def files_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def partial_of(data: Path) -> Path:
    (part,) = (data / ".downloads").glob("*.part")
    return part


@pytest.fixture
def interrupt(monkeypatch):
    """interrupt(error) raises it in the midst of the next file."""
    whole = requests.Response.iter_content

    def interrupt(error: BaseException):
        def some(self, *arguments, **more):
            if "/api/" in self.url:
                yield from whole(self, *arguments, **more)
                return
            yield from itertools.islice(whole(self, *arguments, **more), 3)
            monkeypatch.setattr(requests.Response, "iter_content", whole)
            raise error

        monkeypatch.setattr(requests.Response, "iter_content", some)

    return interrupt


def refused(
    sources: list[Source], data: Path, match: str, unverified: bool = False
) -> tuple[str, list[str]]:
    """The error that names the first file; what was said."""
    said: list[str] = []
    with pytest.raises(DownloadError, match=match) as caught:
        fetch(sources, data, said.append, unverified)
    assert f"  {sources[0].place} from {sources[0].address}\n" in str(caught.value)
    assert not (data / sources[0].place).exists()
    return str(caught.value), said


# --- what publishers say -------------------------------------------------------------------------


def test_every_publishers_checksum_and_size_are_found(server):
    md5, sha256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()
    assert ask_publisher(ZENODO) == Published(f"md5:{md5}", len(CONTENT))
    assert ask_publisher(BUCKET) == Published(f"md5:{md5}", len(CONTENT))
    assert ask_publisher(HUB) == Published(f"sha256:{sha256}", len(CONTENT))
    server.replies["HEAD .safetensors"] = [Reply(headers={"X-Linked-ETag": sha256.upper()})] * 9
    assert ask_publisher(HUB).checksum == f"sha256:{sha256}"
    capital = json.dumps(listing(CONTENT, checksum=f"md5:{md5.upper()}")).encode()
    server.replies[f"GET {RECORD}"] = [Reply(body=capital)] * 9
    assert ask_publisher(ZENODO).checksum == f"md5:{md5}"


def test_where_the_bucket_gives_only_crc32c_it_is_verified(server, tmp_path):
    assert crc32c(b"123456789") == 0xE3069283  # the catalogue's check value
    only = {"x-goog-hash": "crc32c=" + in_base64(struct.pack(">I", crc32c(CONTENT)))}
    server.replies["HEAD .tfrecords"] = [Reply(headers=only), Reply(headers=only)]
    assert ask_publisher(BUCKET) == Published(f"crc32c:{crc32c(CONTENT):08x}", len(CONTENT))
    server.replies["GET .tfrecords"] = [Reply(body=CONTENT[:-1] + b"x")]
    fetch([BUCKET], tmp_path)
    assert (tmp_path / BUCKET.place).read_bytes() == CONTENT
    assert len(server.ranges(".tfrecords")) == 2


def test_the_size_of_a_redirecting_hub_is_the_files_not_its_answers(server):
    there = {"Location": "/elsewhere.safetensors", "Content-Length": "17", "X-Linked-Size": None}
    server.replies["HEAD .safetensors"] = [Reply(302, there)]
    assert ask_publisher(HUB).size == 0
    server.replies["HEAD .safetensors"] = [Reply(302, there | {"X-Linked-Size": "12345"})]
    assert ask_publisher(HUB).size == 12345
    assert server.ranges("elsewhere.safetensors", "HEAD") == []


LISTINGS = {
    "unavailable": Reply(503),
    "gone": Reply(404),
    "page": Reply(headers={"Content-Type": "text/html"}, body=b"<!doctype html><title>Sorry"),
    "list": Reply(body=b"[]"),
    "null": Reply(body=b"null"),
    "nothing": Reply(body=b""),
    "cut": Reply(cut=20),
    "nested": Reply(body=b"[" * 3_000_000),
    "endless": Reply(headers=UNTOLD, endless=True),
    "files null": Reply(body=b'{"files": null}'),
    "files of numbers": Reply(body=b'{"files": [1, 2]}'),
    "entry missing": Reply(body=json.dumps(listing(CONTENT, key="other")).encode()),
    **{
        f"{key} {value}": Reply(body=json.dumps(listing(CONTENT, **{key: value})).encode())
        for key, values in {
            "checksum": (None, 5, "", "sha512:" + "0" * 128, "md5:" + "0" * 31, "md5:" + "g" * 32),
            "size": (None, -1, 0, "12", True, 1e300),
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("reply", LISTINGS.values(), ids=LISTINGS)
def test_a_listing_that_cannot_be_had_gives_no_unverified_file(server, tmp_path, reply, waits):
    server.replies[f"GET {RECORD}"] = [reply] * 99
    error, said = refused([ZENODO, BUCKET], tmp_path, f"(?s)1 of 2 files.*{DENIED}")
    assert "--unverified would accept the file without" in error
    assert len(said) == 2
    assert server.ranges(".tar") == []
    assert len(server.ranges(RECORD)) == (1 if reply.status == 404 else 1 + requesting.RETRIES)
    assert (tmp_path / BUCKET.place).read_bytes() == CONTENT
    assert not server.outlasted
    assert waits == [] if reply.status == 404 else sum(waits) > 5


@pytest.mark.parametrize(
    ("source", "headers"),
    [
        (HUB, {"X-Linked-ETag": None}),
        (HUB, {"X-Linked-ETag": '"' + "0" * 63 + '"'}),
        (HUB, {"X-Linked-ETag": '"' + "g" * 64 + '"'}),
        (HUB, {"X-Linked-Size": "many"}),
        (HUB, {"X-Linked-Size": "-5"}),
        (BUCKET, {"x-goog-hash": None}),
        (BUCKET, {"x-goog-hash": "md5=?"}),
        (BUCKET, {"x-goog-hash": "md5=?!" + in_base64(hashlib.md5(CONTENT).digest())}),
        (BUCKET, {"x-goog-hash": "md5=" + in_base64(b"short")}),
        (BUCKET, {"x-goog-hash": "crc32c=" + in_base64(b"12345")}),
        (BUCKET, {"x-goog-hash": "sha9=" + in_base64(b"12345")}),
        (BUCKET, {"Content-Length": "many"}),
    ],
)
def test_headers_that_are_absent_or_malformed_give_no_unverified_file(
    server, tmp_path, source, headers
):
    end = Path(source.url).suffix
    server.replies[f"HEAD {end}"] = [Reply(headers=headers)] * 99
    refused([source], tmp_path, f"{DENIED}.*--unverified")
    assert server.ranges(end) == []


@pytest.mark.parametrize(("headers", "times"), [({}, 1), ({"x-linked-etag": "half"}, 5)])
def test_malformed_headers_are_asked_for_again_and_absent_ones_are_not(
    server, tmp_path, headers, times
):
    server.replies["HEAD .safetensors"] = [Reply(headers={**BARE, **headers})] * 99
    refused([HUB], tmp_path, DENIED)
    assert len(server.ranges(".safetensors", "HEAD")) == times


def test_what_is_not_there_is_not_offered_unverified(server, tmp_path, monkeypatch):
    server.replies["HEAD .safetensors"] = [Reply(404)] * 9
    error, _ = refused([HUB], tmp_path, "the server answers 404")
    assert "--unverified" not in str(error)
    monkeypatch.setenv("DCLS_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="ConnectionError") as caught:
        fetch([HUB], tmp_path)
    assert "--unverified" not in str(caught.value)


def test_a_mirror_that_is_no_address_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DCLS_MIRROR", "127.0.0.1:8000")
    with pytest.raises(DownloadError, match="DCLS_MIRROR=127.0.0.1:8000 is not an address"):
        fetch([HUB], tmp_path)


def test_what_a_publisher_says_at_the_second_time_is_taken(server, tmp_path):
    server.replies[f"GET {RECORD}"] = [Reply(body=b"[]"), Reply(cut=9), Reply(503)]
    server.replies["HEAD .safetensors"] = [Reply(headers={"x-linked-etag": "half"})]
    fetch([ZENODO, HUB], tmp_path)
    entries = json.loads((tmp_path / "known_files.json").read_text())
    md5, sha256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()
    assert entries[ZENODO.place]["publishers_checksum"] == f"md5:{md5}"
    assert entries[HUB.place]["publishers_checksum"] == f"sha256:{sha256}"


def test_without_a_connection_every_file_is_named(monkeypatch, tmp_path, waits):
    monkeypatch.setenv("DCLS_MIRROR", "http://127.0.0.1:9")
    for unverified in (False, True):
        with pytest.raises(DownloadError, match="2 of 2 files") as caught:
            fetch([ZENODO, HUB], tmp_path, unverified=unverified)
        assert re.search(r"[ (]ConnectionError: ", str(caught.value))
        assert "refused" in str(caught.value)
        assert (DENIED in str(caught.value)) != unverified


# --- --unverified --------------------------------------------------------------------------------


def test_unverified_files_are_told_and_remembered(server, tmp_path):
    server.replies[f"GET {RECORD}"] = [Reply(503)] * 99
    server.replies["HEAD .tfrecords"] = [Reply(headers=BARE)] * 99
    said: list[str] = []
    fetch([ZENODO, HUB, BUCKET], tmp_path, said.append, unverified=True)
    for source in (ZENODO, HUB, BUCKET):
        assert (tmp_path / source.place).read_bytes() == CONTENT
    assert re.match(rf"\[1/3\] {re.escape(ZENODO.place)}: \d+ MB \(unverified: .*503", said[0])
    assert said[1].startswith(f"[2/3] {HUB.place}: 1 MB (sha256), http://127.0.0.1:")
    entries = json.loads((tmp_path / "known_files.json").read_text())
    assert entries[ZENODO.place]["publishers_checksum"] == ""
    mine = tmp_path / "checkpoints" / "mine.pt"
    mine.write_bytes(b"mine")
    known = KnownFiles(tmp_path)
    known.check([mine])
    places = [tmp_path / s.place for s in (ZENODO, HUB, BUCKET)]
    assert known.unverified([*places, mine]) == {
        ZENODO.place: "its publisher's checksum was unavailable (--unverified)",
        BUCKET.place: "its publisher's checksum was unavailable (--unverified)",
        "checkpoints/mine.pt": "found in place",
    }
    assert KnownFiles(tmp_path).unverified([mine]) == {"checkpoints/mine.pt": "found in place"}


def test_a_checksum_that_is_had_counts_with_unverified_too(server, tmp_path):
    server.replies["GET .tar"] = [Reply(body=CONTENT[:-1] + b"x")] * 99
    refused([ZENODO], tmp_path, "its md5 is", unverified=True)


# --- whole or not at all -------------------------------------------------------------------------


def test_files_are_fetched_known_and_not_fetched_again(server, tmp_path, capsys):
    said: list[str] = []
    fetch([ZENODO, HUB, BUCKET], tmp_path, said.append)
    for source in (ZENODO, HUB, BUCKET):
        assert (tmp_path / source.place).read_bytes() == CONTENT
    assert said[0] == f"[1/3] {ZENODO.place}: 1 MB (md5), {ZENODO.address}"
    assert len(said) == 3
    assert capsys.readouterr().err == ""
    known = json.loads((tmp_path / "known_files.json").read_text())
    assert known[HUB.place]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert known[BUCKET.place]["publishers_checksum"].startswith("md5:")
    assert KnownFiles(tmp_path).unverified(tmp_path / p for p in known) == {}
    assert {headers["Accept-Encoding"] for *_, headers in server.asked} == {"identity"}
    server.asked.clear()
    fetch([ZENODO, HUB, BUCKET], tmp_path, said.append)
    assert server.asked == []
    assert not (tmp_path / ".downloads").exists()


def test_a_terminal_sees_a_bar(server, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    fetch([ZENODO], tmp_path)
    assert "512k/512k" in terminal.getvalue()


WRONG = {
    "corrupt": Reply(body=CONTENT[:-1] + b"x"),
    "page": Reply(headers={"Content-Type": "text/html; charset=utf-8"}),
    "empty": Reply(body=b""),
    "nothing": Reply(204, body=b""),
    "shorter": Reply(body=CONTENT[:-1]),
    "page, untold": Reply(headers=UNTOLD, body=b"<html>Sorry"),
    "longer": Reply(body=CONTENT + b"x"),
    "longer, untold": Reply(headers=UNTOLD, endless=True),
    "length": Reply(headers={"Content-Length": "many"}),
    "lengths": Reply(headers={"Content-Length": f"{len(CONTENT)}, 7"}),
    "unasked part": Reply(206, {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"}),
    "packed": Reply(headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("trouble", WRONG)
def test_what_comes_wrong_is_tried_again_and_never_takes_its_place(server, tmp_path, trouble):
    server.replies["GET .tar"] = [WRONG[trouble]] * 2
    fetch([ZENODO], tmp_path / "again")
    assert (tmp_path / "again" / ZENODO.place).read_bytes() == CONTENT
    server.replies["GET .tar"] = [WRONG[trouble]] * 99
    refused([ZENODO, BUCKET], tmp_path / "never", "1 of 2 files could not be fetched")
    left = [name for name in files_in(tmp_path / "never") if ".tar" not in name]
    assert left == ["known_files.json", "val-3.tfrecords"]
    assert not server.outlasted


def test_another_length_than_the_published_one_is_told_at_once(server, tmp_path):
    told = Reply(headers={"Content-Length": str(N + 5)}, endless=True)
    server.replies["GET .tar"] = [told] * 99
    refused([ZENODO], tmp_path, f"{N + 5} bytes are sent, but {N} were published")
    assert not server.outlasted


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html>\n<p>Sorry", b"\xef\xbb\xbf \r\n\t<HTML><p>Sorry", b"", b"<html>"]
)
@pytest.mark.parametrize("unverified", [False, True])
def test_pages_and_nothing_are_refused_even_if_they_are_published(
    server, tmp_path, page, unverified
):
    server.content = page
    server.replies["HEAD .tfrecords"] = [Reply(headers=BARE)] * (99 * unverified)
    refused([BUCKET], tmp_path, "web page|empty", unverified)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("trouble", ["shorter", "longer", "length", "unasked part"])
def test_sizes_are_minded_without_a_checksum_too(server, tmp_path, trouble):
    server.replies["HEAD .tfrecords"] = [Reply(headers=BARE)] * 99
    reply = WRONG[trouble]
    if trouble in ("shorter", "longer"):  # than its own header says
        reply = Reply(cut=-1) if trouble == "shorter" else Reply(206, cut=9)
    server.replies["GET .tfrecords"] = [reply] * 99
    refused([BUCKET], tmp_path, "1 of 1", unverified=True)


def test_a_file_of_unknown_size_has_a_limit(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "LARGEST", len(CONTENT))
    server.replies["HEAD .tfrecords"] = [Reply(headers=BARE)] * 99
    untold = Reply(headers={"Content-Length": None, "ETag": None}, endless=True)
    server.replies["GET .tfrecords"] = [untold] * 99
    refused([BUCKET], tmp_path, f"more than the expected {len(CONTENT)} bytes", unverified=True)
    assert not server.outlasted
    assert files_in(tmp_path) == []
    server.replies["GET .tfrecords"] = [Reply(headers=UNTOLD)]
    fetch([BUCKET], tmp_path, unverified=True)
    assert (tmp_path / BUCKET.place).read_bytes() == CONTENT


def test_the_hubs_redirect_is_followed_for_the_file(server, tmp_path):
    there = {"Location": "/elsewhere.safetensors"}
    server.replies["HEAD main/model.safetensors"] = [Reply(302, there)]
    server.replies["GET main/model.safetensors"] = [Reply(302, there)]
    fetch([HUB], tmp_path)
    assert (tmp_path / HUB.place).read_bytes() == CONTENT
    assert len(server.ranges("/elsewhere.safetensors")) == 1


# --- asking again --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_busy_server_is_asked_again(server, tmp_path, status, method, waits):
    server.replies[f"{method} .tfrecords"] = [Reply(status)] * 3
    fetch([BUCKET], tmp_path)
    assert (tmp_path / BUCKET.place).read_bytes() == CONTENT
    assert len(server.ranges(".tfrecords", method)) == 4
    assert waits == sorted(waits)
    assert len(waits) >= 2


@pytest.mark.parametrize(
    ("after", "least", "most"),
    [("7", 7, 7), ("in 30 s", 25, 30), ("9999999", 120, 120), ("-5", 0, 8), ("soon", 0, 8),
     ("9" * 5000, 0, 8), ("Mon, 01 Jan 99999 00:00:00 GMT", 0, 120)],
)  # fmt: skip
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_says_how_long_to_wait(server, tmp_path, waits, status, after, least, most):
    if after == "in 30 s":
        after = formatdate(time.time() + 30, usegmt=True)
    server.replies["HEAD .tfrecords"] = [Reply(status, {"Retry-After": after})] * 2
    fetch([BUCKET], tmp_path)
    assert least <= max(waits) <= most


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_there_is_not_waited_for(server, tmp_path, status, waits):
    server.replies["HEAD .tfrecords"] = [Reply(status)] * 99
    refused([BUCKET], tmp_path, f"the server answers {status}")
    server.replies = {"GET .tar": [Reply(status)] * 99}
    refused([ZENODO], tmp_path, f"the server answers {status}")
    assert waits == []


@pytest.mark.parametrize("status", [405, 501])
@pytest.mark.parametrize("known_range", [True, False])
def test_a_server_without_head_is_asked_for_one_byte(server, status, known_range):
    server.replies["HEAD .tfrecords"] = [Reply(status)]
    whole = Reply(200, {"Content-Length": str(len(CONTENT)), "Content-Range": None}, endless=True)
    server.replies["GET .tfrecords"] = [] if known_range else [whole]
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert ask_publisher(BUCKET) == Published(f"md5:{md5}", len(CONTENT))
    assert server.ranges(".tfrecords") == ["bytes=0-0"]
    assert not server.outlasted


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_silent_server_is_left(server, tmp_path, monkeypatch, method):
    monkeypatch.setattr(requesting, "TIMEOUT", (1, 0.05))
    server.replies[f"{method} .tfrecords"] = [Reply(silent=True)] * 99
    refused([BUCKET, HUB], tmp_path, "1 of 2")
    assert len(server.ranges(".tfrecords", method)) == 1 + requesting.RETRIES
    server.replies[f"{method} .tfrecords"] = [Reply(silent=True)]
    fetch([BUCKET], tmp_path)
    assert not server.outlasted


# --- going on where it stopped -------------------------------------------------------------------


def test_a_cut_transfer_goes_on_in_the_same_run(server, tmp_path):
    half = len(CONTENT) // 2
    server.replies["GET .tar"] = [Reply(cut=half), Reply(cut=half // 2)]
    said: list[str] = []
    fetch([ZENODO], tmp_path, said.append)
    assert (tmp_path / ZENODO.place).read_bytes() == CONTENT
    starts = [int(r[6:-1]) for r in server.ranges(".tar")[1:]]
    assert half - 2**16 < starts[0] <= half < starts[1] < len(CONTENT)
    asked = [h for m, p, h in server.asked if p.endswith(".tar") and "Range" in h]
    assert {h["If-Range"] for h in asked} == {'"one"'}
    assert said[1:] == [f"[1/1] {ZENODO.place}: resuming at {s / 1e6:.0f} MB" for s in starts]
    assert files_in(tmp_path) == ["known_files.json", Path(ZENODO.place).name]


def test_what_ends_early_without_a_word_on_its_length_goes_on_too(server, tmp_path):
    server.replies["GET .tar"] = [Reply(headers=UNTOLD, cut=100_000)]
    fetch([ZENODO], tmp_path)
    assert (tmp_path / ZENODO.place).read_bytes() == CONTENT
    assert server.ranges(".tar") == ["", "bytes=100000-"]


@pytest.mark.parametrize(
    "after", ["soon", "9" * 5000, "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"]
)
def test_a_server_that_says_oddly_how_long_to_wait_costs_no_partial(server, tmp_path, after):
    server.replies["GET .tar"] = [Reply(cut=100_000), Reply(503, {"Retry-After": after})]
    fetch([ZENODO], tmp_path)
    assert server.ranges(".tar")[1:] == ["bytes=65536-"] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_a_stopped_run_leaves_a_partial_for_the_next(server, tmp_path, interrupt, error):
    interrupt(error)
    with pytest.raises(type(error)):
        fetch([ZENODO, HUB], tmp_path)
    part = partial_of(tmp_path)
    assert files_in(tmp_path) == sorted([part.name, part.with_suffix(".json").name])
    assert CONTENT.startswith(part.read_bytes())
    have = part.stat().st_size
    assert have > 100_000
    assert server.ranges(".safetensors") == []
    server.asked.clear()
    fetch([ZENODO], tmp_path)
    assert (tmp_path / ZENODO.place).read_bytes() == CONTENT
    assert server.ranges(".tar") == [f"bytes={have}-"]
    assert not (tmp_path / ".downloads").exists()


def stopped(server: Server, data: Path, interrupt, source: Source, **more) -> Path:
    """The partial of a run that was killed; what was asked is forgotten."""
    interrupt(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        fetch([source], data, **more)
    server.asked.clear()
    return partial_of(data)


def test_what_was_cut_for_good_is_left_for_the_next_run_but_nothing_corrupt(server, tmp_path):
    server.replies["GET .tar"] = [Reply(cut=90_000), *[Reply(cut=10)] * 99]
    server.replies["GET .tfrecords"] = [Reply(body=CONTENT[:-1] + b"x")] * 99
    with pytest.raises(DownloadError, match="2 of 2"):
        fetch([ZENODO, BUCKET], tmp_path)
    assert partial_of(tmp_path).name.endswith(".tar.part")
    server.replies.clear()
    server.asked.clear()
    fetch([ZENODO], tmp_path)
    assert (tmp_path / ZENODO.place).read_bytes() == CONTENT
    assert server.ranges(".tar") == ["bytes=65536-"]


def test_another_version_is_fetched_from_its_start(server, tmp_path, interrupt):
    stopped(server, tmp_path, interrupt, BUCKET)
    server.content, server.etag = CONTENT[::-1], '"two"'
    fetch([BUCKET], tmp_path)
    assert (tmp_path / BUCKET.place).read_bytes() == CONTENT[::-1]
    assert len(server.ranges(".tfrecords")) == 1


MISFITS = {
    "416": Reply(416, {"Content-Range": f"bytes */{N}"}, b""),
    "another start": Reply(206, {"Content-Range": f"bytes 5-{LAST}/{N}"}),
    "another end": Reply(206, {"Content-Range": f"bytes {{have}}-{LAST - 1}/{N}"}),
    "another size": Reply(206, {"Content-Range": f"bytes {{have}}-{N}/{N + 1}", **UNTOLD}),
    "no size": Reply(206, {"Content-Range": f"bytes {{have}}-{LAST}/*"}),
    "no range": Reply(206, {"Content-Range": None}),
    "odd range": Reply(206, {"Content-Range": "bites"}),
    "another version": Reply(206, {"ETag": '"two"'}),
    "another length": Reply(206, {"Content-Length": "77"}),
    "odd length": Reply(206, {"Content-Length": "many"}),
    "nothing": Reply(204, {"Content-Range": None}, b""),
    "page": Reply(206, {"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("unverified", [False, True])
def test_a_rest_that_does_not_fit_is_fetched_from_the_start(
    server, tmp_path, interrupt, misfit, unverified
):
    server.replies["HEAD .tfrecords"] = [Reply(headers=BARE)] * (99 * unverified)
    part = stopped(server, tmp_path, interrupt, BUCKET, unverified=unverified)
    have = part.stat().st_size
    headers = MISFITS[misfit].headers.items()
    headers = {name: value and value.replace("{have}", str(have)) for name, value in headers}
    server.replies["GET .tfrecords"] = [replace(MISFITS[misfit], headers=headers)]
    fetch([BUCKET], tmp_path, unverified=unverified)
    assert (tmp_path / BUCKET.place).read_bytes() == CONTENT
    assert server.ranges(".tfrecords") == [f"bytes={have}-", ""]


def test_a_corrupt_partial_is_found_and_fetched_from_the_start(server, tmp_path, interrupt):
    part = stopped(server, tmp_path, interrupt, ZENODO)
    part.write_bytes(part.read_bytes()[::-1])
    have = part.stat().st_size
    fetch([ZENODO], tmp_path)
    assert (tmp_path / ZENODO.place).read_bytes() == CONTENT
    assert server.ranges(".tar") == [f"bytes={have}-", ""]


@pytest.mark.parametrize("etag", ['W/"one"', "", "one"])
@pytest.mark.parametrize("unverified", [False, True])
def test_without_a_strong_etag_only_a_checksum_lets_it_go_on(
    server, tmp_path, interrupt, etag, unverified
):
    server.etag = etag
    server.replies["HEAD .tfrecords"] = [Reply(headers=BARE)] * (99 * unverified)
    have = stopped(server, tmp_path, interrupt, BUCKET, unverified=unverified).stat().st_size
    fetch([BUCKET], tmp_path, unverified=unverified)
    assert (tmp_path / BUCKET.place).read_bytes() == CONTENT
    assert server.ranges(".tfrecords") == ["" if unverified else f"bytes={have}-"]
    assert all("If-Range" not in headers for *_, headers in server.asked)


def test_another_version_shows_in_a_weak_etag_too(server, tmp_path, interrupt):
    server.etag = 'W/"one"'
    have = stopped(server, tmp_path, interrupt, BUCKET).stat().st_size
    server.etag = 'W/"two"'
    said: list[str] = []
    fetch([BUCKET], tmp_path, said.append)
    assert (tmp_path / BUCKET.place).read_bytes() == CONTENT
    assert server.ranges(".tfrecords") == [f"bytes={have}-", ""]
    assert not any("going on" in line for line in said)


@pytest.mark.parametrize(
    "changed",
    [b"", b"{", b"[]", b"[" * 100_000, {"address": "http://127.0.0.1/other"}, {"address": None},
     {"etag": 5}, {"size": -1}, {"size": "5"}, {"size": 12}, {"size": N + 1}, {"place": "other"},
     {"place": "../../x"}, {"place": "\ud800"}],
)  # fmt: skip
def test_a_partial_with_an_odd_note_is_fetched_from_the_start(server, tmp_path, interrupt, changed):
    note = stopped(server, tmp_path, interrupt, ZENODO).with_suffix(".json")
    whole = json.loads(note.read_text())
    assert whole == {
        "place": ZENODO.place, "address": ZENODO.address, "etag": '"one"', "size": N,
    }  # fmt: skip
    note.write_bytes(
        changed if isinstance(changed, bytes) else json.dumps(whole | changed).encode()
    )
    fetch([ZENODO], tmp_path)
    assert (tmp_path / ZENODO.place).read_bytes() == CONTENT
    assert server.ranges(".tar") == [""]


def test_a_run_killed_after_the_last_byte_only_verifies(server, tmp_path, interrupt):
    part = stopped(server, tmp_path, interrupt, ZENODO)
    part.write_bytes(CONTENT)
    fetch([ZENODO], tmp_path)
    assert (tmp_path / ZENODO.place).read_bytes() == CONTENT
    assert server.ranges(".tar") == []
    (tmp_path / ZENODO.place).unlink()
    part = stopped(server, tmp_path, interrupt, ZENODO)
    part.write_bytes(CONTENT + b"x")
    fetch([ZENODO], tmp_path)
    assert server.ranges(".tar") == [""]


def test_two_processes_do_not_fetch_into_one_folder_at_once(server, tmp_path):
    said: list[str] = []
    with FileLock(tmp_path / ".downloads.lock"):
        second = threading.Thread(target=fetch, args=([ZENODO], tmp_path, said.append))
        second.start()
        deadline = monotonic() + 60
        while not said and monotonic() < deadline:
            second.join(0.01)
        assert said == [f"waiting for another process that is fetching into {tmp_path}"]
        assert server.asked == []
        # Meanwhile the first one has fetched it.
        (tmp_path / ZENODO.place).parent.mkdir()
        (tmp_path / ZENODO.place).write_bytes(CONTENT)
    second.join()
    assert server.asked == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints"]


def test_partials_of_files_that_are_there_are_swept_and_nothing_of_another_name(
    server, tmp_path, interrupt
):
    stopped(server, tmp_path, interrupt, ZENODO)
    waiting, elsewhere = tmp_path / ".downloads", tmp_path / "elsewhere"
    kept = files_in(waiting)
    waiting.rename(elsewhere)  # as where the folder is a link to another disk
    waiting.symlink_to(elsewhere)
    (elsewhere / "thesis.tex").write_text("mine")
    (elsewhere / "x.json").write_text("{")
    (elsewhere / "folder").mkdir()
    (elsewhere / "folder" / "file").touch()
    fetch([HUB], tmp_path)
    mine = ["folder", "thesis.tex", "x.json"]
    assert sorted(p.name for p in elsewhere.iterdir()) == sorted([*kept, *mine])
    (tmp_path / ZENODO.place).write_bytes(b"by hand")
    fetch([ZENODO], tmp_path)
    assert sorted(p.name for p in elsewhere.iterdir()) == mine
    assert (elsewhere / "folder" / "file").exists()


def test_a_link_in_a_partials_place_is_not_written_through(server, tmp_path, interrupt):
    part = stopped(server, tmp_path, interrupt, ZENODO)
    other = tmp_path / "other"
    other.write_bytes(begun := part.read_bytes())
    part.unlink()
    part.symlink_to(other)
    fetch([ZENODO], tmp_path)
    assert other.read_bytes() == begun
    assert not (tmp_path / ZENODO.place).is_symlink()


def test_partials_of_equal_names_are_kept_apart_and_in_their_folder(server, tmp_path, interrupt):
    data = tmp_path / "deep" / "data"
    places = ["one/file.bin", "two/file.bin", "../file.bin", "three/..", "four/" + "n" * 250]
    for place in places:
        interrupt(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            fetch([replace(BUCKET, place=place)], data)
    names = files_in(tmp_path)
    assert len(names) == len(set(names)) == 2 * len(places)
    assert files_in(data / ".downloads") == names
    assert all((data / ".downloads" / name).is_file() for name in names)
    server.asked.clear()
    fetch([replace(BUCKET, place=place) for place in places[:2]], data)
    assert len(server.ranges(".tfrecords")) == 2
    assert all(server.ranges(".tfrecords"))  # both go on
    assert (data / places[0]).read_bytes() == (data / places[1]).read_bytes() == CONTENT


# --- hostile servers -----------------------------------------------------------------------------


def test_a_redirect_without_end_is_left(server, tmp_path):
    server.replies["GET .tar"] = [Reply(302, {"Location": ZENODO.address})] * 99
    error, _ = refused([ZENODO, HUB], tmp_path, "1 of 2")
    assert "redirects" in error
    assert len(server.ranges(".tar")) < 40


@pytest.mark.parametrize(
    "reply",
    [Reply(302, {"Location": "/other", **UNTOLD}, endless=True), Reply(503, UNTOLD, endless=True),
     Reply(404, UNTOLD, endless=True)],
)  # fmt: skip
def test_the_bodies_of_redirects_and_errors_are_not_read(server, tmp_path, reply):
    server.replies["GET .tar"] = [reply]
    server.replies["HEAD .tfrecords"] = [Reply(405)]
    server.replies["GET .tfrecords"] = [reply]
    said: list[str] = []
    try:
        fetch([ZENODO, BUCKET], tmp_path, said.append)
    except DownloadError:
        assert reply.status in (302, 404)
    assert not server.outlasted


@pytest.mark.parametrize("where", ["http://[", "file:///etc/passwd", "http://\x7f\x80/", "//"])
def test_a_redirect_to_nowhere_is_an_error(server, tmp_path, where):
    server.replies["GET .tar"] = [Reply(302, {"Location": where})] * 99
    refused([ZENODO, HUB], tmp_path, "1 of 2")


def test_errors_are_printable(server, tmp_path):
    server.replies["HEAD .tfrecords"] = [Reply(403, reason="No\x1b[2J\x9b\x07\u00ad way")]
    server.replies["GET .tar"] = [Reply(headers={"Content-Encoding": "\x1b[2J" + "x" * 9999})] * 99
    server.replies["HEAD .safetensors"] = [
        Reply(headers={"X-Linked-ETag": "\x1b]0;title\x07"})
    ] * 99
    said: list[str] = []
    with pytest.raises(DownloadError, match="3 of 3") as caught:
        fetch([BUCKET, ZENODO, HUB], tmp_path, said.append)
    for text in (str(caught.value), *said):
        assert all(line.isprintable() for line in text.split("\n"))
        assert max(map(len, text.split("\n"))) < 600
    assert "403 No?[2J" in said[0]


# --- known files ---------------------------------------------------------------------------------


def test_files_put_there_by_hand_become_known_and_changed_ones_are_told(tmp_path):
    path = tmp_path / ZENODO.place
    path.parent.mkdir()
    path.write_bytes(b"mine")
    assert KnownFiles(tmp_path).check([path]) == []
    assert json.loads((tmp_path / "known_files.json").read_text())[ZENODO.place]["origin"]
    assert KnownFiles(tmp_path).check([path]) == []
    path.write_bytes(b"other")
    assert KnownFiles(tmp_path).check([path]) == [ZENODO.place]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "5", "[" * 100_000, '{"a": ' * 100_000, '{"a": null}', '{"a": {}}',
     '{"a": {"sha256": "0"}}', '{"a": {"sha256": 5}}',
     json.dumps({"a": {"sha256": "0" * 64, "publishers_checksum": 5}}), "\udcff"],
)  # fmt: skip
def test_damaged_known_files_are_told(tmp_path, text):
    path = tmp_path / "known_files.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    for use in (KnownFiles, lambda data: fetch([ZENODO], data)):
        with pytest.raises(
            ValueError, match="cannot be read \\(.*\\); it holds the hashes"
        ) as told:
            use(tmp_path)
        assert str(told.value).startswith(f"{path} cannot be read (")
        assert "restore it, or delete it to accept the files as they are now" in str(told.value)
