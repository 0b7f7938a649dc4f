"""Writing results: completely or not at all, with their provenance beside them.

Under `run_all.py` a notebook's results are collected in a staging folder and published together
when the notebook has succeeded; in JupyterLab each is published at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.files import write_atomically, write_json
from ..base.fingerprint import sha256_of
from ..base.paths import shown, staging
from ..base.spreadsheets import csv_text
from ..base.stored_json import TEXT, mapping, of_each, read_json
from ..base.versions import commit, environment

if TYPE_CHECKING:
    import pandas as pd

    from .study import Study

_SAVED = mapping({"study": {"type": "object"}, "inputs": of_each(TEXT)})


def staged(path: Path) -> Path:
    """Return where to write a result now: `path`, or its place in the staging folder, if any."""
    folder = staging()
    place = Path(os.path.abspath(path))  # noqa: PTH100 - links to other disks stay links
    return Path(folder, *place.parts[1:]) if folder else path


@contextmanager
def write_result(path: Path) -> Iterator[Path]:
    """Write a result that belongs at `path`, as `write_atomically` does; for notebooks, too."""
    with write_atomically(staged(path)) as partial:
        yield partial


def provenance(
    study: Study, drawn_from: Path | None = None, of: Mapping[str, object] | None = None
) -> dict:
    """Return what a result was made from: choices, inputs, commit, environment.

    It includes remarks on the weights, and files that no publisher's checksum verified. It has
    no time, so that the same study gives the same file; the run's manifest has the time.

    drawn_from : the saved table that the result shows; the table's inputs are then given
    of         : methods, images or classes of the result that differ from the study's
    """
    if drawn_from is None:
        inputs = study.inputs.hashes()
    else:
        inputs = {
            shown(drawn_from): sha256_of(drawn_from),
            **saved_provenance(drawn_from)["inputs"],
        }
    unverified = {shown(path): why for path, why in study.inputs.unverified().items()}
    remarks = {"weights": study.networks.remarks(), "unverified": unverified}
    return {
        "study": study.facts(),
        **({"of": dict(of)} if of else {}),
        **{name: told for name, told in remarks.items() if told},
        "inputs": inputs,
        "commit": commit(),
        "environment": environment(),
    }


def saved_provenance(path: Path) -> dict:
    """Return the provenance saved beside a result. Raises OSError or ValueError without one."""
    return read_json(path.with_suffix(".json"), _SAVED)


def of_another_study(study: Study, path: Path) -> str:
    """Return how the study differs from that of a result; "" if it is not known."""
    try:
        return "; ".join(study.unlike(saved_provenance(path)["study"]))
    except (OSError, ValueError):
        return ""


def write_provenance(path: Path, facts: dict) -> None:
    """Write a result's provenance beside it, as `provenance` returns it."""
    write_json(staged(path), facts)


def save_table(
    table: pd.DataFrame,
    name: str,
    study: Study,
    suffix: str = "csv",
    of: Mapping[str, object] | None = None,
) -> Path:
    """Write a table below `tables/` as "csv" or "parquet", with its provenance as JSON.

    of : as for `provenance`

    Returns the table's path.
    """
    writers = {
        "csv": lambda path: path.write_text(csv_text(table), encoding="utf-8", newline=""),
        "parquet": lambda path: table.to_parquet(path, index=False),
    }
    path = study.places.tables / f"{name}.{suffix}"
    with write_result(path) as partial:
        writers[suffix](partial)
    write_provenance(path.with_suffix(".json"), provenance(study, of=of))
    return staged(path)
