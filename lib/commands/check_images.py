"""Checking a folder of one's own images and human maps: `dcls-check`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..base.words import printable
from ..people.stored import Read
from ..people.stored.check import CLASSES, check, told
from ..people.stored.layouts import Note
from ..study.plug_ins import load_asked
from .reading import add_reading, read_as
from .running import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 for a folder with problems."""
    parser = argparse.ArgumentParser(
        prog="dcls-check",
        description="Read a folder of your own images, human maps, gaze points and labels as a "
        "run would, and report every problem. See docs/own-data.md.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="the folder, as for run_all.py --images")
    add_reading(parser.add_argument)
    parser.add_argument("--classes", type=int, default=CLASSES, metavar="N",
                        help=f"labels must lie below this number (default: {CLASSES}; the demo's "
                        "models have 12)")  # fmt: skip
    options = parser.parse_args(arguments)
    return run("dcls-check", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    load_asked(layout=options.layout)
    found = check(options.folder, options.classes, Read(**read_as(options)))
    print(printable(told(options.folder, found)))
    return 2 if any(not isinstance(problem, Note) for problem in found.problems) else 0
