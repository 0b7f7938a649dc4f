"""The number formats in which models compute their features."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.tables import Table


@dataclass(frozen=True)
class Precision:
    """A number format. label : what it means for scores"""

    key: str
    label: str


PRECISIONS: Table[Precision] = Table(
    "precision",
    [
        Precision("float32", "as published"),
        Precision("bf16", "faster; scores differ (see data/bench/bench.md): not for results"),
    ],
)
