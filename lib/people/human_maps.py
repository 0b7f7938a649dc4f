"""Stored human maps as they are compared with a network's maps."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.geometry import DELIVERED_SIZE, Preprocessing
from ..base.loops import bilinear
from ..base.threads import each
from .protocols import Protocol


@cache
def _neighbours(stored: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output pixel: the pixels before and after it, and how far between."""
    scale = np.float32(stored) / np.float32(side)
    half = np.float32(0.5)
    at = (np.arange(side, dtype=np.float32) + half) * scale - half
    before = np.maximum(np.floor(at), 0).astype(np.int64)
    after = np.minimum(np.ceil(at), stored - 1).astype(np.int64)
    return before, after, at - np.floor(at)


def resize(x: Tensor, side: int) -> Tensor:
    """(image, s, s) uint8 or float32 -> (image, side, side) float32 as tf.image.resize does it.

    Bilinear with half-pixel centres and no antialias, in TensorFlow's own order of
    float32 operations: F.interpolate's differs in the last digits, which truncation
    to uint8 turns into whole levels wherever an image is flat.
    """
    resized = torch.empty(len(x), side, side)
    _resize_each(x[..., None].numpy(), resized[..., None].numpy())
    return resized


def truncated_resize(stored: np.ndarray, side: int) -> np.ndarray:
    """The same for (image, s, s, 3) uint8 images, truncated to uint8, not rounded."""
    resized = np.empty((len(stored), side, side, 3), np.uint8)
    _resize_each(stored, resized)
    return resized


def _resize_each(images: np.ndarray, resized: np.ndarray) -> None:
    images = np.ascontiguousarray(images)
    neighbours = _neighbours(images.shape[2], resized.shape[2])
    each(lambda image: bilinear(images[image], *neighbours, resized[image]), range(len(images)))


@cache
def _blur_kernel() -> Tensor:
    # Ten taps a side with sigma 10, peak at the sixth column and the fifth row: an
    # even kernel has no centre, and the published code's two ranges differ.
    columns = torch.arange(-5, 5, dtype=torch.float64)
    rows = torch.arange(4, -6, -1, dtype=torch.float64)
    kernel = torch.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / (2 * 10.0**2))
    return (kernel / kernel.sum()).to(torch.float32).view(1, 1, 10, 10)


def published_human_maps(stored: Tensor) -> Tensor:
    """(image, 256, 256) -> (image, 224, 224) float32: shrink to 64, blur, enlarge.

    The blur pads with zeros, so it dims the borders (to a quarter or a third in
    the corners) and moves maps by about half a pixel at 64: defects of the
    published reading that are kept here on purpose.
    """
    small = resize(stored, 64).unsqueeze(1)
    blurred = F.conv2d(F.pad(small, (4, 5, 4, 5)), _blur_kernel())
    return resize(blurred.squeeze(1), DELIVERED_SIZE)


def mended_human_maps(stored: Tensor) -> Tensor:
    """Like `published_human_maps`, with eleven taps a side, and weights that sum to 1 everywhere.

    Eleven is the smallest symmetric kernel that covers the published one's ten.
    """
    small = resize(stored, 64).unsqueeze(1)
    at = torch.arange(-5, 6, dtype=torch.float64)
    kernel = torch.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 10.0**2))
    kernel = (kernel / kernel.sum()).to(torch.float32).view(1, 1, 11, 11)
    blurred = F.conv2d(small, kernel, padding=5)
    weight = F.conv2d(torch.ones_like(small[:1]), kernel, padding=5)
    return resize((blurred / weight).squeeze(1), DELIVERED_SIZE)


_BLURS = {
    "published": published_human_maps,
    "mended": mended_human_maps,
    "none": lambda stored: resize(stored, DELIVERED_SIZE),
}


def human_maps(stored: Tensor, protocol: Protocol, geometry: Preprocessing) -> Tensor:
    """(image, 256, 256) -> (image, 224, 224) float32, as compared with a backbone's maps."""
    blur, crop, _ = protocol.reading(geometry)
    maps = _BLURS[blur](stored)
    if blur == "mended":  # whose rounding errors are no map; zero padding would make one of them
        flat = stored.flatten(1)
        constant = flat.amin(dim=1) == flat.amax(dim=1)
        maps = torch.where(constant[:, None, None], 0.0, maps)
    if crop is None:
        return maps
    window = geometry.window(geometry.resize)
    cropped = resize(maps, geometry.resize)[:, window, window]
    return resize(cropped, DELIVERED_SIZE)
