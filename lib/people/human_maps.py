"""Stored human maps in the form in which they are compared with heatmaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.geometry import DELIVERED_SIZE, Preprocessing
from ..base.loops import bilinear
from ..base.threads import each
from .protocols import Protocol

K = TypeVar("K")


@cache
def _neighbours(stored: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each output pixel, its neighbours before and after, and how far between it is."""
    scale = np.float32(stored) / np.float32(side)
    half = np.float32(0.5)
    at = (np.arange(side, dtype=np.float32) + half) * scale - half
    before = np.maximum(np.floor(at), 0).astype(np.int64)
    after = np.minimum(np.ceil(at), stored - 1).astype(np.int64)
    return before, after, at - np.floor(at)


def resize(x: Tensor, side: int) -> Tensor:
    """Resize (image, s, s) uint8 or float32 to (image, side, side) float32 as tf.image.resize does.

    The resize is bilinear with half-pixel centres and no antialiasing, in TensorFlow's own order
    of float32 operations. F.interpolate differs in the last digits, and truncation to uint8 turns
    these into whole levels wherever an image is flat.
    """
    resized = torch.empty(len(x), side, side)
    _resize_each(x[..., None].numpy(), resized[..., None].numpy())
    return resized


def truncated_resize(stored: np.ndarray, side: int) -> np.ndarray:
    """Resize (image, s, s, 3) uint8 images likewise, truncated to uint8, not rounded."""
    resized = np.empty((len(stored), side, side, 3), np.uint8)
    _resize_each(stored, resized)
    return resized


def _resize_each(images: np.ndarray, resized: np.ndarray) -> None:
    images = np.ascontiguousarray(images)
    neighbours = _neighbours(images.shape[2], resized.shape[2])
    each(lambda image: bilinear(images[image], *neighbours, resized[image]), range(len(images)))


@cache
def _blur_kernel() -> Tensor:
    # Ten taps per side with sigma 10, and the peak at the sixth column and the fifth row: an
    # even kernel has no centre, and the two ranges in the published code differ.
    columns = torch.arange(-5, 5, dtype=torch.float64)
    rows = torch.arange(4, -6, -1, dtype=torch.float64)
    kernel = torch.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / (2 * 10.0**2))
    return (kernel / kernel.sum()).to(torch.float32).view(1, 1, 10, 10)


def published_human_maps(stored: Tensor) -> Tensor:
    """Make published human maps: (image, 256, 256) -> (image, 224, 224) float32.

    The maps are shrunk to 64, blurred and enlarged. The blur pads with zeros, so it dims the
    borders (to a quarter or a third in the corners) and moves maps by about half a pixel at 64.
    These defects of the published protocol are reproduced on purpose.
    """
    small = resize(stored, 64).unsqueeze(1)
    blurred = F.conv2d(F.pad(small, (4, 5, 4, 5)), _blur_kernel())
    return resize(blurred.squeeze(1), DELIVERED_SIZE)


def mended_human_maps(stored: Tensor) -> Tensor:
    """Make human maps like `published_human_maps`, with a symmetric, normalised blur.

    The kernel has eleven taps per side, and its weights sum to 1 everywhere. Eleven is the
    smallest symmetric kernel that covers the published one's ten.
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
    """Make human maps as they are compared with a backbone's heatmaps.

    stored : (image, 256, 256)

    Returns (image, 224, 224) float32.
    """
    return _part_seen(_blurred_maps(stored, protocol), protocol, geometry)


def human_maps_by(
    stored: Tensor, readings: Mapping[K, tuple[Protocol, Preprocessing]]
) -> Iterator[tuple[K, Tensor]]:
    """Yield the name and the `human_maps` of each reading; each protocol blurs once."""
    protocols = {protocol.key: protocol for protocol, _ in readings.values()}
    blurred = {key: _blurred_maps(stored, protocol) for key, protocol in protocols.items()}
    for name, (protocol, geometry) in readings.items():
        yield name, _part_seen(blurred[protocol.key], protocol, geometry)


def _blurred_maps(stored: Tensor, protocol: Protocol) -> Tensor:
    """Make whole human maps, (image, 224, 224) float32, before any crop: alike for all backbones.

    stored : (image, 256, 256)
    """
    maps = _BLURS[protocol.blur](stored)
    if protocol.blur == "mended":  # a constant map stays constant: rounding errors are no order
        flat = stored.flatten(1)
        constant = flat.amin(dim=1) == flat.amax(dim=1)
        maps = torch.where(constant[:, None, None], 0.0, maps)
    return maps


def _part_seen(maps: Tensor, protocol: Protocol, geometry: Preprocessing) -> Tensor:
    """Crop `_blurred_maps` to what the backbone sees, if the protocol does, at 224 x 224."""
    _, crop, _ = protocol.reading(geometry)
    if crop is None:
        return maps
    window = geometry.window(geometry.resize)
    cropped = resize(maps, geometry.resize)[:, window, window]
    return resize(cropped, DELIVERED_SIZE)
