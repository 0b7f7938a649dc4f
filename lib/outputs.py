"""Writing results: whole or not at all, and with where they come from beside them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from lib.paths import ROOT

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from lib.study import Study

_REPORTED_PACKAGES = (
    "torch", "torchvision", "timm", "dcls", "grad-cam", "numpy", "scipy", "pandas",
    "matplotlib", "seaborn", "papermill",
)  # fmt: skip


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


@cache
def commit() -> str:
    """The checkout's commit, "-dirty" if tracked files differ, "unknown" outside git."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def environment() -> dict[str, str]:
    """Python, the machine, and the versions that results depend on."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        **{name: version(name) for name in _REPORTED_PACKAGES},
    }


def provenance(study: Study) -> dict:
    """What a result was made from: choices, inputs, commit, environment, time."""
    return {
        "study": study.facts(),
        "inputs": study.input_hashes(),
        "commit": commit(),
        "environment": environment(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def save_figure(fig: Figure, name: str, study: Study) -> Path:
    """Write a figure as PNG and PDF with its provenance as JSON; returns the PNG's path.

    The profile's caveat is printed at the figure's foot, so it travels with it.
    """
    if study.profile.caveat:
        fig.text(0.5, -0.02, study.profile.caveat, ha="center", va="top", fontsize=8,
                 color="#a00000")  # fmt: skip
    for suffix in ("png", "pdf"):
        with write_atomically(study.figures / f"{name}.{suffix}") as partial:
            fig.savefig(partial, format=suffix)
    _write_provenance(study.figures / f"{name}.json", study)
    return study.figures / f"{name}.png"


def _write_provenance(path: Path, study: Study) -> None:
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(provenance(study), indent=1), encoding="utf-8")


def save_table(table: pd.DataFrame, name: str, study: Study, suffix: str = "csv") -> Path:
    """Write a table below `tables/` as "csv" or "parquet", its provenance as JSON."""
    writers = {
        "csv": lambda path: table.to_csv(path, index=False),
        "parquet": lambda path: table.to_parquet(path, index=False),
    }
    path = study.output / "tables" / f"{name}.{suffix}"
    with write_atomically(path) as partial:
        writers[suffix](partial)
    _write_provenance(path.with_suffix(".json"), study)
    return path
