"""Fetching published files: verified by the publisher's checksum, whole or not at all.

A file that is fetched, or found where a user has put it, is known by its SHA-256 from then
on: `known_files.json` in the data folder. A known file that changes is refused. What has come
of a file waits in `.downloads` there until the rest does, in a later run if need be.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import google_crc32c
import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry

from lib.base.files import write_json
from lib.base.fingerprint import sha256_of
from lib.base.stored_json import mapping, of_each, parse_json, read_json
from lib.networks.sources import Source

RETRIES = 4  # after the first attempt, each after a longer pause
TIMEOUT = (15, 60)  # seconds: for a connection, without a byte
LONGEST_WAIT = 120  # seconds, whatever a server asks for
LARGEST = 4 * 2**30  # bytes, where nobody tells a file's size
_LARGEST_LISTING = 16 * 2**20  # bytes; Zenodo's have kilobytes
_CHUNK = 2**16  # bytes; a connection that breaks off loses fewer
_WHITE = b"\xef\xbb\xbf \t\r\n\f\v"  # may precede a page's first tag
_TOLD = 300  # characters of an error
_NONE_HAD = "none was had (--unverified)"
_Result = TypeVar("_Result")

_TEXT = {"type": "string"}
_KNOWN = of_each(
    mapping(
        {"sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
        {"origin": _TEXT, "publishers_checksum": _TEXT},
    )
)
_NOTE = mapping(
    {"place": _TEXT, "address": _TEXT, "etag": _TEXT, "size": {"type": "integer", "minimum": 0}}
)


class DownloadError(RuntimeError):
    """Files that could not be fetched; the message says which and why."""


class NoChecksumError(DownloadError):
    """What the publisher says of a file could not be had; the message says why."""


class _CutError(ValueError):
    """Less came than was told; the next attempt may go on from there."""


_FAILURES = (requests.RequestException, HTTPError, ValueError, DownloadError)  # one file's


@dataclass(frozen=True)
class Published:
    """What a publisher says of a file.

    checksum : "md5:…", "sha256:…" or "crc32c:…", in hexadecimal digits; "" if nobody could be asked
    size     : in bytes, 0 where it is not known
    """

    checksum: str = ""
    size: int = 0


class KnownFiles:
    """The SHA-256 of every published file at its first use."""

    def __init__(self, data: Path):
        self.data = data
        self.path = data / "known_files.json"
        try:
            self._entries = parse_json(self.path.read_bytes(), _KNOWN, "its JSON")
        except FileNotFoundError:
            self._entries = {}
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.path} cannot be read ({error}); it holds the hashes of your files: "
                "restore it, or delete it to take the files as they are now"
            ) from None

    def check(self, paths: Iterable[Path], origin: str = "found in place") -> list[str]:
        """Names of those that are not what they were; new ones become known."""
        changed = []
        known = len(self._entries)
        for path in paths:
            name = self._name(path)
            digest = sha256_of(path)
            entry = self._entries.setdefault(name, {"sha256": digest, **_facts(path, origin)})
            if entry["sha256"] != digest:
                changed.append(name)
        if len(self._entries) > known:
            self._write()
        return changed

    def record(self, path: Path, origin: str, checksum: str) -> None:
        """A file that has just been fetched. checksum : the publisher's, "" if none was had"""
        verified = {"publishers_checksum": checksum or _NONE_HAD}
        entry = {"sha256": sha256_of(path), **_facts(path, origin), **verified}
        self._entries[self._name(path)] = entry
        self._write()

    def unverified(self, paths: Iterable[Path]) -> dict[str, str]:
        """{name: why} of the known ones that no publisher's checksum has confirmed."""
        whys = {}
        for name in map(self._name, paths):
            entry = self._entries.get(name)
            if entry and "publishers_checksum" not in entry:
                whys[name] = entry.get("origin", "found in place")
            elif entry and entry["publishers_checksum"].startswith("none"):
                whys[name] = f"fetched; publisher's checksum: {entry['publishers_checksum']}"
        return whys

    def _name(self, path: Path) -> str:
        return path.relative_to(self.data).as_posix()

    def _write(self) -> None:
        write_json(self.path, self._entries)


def _facts(path: Path, origin: str) -> dict[str, Any]:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"bytes": path.stat().st_size, "origin": origin, "since": now}


