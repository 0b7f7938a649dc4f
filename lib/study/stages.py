"""Weights files of one training, in the order of the numbers in their names."""

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
    """A file of a training, the number that tells when it was written, and of what that is the
    number: "epoch", "step" or "iteration"."""

    file: Path
    number: int
    word: str = "epoch"


def stages_of(files: Sequence[Path], where: str) -> tuple[list[Stage], list[str]]:
    """Files in the order of the number in their names, and the names of those that have none.

    Names that are alike but for their numbers belong together; of several such groups the largest
    is taken. Where several numbers differ, the one after "epoch", "step" or the like is taken,
    else the first that is another in every file.

    where : how messages name the training
    Raises ValueError if no file has a number, or two files have the same.
    """
    alike: dict[tuple[str, ...], list[tuple[Path, list[str]]]] = defaultdict(list)
    for file in files:
        texts, numbers = _taken_apart(file)
        if numbers:
            alike[texts].append((file, numbers))
    if not alike:
        names = ", ".join(sorted(file.name for file in files)[:5]) or "no weights file at all"
        raise ValueError(
            f"{where}: no file of weights there has a number in its name, which would say when it "
            f"was written: {names}; such names are epoch_3.pth, checkpoint-12.pth.tar. One file "
            f"alone is named by its own path. Files of weights end in {', '.join(WEIGHTS_SUFFIXES)}"
        )
    texts, group = max(alike.items(), key=lambda item: len(item[1]))
    place = _place(texts, [numbers for _, numbers in group])
    word = _word(texts[place]) or "epoch"
    word = _WORDS.get(word, word)
    found = sorted((Stage(file, int(n[place]), word) for file, n in group), key=lambda s: s.number)
    for one, other in pairwise(found):
        if one.number == other.number:
            raise ValueError(
                f"{where}: two files are of {word} {one.number}, {one.file.name} and "
                f"{other.file.name}; put one of them elsewhere"
            )
    taken = {stage.file for stage in found}
    return found, sorted(file.name for file in files if file not in taken)


def word_of(file: Path, number: int) -> str:
    """Of what a number in a file's name is the number."""
    texts, numbers = _taken_apart(file)
    for text, found in zip(texts, numbers, strict=False):
        if int(found) == number and (word := _word(text)):
            return _WORDS.get(word, word)
    return "epoch"


def _taken_apart(file: Path) -> tuple[tuple[str, ...], list[str]]:
    """A name's texts and the numbers between them, without its ending."""
    name = next((file.name.removesuffix(s) for s in sorted(WEIGHTS_SUFFIXES, key=len, reverse=True)
                 if file.name.endswith(s)), file.name)  # fmt: skip
    parts = re.split(r"(\d+)", name)
    return tuple(parts[::2]), parts[1::2]


def _word(before: str) -> str:
    """The word that says of what the number after it is; "" for another."""
    found = re.search(r"([a-z]+)[^a-z]*$", before.lower())
    return found[1] if found and found[1] in _NUMBERED else ""


def _place(texts: Sequence[str], numbers: Sequence[list[str]]) -> int:
    """Which of the numbers in the names tells when a file was written."""
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
    """The weights files of a folder; hidden ones are none."""
    return sorted(
        path for path in folder.iterdir()
        if path.is_file() and path.name.endswith(WEIGHTS_SUFFIXES) and path.name[0] != "."
    )  # fmt: skip
