"""Names of classes for a command: a model's class names, and the class that a word means."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..study.study import Study

_LISTED = 8
_NEAREST = 3


def read_class_names(path: Path) -> list[str]:
    """Read one name per line. Raises ValueError for no text, no names, and an empty line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"the names of classes cannot be read from {path}: {why}") from None
    if not lines:
        raise ValueError(f"{path} contains no names of classes: write one per line")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(f"{path}, line {number} is empty: write the name of a class")
    return [line.strip() for line in lines]


def class_names(count: int, demo: bool) -> list[str]:
    """Return a model's class names: ImageNet's for 1000, the demo's on the demo, else numbers."""
    for profile in ["paper", *["demo"] * demo]:
        names = Study.from_profile(profile).networks.class_names()
        if len(names) == count:
            return names
    return [f"class {number}" for number in range(count)]


def in_words(names: Sequence[str], number: int) -> str:
    """Return a class's name in quotes and its number: "'tiger cat' (282)", or "class 5"."""
    name = names[number]
    return name if name == f"class {number}" else f"{name!r} ({number})"


def class_meant(text: str, names: Sequence[str]) -> int:
    """Return the class that a number, a name or a part of a name means.

    A whole name takes precedence over one of its synonyms (ImageNet's names list them with
    commas), a synonym over whole words, and whole words over any part of a name.

    Raises ValueError for a number outside the range, an unknown word, and one that fits several
    classes.
    """
    text = text.strip()
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    wanted, lower = text.lower(), [name.lower() for name in names]
    found = [number for number, name in enumerate(lower) if name == wanted]
    if not found and text.lstrip("-").isdecimal():
        raise ValueError(f"class {text} is outside 0 … {len(names) - 1}")
    words = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
    for fits in (
        lambda name: wanted in _synonyms(name), words.search, lambda name: wanted in name
    ):  # fmt: skip
        found = found or [number for number, name in enumerate(lower) if fits(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{len(found)} classes are called {text!r} or contain it: {_listed(names, found)}. "
            "Choose one by its number"
        )
    near = difflib.get_close_matches(wanted, {s for n in lower for s in _synonyms(n)}, _NEAREST)
    close = [n for n, name in enumerate(lower) if any(s in near for s in _synonyms(name))]
    hint = (
        f"Did you mean {_listed(names, close)}?" if close
        else f"There are {len(names)}, from {in_words(names, 0)} to "
        f"{in_words(names, len(names) - 1)}."
    )  # fmt: skip
    raise ValueError(f"unknown class {text!r}. {hint}")


def _synonyms(name: str) -> list[str]:
    return [part.strip() for part in name.split(",")]


def _listed(names: Sequence[str], numbers: Iterable[int]) -> str:
    """Return at most eight names, then how many more there are."""
    said = [in_words(names, number) for number in numbers]
    more = f" and {len(said) - _LISTED} more" if len(said) > _LISTED else ""
    return ", ".join(said[:_LISTED]) + more
