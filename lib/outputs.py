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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from lib.captions import CAPTIONS
from lib.files import write_atomically
from lib.fingerprint import sha256_of
from lib.paths import ROOT, shown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from lib.study import Study

PACKAGE = "dcls-alignment"
STAGING = "DCLS_STAGING"  # the environment variable that names the staging folder


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
    """The checkout's commit now, "-dirty" if it holds anything else, "unknown" outside git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain")
        return git("rev-parse", "--short=12", "HEAD") + "-dirty" * bool(changed)
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


def provenance(
    study: Study, drawn_from: Path | None = None, of: Mapping[str, object] | None = None
) -> dict:
    """What a result was made from: choices, inputs, commit, environment.

    Without the time, so that the same study gives the same file; the run's manifest has it.

    drawn_from : the saved table that it shows, whose own inputs are then told
    of         : where it was made of other methods, pictures or classes than the study's: which
    """
    if drawn_from is None:
        inputs = study.input_hashes()
    else:
        inputs = {
            shown(drawn_from): sha256_of(drawn_from),
            **saved_provenance(drawn_from)["inputs"],
        }
    return {
        "study": study.facts(),
        **({"of": dict(of)} if of else {}),
        "inputs": inputs,
        "commit": commit(),
        "environment": environment(),
    }


def saved_provenance(path: Path) -> dict:
    """What stands beside a saved result. Raises OSError or ValueError if nothing does."""
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def save_figure(
    fig: Figure,
    name: str,
    study: Study,
    drawn_from: Path | None = None,
    caption: str = "",
    of: Mapping[str, object] | None = None,
) -> Path:
    """Write a figure as PNG and PDF, its provenance as JSON, its caption as text.

    The profile's caveat is printed at the figure's foot, so it travels with it.

    drawn_from : the saved table that the figure shows, if it shows one
    caption    : for a figure that `lib.captions` has none for
    of         : as for `provenance`
    Returns where the PNG is.
    """
    if study.profile.caveat:
        fig.draw_without_rendering()
        lowest = min(0.0, fig.get_tightbbox().y0 / fig.get_figheight())
        fig.text(0.5, lowest - 0.02, study.profile.caveat, ha="center", va="top", fontsize=8,
                 color="#a00000")  # fmt: skip
    for suffix, timeless in (("png", {}), ("pdf", {"CreationDate": None})):
        with write_result(study.figures / f"{name}.{suffix}") as partial:
            fig.savefig(partial, format=suffix, metadata=timeless)
    _write_provenance(study.figures / f"{name}.json", provenance(study, drawn_from, of))
    if name in CAPTIONS and not caption:
        caption = f"{CAPTIONS[name].title}. {CAPTIONS[name].text}"
    words = " ".join(filter(None, [caption, f"Data: {study.profile.label}.", study.profile.caveat]))
    with write_result(study.figures / f"{name}.txt") as partial:
        partial.write_text(f"{words}\n", encoding="utf-8")
    return staged(study.figures / f"{name}.png")


def _write_provenance(path: Path, facts: dict) -> None:
    with write_result(path) as partial:
        partial.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def save_table(
    table: pd.DataFrame,
    name: str,
    study: Study,
    suffix: str = "csv",
    of: Mapping[str, object] | None = None,
) -> Path:
    """Write a table below `tables/` as "csv" or "parquet", its provenance as JSON.

    of : as for `provenance`
    """
    writers = {
        "csv": lambda path: table.to_csv(path, index=False),
        "parquet": lambda path: table.to_parquet(path, index=False),
    }
    path = study.output / "tables" / f"{name}.{suffix}"
    with write_result(path) as partial:
        writers[suffix](partial)
    _write_provenance(path.with_suffix(".json"), provenance(study, of=of))
    return staged(path)
