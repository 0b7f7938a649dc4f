"""What every store of images provides."""

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
NO_LABEL = -1  # of an image without a known class
MOST_OBSERVERS = 1024  # per image, to limit memory
NO_OBSERVERS = np.zeros((0, STORED_SIZE, STORED_SIZE), np.float32)


class StoredError(ValueError):
    """The error for stored images, maps or labels that cannot be read; it says which and where."""


@dataclass(frozen=True)
class StoredImage:
    """One decoded image with its map and label.

    image   : (256, 256, 3) uint8
    heatmap : (256, 256) uint8 or float32, larger = more important
    label   : class index, NO_LABEL for none
    """

    image: np.ndarray
    heatmap: np.ndarray
    label: int


class Fixations(NamedTuple):
    """Where people looked at an image, in the square that it becomes.

    at      : (fixation, 2) float64 x, y in pixels of the 256 x 256 square; they may lie outside it
    weights : (fixation,) float64, the weight of each fixation in the human map
    owners  : (fixation,) int64, the observer of each fixation, from 0; empty if observers are
              unknown
    outside : how many fixations outside the image's file were skipped
    """

    at: np.ndarray
    weights: np.ndarray
    owners: np.ndarray
    outside: int

    @property
    def beside(self) -> int:
        """The number of fixations outside the square."""
        return int((~((self.at >= 0) & (self.at <= STORED_SIZE)).all(axis=1)).sum())


class Part(ABC):
    """Images whose scores are computed and cached as one unit.

    name   : the beginning of the names of its cached scores
    damage : why some of its images are missing, "" if none are
    labels : the labels of its images, if they are known before any is read
    """

    name: str
    damage: str = ""
    labels: Sequence[int] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image_id(self, index: int) -> str:
        """Return the image's name in every table."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Return where the image lies, for messages."""

    @abstractmethod
    def digest(self) -> str:
        """Return a hash that changes with anything that is stored."""

    @abstractmethod
    def read(self, indices: Sequence[int]) -> Iterator[StoredImage | StoredError]:
        """Yield these images, decoded; for an image that cannot be read, yield the error."""

    @property
    def without_labels(self) -> bool:
        """Whether it is known, before any image is read, that none has a class."""
        return self.labels is not None and all(label == NO_LABEL for label in self.labels)

    def observers(self, index: int) -> Sequence[str]:
        """Return the names for the maps of `observer_maps`, in its order; () if there are none."""
        return ()

    def observer_maps(self, index: int) -> np.ndarray:
        """Return what each observer contributes to an image's human map.

        Returns (observer, 256, 256) float32, or (0, 256, 256) if observers are unknown. The human
        map is proportional to the sum, and a map of some observers to the sum of theirs. Raises
        StoredError, which names the file.
        """
        return NO_OBSERVERS

    def fixations(self, index: int) -> Fixations | None:
        """Return where people looked, or None if only maps are stored. Raises StoredError."""
        return None

    def observers_digest(self) -> str:
        """Return a hash that changes with anything that determines `observer_maps`."""
        return self.digest()


def refuse_unprintable(paths: Iterable[Path]) -> None:
    """Raise StoredError for a file whose name is not printable text: no table could hold it."""
    for path in paths:
        if not str(path).isprintable():
            raise StoredError(f"the file name {str(path)!a} is not printable text; rename it")


def refuse_many_observers(count: int, where: object) -> None:
    """Raise StoredError if an image has more observers than memory allows for."""
    if count > MOST_OBSERVERS:
        raise StoredError(f"{where}: {count} observers of one image, at most {MOST_OBSERVERS}")


def digest_of(paths: Sequence[Path]) -> str:
    """Return a hash of these files' contents, in this order."""
    return hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()
