"""Numbers and lists as messages show them."""

from __future__ import annotations

from collections.abc import Sequence

_NAMED = 3


def printable(text: str) -> str:
    """The text as a terminal may show it: what would steer the terminal is spelled out.

    Names of files and answers of servers may hold anything.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def some_of(names: Sequence[str]) -> str:
    """The first few, for a message."""
    return ", ".join(names[:_NAMED]) + ", …" * (len(names) > _NAMED)


def in_lines(problems: Sequence[str], most: int = 10) -> str:
    """The first so many, a line each, and how many more there are."""
    more = [f"… and {len(problems) - most} more"] * (len(problems) > most)
    return "\n".join([*problems[:most], *more])


def counted(number: int, what: str) -> str:
    """1, "model": "1 model"; 2: "2 models"."""
    return f"{number} {what}" + "s" * (number != 1)


def in_words(size: float) -> str:
    """1536 MiB: "1.5 GiB"."""
    mebibytes = size / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1000 else f"{mebibytes:.0f} MiB"


def clock(seconds: float) -> str:
    """75 seconds: "1:15"; two hours: "2:00:00"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
