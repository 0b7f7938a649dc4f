"""Average drop and increase in confidence, for the image times the map or its highest pixels.

Source: Chattopadhyay et al., WACV 2018, on the shares of pixels of Gkartzonika et al.,
"Learning visual explanations for DCNN-based image classifiers using an attention mechanism",
ECCV workshops 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor


def in_order(masks: Tensor, lots: Tensor) -> Tensor:
    """Return the pixels of (image, side, side) masks, (image, pixel), the most relevant first.

    lots : (image, pixel), a random permutation for each image that orders tied pixels. Otherwise
           the pixels of a plateau would be taken from the top of the image down
    """
    drawn = masks.flatten(1).gather(1, lots)
    return lots.gather(1, drawn.argsort(dim=1, descending=True, stable=True))


def kept_share(masks: Tensor, order: Tensor, share: float) -> Tensor:
    """Return masks that keep the first share of pixels in `order`; all others are 0."""
    flat = masks.flatten(1)
    places = order[:, : max(1, round(share * flat.shape[1]))]
    return torch.zeros_like(flat).scatter_(1, places, flat.gather(1, places)).view_as(masks)


def average_drop(whole: Tensor, masked: Tensor) -> Tensor:
    """Return (image,): per cent of the probability lost by masking; lower is more faithful."""
    return 100 * (whole - masked).clamp(min=0) / whole


def increase_in_confidence(whole: Tensor, masked: Tensor) -> Tensor:
    """Return (image,): 100 if masking raises the probability, else 0; higher is more faithful."""
    return 100.0 * (masked > whole)
