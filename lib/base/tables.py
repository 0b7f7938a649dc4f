"""Tables of named rows: models, methods, protocols, profiles.

A row is a frozen dataclass with a `key`. A repeated key is refused when the
table is created; an unknown key is refused, and the message names the nearest existing one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class Row(Protocol):
    @property
    def key(self) -> str: ...


R = TypeVar("R", bound=Row)


class UnknownName(ValueError, KeyError):
    """The error for a name that no row, option or parameter has."""

    __str__ = ValueError.__str__  # KeyError would show its message in quotes


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownName:
    """Return the error for an unknown name; it gives the nearest known name, and all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownName(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")


_noting: list[list[tuple[Table, str]]] = []


@contextmanager
def rows_noted() -> Iterator[list[tuple[Table, str]]]:
    """Yield a list that collects the rows added meanwhile, to any table, as (table, key)."""
    noted: list[tuple[Table, str]] = []
    _noting.append(noted)
    try:
        yield noted
    finally:
        _noting.pop()


class Table(Mapping[str, R], Generic[R]):
    """An ordered mapping from keys to rows. Rows can be added, but not changed.

    kind : what a row is, in the singular, for error messages ("model")
    rows : their order is the order of tables, legends and runs

    A repeated key raises ValueError; looking up an unknown key raises `UnknownName`.
    """

    def __init__(self, kind: str, rows: Iterable[R]):
        self.kind = kind
        self._rows: dict[str, R] = {}
        for row in rows:
            self.add(row)

    def add(self, row: R) -> R:
        """Append a row, such as a user's own model or method, and return it.

        Raise ValueError for a repeated key.
        """
        if row.key in self._rows:
            raise ValueError(f"two rows of the {self.kind} table have the key {row.key!r}")
        self._rows[row.key] = row
        for noted in _noting:
            noted.append((self, row.key))
        return row

    def keep(self, keys: Iterable[str]) -> None:
        """Remove the added rows whose keys are not among these."""
        wanted = set(keys)
        self._rows = {key: row for key, row in self._rows.items() if key in wanted}

    def take_back(self, key: str) -> None:
        """Remove one row that was added."""
        del self._rows[key]

    def __getitem__(self, key: str) -> R:
        try:
            return self._rows[key]
        except (KeyError, TypeError):
            raise unknown_name(self.kind, key, self._rows) from None

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, keys: Iterable[str]) -> list[R]:
        """Return the rows for these keys, in the table's order, each once; all rows for no keys."""
        wanted = {self[key].key for key in keys}
        return [row for key, row in self._rows.items() if not wanted or key in wanted]
