"""Deletion and insertion: the areas under two curves.

Source: Petsiuk et al., "RISE", BMVC 2018
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...maps.combined import blurred

STEPS = 8  # of each curve


def _replaced(base: Tensor, by: Tensor, order: Tensor, share: float) -> Tensor:
    """`base` with the first share of pixels, in each image's order, replaced from `by`."""
    count = round(share * order.shape[1])
    chosen = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :count], True)
    return torch.where(chosen.view(len(base), 1, *base.shape[2:]), by, base)


def curves(
    probability: Callable[[Tensor], Tensor], images: Tensor, order: Tensor, mean: Tensor
) -> dict[str, Tensor]:
    """Return the areas under the deletion and the insertion curve, (image,) each, 0-1.

    probability : images -> (image,), the probability of the target class
    order       : (image, pixel), from `in_order`
    mean        : (3, 1, 1), the value of deleted pixels
    For a more faithful map, deletion is lower and insertion is higher.
    """
    ends = {
        "deletion": (images, mean.expand_as(images)),
        "insertion": (blurred(images), images),
    }
    areas = {}
    for name, (base, by) in ends.items():
        points = [
            probability(_replaced(base, by, order, step / STEPS)) for step in range(STEPS + 1)
        ]
        areas[name] = torch.trapezoid(torch.stack(points), dx=1 / STEPS, dim=0)
    return areas
