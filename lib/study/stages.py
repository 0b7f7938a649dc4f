"""Weights files of one training, ordered by the numbers in their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..networks.sources import WEIGHTS_SUFFIXES

_NUMBERED = ("epoch", "ep", "step", "steps", "iter", "iteration", "iterations")
_WORDS = {"ep": "epoch", "steps": "step", "iter": "iteration", "iterations": "iteration"}


@dataclass(frozen=True)
class Stage:
    """A file of a training, the number that tells when it was written, and what that number
    counts: "epoch", "step" or "iteration"."""

    file: Path
    number: int
    word: str = "epoch"


def stages_of(files: Sequence[Path], where: str) -> tuple[list[Stage], list[str]]:
    """Return files ordered by the number in their names, and the names of those without one.

    Names that differ only in their numbers belong together; of several such groups the largest
    is used. If several numbers differ, the one after "epoch", "step" or the like is used,
    otherwise the first that differs between all files.

    where : what messages call the training

    Raises ValueError if no file has a number, or if two files have the same.
    """
    alike: dict[tuple[str, ...], list[tuple[Path, list[str]]]] = defaultdict(list)
    for file in files:
        texts, numbers = _taken_apart(file)
        if numbers:
            alike[texts].append((file, numbers))
    if not alike:
        names = ", ".join(sorted(file.name for file in files)[:5]) or "no weights file at all"
        raise ValueError(
            f"{where}: no weights file there has a number in its name that says when it was "
            f"written: {names}; such names are epoch_3.pth, checkpoint-12.pth.tar. To use a single "
            f"file, give its own path. Weights files end in {', '.join(WEIGHTS_SUFFIXES)}"
        )
    texts, group = max(alike.items(), key=lambda item: len(item[1]))
    place = _place(texts, [numbers for _, numbers in group])
    word = _word(texts[place]) or "epoch"
    word = _WORDS.get(word, word)
    found = sorted((Stage(file, int(n[place]), word) for file, n in group), key=lambda s: s.number)
    for one, other in pairwise(found):
        if one.number == other.number:
            raise ValueError(
                f"{where}: two files have {word} {one.number}, {one.file.name} and "
                f"{other.file.name}; put one of them elsewhere"
            )
    taken = {stage.file for stage in found}
    return found, sorted(file.name for file in files if file not in taken)


def word_of(file: Path, number: int) -> str:
    """Return what a number in a file's name counts."""
    texts, numbers = _taken_apart(file)
    for text, found in zip(texts, numbers, strict=False):
        if int(found) == number and (word := _word(text)):
            return _WORDS.get(word, word)
    return "epoch"


def _taken_apart(file: Path) -> tuple[tuple[str, ...], list[str]]:
    """Return a name's texts and the numbers between them, without its ending."""
    name = next((file.name.removesuffix(s) for s in sorted(WEIGHTS_SUFFIXES, key=len, reverse=True)
                 if file.name.endswith(s)), file.name)  # fmt: skip
    parts = re.split(r"(\d+)", name)
    return tuple(parts[::2]), parts[1::2]


def _word(before: str) -> str:
    """Return the word that says what the number after it counts; "" for any other word."""
    found = re.search(r"([a-z]+)[^a-z]*$", before.lower())
    return found[1] if found and found[1] in _NUMBERED else ""


def _place(texts: Sequence[str], numbers: Sequence[list[str]]) -> int:
    """Return which of the numbers in the names tells when a file was written."""
    count = len(numbers[0])
    different = [len({row[place] for row in numbers}) for place in range(count)]
    changing = [p for p in range(count) if different[p] > 1] or list(range(count))
    for place in changing:
        if _word(texts[place]):
            return place
    for place in changing:
        if different[place] == len(numbers) > 1:
            return place
    return changing[-1] if len(numbers) == 1 else changing[0]


def weights_in(folder: Path) -> list[Path]:
    """Return the weights files of a folder, without hidden ones."""
    return sorted(
        path for path in folder.iterdir()
        if path.is_file() and path.name.endswith(WEIGHTS_SUFFIXES) and path.name[0] != "."
    )  # fmt: skip
