"""One process at a time works on a file, on this machine or on any node of a shared disk."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLease, Timeout

LEASE = 60.0  # seconds without a sign of life after which another node takes a file over
_POLL = 0.5  # seconds between two looks at a lease, which cost a request each on a network disk


@contextlib.contextmanager
def alone(path: Path, lease: float = LEASE, poll: float = _POLL) -> Iterator[bool]:
    """A context in which no other process works on this file; yields whether one did before.

    The claim is a small file beside `path`, created exclusively, which every network file system
    does atomically. Locks of the operating system (flock) are no alternative: some mounts refuse
    them, and others keep them on one node without saying so. The owner refreshes its claim; a
    claim whose process has died on this host, or that nobody has refreshed for `lease` seconds,
    is taken over.

    It saves double work and guarantees nothing: if the folder takes no claims, or the clock of a
    claim runs out while its owner is suspended, two processes work on the file. Callers therefore
    write the file atomically.
    """
    place = path.with_suffix(".lease")
    claim, waited = SoftFileLease(place, lease_duration=lease), False
    with contextlib.ExitStack() as held:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            while True:
                patience = lease if waited else 0
                try:
                    held.enter_context(claim.acquire(timeout=patience, poll_interval=poll))
                    break
                except Timeout:
                    waited = True
                    _remove_empty(place, lease)
        except (OSError, NotImplementedError, ValueError):
            pass  # no claims here, or one of another version; the file itself is written atomically
        yield waited


def _remove_empty(place: Path, lease: float) -> None:
    """Remove a claim without an owner, which a process leaves that dies while it creates it."""
    with contextlib.suppress(OSError):
        found = place.stat()
        if not found.st_size and abs(time.time() - found.st_mtime) > lease:
            place.unlink()
