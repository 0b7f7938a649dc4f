"""Fetching published files: verified where the publisher says how, whole or not at all.

A file that is fetched, or found where a user has put it, is known by its SHA-256 from then
on: `known_files.json` in the data folder. A known file that changes is refused.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from lib.base.files import write_json
from lib.base.fingerprint import sha256_of
from lib.networks.sources import Source

RETRIES = 4  # after the first attempt, each after a longer pause
_TIMEOUT = 60  # seconds without a byte
_CHUNK = 2**20  # bytes


class DownloadError(RuntimeError):
    """Files that could not be fetched; the message says which and why."""


@dataclass(frozen=True)
class Published:
    """What a publisher says of a file. checksum : "md5:…", "sha256:…", "" if nothing is said"""

    checksum: str = ""
    size: int = 0


def ask_publisher(source: Source) -> Published:
    """The checksum and size that Zenodo's record, the hub or the bucket give.

    Raises requests' exceptions where there is no connection or no such file.
    """
    host = urlsplit(source.url).netloc
    if host == "zenodo.org":
        *_, record, _, name = urlsplit(source.url).path.split("/")
        listing = source.address.replace(f"/{record}/files/{name}", f"/{record}")
        listing = listing.replace("/records/", "/api/records/")
        with contextlib.suppress(requests.RequestException, ValueError, KeyError, TypeError):
            answer = requests.get(listing, timeout=_TIMEOUT)
            answer.raise_for_status()
            files = {entry["key"]: entry for entry in answer.json()["files"]}
            return Published(files[name]["checksum"], int(files[name]["size"]))
    answer = requests.head(source.address, timeout=_TIMEOUT, allow_redirects=False)
    answer.raise_for_status()
    said = answer.headers
    size = int(said.get("x-linked-size") or said.get("content-length") or 0)
    for part in said.get("x-goog-hash", "").split(","):
        kind, _, value = part.strip().partition("=")
        if kind == "md5":
            return Published(f"md5:{base64.b64decode(value).hex()}", size)
    digest = said.get("x-linked-etag", "").strip('"')
    return Published(f"sha256:{digest}" if len(digest) == 64 else "", size)


class KnownFiles:
    """The SHA-256 of every published file at its first use."""

    def __init__(self, data: Path):
        self.data = data
        self.path = data / "known_files.json"
        try:
            self._entries = json.loads(self.path.read_text(encoding="utf-8"))
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
            name = path.relative_to(self.data).as_posix()
            digest = sha256_of(path)
            entry = self._entries.setdefault(name, {"sha256": digest, **_facts(path, origin)})
            if entry["sha256"] != digest:
                changed.append(name)
        if len(self._entries) > known:
            self._write()
        return changed

    def record(self, path: Path, origin: str, checksum: str) -> None:
        """A file that has just been fetched."""
        name = path.relative_to(self.data).as_posix()
        verified = {"publishers_checksum": checksum or "none was given"}
        self._entries[name] = {"sha256": sha256_of(path), **_facts(path, origin), **verified}
        self._write()

    def _write(self) -> None:
        write_json(self.path, self._entries)


def _facts(path: Path, origin: str) -> dict:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"bytes": path.stat().st_size, "origin": origin, "since": now}


def fetch(sources: Sequence[Source], data: Path, say: Callable[[str], None] = print) -> None:
    """Fetch what is not there; a file takes its place when it is whole and verified.

    A failure is tried again, each time after a longer pause; then the others are fetched all
    the same. Raises DownloadError in the end naming every file that is still missing, and
    OSError (a full disk) at once.
    """
    missing = [source for source in sources if not (data / source.place).is_file()]
    waiting = data / ".downloads"
    shutil.rmtree(waiting, ignore_errors=True)  # of a run that was killed
    known = KnownFiles(data)
    failed = []
    try:
        for number, source in enumerate(missing, 1):
            try:
                published = ask_publisher(source)
                size = f"{(published.size or source.about_bytes) / 1e6:.0f} MB"
                checked = published.checksum.partition(":")[0] or "no checksum is published"
                count = f"[{number}/{len(missing)}]"
                say(f"{count} {source.place}: {size} ({checked}), {source.address}")
                _fetch_one(source, published, waiting)
            except (requests.RequestException, ValueError) as error:
                failed.append(f"  {source.place} from {source.address}\n    {_reason(error)}")
                say(f"[{number}/{len(missing)}] {source.place}: failed: {_reason(error)}")
                continue
            place = data / source.place
            place.parent.mkdir(parents=True, exist_ok=True)
            (waiting / place.name).replace(place)
            known.record(place, source.address, published.checksum)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
    if failed:
        raise DownloadError(
            f"{len(failed)} of {len(missing)} files could not be fetched; the same command tries "
            "them again, or put them there by hand:\n" + "\n".join(failed)
        )


def _fetch_one(source: Source, published: Published, folder: Path) -> None:
    name = Path(source.place).name
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr is not None and sys.stderr.isatty(),
        chunk_size=_CHUNK,
        timeout=_TIMEOUT,
    )
    pooch.get_logger().setLevel("WARNING")
    store = pooch.create(
        path=folder, base_url="", registry={name: published.checksum or None},
        urls={name: source.address}, retry_if_failed=RETRIES,
    )  # fmt: skip
    path = Path(store.fetch(name, downloader=downloader))
    if published.size and path.stat().st_size != published.size:
        raise ValueError(f"{path.stat().st_size} bytes came of {published.size}")


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answers {response.status_code} {response.reason}"
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
