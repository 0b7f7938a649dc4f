"""Data sets of gaze as their authors distribute them: one row a data set, one file a reader.

May import: people, base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lib.base.tables import Table
from lib.people.stored.viewing import Looked, Viewing


@dataclass(frozen=True)
class Layout:
    """A row.

    key     : names it for `--layout`
    label   : names the data set in results
    source  : the publication
    holds   : whether a folder is one, told by what lies where
    read    : the images that have fixations, and what is wrong, each with file and place; raises
              StoredError for what concerns all
    viewing : the values that its authors, or most who use it, take
    needs   : which of its files must lie where, for messages and documentation
    """

    key: str
    label: str
    source: str
    holds: Callable[[Path], bool]
    read: Callable[[Path], tuple[list[Looked], list[str]]]
    viewing: Viewing
    needs: str


LAYOUTS: Table[Layout] = Table("layout", [])
