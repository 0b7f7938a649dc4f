"""One run at a time on a profile."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..base.files import write_json
from ..base.paths import shown
from ..base.shortage import is_disk_full
from ..base.stored_json import TEXT, DamagedJson, mapping, read_json
from ..base.words import printable
from .faults import RunError

_NOTE = mapping({"pid": {"type": "integer"}, "host": TEXT, "started": TEXT, "command": TEXT})


@contextmanager
def sole_run(folder: Path, command: str) -> Iterator[str]:
    """Holds the profile's lock; yields what is known of a run that was killed, or "".

    The lock is the operating system's: it ends with the process, however that ends.
    Raises RunError naming the run that holds it.
    """
    lock, note = FileLock(folder / "run.lock"), folder / "running.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            "busy",
            f"another run works on {shown(folder)}: {_describe(note) or 'just started'}.\n"
            "Wait for it, or end it; runs of other profiles do not meet.",
        ) from None
    except OSError as error:
        fault = "disk full" if is_disk_full(error) else "not ready"
        raise RunError(fault, f"results cannot be written to {shown(folder)}: {error}") from None
    try:
        killed = _describe(note)
        facts = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "command": command,
        }
        # The note informs; a run must not end for it.
        with contextlib.suppress(OSError):
            write_json(note, facts)
        yield killed
    finally:
        with contextlib.suppress(OSError):
            note.unlink()
        lock.release()


def _describe(note: Path) -> str:
    try:
        facts = read_json(note, _NOTE)
    except (OSError, DamagedJson):
        return ""
    return printable("process {pid} on {host}, started {started}, `{command}`".format(**facts))
