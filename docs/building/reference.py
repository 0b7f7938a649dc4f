"""Reference pages: a room's public names, the doors, the commands, the exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from faces import DOORS, INNER, ROOMS, is_one_of_several, names_of, words_of
from layout import ROOT
from prose import to_markdown

# A room's smaller rooms stand on its page.
_WITHIN = {room: [one for one in INNER if one.startswith(f"{room}.")] for room in ROOMS}


def room_page(room: str) -> str:
    """The page of a room: what it is for, and each public name with its docstring."""
    parts = [f"# lib.{room}"]
    for module in (room, *_WITHIN[room]):
        if module != room:
            parts.append(f"## lib.{module}")
        first = words_of(f"lib.{module}").split("\nMay import")[0].split("\nPublic names")[0]
        parts.append(to_markdown(first))
        names = names_of(f"lib.{module}")
        parts.append(f"```python\nfrom lib.{module} import {next(iter(names))}  # or another\n```")
        parts += [_entry(full, 3 if module != room else 2) for full in names.values()]
    return "\n\n".join(parts) + "\n"


def doors_page() -> str:
    """The page of the doors: where each of their names is described, or its description."""
    shown = {full for room in ROOMS for module in (room, *_WITHIN[room])
             for full in names_of(f"lib.{module}").values()}  # fmt: skip
    parts = [
        "# Doors",
        "Doors are the modules that your own scripts import from. They stay where they are, "
        "however the rooms behind them change.",
    ]
    for door in ("lib", *(f"lib.{door}" for door in DOORS)):
        names = names_of(door)
        parts += [f"## {door}", to_markdown(words_of(door).split("\n\n")[0])]
        if names:
            parts.append(" · ".join(f"[`{name}`][{full}]" for name, full in names.items()))
        parts += [_entry(full, 3) for full in names.values() if full not in shown]
        shown |= set(names.values())
    return "\n\n".join(parts) + "\n"


def _entry(full: str, level: int) -> str:
    if is_one_of_several(full):
        module, _, name = full.rpartition(".")
        return f"{'#' * level} `{name}` {{ #{full} }}\n\nA constant of `{module}`."
    return f"::: {full}\n    options:\n      heading_level: {level}"


def commands_told() -> dict:
    """`helps`, {command: its --help}, and `statuses`, [(number, name, meaning)].

    The study's own Python says it, for these tools' environment has none of its packages.
    Raises RuntimeError with what that Python said where it fails.
    """
    own = ROOT / ".venv" / "bin" / "python"
    python = os.environ.get("STUDY_PYTHON") or (str(own) if own.is_file() else sys.executable)
    done = subprocess.run(
        [python, str(ROOT / "docs" / "building" / "commands.py")],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"COLUMNS": "88", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(
            f"the commands' --help cannot be read by {python}: name a Python that has this "
            f"project's packages as STUDY_PYTHON.\n{done.stderr}"
        )
    return json.loads(done.stdout)


def commands_page(helps: dict[str, str]) -> str:
    """Every installed command with its options."""
    parts = [
        "# Commands",
        "These commands are installed with the package. Each takes `--help`.",
    ]
    for name, text in helps.items():
        if name != "run_all.py":
            parts += [f"## {name}", f"```text\n{text.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def run_all_page(helps: dict[str, str]) -> str:
    """run_all.py's options."""
    text = helps["run_all.py"].split("\nexit status\n")[0].rstrip()
    return (
        "# run_all.py\n\n"
        "`python run_all.py` runs the notebooks. [Running it overnight](../running.md) says how; "
        "[exit statuses](exit-statuses.md) have a page of their own.\n\n"
        f"```text\n{text}\n```\n"
    )


def statuses_page(statuses: list[tuple[int, str, str]]) -> str:
    """What each exit status of run_all.py means."""
    rows = [f"| {number} | {name} | {meaning} |" for number, name, meaning in statuses]
    return "\n".join(
        [
            "# Exit statuses",
            "",
            "`python run_all.py` ends with one of these. "
            "[What a message means](../troubleshooting.md) says what to do.",
            "",
            "| status | name | meaning |",
            "|---|---|---|",
            "| 0 | ok | every notebook that had to run has succeeded |",
            *rows,
            "",
        ]
    )
