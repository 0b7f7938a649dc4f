"""Cached tables: one Parquet file per unit of work, which contains its own checksum."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ..base.files import write_atomically
from ..base.paths import shown

LEFT_OUT = "left_out"  # in a table's attributes: {image: why it was skipped}
# In the file's own metadata: the SHA-256 of the same file with zeros in this place.
_SEAL = b"dcls sha256 "
_NO_DIGEST = b"0" * 64


def write_cached(path: Path, table: pd.DataFrame, left_out: dict[str, str]) -> None:
    """Write a Parquet file that contains its own checksum; it appears only when complete.

    left_out : {image: why it was skipped}
    """
    table.attrs[LEFT_OUT] = left_out
    columns = pa.Table.from_pandas(table, preserve_index=False)
    sealed = {**(columns.schema.metadata or {}), b"seal": _SEAL + _NO_DIGEST}
    file = io.BytesIO()
    pq.write_table(columns.replace_schema_metadata(sealed), file)
    whole = file.getvalue()
    digest = hashlib.sha256(whole).hexdigest().encode()
    with write_atomically(path) as partial:
        before, seal, rest = whole.rpartition(_SEAL)
        partial.write_bytes(before + seal + digest + rest[64:])


def _checked(stored: bytes) -> io.BytesIO:
    """The bytes of a cached file if its checksum matches. Raises ValueError."""
    # The last occurrence: a text in the table may look like a seal; the metadata come last.
    before, seal, rest = stored.rpartition(_SEAL)
    digest, after = rest[:64], rest[64:]
    whole = before + seal + _NO_DIGEST + after
    if not seal or hashlib.sha256(whole).hexdigest().encode() != digest:
        raise ValueError("its checksum does not match")
    return io.BytesIO(stored)


def read_cached(
    path: Path, keep_going: bool = True, columns: Sequence[str] | None = None
) -> pd.DataFrame | None:
    """Return the table cached in a file; None if it does not exist or is damaged.

    keep_going : accept a table that lacks images
    columns    : the columns that it must have, if it has any; None for any columns
    """
    if not path.is_file():
        return None
    try:
        table = pq.read_table(_checked(path.read_bytes())).to_pandas()
        if columns is not None and len(table.columns) and list(table.columns) != [*columns]:
            raise ValueError(f"it has the columns {', '.join(map(str, table.columns))}")
    except Exception as error:  # a damaged file can raise anything
        told = str(error).splitlines() or [type(error).__name__]
        tqdm.write(f"{shown(path)} is damaged: computing it again ({told[0]})")
        return None
    return table if keep_going or not table.attrs.get(LEFT_OUT) else None
