"""Sizes: the size at which models and people are compared, and the part that a backbone sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DELIVERED_SIZE = 224  # the side, in pixels, of images and of all maps that are compared


@dataclass(frozen=True)
class Preprocessing:
    """The geometry of a backbone's input: a bicubic resize to a square, then a centre crop.

    Both sides are in pixels and start from the 224x224 image that the ClickMe
    reader delivers; all eight backbones share ImageNet's mean and standard deviation.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def window(self, side: int) -> slice:
        """Return the rows (and columns) that the crop keeps of an image of this side.

        ConvNeXt and ResNet-50 do not see an image's border: 14 and 5 or 6 of 224 pixels.
        """
        start = round((self.resize - self.crop) / 2)
        return slice(
            round(start * side / self.resize), round((start + self.crop) * side / self.resize)
        )


WHOLE = Preprocessing(resize=224, crop=224)  # the crop keeps the whole image


def centre_map(height: int, width: int) -> np.ndarray:
    """Return (height, width) float64 values that fall with the distance from the centre.

    Their order is that of any round Gaussian.
    """
    rows, columns = (np.arange(n, dtype=np.float64) - (n - 1) / 2 for n in (height, width))
    return -(rows[:, None] ** 2 + columns**2)