def fetch(
    sources: Sequence[Source],
    data: Path,
    say: Callable[[str], None] = print,
    unverified: bool = False,
) -> None:
    """Fetch what is not there; a file takes its place when it is whole and verified.

    unverified : take a file whose publisher's checksum cannot be had, and say so
    A failure is tried again, each time after a longer pause; then the others are fetched all
    the same. Raises DownloadError in the end naming every file that is still missing, and
    OSError (a full disk) at once.
    """
    missing = [source for source in sources if not (data / source.place).is_file()]
    known = KnownFiles(data)
    waiting = data / ".downloads"
    _sweep(waiting, data)
    failed = []
    for number, source in enumerate(missing, 1):
        start = f"[{number}/{len(missing)}] {source.place}: "
        try:
            _fetch_one(source, known, lambda text, start=start: say(start + text), unverified)
        except _FAILURES as error:
            say(f"{start}failed: {_reason(error)}")
            failed.append(f"  {source.place} from {source.address}\n    {_reason(error)}")
    with contextlib.suppress(OSError):
        waiting.rmdir()  # unless something waits there
    if failed:
        raise DownloadError(
            f"{len(failed)} of {len(missing)} files could not be fetched; the same command tries "
            "them again, or put them there by hand:\n" + "\n".join(failed)
        )


def _fetch_one(
    source: Source, known: KnownFiles, tell: Callable[[str], None], unverified: bool
) -> None:
    try:
        published = ask_publisher(source)
        checked = published.checksum.partition(":")[0]
    except NoChecksumError as error:
        if not unverified:
            raise NoChecksumError(f"{error}; --unverified would take the file without") from None
        published = Published()
        checked = f"unverified: {error}"
    size = published.size or source.about_bytes
    tell(f"{_megabytes(size)} ({checked}), {source.address}")
    transfer = _Transfer(source, published, known.data / ".downloads", tell)
    _tried(transfer.attempt)
    place = known.data / source.place
    place.parent.mkdir(parents=True, exist_ok=True)
    transfer.part.replace(place)
    transfer.forget()
    known.record(place, source.address, published.checksum)


# --- what a publisher says ------------------------------------------------------------------


def ask_publisher(source: Source) -> Published:
    """The checksum and size that Zenodo's record, the hub or the bucket give.

    Raises NoChecksumError where the checksum cannot be had.
    """
    ask = _ask_zenodo if urlsplit(source.url).netloc == "zenodo.org" else _ask_server
    try:
        return _tried(lambda: ask(source))
    except _FAILURES as error:
        raise NoChecksumError(f"its checksum could not be had ({_reason(error)})") from None


def _ask_zenodo(source: Source) -> Published:
    *_, record, _, name = urlsplit(source.url).path.split("/")
    listing = source.address.replace(f"/{record}/files/{name}", f"/{record}")
    listing = listing.replace("/records/", "/api/records/")
    with _session() as session, session.get(listing, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        text = b"".join(_body(answer, _LARGEST_LISTING))
    files = parse_json(text, _listing_of(name), f"the listing {listing}")["files"]
    entry = next((file for file in files if file.get("key") == name), None)
    if entry is None:
        raise ValueError(f"the listing {listing} does not have it")
    return Published(entry["checksum"].lower(), int(entry["size"]))


def _listing_of(name: str) -> dict[str, Any]:
    """The schema of a record's listing; of other files' entries it asks nothing."""
    checksum = {"type": "string", "pattern": "^(md5:[0-9a-fA-F]{32}|sha256:[0-9a-fA-F]{64})$"}
    size = {"type": "integer", "minimum": 1, "maximum": 10**15}
    sound = mapping({"checksum": checksum, "size": size})
    entry = {"type": "object", "if": mapping({"key": {"const": name}}), "then": sound}
    return mapping({"files": {"type": "array", "items": entry}})


def _ask_server(source: Source) -> Published:
    """Redirects are not followed: the hub's own answer has the headers."""
    options: dict[str, Any] = {"allow_redirects": False, "stream": True, "timeout": TIMEOUT}
    with _session() as session:
        answer = session.head(source.address, **options)
        if answer.status_code in (405, 501):  # it knows no HEAD
            answer = session.get(source.address, headers={"Range": "bytes=0-0"}, **options)
        answer.close()
    answer.raise_for_status()
    size = _number(answer.headers, "x-linked-size")
    if not size and answer.status_code == 200:
        size = _number(answer.headers, "Content-Length")
    if not size and answer.status_code == 206:
        size = _content_range(answer)[2]
    return Published(_checksum(answer.headers), size)


def _checksum(headers: Mapping[str, str]) -> str:
    """The hub's SHA-256, or the bucket's MD5 or CRC-32C. Raises ValueError if there is none."""
    if etag := headers.get("x-linked-etag"):
        digest = etag.strip('"').lower()
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"x-linked-etag is no SHA-256: {etag}")
        return f"sha256:{digest}"
    parts = headers.get("x-goog-hash", "").split(",")
    hashes = {kind: value for kind, _, value in (part.strip().partition("=") for part in parts)}
    for kind, length in (("md5", 16), ("crc32c", 4)):
        if kind in hashes:
            digest = base64.b64decode(hashes[kind], validate=True).hex()
            if len(digest) != 2 * length:
                raise ValueError(f"x-goog-hash has no whole {kind}: {hashes[kind]}")
            return f"{kind}:{digest}"
    raise ValueError("the server gives neither x-linked-etag nor x-goog-hash")


