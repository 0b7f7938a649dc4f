"""Tables as CSV that is safe to open in a spreadsheet, whatever names the tables contain."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_BEGINS_FORMULA = ("=", "+", "-", "@")


def csv_text(table: pd.DataFrame) -> str:
    """Return a table as CSV that is safe to open in a spreadsheet: text that would be a formula
    there gets an apostrophe before it. Numbers stay as they are."""
    kinds = {name: table[name].dtype.kind for name in table.columns}
    texts = [name for name, kind in kinds.items() if kind not in "biufcmM"]
    safe = table.assign(**{name: table[name].map(_no_formula) for name in texts})
    return safe.rename(columns=_no_formula).to_csv(index=False)


def _no_formula(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value).replace("\r", " ")  # unquoted, it would begin a new line
    seen = unicodedata.normalize("NFKC", text)  # full-width signs count as well
    seen = "".join(sign for sign in seen if unicodedata.category(sign) not in ("Cf", "Cc", "Zs"))
    if not seen.startswith(_BEGINS_FORMULA) and text[:1] not in ("\t", "\n"):
        return text
    try:
        return text if text.isascii() and math.isfinite(float(text)) else f"'{text}"
    except ValueError:
        return f"'{text}"
