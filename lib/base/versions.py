"""What a result was made with: the checkout's commit, Python and packages."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import distribution, requires, version
from pathlib import Path

from .paths import IS_CHECKOUT, ROOT

PACKAGE = "dcls-alignment"


def commit() -> str:
    """Return this checkout's current commit, with "-dirty" if files differ from it.

    It is "unknown" outside git, and for a copy within another repository, whose commit says
    nothing about it. For an installation it is the commit that pip was given.
    """
    if not IS_CHECKOUT:
        told = json.loads(distribution(PACKAGE).read_text("direct_url.json") or "{}")
        return told.get("vcs_info", {}).get("commit_id", "unknown")[:12]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return "unknown"
        changed = git("status", "--porcelain")
        return git("rev-parse", "--short=12", "HEAD") + "-dirty" * bool(changed)
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@cache
def environment() -> dict[str, str]:
    """Return the versions of Python, the machine and every package that this one requires."""
    needed = [line for line in requires(PACKAGE) or [] if "extra ==" not in line]
    names = sorted(re.match(r"[\w.-]+", line).group() for line in needed)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        **{name: version(name) for name in names},
    }
