"""One file on its way: what has come of it waits in `.downloads` until the rest does, in a later
run if need be; then the whole is verified.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import google_crc32c
import requests

from ..base.files import write_json
from ..base.progress_bar import progress_bar
from ..base.stored_json import TEXT, mapping, read_json
from .publishers import Published
from .requesting import (
    CHUNK,
    CutError,
    body_of,
    content_range,
    new_session,
    number_in,
    status_of,
)
from .sources import Source

_OURS = re.compile(r"[0-9a-f]{12}-.*\.(part|json)")
LARGEST = 4 * 2**30  # bytes, where nobody tells a file's size
_WHITE = b"\xef\xbb\xbf \t\r\n\f\v"  # may precede a page's first tag
_NOTE = mapping(
    {"place": TEXT, "address": TEXT, "etag": TEXT, "size": {"type": "integer", "minimum": 0}}
)


class Transfer:
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

        Raises CutError if it can go on from there, ValueError if it begins anew.
        """
        try:
            have, etag, size = self._kept()
            if not have or have != size:  # else it was killed at the very end
                size = self._receive(have, etag, size)
            self._verify(size)
        except CutError:
            raise
        except ValueError:
            self.forget()
            raise

    def came(self) -> int:
        """Bytes that are there."""
        return self.part.stat().st_size if self.part.exists() else 0

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
        with (
            new_session() as session,
            session.get(self.source.address, headers=headers, stream=True) as answer,
        ):
            if have and answer.status_code != 200:
                size = _size_of_rest(answer, have, etag, size)
                self.tell(f"going on at {megabytes(have)}")
            else:
                have, size = 0, self._begin(answer)
            self._store(answer, have, size)
        return size

    def _begin(self, answer: requests.Response) -> int:
        """The whole file's size, 0 if nobody tells; whatever was there is gone."""
        answer.raise_for_status()
        if answer.status_code != 200:
            raise ValueError(f"{status_of(answer)}, which is not the whole file")
        _refuse_other_kinds(answer.headers)
        size, told = self.published.size, number_in(answer.headers, "Content-Length")
        if size and told and size != told:
            raise ValueError(f"{told} bytes are sent, {size} were published")
        self.forget()
        note = {"place": self.source.place, "address": self.source.address}
        note |= {"etag": answer.headers.get("ETag", ""), "size": size or told}
        write_json(self.note, note)
        return size or told

    def _store(self, answer: requests.Response, have: int, size: int) -> None:
        shown = sys.stderr is not None and sys.stderr.isatty()
        bar = progress_bar(
            total=size or None, initial=have, unit="B", unit_scale=True, disable=not shown
        )
        with bar, self.part.open("ab") as file:
            for chunk in body_of(answer, (size or LARGEST) - have):
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
            first = file.read(CHUNK)
            if first.lstrip(_WHITE)[:9].lower().startswith((b"<!doctype", b"<html")):
                raise ValueError("a page in HTML came instead of the file")
            if came < size:
                raise CutError(f"{came} bytes came of {size}")
            if not came:
                raise ValueError("the file is empty")
            digest.update(first)
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        if kind and digest.digest().hex() != published:
            raise ValueError(f"its {kind} is {digest.digest().hex()}; {published} was published")


def _size_of_rest(answer: requests.Response, have: int, etag: str, size: int) -> int:
    """The whole file's size. Raises ValueError unless just the rest of the same file follows."""
    if answer.status_code != 416:
        answer.raise_for_status()
    _refuse_other_kinds(answer.headers)
    first, last, total = content_range(answer)
    told = number_in(answer.headers, "Content-Length")
    same = total == (size or total) and (not etag or answer.headers.get("ETag", etag) == etag)
    if not same or (first, last) != (have, total - 1) or told not in (0, total - have):
        raise ValueError("the server's file is not the one that had begun to come")
    return total


def _refuse_other_kinds(headers: Mapping[str, str]) -> None:
    if headers.get("Content-Type", "").strip().lower().startswith("text/html"):
        raise ValueError("a page in HTML comes instead of the file")
    if (packed := headers.get("Content-Encoding", "identity").strip().lower()) != "identity":
        raise ValueError(f"the file comes packed ({packed}), which was not asked for")


def _partial(folder: Path, place: str) -> tuple[Path, Path]:
    """What has come of a file, and the note on it; equal names in two folders are kept apart."""
    name = f"{hashlib.sha256(place.encode()).hexdigest()[:12]}-{Path(place).name[-50:]}"
    return folder / f"{name}.part", folder / f"{name}.json"


def sweep(folder: Path, data: Path) -> None:
    """Remove partials of files that are not missing any more; nothing of any other name."""
    keep: set[Path] = set()
    for note in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            place = read_json(note, _NOTE)["place"]
            if not (data / place).is_file():
                keep.update(_partial(folder, place))
    for path in folder.glob("*"):
        is_link = path.is_symlink()
        if _OURS.fullmatch(path.name) and (is_link or not (path in keep or path.is_dir())):
            with contextlib.suppress(OSError):  # as of a file that is open on NFS
                path.unlink()


def _is_strong(etag: str) -> bool:
    """Whether it tells versions apart byte by byte."""
    return bool(re.fullmatch(r'"[!#-~]+"', etag))


def megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
