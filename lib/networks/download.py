"""Fetching published files: verified by the publisher's checksum, completely or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import requests
from filelock import FileLock, Timeout

from ..base.files import partial_name
from .known_files import KnownFiles
from .publishers import NoChecksumError, Published, ask_publisher
from .requesting import FAILURES, DownloadError, reason_of, tried
from .sources import MIRROR, Source
from .transfer import Transfer, megabytes, sweep


def fetch(
    sources: Sequence[Source],
    data: Path,
    say: Callable[[str], None] = print,
    unverified: bool = False,
) -> None:
    """Fetch missing files. A file appears under its name only when complete and verified.

    unverified : whether to accept, and report, a file whose publisher's checksum is unavailable

    A failed download is repeated after increasing pauses, and the other files are still fetched.
    Raises DownloadError at the end, which names every file that is still missing, and
    OSError (a full disk) at once.
    """
    missing = [source for source in sources if not (data / source.place).is_file()]
    if not missing and not (data / ".downloads").exists():
        return
    mirror = os.environ.get(MIRROR, "http://")
    if not mirror.startswith(("http://", "https://")):
        raise DownloadError(
            f"{MIRROR}={mirror} is not an address: it must begin with http:// or https://"
        )
    with _alone(data, say):
        failed = _fetch_all(missing, data, say, unverified)
    if failed:
        raise DownloadError(
            f"{len(failed)} of {len(missing)} files could not be fetched; run the same command "
            "again, or put them there by hand:\n" + "\n".join(failed)
        )


@contextlib.contextmanager
def _alone(data: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Let only one process at a time fetch into a folder: two would write the same partial file."""
    data.mkdir(parents=True, exist_ok=True)
    lock = FileLock(data / ".downloads.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process that is fetching into {data}")
        lock.acquire()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (data / ".downloads.lock").unlink()
        lock.release()


def _fetch_all(
    missing: Sequence[Source], data: Path, say: Callable[[str], None], unverified: bool
) -> list[str]:
    """Fetch each file; return which failed, and why."""
    known, waiting, failed = KnownFiles(data), data / ".downloads", []
    sweep(waiting, data)
    for number, source in enumerate(missing, 1):
        start = f"[{number}/{len(missing)}] {source.place}: "
        if (data / source.place).is_file():  # another process has fetched it in the meantime
            continue
        try:
            _fetch_one(source, known, lambda text, start=start: say(start + text), unverified)
        except FAILURES as error:
            say(f"{start}failed: {reason_of(error)}")
            failed.append(f"  {source.place} from {source.address}\n    {reason_of(error)}")
    with contextlib.suppress(OSError):
        waiting.rmdir()  # unless something waits there
    return failed


def _fetch_one(
    source: Source, known: KnownFiles, tell: Callable[[str], None], unverified: bool
) -> None:
    try:
        published = ask_publisher(source)
        checked = published.checksum.partition(":")[0]
    except NoChecksumError as error:
        if not unverified:
            hint = "; --unverified would accept the file without" * _may_be_there(
                source, error.__cause__
            )
            raise NoChecksumError(f"{error}{hint}") from None
        published = Published()
        checked = f"unverified: {error}"
    size = published.size or source.about_bytes
    tell(f"{megabytes(size)} ({checked}), {source.address}")
    transfer = Transfer(source, published, known.data / ".downloads", tell)
    tried(transfer.attempt, transfer.came)
    place = known.data / source.place
    place.parent.mkdir(parents=True, exist_ok=True)
    arriving = partial_name(place)
    try:
        shutil.move(transfer.part, arriving)  # the destination may be a link to another disk
        known.record(place, arriving, source.address, published.checksum)
        arriving.replace(place)
    finally:
        arriving.unlink(missing_ok=True)
    transfer.forget()


def _may_be_there(source: Source, error: BaseException | None) -> bool:
    """Return whether the file may be available although the publisher answered with this error."""
    if isinstance(error, requests.ConnectionError):
        return False
    response = getattr(error, "response", None)
    gone = response is not None and response.status_code in (403, 404, 410)
    return not gone or response.url != source.address  # only the listing may be gone
