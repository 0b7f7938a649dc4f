"""A part's images prepared for the models, and its human maps ranked.

Decoding, resizing and ranking are done once for all variants and methods. With a GPU a separate
thread does them ahead of the forward pass that needs them; on a CPU all processors do them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, takewhile

import numpy as np
import torch
from torch import Tensor

from ..base.geometry import Preprocessing
from ..networks.preprocessing import resize_images
from ..people.clickme import ClickMe, ClickMeBatch
from ..people.human_maps import human_maps
from ..people.protocols import Protocol
from .spearman import Ranks, rank_maps

_BLOCK = 32  # images prepared at a time, or a batch if that is larger


@dataclass(frozen=True)
class Block:
    """Some images after one preprocessing, with their human maps.

    image_ids, labels, places : as in `ClickMeBatch`
    pixels : (image, side, side, 3) uint8
    human  : {protocol: ranked human maps as they are compared with the networks' maps}
    """

    image_ids: list[str]
    labels: Tensor
    places: np.ndarray
    pixels: Tensor
    human: dict[str, Ranks]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, images: slice) -> Block:
        return Block(
            self.image_ids[images],
            self.labels[images],
            self.places[images],
            self.pixels[images],
            {key: ranks[images] for key, ranks in self.human.items()},
        )


class PreparedPart:
    """The images of one part, prepared when they are requested and then kept in memory.

    some   : images of one part
    device : where ranks are computed and stored
    batch  : images per forward pass; the images of one pass come from one block
    """

    def __init__(self, some: ClickMe, device: torch.device, batch: int = _BLOCK):
        self.some = some
        self.device = device
        size = batch * -(-_BLOCK // batch)
        self._source = some.batches(size)
        self._decoded: list[ClickMeBatch] = []
        self._pixels: dict[tuple[Preprocessing, int], Tensor] = {}
        self._ranks: dict[tuple, Ranks] = {}

    def blocks(self, geometry: Preprocessing) -> Iterator[Block]:
        """Yield all images while the next ones are being prepared. Raises StoredError."""
        # One preprocessing at a time, because a part's pixels take some hundred megabytes.
        self._pixels = {key: v for key, v in self._pixels.items() if key[0] == geometry}
        if self.device.type == "cpu":
            # If the forward pass uses all processors, a parallel thread would slow it down.
            numbered = (self._block(number, geometry) for number in count())
            yield from takewhile(lambda block: block is not None, numbered)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="prepare") as ahead:
            waiting = ahead.submit(self._block, 0, geometry)
            number = 0
            while (block := waiting.result()) is not None:
                number += 1
                waiting = ahead.submit(self._block, number, geometry)
                yield block

    def _block(self, number: int, geometry: Preprocessing) -> Block | None:
        while len(self._decoded) <= number:
            batch = next(self._source, None)
            if batch is None:
                return None
            self._decoded.append(batch)
        batch = self._decoded[number]
        if (geometry, number) not in self._pixels:
            pixels = torch.from_numpy(resize_images(batch.images, geometry))
            pinned = pixels.pin_memory() if self.device.type == "cuda" else pixels
            self._pixels[geometry, number] = pinned
        human = {p.key: self._ranked(number, p, geometry) for p in self.some.protocols}
        pixels = self._pixels[geometry, number]
        return Block(batch.image_ids, batch.labels, batch.places, pixels, human)

    def _ranked(self, number: int, protocol: Protocol, geometry: Preprocessing) -> Ranks:
        """Ranked human maps; a reading that several protocols or backbones share is ranked once."""
        key = (*protocol.reading(geometry), number)
        if key not in self._ranks:
            maps = human_maps(self._decoded[number].stored_maps, protocol, geometry)
            self._ranks[key] = rank_maps(maps.to(self.device), protocol.settles)
        return self._ranks[key]
