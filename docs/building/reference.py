"""Reference pages: a room's public names, the doors, the commands, the exit statuses."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import textwrap

from building.faces import DOORS, INNER, ROOMS, is_one_of_several, names_of, words_of
from building.layout import ROOT
from building.prose import to_markdown

# A room's smaller rooms stand on its page.
_WITHIN = {room: [one for one in INNER if one.startswith(f"{room}.")] for room in ROOMS}


def room_page(room: str) -> str:
    """The page of a room: what it is for, and each public name with its docstring."""
    parts, shown = [f"# lib.{room}"], set()
    for module in (room, *_WITHIN[room]):
        if module != room:
            parts.append(f"## lib.{module}")
        first = words_of(f"lib.{module}").split("\nMay import")[0].split("\nPublic names")[0]
        parts.append(to_markdown(first))
        names = names_of(f"lib.{module}")
        parts += [f"`from lib.{module} import …`", _linked(names)]
        level = 3 if module != room else 2
        parts += [_entry(full, level) for full in names.values() if full not in shown]
        shown |= set(names.values())
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
            parts.append(_linked(names))
        parts += [_entry(full, 3) for full in names.values() if full not in shown]
        shown |= set(names.values())
    return "\n\n".join(parts) + "\n"


def _linked(names: dict[str, str]) -> str:
    return " · ".join(f"[`{name}`][{full}]" for name, full in names.items())


def _entry(full: str, level: int) -> str:
    if is_one_of_several(full):
        module, _, name = full.rpartition(".")
        return f"{'#' * level} `{name}` {{ #{full} }}\n\nA constant of `{module}`."
    return f"::: {full}\n    options:\n      heading_level: {level}"


def commands_told() -> dict:
    """`commands`, {command: its options as `commands.py` tells them}, and `statuses`, a list of
    (number, name, meaning).

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
            f"the commands' options cannot be read by {python}: name a Python that has this "
            f"project's packages as STUDY_PYTHON.\n{done.stderr}"
        )
    return json.loads(done.stdout)


def commands_page(commands: dict[str, dict]) -> str:
    """Every installed command with its options."""
    parts = [
        "# Commands",
        "These commands are installed with the package. Each takes `--help`.",
    ]
    for name, told in commands.items():
        if name != "run_all.py":
            parts += [f"## {name}", *_options(told, 3)]
    return "\n\n".join(parts) + "\n"


def run_all_page(commands: dict[str, dict]) -> str:
    """run_all.py's options."""
    parts = [
        "# run_all.py",
        "`python run_all.py` runs the notebooks. [Long runs](../running.md) says how, and "
        "[exit statuses](exit-statuses.md) have a page of their own.",
        *_options(commands["run_all.py"], 2),
    ]
    return "\n\n".join(parts) + "\n"


def _options(told: dict, level: int) -> list[str]:
    """A command's description, its usage, and a list of options by group."""
    parts = []
    for paragraph in re.split(r"\n[ \t]*\n", told["description"].strip("\n")):
        if all(line.startswith("    ") for line in paragraph.splitlines()):
            parts.append(f"```text\n{textwrap.dedent(paragraph)}\n```")
        else:
            parts.append(_plain(" ".join(paragraph.split())))
    parts.append(f"```text\n{textwrap.dedent(told['usage'])}\n```")
    for group in told["groups"]:
        parts.append(f"{'#' * level} {group['title'].capitalize()}")
        for name, help in group["options"]:
            parts.append(f"`{name}`" + (f"\n:   {_plain(' '.join(help.split()))}" if help else ""))
    return parts


def _plain(text: str) -> str:
    """Text whose signs mean themselves; a page of docs/ becomes a link."""
    text = re.sub(r"([\\*_\[\]|`])", r"\\\1", html.escape(text, quote=False))
    return re.sub(r"\bdocs/([\w-]+)\.md", r"[\1](../\1.md)", text)


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