# --- one file on its way --------------------------------------------------------------------


class _Transfer:
    """What has come of one file, and how the rest does.

    tell : is told where it goes on
    """

    def __init__(
        self, source: Source, published: Published, folder: Path, tell: Callable[[str], None]
    ):
        self.source, self.published, self.tell = source, published, tell
        self.part, self.note = _partial(folder, source.place)

    def attempt(self) -> None:
        """Fetch what is missing of the partial and verify the whole.

        Raises _CutError if it can go on from there, ValueError if it begins anew.
        """
        try:
            have, etag, size = self._kept()
            if not have or have != size:  # else it was killed at the very end
                size = self._receive(have, etag, size)
            self._verify(size)
        except _CutError:
            raise
        except ValueError:
            self.forget()
            raise

    def forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _kept(self) -> tuple[int, str, int]:
        """How many bytes are there, of which version (its ETag) and of how many; (0, "", 0) if they
        are another file's, or if nothing would tell."""
        try:
            note = read_json(self.note, _NOTE)
            have = self.part.stat().st_size
        except (OSError, ValueError):
            return 0, "", 0
        etag, size = note["etag"], int(note["size"])
        same = note["address"] == self.source.address
        same = same and self.published.size in (0, size) and have <= (size or LARGEST)
        certain = _is_strong(etag) or self.published.checksum
        return (have, etag, size) if same and certain else (0, "", 0)

    def _receive(self, have: int, etag: str, size: int) -> int:
        """Fetch what is missing; returns the whole file's size, 0 if nobody tells."""
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and _is_strong(etag):
            headers["If-Range"] = etag
        options: dict[str, Any] = {"headers": headers, "stream": True, "timeout": TIMEOUT}
        with _session() as session, session.get(self.source.address, **options) as answer:
            if have and answer.status_code != 200:
                size = _size_of_rest(answer, have, etag, size)
                self.tell(f"going on at {_megabytes(have)}")
            else:
                have, size = 0, self._begin(answer)
            self._store(answer, have, size)
        return size

    def _begin(self, answer: requests.Response) -> int:
        """The whole file's size, 0 if nobody tells; whatever was there is gone."""
        answer.raise_for_status()
        if answer.status_code != 200:
            raise ValueError(f"{_status(answer)}, which is not the whole file")
        _refuse_other_kinds(answer.headers)
        size, told = self.published.size, _number(answer.headers, "Content-Length")
        if size and told and size != told:
            raise ValueError(f"{told} bytes are sent, {size} were published")
        self.forget()
        note = {"place": self.source.place, "address": self.source.address}
        note |= {"etag": answer.headers.get("ETag", ""), "size": size or told}
        write_json(self.note, note)
        return size or told

    def _store(self, answer: requests.Response, have: int, size: int) -> None:
        shown = sys.stderr is not None and sys.stderr.isatty()
        bar = tqdm(total=size or None, initial=have, unit="B", unit_scale=True, disable=not shown)
        with bar, self.part.open("ab") as file:
            for chunk in _body(answer, (size or LARGEST) - have):
                file.write(chunk)
                bar.update(len(chunk))

    def _verify(self, size: int) -> None:
        """Raise ValueError unless the whole is what was published, and no page."""
        came = self.part.stat().st_size
        kind, _, published = self.published.checksum.partition(":")
        if kind in ("md5", "sha256"):
            digest = hashlib.new(kind, usedforsecurity=False)
        else:
            digest = google_crc32c.Checksum()
        with self.part.open("rb") as file:
            first = file.read(_CHUNK)
            if first.lstrip(_WHITE)[:9].lower().startswith((b"<!doctype", b"<html")):
                raise ValueError("a page in HTML came instead of the file")
            if came < size:
                raise _CutError(f"{came} bytes came of {size}")
            if not came:
                raise ValueError("the file is empty")
            digest.update(first)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if kind and digest.digest().hex() != published:
            raise ValueError(f"its {kind} is {digest.digest().hex()}; {published} was published")


def _size_of_rest(answer: requests.Response, have: int, etag: str, size: int) -> int:
    """The whole file's size. Raises ValueError unless just the rest of the same file follows."""
    if answer.status_code != 416:
        answer.raise_for_status()
    _refuse_other_kinds(answer.headers)
    first, last, total = _content_range(answer)
    told = _number(answer.headers, "Content-Length")
    same = total == (size or total) and (not etag or answer.headers.get("ETag", etag) == etag)
    if not same or (first, last) != (have, total - 1) or told not in (0, total - have):
        raise ValueError("the server's file is not the one that had begun to come")
    return total


