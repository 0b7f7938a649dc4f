"""Size and checksum of published files, from Zenodo's record, timm's hub and Google's bucket.

Each publisher provides a checksum, so an unavailable one does not mean that none is published.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..base.stored_json import mapping, parse_json
from .requesting import (
    FAILURES,
    DownloadError,
    body_of,
    content_range,
    new_session,
    number_in,
    reason_of,
    tried,
)
from .sources import Source

_LARGEST_LISTING = 16 * 2**20  # bytes; Zenodo's have kilobytes


class NoChecksumError(DownloadError):
    """The error for a checksum that a publisher did not provide; the message says why."""


@dataclass(frozen=True)
class Published:
    """A publisher's information on a file.

    checksum : "md5:…", "sha256:…" or "crc32c:…", in hexadecimal digits; "" if nobody could be asked
    size     : in bytes, 0 if unknown
    """

    checksum: str = ""
    size: int = 0


def ask_publisher(source: Source) -> Published:
    """Return the checksum and size from Zenodo's record, the hub or the bucket.

    Raises NoChecksumError if the checksum is unavailable.
    """
    ask = _ask_zenodo if urlsplit(source.url).netloc == "zenodo.org" else _ask_server
    try:
        return tried(lambda: ask(source))
    except FAILURES as error:
        raise NoChecksumError(f"its checksum is unavailable ({reason_of(error)})") from error


def _ask_zenodo(source: Source) -> Published:
    *_, record, _, name = urlsplit(source.url).path.split("/")
    listing = source.address.replace(f"/{record}/files/{name}", f"/{record}")
    listing = listing.replace("/records/", "/api/records/")
    with (
        new_session() as session,
        session.get(listing, stream=True) as answer,
    ):
        answer.raise_for_status()
        text = b"".join(body_of(answer, _LARGEST_LISTING))
    files = parse_json(text, _listing_of(name), f"the listing {listing}")["files"]
    entry = next((file for file in files if file.get("key") == name), None)
    if entry is None:
        raise ValueError(f"the listing {listing} does not have it")
    return Published(entry["checksum"].lower(), int(entry["size"]))


def _listing_of(name: str) -> dict[str, Any]:
    """Return the schema of a record's listing; other files' entries may have any form."""
    checksum = {"type": "string", "pattern": "^(md5:[0-9a-fA-F]{32}|sha256:[0-9a-fA-F]{64})$"}
    size = {"type": "integer", "minimum": 1, "maximum": 10**15}
    sound = mapping({"checksum": checksum, "size": size})
    entry = {"type": "object", "if": mapping({"key": {"const": name}}), "then": sound}
    return mapping({"files": {"type": "array", "items": entry}})


def _ask_server(source: Source) -> Published:
    """Ask without following redirects: the hub's own answer has the headers."""
    options: dict[str, Any] = {
        "allow_redirects": False,
        "stream": True,
    }
    with new_session() as session:
        answer = session.head(source.address, **options)
        if answer.status_code in (405, 501):  # it does not support HEAD
            answer = session.get(source.address, headers={"Range": "bytes=0-0"}, **options)
        answer.close()
    answer.raise_for_status()
    size = number_in(answer.headers, "x-linked-size")
    if not size and answer.status_code == 200:
        size = number_in(answer.headers, "Content-Length")
    if not size and answer.status_code == 206:
        size = content_range(answer)[2]
    return Published(_checksum(answer.headers), size)


def _checksum(headers: Mapping[str, str]) -> str:
    """Return the hub's SHA-256, or the bucket's MD5 or CRC-32C. Raises ValueError without one."""
    if etag := headers.get("x-linked-etag"):
        digest = etag.strip('"').lower()
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"x-linked-etag is not a SHA-256: {etag}")
        return f"sha256:{digest}"
    parts = headers.get("x-goog-hash", "").split(",")
    hashes = {kind: value for kind, _, value in (part.strip().partition("=") for part in parts)}
    for kind, length in (("md5", 16), ("crc32c", 4)):
        if kind in hashes:
            digest = base64.b64decode(hashes[kind], validate=True).hex()
            if len(digest) != 2 * length:
                raise ValueError(f"x-goog-hash has no complete {kind}: {hashes[kind]}")
            return f"{kind}:{digest}"
    # Asking again would change nothing.
    raise NoChecksumError("the server gives neither x-linked-etag nor x-goog-hash")
