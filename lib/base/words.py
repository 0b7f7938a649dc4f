"""Numbers and lists as messages show them."""

from __future__ import annotations

from collections.abc import Sequence

_NAMED = 3


def printable(text: str) -> str:
    """Return the text as a terminal may show it, with control characters spelled out.

    Names of files and answers of servers may contain anything.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def some_of(names: Sequence[str]) -> str:
    """Return the first few names, for a message."""
    return ", ".join(names[:_NAMED]) + ", …" * (len(names) > _NAMED)


def in_lines(problems: Sequence[str], most: int = 10) -> str:
    """Return the first `most` problems, one per line, and how many more there are."""
    more = [f"… and {len(problems) - most} more"] * (len(problems) > most)
    return "\n".join([*problems[:most], *more])


def counted(number: int, what: str) -> str:
    """Return a number with its noun: 1, "model" gives "1 model"; 2 gives "2 models"."""
    return f"{number} {what}" + "s" * (number != 1)


def in_words(size: float) -> str:
    """Return a size in bytes as text: 1536 MiB gives "1.5 GiB"."""
    mebibytes = size / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1000 else f"{mebibytes:.0f} MiB"


def clock(seconds: float) -> str:
    """Return seconds as text: 75 gives "1:15"; two hours give "2:00:00"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
