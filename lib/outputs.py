"""Writing results: whole or not at all, and with where they come from beside them.

Under `run_all.py` a notebook's results gather in a staging folder and take their places
together when the notebook has succeeded; in JupyterLab each takes its place at once.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from lib.paths import ROOT

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from lib.study import Study

PACKAGE = "dcls-alignment"
STAGING = "DCLS_STAGING"  # the environment variable that names the staging folder


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it on success only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid4().hex[:8]}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def staged(path: Path) -> Path:
    """Where to write a result now: `path`, or its place in the staging folder, if there is one."""
    folder = os.environ.get(STAGING)
    place = Path(os.path.abspath(path))  # noqa: PTH100 - links to other disks stay links
    return Path(folder, *place.parts[1:]) if folder else path


@contextmanager
def write_result(path: Path) -> Iterator[Path]:
    """`write_atomically` for results that belong at `path`; notebooks' own files too."""
    with write_atomically(staged(path)) as partial:
        yield partial


def commit() -> str:
    """The checkout's commit now, "-dirty" if tracked files differ, "unknown" outside git."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@cache
def environment() -> dict[str, str]:
    """Python, the machine, and the version of every package that this one asks for."""
    needed = [line for line in requires(PACKAGE) or [] if "extra ==" not in line]
    names = sorted(re.match(r"[\w.-]+", line).group() for line in needed)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        **{name: version(name) for name in names},
    }


def provenance(study: Study) -> dict:
    """What a result was made from: choices, inputs, commit, environment.

    Without the time, so that the same study gives the same file; the run's manifest has it.
    """
    return {
        "study": study.facts(),
        "inputs": study.input_hashes(),
        "commit": commit(),
        "environment": environment(),
    }


def save_figure(fig: Figure, name: str, study: Study) -> Path:
    """Write a figure as PNG and PDF with its provenance as JSON; returns where the PNG is.

    The profile's caveat is printed at the figure's foot, so it travels with it.
    """
    if study.profile.caveat:
        fig.text(0.5, -0.02, study.profile.caveat, ha="center", va="top", fontsize=8,
                 color="#a00000")  # fmt: skip
    for suffix, timeless in (("png", {}), ("pdf", {"CreationDate": None})):
        with write_result(study.figures / f"{name}.{suffix}") as partial:
            fig.savefig(partial, format=suffix, metadata=timeless)
    _write_provenance(study.figures / f"{name}.json", study)
    return staged(study.figures / f"{name}.png")


def _write_provenance(path: Path, study: Study) -> None:
    with write_result(path) as partial:
        partial.write_text(json.dumps(provenance(study), indent=1), encoding="utf-8")


def save_table(table: pd.DataFrame, name: str, study: Study, suffix: str = "csv") -> Path:
    """Write a table below `tables/` as "csv" or "parquet", its provenance as JSON."""
    writers = {
        "csv": lambda path: table.to_csv(path, index=False),
        "parquet": lambda path: table.to_parquet(path, index=False),
    }
    path = study.output / "tables" / f"{name}.{suffix}"
    with write_result(path) as partial:
        writers[suffix](partial)
    _write_provenance(path.with_suffix(".json"), study)
    return staged(path)