def _refuse_other_kinds(headers: Mapping[str, str]) -> None:
    if headers.get("Content-Type", "").strip().lower().startswith("text/html"):
        raise ValueError("a page in HTML comes instead of the file")
    if (packed := headers.get("Content-Encoding", "identity").strip().lower()) != "identity":
        raise ValueError(f"the file comes packed ({packed}), which was not asked for")


def _body(answer: requests.Response, most: int) -> Iterator[bytes]:
    """What comes, piece by piece. Raises _CutError where it breaks off, ValueError at more."""
    came = 0
    try:
        for chunk in answer.iter_content(_CHUNK):
            came += len(chunk)
            if came > most:
                raise ValueError(f"more comes than the {most} bytes that are due")
            yield chunk
    except (requests.RequestException, HTTPError) as error:
        raise _CutError(f"the connection broke off: {_reason(error)}") from None


# --- partials -------------------------------------------------------------------------------


def _partial(folder: Path, place: str) -> tuple[Path, Path]:
    """What has come of a file, and the note on it; equal names in two folders are kept apart."""
    name = f"{hashlib.sha256(place.encode()).hexdigest()[:12]}-{Path(place).name[-50:]}"
    return folder / f"{name}.part", folder / f"{name}.json"


def _sweep(folder: Path, data: Path) -> None:
    """Leave partials of files that are still missing, and nothing else."""
    keep: set[Path] = set()
    for note in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            place = read_json(note, _NOTE)["place"]
            if not (data / place).is_file():
                keep.update(_partial(folder, place))
    for path in folder.glob("*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path not in keep or path.is_symlink():
            with contextlib.suppress(OSError):  # as of a file that is open on NFS
                path.unlink()


def _is_strong(etag: str) -> bool:
    """Whether it tells versions apart byte by byte."""
    return bool(re.fullmatch(r'"[!#-~]+"', etag))


# --- requests -------------------------------------------------------------------------------


class _Patience(Retry):
    """Asks again where that may help, as late as the server says, within limits."""

    def increment(
        self, method: Any = None, url: Any = None, response: Any = None, *rest: Any, **more: Any
    ) -> Retry:
        if response is not None:
            response.close()  # or its body would be read, which may have no end
        return super().increment(method, url, response, *rest, **more)

    def parse_retry_after(self, retry_after: str) -> float:
        try:
            return min(super().parse_retry_after(retry_after), LONGEST_WAIT)
        except (InvalidHeader, ValueError, OverflowError):
            return 0  # then the pauses are our own


class _Adapter(HTTPAdapter):
    """Reads no body of a redirect, which may have no end either."""

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        answer = super().build_response(req, resp)
        if answer.is_redirect:
            answer.close()
        return answer


def _session() -> requests.Session:
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"
    again = _Patience(
        RETRIES, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
    )  # fmt: skip
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter(max_retries=again))
    return session


def _tried(attempt: Callable[[], _Result]) -> _Result:
    """What the attempt gives; if what comes is wrong or cut, it is made again after a pause."""
    for number in range(RETRIES):
        try:
            return attempt()
        except ValueError:
            time.sleep(2**number)
    return attempt()


def _number(headers: Mapping[str, str], name: str) -> int:
    """A header's number, 0 where there is no such header."""
    text = headers.get(name, "0").strip()
    if not re.fullmatch("[0-9]{1,15}", text):
        raise ValueError(f"{name} is no number of bytes: {text}")
    return int(text)


def _content_range(answer: requests.Response) -> tuple[int, ...]:
    """The first byte's number, the last one's, and the whole file's size."""
    text = answer.headers.get("Content-Range", "")
    numbers = re.fullmatch("bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})", text.strip())
    if answer.status_code != 206 or not numbers:
        raise ValueError(f"{_status(answer)}, and not with the part that was asked for {text}")
    return tuple(map(int, numbers.groups()))


def _status(answer: requests.Response) -> str:
    return f"the server answers {answer.status_code} {answer.reason}"


def _reason(error: Exception) -> str:
    """One printable line, whatever a server has put into it."""
    if isinstance(error, DownloadError):
        return str(error)  # it holds a reason
    if isinstance(error, requests.HTTPError) and error.response is not None:
        text = _status(error.response)
    elif isinstance(error, requests.RequestException | HTTPError):
        cause = getattr(error.args[0] if error.args else None, "reason", None)  # urllib3's
        text = f"{type(error).__name__}: {cause or error}"
    else:
        text = str(error)
    return "".join(c if c.isprintable() else "?" for c in text)[:_TOLD]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
