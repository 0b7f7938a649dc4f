"""Transfer of one file. The received part waits in `.downloads` for the rest, if necessary until
a later run; then the complete file is verified.
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
LARGEST = 4 * 2**30  # bytes, if a file's size is unknown
_WHITE = b"\xef\xbb\xbf \t\r\n\f\v"  # may precede a page's first tag
_NOTE = mapping(
    {"place": TEXT, "address": TEXT, "etag": TEXT, "size": {"type": "integer", "minimum": 0}}
)


class Transfer:
    """The received part of one file, and the transfer of the rest.

    tell : called with a line when a transfer resumes
    """

    def __init__(
        self, source: Source, published: Published, folder: Path, tell: Callable[[str], None]
    ):
        self.source, self.published, self.tell = source, published, tell
        self.part, self.note = _partial(folder, source.place)

    def attempt(self) -> None:
        """Fetch what is missing from the partial file and verify the whole.

        Raises CutError if the transfer can be resumed, ValueError if it must start again.
        """
        try:
            have, etag, size = self._kept()
            if not have or have != size:  # otherwise it was killed at the very end
                size = self._receive(have, etag, size)
            self._verify(size)
        except CutError:
            raise
        except ValueError:
            self.forget()
            raise

    def came(self) -> int:
        """Return the number of bytes received."""
        return self.part.stat().st_size if self.part.exists() else 0

    def forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _kept(self) -> tuple[int, str, int]:
        """Return how many bytes exist, of which version (its ETag) and of what total size.

        It is (0, "", 0) if they belong to another file, or if that cannot be determined.
        """
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
        """Fetch what is missing; return the whole file's size, 0 if unknown."""
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and _is_strong(etag):
            headers["If-Range"] = etag
        with (
            new_session() as session,
            session.get(self.source.address, headers=headers, stream=True) as answer,
        ):
            if have and answer.status_code != 200:
                size = _size_of_rest(answer, have, etag, size)
                self.tell(f"resuming at {megabytes(have)}")
            else:
                have, size = 0, self._begin(answer)
            self._store(answer, have, size)
        return size

    def _begin(self, answer: requests.Response) -> int:
        """Discard what was there; return the whole file's size, 0 if unknown."""
        answer.raise_for_status()
        if answer.status_code != 200:
            raise ValueError(f"{status_of(answer)}, which is not the whole file")
        _refuse_other_kinds(answer.headers)
        size, told = self.published.size, number_in(answer.headers, "Content-Length")
        if size and told and size != told:
            raise ValueError(f"{told} bytes are sent, but {size} were published")
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
        """Raise ValueError unless the whole is the published file, and not a web page."""
        came = self.part.stat().st_size
        kind, _, published = self.published.checksum.partition(":")
        if kind in ("md5", "sha256"):
            digest = hashlib.new(kind, usedforsecurity=False)
        else:
            digest = google_crc32c.Checksum()
        with self.part.open("rb") as file:
            first = file.read(CHUNK)
            if first.lstrip(_WHITE)[:9].lower().startswith((b"<!doctype", b"<html")):
                raise ValueError("the server sent a web page instead of the file")
            if came < size:
                raise CutError(f"only {came} of {size} bytes were received")
            if not came:
                raise ValueError("the file is empty")
            digest.update(first)
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        if kind and digest.digest().hex() != published:
            raise ValueError(f"its {kind} is {digest.digest().hex()}; {published} was published")


def _size_of_rest(answer: requests.Response, have: int, etag: str, size: int) -> int:
    """Return the whole file's size. Raises ValueError unless the rest of the same file follows."""
    if answer.status_code != 416:
        answer.raise_for_status()
    _refuse_other_kinds(answer.headers)
    first, last, total = content_range(answer)
    told = number_in(answer.headers, "Content-Length")
    same = total == (size or total) and (not etag or answer.headers.get("ETag", etag) == etag)
    if not same or (first, last) != (have, total - 1) or told not in (0, total - have):
        raise ValueError("the server's file is not the one whose transfer had begun")
    return total


def _refuse_other_kinds(headers: Mapping[str, str]) -> None:
    if headers.get("Content-Type", "").strip().lower().startswith("text/html"):
        raise ValueError("the server sends a web page instead of the file")
    if (packed := headers.get("Content-Encoding", "identity").strip().lower()) != "identity":
        raise ValueError(f"the file is sent compressed ({packed}), which was not requested")


def _partial(folder: Path, place: str) -> tuple[Path, Path]:
    """Return the paths of a partial file and of the note on it, unique to folder and name."""
    name = f"{hashlib.sha256(place.encode()).hexdigest()[:12]}-{Path(place).name[-50:]}"
    return folder / f"{name}.part", folder / f"{name}.json"


def sweep(folder: Path, data: Path) -> None:
    """Remove partial files whose whole file exists; files of any other name stay."""
    keep: set[Path] = set()
    for note in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            place = read_json(note, _NOTE)["place"]
            if not (data / place).is_file():
                keep.update(_partial(folder, place))
    for path in folder.glob("*"):
        is_link = path.is_symlink()
        if _OURS.fullmatch(path.name) and (is_link or not (path in keep or path.is_dir())):
            with contextlib.suppress(OSError):  # for example, a file that is open on NFS
                path.unlink()


def _is_strong(etag: str) -> bool:
    """Return whether an ETag distinguishes versions byte by byte."""
    return bool(re.fullmatch(r'"[!#-~]+"', etag))


def megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
