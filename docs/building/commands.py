"""Prints, as JSON, every command's options and the exit statuses.

It runs in the study's own environment, not in that of the documentation's tools.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser of a command's module: the one that answers `--help`."""
    asked: list[argparse.ArgumentParser] = []
    answer = argparse.ArgumentParser.print_help
    argparse.ArgumentParser.print_help = lambda self, file=None: asked.append(self)
    try:
        import_module(module).main(["--help"])
    except SystemExit as end:
        if end.code:
            raise
    finally:
        argparse.ArgumentParser.print_help = answer
    return asked[0]


def told(parser: argparse.ArgumentParser) -> dict:
    """What `--help` prints, in parts: `usage, description, groups`, a group's `title, options`,
    an option's name with its values, and what it does."""
    words = parser._get_formatter()
    groups = [
        {
            "title": group.title,
            "options": [
                (
                    words._format_action_invocation(action),
                    words._expand_help(action) if action.help else "",
                )
                for action in group._group_actions
                if action.help != argparse.SUPPRESS
            ],
        }
        for group in parser._action_groups
    ]
    return {
        "usage": parser.format_usage().removeprefix("usage: ").rstrip(),
        "description": (parser.description or "").replace("%(prog)s", parser.prog),
        "groups": [group for group in groups if group["options"]],
    }


def main() -> None:
    """Print them."""
    sys.path.insert(0, str(ROOT))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    modules = {"run_all.py": "run_all"} | {
        name: entry.partition(":")[0].replace("dcls_alignment", "lib", 1)
        for name, entry in project["scripts"].items()
    }
    faults = import_module("lib.runner.faults").FAULTS.values()
    print(
        json.dumps(
            {
                "commands": {name: told(parser_of(module)) for name, module in modules.items()},
                "statuses": [(fault.exit_status, fault.key, fault.meaning) for fault in faults],
            }
        )
    )


if __name__ == "__main__":
    main()
