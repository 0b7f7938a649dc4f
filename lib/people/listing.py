"""Which of the stored images a study uses, before any is read; nothing here needs torch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np

from .protocols import PROTOCOLS
from .stored import Part, Read, StoredError, open_parts

L = TypeVar("L", bound="Listing")


# The seed of `limit`'s subset: everyone who asks for the same number gets the same images.
SUBSET_SEED = 20240803


@dataclass(frozen=True)
class Chosen:
    """A stored image: its part, its index in that part, its position among all images."""

    part: Part
    index: int
    place: int

    @property
    def image_id(self) -> str:
        return self.part.image_id(self.index)


class Listing:
    """Images under one or more protocols: which ones, and in which parts they lie.

    places     : shards, or folders of images and maps (`lib.people.stored`), in reading order
    protocols  : keys of `PROTOCOLS`; an image is read if any of them scores it
    limit      : a subset of this many images, drawn without replacement with a fixed
                 seed from those that every protocol scores; a smaller limit's images
                 are among a larger one's. 0 takes all.
    classes    : labels must lie in 0 … classes - 1
    keep_going : whether images that cannot be read are skipped, and named in `left_out`
    unread     : the name of a last shard that the published protocol does not reach
    read       : how folders are read
    labelled   : whether an image without a class is an error, because heatmaps are of its class

    Raises FileNotFoundError and StoredError.

    chosen   : the images that are used
    left_out : {part or image: why it is skipped}, which grows as images are read
    without_labels : whether it is known, before any image is read, that none has a class
    """

    def __init__(
        self,
        places: Sequence[Path],
        protocols: Sequence[str] = ("published",),
        limit: int = 0,
        classes: int = 1000,
        keep_going: bool = False,
        unread: str = "",
        read: Read = Read(),  # noqa: B008 - frozen
        labelled: bool = False,
    ):
        if isinstance(places, str | Path):
            raise ValueError("places is a list of files or folders, not one path")
        if limit < 0:
            raise ValueError(f"limit must be 0 or more, got {limit}")
        self.protocols = PROTOCOLS.select(protocols)
        self.classes = classes
        self.keep_going = keep_going
        self.labelled = labelled
        parts = open_parts([Path(place) for place in places], keep_going, read)
        self.without_labels = bool(parts) and all(part.without_labels for part in parts)
        if labelled and self.without_labels:
            raise StoredError(
                f"{places[0]} has no classes of its images: use `--target predicted`, which makes "
                "heatmaps of the class that a model predicts"
            )
        self.left_out = {part.name: part.damage for part in parts if part.damage}
        stored = [(part, index) for part in parts for index in range(len(part))]
        self.stored = len(stored)
        last = sum(len(part) for part in parts[-1:] if part.name == unread)
        self._scored = {p.key: p.scored(self.stored, last) for p in self.protocols}
        for key, scored in self._scored.items():
            if not scored:
                raise StoredError(
                    f"there are {self.stored} images, fewer than the one whole batch of "
                    f"32 that protocol {key!r} needs; `--protocols corrected` scores any number"
                )
        taken = range(max(self._scored.values()))
        # The same subset for all protocols: each of them scores what this one does.
        common = PROTOCOLS["published"].scored(self.stored, last) or self.stored
        order = np.random.default_rng(SUBSET_SEED).permutation(common).tolist()
        if 0 < limit < len(taken):  # images that some protocols do not score come last
            taken = sorted([*order, *range(common, self.stored)][:limit])
        self.chosen = [Chosen(*stored[place], place) for place in taken]

    def scored(self, protocol: str) -> int:
        """Return how many of these images a protocol scores."""
        return sum(chosen.place < self._scored[protocol] for chosen in self.chosen)

    def is_scored(self, protocol: str, places: np.ndarray) -> np.ndarray:
        """Return, as bools, which of the images at these positions a protocol scores."""
        return places < self._scored[protocol]

    def __len__(self) -> int:
        return len(self.chosen)

    def per_part(self: L) -> Iterator[L]:
        """Yield the same images part by part; a part is a unit of work that fits in memory."""
        for _, group in groupby(self.chosen, key=lambda chosen: id(chosen.part)):
            some = copy.copy(self)
            some.chosen, some.left_out = list(group), {}
            yield some

    def blocks(self: L, size: int) -> Iterator[L]:
        """Yield the same images, at most `size` at a time, each time from one part."""
        for some in self.per_part():
            for start in range(0, len(some), size):
                block = copy.copy(some)
                block.chosen, block.left_out = some.chosen[start : start + size], {}
                yield block

    @property
    def part(self) -> Part:
        """The part that contains these images, if there is only one."""
        return self.chosen[0].part
