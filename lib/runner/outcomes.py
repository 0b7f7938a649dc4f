"""Reporting a run: the closing table, its JSON, the command that goes on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from lib.fingerprint import sha256_of
from lib.outputs import commit, write_atomically
from lib.paths import ROOT
from lib.runner.execution import Outcome
from lib.runner.faults import FAULTS
from lib.runner.memory import in_words
from lib.runner.progress import clock


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """0 if all is well, else that of the first fault."""
    return next((FAULTS[o.status].exit_status for o in outcomes if o.status in FAULTS), 0)


def closing_table(outcomes: Sequence[Outcome]) -> str:
    """The run at a glance: notebook, status, time, memory, and why or what was written."""
    rows = [("notebook", "status", "time", "memory", "results")]
    for o in outcomes:
        time, memory = ("", "") if o.status in ("kept", "not run") else (
            clock(o.seconds), in_words(o.peak_memory_bytes)
        )  # fmt: skip
        rows.append((o.notebook, o.status, time, memory, _in_short(o)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        f"{name:<{widths[0]}}  {status:<{widths[1]}}  {time:>{widths[2]}}  {memory:>{widths[3]}}  "
        f"{results}".rstrip()
        for name, status, time, memory, results in rows
    )


def _in_short(outcome: Outcome) -> str:
    if outcome.status == "ok":
        first, *others = outcome.outputs
        return f"{first} and {len(others)} more" if others else first
    detail = outcome.detail.partition("\n")[0]
    return detail or outcome.reason


def write_run(
    path: Path, values: Mapping[str, object], outcomes: Sequence[Outcome], command: str
) -> None:
    """The closing table as JSON, with the hash of every output."""
    notebooks = []
    for outcome in outcomes:
        facts = asdict(outcome)
        facts["outputs"] = {o: _hash(ROOT / o) for o in outcome.outputs}
        notebooks.append(facts)
    facts = {
        "command": command,
        "commit": commit(),
        "parameters": dict(values),
        "exit_status": exit_status(outcomes),
        "notebooks": notebooks,
    }
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _hash(path: Path) -> str:
    return sha256_of(path) if path.is_file() else ""


def resume_command(arguments: Sequence[str], outcomes: Sequence[Outcome], forced: bool) -> str:
    """The one command that goes on where the run ended.

    The same command does: what has succeeded is kept. Under --force it would begin anew, so
    it then starts at the first notebook that is not done.
    """
    words = list(arguments)
    if forced:
        words = _without(words, "--only", "--from")
        left = [o.notebook for o in outcomes if not o.is_well]
        words += ["--only", *left]
    return shlex.join(["python", "run_all.py", *words])


def _without(words: Sequence[str], *options: str) -> list[str]:
    """The arguments less these options and their values."""
    kept, dropping = [], False
    for word in words:
        if word.startswith("--"):
            dropping = word.partition("=")[0] in options
        if not dropping:
            kept.append(word)
    return kept
