"""How an image that is not square becomes a square, together with its human map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from .part import STORED_SIZE

CROP, PAD, STRETCH = "crop", "pad", "stretch"
FITS = (CROP, PAD, STRETCH)
_SQUARE = (STORED_SIZE, STORED_SIZE)


@dataclass(frozen=True)
class Fit:
    """The transformation from an image's pixels to those of the 256 x 256 square.

    how : "crop", the largest square around the centre; "pad", the whole image between two bars;
          "stretch", the whole image with its proportions changed
    """

    how: str = CROP

    @property
    def words(self) -> str:
        """What the square contains, for a caption."""
        return {
            CROP: "the centred square of each image",
            PAD: "each image padded to a square",
            STRETCH: "each image stretched to a square",
        }[self.how]

    def place(self, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Return factors and offsets that take x, y of an image of this size to the square."""
        sides = np.array([width, height], np.float64)
        if self.how == CROP:
            times = np.full(2, STORED_SIZE / sides.min())
            return times, (STORED_SIZE - sides * times) / 2
        left, top, across, down = self.window(width, height)
        return np.array([across, down]) / sides, np.array([left, top], np.float64)

    def window(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, width and height of the image within the square."""
        if self.how != PAD:
            return 0, 0, *_SQUARE
        longer = max(width, height)
        across, down = (max(1, round(side * STORED_SIZE / longer)) for side in (width, height))
        return (STORED_SIZE - across) // 2, (STORED_SIZE - down) // 2, across, down

    def squared(self, image: Image.Image) -> np.ndarray:
        """Return the image as (256, 256, 3) uint8; bars have the image's mean colour."""
        colour = tuple(np.asarray(image).reshape(-1, 3).mean(axis=0).round().astype(int).tolist())
        return np.asarray(self._fitted(image, Image.Resampling.BICUBIC, colour))

    def map(self, heatmap: np.ndarray) -> np.ndarray:
        """Return the map as (256, 256), unchanged if it has that size; bars have its minimum."""
        if heatmap.shape == _SQUARE:
            return heatmap
        grey = Image.fromarray(heatmap.astype(np.float32))
        return np.asarray(self._fitted(grey, Image.Resampling.BILINEAR, float(heatmap.min())))

    def _fitted(
        self, image: Image.Image, resampling: Image.Resampling, bars: tuple[int, ...] | float
    ) -> Image.Image:
        if image.size == _SQUARE:
            return image
        if self.how == CROP:
            return ImageOps.fit(image, _SQUARE, resampling)
        left, top, across, down = self.window(*image.size)
        resized = image.resize((across, down), resampling)
        if self.how == STRETCH:
            return resized
        square = Image.new(image.mode, _SQUARE, bars)
        square.paste(resized, (left, top))
        return square
