"""Human maps in blocks, each with the human map of another image, for scoring controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..people.clickme import ClickMe
from .controls import SEED

_BLOCK = 64  # images at a time


@dataclass(frozen=True)
class MapBlock:
    """Some images' human maps as stored, and for each the map of another image of the same part.

    If a part has only one image, that other map is constant and gives no score.
    """

    image_ids: list[str]
    places: np.ndarray
    stored_maps: Tensor
    other_maps: Tensor


def map_blocks(clickme: ClickMe, first: int = 0) -> Iterator[MapBlock]:
    """All human maps of `clickme`, part by part; skipped images are added to its `left_out`.

    first : the number of the first part among those of the study
    """
    for number, some in enumerate(clickme.per_part(), first):
        batches = list(some.batches(_BLOCK))
        clickme.left_out |= some.left_out
        if not batches:
            continue
        stored = torch.cat([batch.stored_maps for batch in batches])
        order = np.random.default_rng([SEED, number]).permutation(len(stored))
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)
        others = stored[other] if len(stored) > 1 else torch.zeros_like(stored)
        start = 0
        for batch in batches:
            here = slice(start, start + len(batch.image_ids))
            yield MapBlock(batch.image_ids, batch.places, stored[here], others[here])
            start = here.stop
