"""Prints, as JSON, every command's --help and the exit statuses.

It runs in the study's own environment, not in that of the documentation's tools.
"""

from __future__ import annotations

import io
import json
import sys
import tomllib
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def help_of(module: str) -> str:
    """What `--help` prints of a command's module."""
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            import_module(module).main(["--help"])
    except SystemExit as end:
        if end.code:
            raise
    return said.getvalue()


def main() -> None:
    """Print them."""
    sys.path.insert(0, str(ROOT))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    helps = {"run_all.py": help_of("run_all")}
    for name, entry in project["scripts"].items():
        module = entry.partition(":")[0].replace("dcls_alignment", "lib", 1)
        helps[name] = help_of(module)
    faults = import_module("lib.runner.faults").FAULTS.values()
    statuses = [(fault.exit_status, fault.key, fault.meaning) for fault in faults]
    print(json.dumps({"helps": helps, "statuses": statuses}))


if __name__ == "__main__":
    main()
