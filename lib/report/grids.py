"""Tables as text, rounded to what can be read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

# A number, with its interval, its sign or its dagger, or two counts.
_NUMBER = re.compile(r"(< )?[-+]?(\d[-+\d.,e \[–\]]*|inf)†?|–")


@dataclass(frozen=True)
class Grid:
    """A table as text. numeric : for each column whether it holds numbers"""

    caption: str
    columns: list[str]
    numeric: list[bool]
    rows: list[list[str]]

    @property
    def size(self) -> int:
        return len(self.rows)


def as_grid(table: pd.DataFrame, caption: str = "") -> Grid:
    """Every cell as text; underscores in the columns' names as spaces."""
    columns = [as_texts(table[name]) for name in table.columns]
    return Grid(
        caption,
        [str(name).replace("_", " ") for name in table.columns],
        [all(map(_NUMBER.fullmatch, column)) for column in columns],
        [list(row) for row in zip(*columns, strict=True)],
    )


def as_texts(column: pd.Series) -> list[str]:
    """A column's values, those that are missing as a dash."""
    if pd.api.types.is_bool_dtype(column):
        return ["yes" if value else "no" for value in column]
    if pd.api.types.is_numeric_dtype(column):
        decimals = _decimals(column)
        return [_number(value, decimals) for value in column]
    return ["–" if pd.isna(value) or value == "" else str(value) for value in column]


def _decimals(column: pd.Series) -> int | None:
    """The fewest decimals that tell every number of a column exactly; None for more than three."""
    known = column.dropna()
    exact = (d for d in range(4) if np.isclose(known, known.round(d), rtol=1e-12, atol=0).all())
    return next(exact, None)


def _number(value: float, decimals: int | None) -> str:
    """With so many decimals; if None, with three from the first on that is not 0."""
    if pd.isna(value):
        return "–"
    if decimals is None and abs(value) >= 1000:
        decimals = 0
    if decimals is None:
        zeros = -math.floor(math.log10(abs(value))) - 1 if 0 < abs(value) < 0.1 else 0
        if zeros > 3:
            return f"{value:.2e}"
        decimals = 3 + zeros
    return f"{value:,.{decimals}f}"
