"""Images in the form that a backbone takes: resized, cropped, normalised."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..base.geometry import Preprocessing
from ..base.threads import each


def resize_images(images: np.ndarray, geometry: Preprocessing) -> np.ndarray:
    """Resize (bicubic) and crop (centre) (image, 224, 224, 3) uint8 to the crop's side.

    Resizing uses PIL on uint8, as in the published study; a tensor resize differs from it
    by up to 0.05 normalised units. Raises ValueError, which names a wrong shape or type.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"images must be (image, height, width, 3) uint8, got {images.shape} {images.dtype}"
        )
    side = geometry.resize
    if len(images) and images.shape[1:3] != (side, side):
        bicubic = Image.Resampling.BICUBIC
        images = np.stack(
            each(lambda p: np.asarray(Image.fromarray(p).resize((side, side), bicubic)), images)
        )
    window = geometry.window(side)
    return np.ascontiguousarray(images[:, window, window])


def prepare_pixels(
    pixels: Tensor,
    geometry: Preprocessing,
    layout: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Normalise (image, side, side, 3) uint8 to (image, 3, side, side) float32."""
    return normalised(pixels.to(torch.float32).div_(255).permute(0, 3, 1, 2), geometry, layout)


@cache
def _per_colour(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Made once, because a copy of numbers to a GPU waits for all its work."""
    with torch.inference_mode(False):  # gradients may pass through it later
        return torch.tensor(values, device=device)[:, None, None]


def normalised(images: Tensor, geometry: Preprocessing, layout: torch.memory_format) -> Tensor:
    """Normalise (image, 3, side, side) in 0-1 to what networks take."""
    mean, std = (_per_colour(values, images.device) for values in (geometry.mean, geometry.std))
    # The memory layout may be channels-last, except in FastViT's training, which crashes then.
    return (images - mean).div_(std).contiguous(memory_format=layout)
