"""ClickMe as the models are given it: pictures, human maps and labels, batch by batch.

Other stores of pictures and maps (`lib.stored`) are read in the same way.
Reading is done as the published study does it, so that scores can equal its own;
`PROTOCOLS` tells which of the stored pictures are scored, and how their maps are read.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.human_maps import DELIVERED_SIZE, published_human_maps, resize_pictures
from lib.protocols import PROTOCOLS
from lib.stored import Part, StoredError, StoredPicture, open_parts

# The seed of `limit`'s subset: the same pictures for everyone who asks for as many.
SUBSET_SEED = 20240803


@dataclass(frozen=True)
class ClickMeBatch:
    """Consecutive pictures as delivered to the models.

    image_ids  : one name per image
    pictures   : (image, 224, 224, 3) uint8
    stored_maps : (image, 256, 256) uint8 or float32, larger = more important
    labels     : (image,) int64
    places     : (image,) place among the stored pictures, from 0, which tells by which
                 protocols the picture is scored
    """

    image_ids: list[str]
    pictures: np.ndarray
    stored_maps: Tensor
    labels: Tensor
    places: np.ndarray

    @cached_property
    def human_maps(self) -> Tensor:
        """(image, 224, 224) float32 on the stored scale, in the published reading."""
        return published_human_maps(self.stored_maps)


def deliver_pictures(stored: np.ndarray) -> np.ndarray:
    """(image, 256, 256, 3) uint8 -> (image, 224, 224, 3) uint8, truncated, not rounded."""
    return resize_pictures(stored, DELIVERED_SIZE)


@dataclass(frozen=True)
class _Chosen:
    """A stored picture: its part, its index there, its place among all."""

    part: Part
    index: int
    place: int

    @property
    def image_id(self) -> str:
        return self.part.image_id(self.index)


class ClickMe:
    """Pictures, human maps and labels under a reading protocol.

    places   : shards, or folders of pictures and maps (`lib.stored`), in reading order
    protocols : keys of `PROTOCOLS`; read is what any of them scores
    limit    : a subset of so many pictures, drawn without replacement by a fixed
               seed from those that every protocol scores; a smaller limit's pictures
               are among a larger one's. 0 takes all.
    classes  : labels must lie in 0 … classes - 1
    keep_going : what cannot be read is left out, and named in `left_out`
    unread   : the name of a last shard that the published reader stops before

    Opening lists the pictures; they are read when iterated, so memory does
    not grow with their number. Raises FileNotFoundError and StoredError.

    chosen   : the pictures that are read
    left_out : {part or picture: why it is not read}, growing as pictures are read
    """

    def __init__(
        self,
        places: Sequence[Path],
        protocols: Sequence[str] = ("published",),
        limit: int = 0,
        classes: int = 1000,
        keep_going: bool = False,
        unread: str = "",
    ):
        if isinstance(places, str | Path):
            raise ValueError("places is a list of files or folders, not one path")
        if limit < 0:
            raise ValueError(f"limit must be 0 or more, got {limit}")
        self.protocols = PROTOCOLS.select(protocols)
        self.classes = classes
        self.keep_going = keep_going
        parts = open_parts([Path(place) for place in places], keep_going)
        self.left_out = {part.name: part.damage for part in parts if part.damage}
        stored = [(part, index) for part in parts for index in range(len(part))]
        self.stored = len(stored)
        last = sum(len(part) for part in parts[-1:] if part.name == unread)
        self._scored = {p.key: p.scored(self.stored, last) for p in self.protocols}
        for key, scored in self._scored.items():
            if not scored:
                raise StoredError(
                    f"there are {self.stored} pictures, fewer than the one whole batch of "
                    f"32 that protocol {key!r} needs; `--protocols corrected` scores any number"
                )
        taken = range(max(self._scored.values()))
        # The same subset whatever the protocols: every one of them scores what this one does.
        common = PROTOCOLS["published"].scored(self.stored, last) or self.stored
        order = np.random.default_rng(SUBSET_SEED).permutation(common).tolist()
        if 0 < limit < len(taken):  # what not all protocols score comes last
            taken = sorted([*order, *range(common, self.stored)][:limit])
        self.chosen = [_Chosen(*stored[place], place) for place in taken]

    def scored(self, protocol: str) -> int:
        """How many of these pictures a protocol scores."""
        return sum(chosen.place < self._scored[protocol] for chosen in self.chosen)

    def is_scored(self, protocol: str, places: np.ndarray) -> np.ndarray:
        """Which of the pictures at these places a protocol scores, as bools."""
        return places < self._scored[protocol]

    def __len__(self) -> int:
        return len(self.chosen)

    def per_part(self) -> Iterator[ClickMe]:
        """The same pictures, part by part: a unit of work that fits in memory."""
        for _, group in groupby(self.chosen, key=lambda chosen: id(chosen.part)):
            some = copy.copy(self)
            some.chosen, some.left_out = list(group), {}
            yield some

    def blocks(self, size: int) -> Iterator[ClickMe]:
        """The same pictures, so many at a time, of one part each."""
        for some in self.per_part():
            for start in range(0, len(some), size):
                block = copy.copy(some)
                block.chosen, block.left_out = some.chosen[start : start + size], {}
                yield block

    @property
    def part(self) -> Part:
        """The part of which these pictures are, where they are of one."""
        return self.chosen[0].part

    def batches(self, size: int = 32) -> Iterator[ClickMeBatch]:
        """Decoded and preprocessed pictures, `size` at a time; the last may be smaller."""
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"a batch's size must be a whole number of 1 or more, got {size!r}")
        pending: list[tuple[_Chosen, StoredPicture]] = []
        for item in self._read():
            pending.append(item)
            if len(pending) == size:
                yield _batch(pending)
                pending = []
        if pending:
            yield _batch(pending)

    def _read(self) -> Iterator[tuple[_Chosen, StoredPicture]]:
        for some in self.per_part():
            found = some.part.read([chosen.index for chosen in some.chosen])
            for chosen, picture in zip(some.chosen, found, strict=True):
                if isinstance(picture, StoredPicture) and not 0 <= picture.label < self.classes:
                    picture = StoredError(
                        f"{chosen.part.where(chosen.index)}: label {picture.label} is outside "
                        f"0 … {self.classes - 1}"
                    )
                if isinstance(picture, StoredPicture):
                    yield chosen, picture
                elif self.keep_going:
                    self.left_out[chosen.image_id] = str(picture)
                else:
                    raise picture


def _batch(items: Sequence[tuple[_Chosen, StoredPicture]]) -> ClickMeBatch:
    return ClickMeBatch(
        [chosen.image_id for chosen, _ in items],
        deliver_pictures(np.stack([picture.image for _, picture in items])),
        torch.from_numpy(np.stack([picture.heatmap for _, picture in items])),
        torch.tensor([picture.label for _, picture in items]),
        np.array([chosen.place for chosen, _ in items]),
    )
