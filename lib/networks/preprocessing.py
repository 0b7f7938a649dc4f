"""Images as a backbone takes them: resized, cropped, normalised."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..base.geometry import Preprocessing
from ..base.threads import each


def resize_pictures(pictures: np.ndarray, geometry: Preprocessing) -> np.ndarray:
    """Bicubic resize and centre crop: (image, 224, 224, 3) uint8 to the crop's side.

    Resizing is PIL's on uint8, as in the study; a tensor resize differs from it
    by up to 0.05 normalised units. Raises ValueError naming a wrong shape or type.
    """
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(
            "pictures must be (image, height, width, 3) uint8, "
            f"got {pictures.shape} {pictures.dtype}"
        )
    side = geometry.resize
    if len(pictures) and pictures.shape[1:3] != (side, side):
        bicubic = Image.Resampling.BICUBIC
        pictures = np.stack(
            each(lambda p: np.asarray(Image.fromarray(p).resize((side, side), bicubic)), pictures)
        )
    window = geometry.window(side)
    return np.ascontiguousarray(pictures[:, window, window])


def prepare_pixels(
    pixels: Tensor,
    geometry: Preprocessing,
    layout: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """(image, side, side, 3) uint8 -> (image, 3, side, side) float32, normalised."""
    return normalised(pixels.to(torch.float32).div_(255).permute(0, 3, 1, 2), geometry, layout)


def normalised(pictures: Tensor, geometry: Preprocessing, layout: torch.memory_format) -> Tensor:
    """(image, 3, side, side) in 0-1 -> as networks take it."""
    mean, std = (
        torch.tensor(values, device=pictures.device)[:, None, None]
        for values in (geometry.mean, geometry.std)
    )
    # Channels-last in memory as it may be; FastViT's training crashes on that.
    return (pictures - mean).div_(std).contiguous(memory_format=layout)
