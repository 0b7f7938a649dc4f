"""Folders for what lasts as long as a process, swept at the next start if it was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

STAGING_PREFIX = ".staging-"
_PREFIX, _LOCK = "dcls-", "in-use.lock"


def staging_folder(output: Path) -> Path:
    """Where this process's notebooks stage results that belong into a run's folder."""
    return output / f"{STAGING_PREFIX}{os.getpid()}"


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that goes with this process: at the end, or, if it is killed, at the next run's
    start, which sees that nobody holds its lock any more."""
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as folder,
        FileLock(Path(folder, _LOCK)),
    ):
        yield Path(folder)


def sweep_temporary_folders() -> None:
    """Remove what runs that were killed have left of `temporary_folder`."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError, Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent, ignore_errors=True)
