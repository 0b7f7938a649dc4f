"""What every store of images gives."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...base.fingerprint import sha256_of

STORED_SIZE = 256
NO_LABEL = -1  # of an image whose class nobody told
MOST_OBSERVERS = 1024  # of an image, for the sake of memory
NO_OBSERVERS = np.zeros((0, STORED_SIZE, STORED_SIZE), np.float32)


class StoredError(ValueError):
    """Stored images, maps or labels that cannot be read; the message says which and where."""


@dataclass(frozen=True)
class StoredImage:
    """One decoded example.

    image   : (256, 256, 3) uint8
    heatmap : (256, 256) uint8 or float32, larger = more important
    label   : class index, NO_LABEL for none
    """

    image: np.ndarray
    heatmap: np.ndarray
    label: int


class Fixations(NamedTuple):
    """Where people looked at an image, in the square that it becomes.

    at      : (fixation, 2) float64 x, y in pixels of the 256 x 256 square, which they may leave
    weights : (fixation,) float64, by which they make the human map
    owners  : (fixation,) int64, whose each is, from 0; empty where observers are not known
    outside : fixations beside the image's file that were left out
    """

    at: np.ndarray
    weights: np.ndarray
    owners: np.ndarray
    outside: int

    @property
    def beside(self) -> int:
        """Those beside the square."""
        return int((~((self.at >= 0) & (self.at <= STORED_SIZE)).all(axis=1)).sum())


class Part(ABC):
    """Images that are scored, and whose scores are kept, at once.

    name   : begins the names of its kept scores
    damage : why images of it are not there, "" if all are
    labels : of its images, where they are known before any is read
    """

    name: str
    damage: str = ""
    labels: Sequence[int] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image_id(self, index: int) -> str:
        """The image's name in every table."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Where the image lies, for messages."""

    @abstractmethod
    def digest(self) -> str:
        """Changes with anything that is stored."""

    @abstractmethod
    def read(self, indices: Sequence[int]) -> Iterator[StoredImage | StoredError]:
        """These images, decoded; in the place of one that cannot be read, why."""

    @property
    def without_labels(self) -> bool:
        """Whether it is known, before any image is read, that none has a class."""
        return self.labels is not None and all(label == NO_LABEL for label in self.labels)

    def observers(self, index: int) -> Sequence[str]:
        """The names of those whose maps `observer_maps` gives, in its order; () for none."""
        return ()

    def observer_maps(self, index: int) -> np.ndarray:
        """What each observer adds to an image's human map: (observer, 256, 256) float32.

        The human map is proportional to their sum, and so is some observers' map to the
        sum of theirs. (0, 256, 256) where observers are not known. Raises StoredError naming
        the file.
        """
        return NO_OBSERVERS

    def fixations(self, index: int) -> Fixations | None:
        """Where people looked, None where only maps are stored. Raises StoredError."""
        return None

    def observers_digest(self) -> str:
        """Changes with anything of which `observer_maps` are made."""
        return self.digest()


def refuse_unprintable(paths: Iterable[Path]) -> None:
    """Raise StoredError for a file whose name is no text: no table could hold it."""
    for path in paths:
        if not str(path).isprintable():
            raise StoredError(f"the file name {str(path)!a} is no printable text; rename it")


def refuse_many_observers(count: int, where: object) -> None:
    """Raise StoredError for so many observers that no memory need hold their maps."""
    if count > MOST_OBSERVERS:
        raise StoredError(f"{where}: {count} observers of one image, at most {MOST_OBSERVERS}")


def digest_of(paths: Sequence[Path]) -> str:
    """A hash of these files' contents, in this order."""
    return hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()
