"""Everything that can end a run, with the status that `run_all.py` then exits with."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..base.files import existing
from ..base.paths import shown
from ..base.tables import Table


@dataclass(frozen=True)
class Fault:
    """key : as the closing table shows it"""

    key: str
    exit_status: int
    meaning: str


FAULTS: Table[Fault] = Table(
    "fault",
    [
        Fault("failed", 1, "a notebook's cell raised an error"),
        Fault("wrong option", 2, "an option or a notebook's declaration is wrong"),
        Fault("missing files", 3, "files that the run reads are not there"),
        Fault("not ready", 4, "kernel, packages or folders are not as they must be"),
        Fault("kernel died", 5, "a notebook's kernel died, most often out of memory"),
        Fault("timed out", 6, "a notebook took longer than --timeout"),
        Fault("disk full", 7, "no space is left"),
        Fault("busy", 8, "another run works on the same profile"),
        Fault("incomplete", 9, "a notebook stopped early, or did not write what it declares"),
        Fault("out of memory", 10, "a cell was refused memory, the GPU's above all"),
        Fault("not fetched", 11, "files could not be downloaded"),
        Fault("changed files", 12, "downloaded files are not what they were at their first use"),
        Fault("unreadable files", 13, "images, human maps or weights cannot be read"),
        Fault("left out", 14, "all is done but what --keep-going left out"),
        Fault("hung up", 129, "the terminal was closed (SIGHUP)"),
        Fault("interrupted", 130, "Ctrl-C (SIGINT)"),
        Fault("terminated", 143, "asked to end (SIGTERM)"),
    ],
)


class RunError(RuntimeError):
    """Something that ends the run or a notebook; the message says what helps.

    fault : a key of FAULTS
    """

    def __init__(self, fault: str, message: str):
        super().__init__(message)
        self.fault = FAULTS[fault]


def full_disk(*folders: Path, more: str = "") -> RunError:
    """What to raise where writing into these folders found no space."""
    return RunError("disk full", f"no space is left on the disk: {disk_advice(folders)}{more}")


def disk_advice(folders: Iterable[Path]) -> str:
    """How much is free where results go, and what can be deleted."""
    free = []
    for folder in folders:
        space = shutil.disk_usage(existing(folder)).free / 2**20
        free.append(f"{shown(folder)} has {space:.0f} MiB free")
    return (
        f"{', '.join(dict.fromkeys(free))}. Free some space, or put a link to a larger disk in "
        "that place. Results of runs, cached scores among them, are removed by `make clean`"
    )
