"""Reporting a run: the closing table, its JSON, the command that goes on."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..base.files import write_json
from ..base.versions import commit
from ..base.words import clock, in_words
from .faults import FAULTS

# After these no further notebook is tried; after any other fault those that do not need
# the failed one's results are.
END_THE_RUN = ("disk full", "hung up", "interrupted", "terminated")


@dataclass
class Outcome:
    """What came of a step.

    status  : "ok", "kept" (up to date, not run), "not run", "running", or a key of FAULTS
    reason  : why it ran, was kept, or was not run
    detail  : what went wrong, and what helps
    outputs : {path from the project's folder on: SHA-256}, those that it declares first
    """

    notebook: str
    status: str = "not run"
    reason: str = ""
    seconds: float = 0.0
    outputs: Mapping[str, str] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    peak_gpu_bytes: int = 0
    detail: str = ""

    @property
    def is_well(self) -> bool:
        return self.status in ("ok", "kept")


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """0 only if all is well; else that of what ended the run, or of the first fault."""
    if all(o.is_well for o in outcomes):
        return 0
    faults = [o.status for o in outcomes if o.status in FAULTS]
    ending = [status for status in faults if status in END_THE_RUN]
    return FAULTS[(ending + faults + ["failed"])[0]].exit_status


def closing_table(outcomes: Sequence[Outcome]) -> str:
    """The run at a glance: notebook, status, time, memory, why, and what was written."""
    rows = [("notebook", "status", "time", "memory", "reason", "results")]
    for o in outcomes:
        ran = o.status not in ("kept", "not run")
        time, memory = (clock(o.seconds), in_words(o.peak_memory_bytes)) if ran else ("", "")
        rows.append((o.notebook, o.status, time, memory, _cut(o.reason, 44), _results(o)))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  "
        f"{row[3]:>{widths[3]}}  {row[4]:<{widths[4]}}  {row[5]}".rstrip()
        for row in rows
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _results(outcome: Outcome) -> str:
    if outcome.detail:
        return _cut(outcome.detail.partition("\n")[0], 70)
    first, *others = [*outcome.outputs, ""]
    return f"{first} and {len(others) - 1} more" if len(others) > 1 else first


def write_run(
    path: Path,
    outcomes: Sequence[Outcome],
    values: Mapping[str, object],
    command: str,
    started: str,
    ended: str = "",
) -> None:
    """The closing table as JSON. ended : "" while the run is at work, and if it was killed"""
    facts = {
        "command": command,
        "commit": commit(),
        "parameters": dict(values),
        "started": started,
        "ended": ended,
        "exit_status": exit_status(outcomes) if ended else None,
        "notebooks": [asdict(outcome) for outcome in outcomes],
    }
    write_json(path, facts)


def resume_command(
    arguments: Sequence[str], outcomes: Sequence[Outcome], forced: bool, batch_size: int
) -> str:
    """The one command that goes on where the run ended.

    The same command does: what has succeeded is kept. Under --force, which would begin
    anew, only what is left is named; where memory was short, a smaller batch is.
    """
    words = list(arguments)
    if forced:
        words = without(words, "--only", "--from")
        words += ["--only", *(o.notebook for o in outcomes if not o.is_well)]
    short_of_memory = any(
        o.status in ("kernel died", "out of memory") and "Lower --batch-size" in o.detail
        for o in outcomes
    )
    if short_of_memory:
        words = [*without(words, "--batch-size"), "--batch-size", str(batch_size // 2 or 8)]
    return shlex.join([_python(), sys.argv[0] or "run_all.py", *words])


def _python() -> str:
    """This Python, as short as it can be typed here."""
    if shutil.which("python") == sys.executable:
        return "python"
    here = os.path.relpath(sys.executable)
    return sys.executable if here.startswith("..") else here


def without(words: Sequence[str], *options: str) -> list[str]:
    """The arguments less these options and their values."""
    kept, dropping = [], False
    for word in words:
        if word.startswith("--"):
            dropping = word.partition("=")[0] in options
        if not dropping:
            kept.append(word)
    return kept
