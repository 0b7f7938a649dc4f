"""Changes of an image that a heatmap should follow, and how to undo them on the heatmap.

The changes of an image depend only on its place among the stored images, so that they are the same
for all models and methods. Pillow changes the images, as in the published code.

Source: Daroya et al., "COSE: a consistency-sensitivity metric for saliency on image
classification", ICCV workshops 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from ...base.tables import Table

SEED = 20240803
DRAWN = 6  # magnitudes drawn for each kind that has magnitudes
_STEPS = 31
GEOMETRIC, PHOTOMETRIC = "geometric", "photometric"
_WHOLE = 1 - 1e-4  # all four neighbours of a pixel were inside, except for rounding


@dataclass(frozen=True)
class Kind:
    """A row of the table of changes.

    published : the name in the published results
    apply   : (image, magnitude) -> the changed image
    undo    : ((map, side, side), magnitude) -> the maps moved back onto the unchanged image;
              None if nothing moves
    largest : the largest magnitude, in pixels, degrees, or as a factor's distance from 1; 0 for a
              kind without magnitudes
    moves   : ((1, side, side), magnitude) -> moved like the image, to the nearest pixel; None if
              no part of the image leaves it
    """

    key: str
    label: str
    published: str
    group: str
    apply: Callable[[Image.Image, float], Image.Image]
    undo: Callable[[Tensor, float], Tensor] | None = None
    largest: float = 0.0
    moves: Callable[[Tensor, float], Tensor] | None = None


def _shifted(x: Tensor, right: int, down: int) -> Tensor:
    """Shift by whole pixels; new pixels are 0."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    top, left = max(-down, 0), max(-right, 0)
    return padded[..., top : top + height, left : left + width]


def _shifted_image(image: Image.Image, right: int, down: int) -> Image.Image:
    there = (1, 0, -right, 0, 1, -down)
    return image.transform(image.size, Image.Transform.AFFINE, there)


def _turned(maps: Tensor, degrees: float) -> Tensor:
    """Turn maps counter-clockwise about the centre, bilinearly; new pixels are 0.

    torchvision's function is not used, because it weights pixels at the border twice.
    """
    side = maps.shape[-1]
    angle = np.deg2rad(degrees)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    # Coordinates of -1 to 1 between the centres of the outermost pixels; in float64, because
    # rounded coordinates would move a map's edges.
    at = torch.linspace(-1, 1, side, dtype=torch.float64, device=maps.device)
    grid = torch.stack(
        [at * cos - at[:, None] * sin, at * sin + at[:, None] * cos], dim=-1
    )  # fmt: skip
    found = F.grid_sample(
        maps.double()[None], grid[None], "bilinear", padding_mode="zeros", align_corners=True
    )
    return found[0].to(maps.dtype)


def _turned_to_the_nearest(x: Tensor, degrees: float) -> Tensor:
    return functional.rotate(x, degrees, InterpolationMode.NEAREST, fill=0)


def _enhanced(kind: Callable) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, magnitude: kind(image).enhance(1 + magnitude)


def _filtered(kind: type) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, magnitude: image.filter(kind)


def _as_is(function: Callable) -> Callable:
    return lambda x, magnitude: function(x)


KINDS: Table[Kind] = Table(
    "change",
    [
        Kind("translate_x", "shift sideways", "TranslateX", GEOMETRIC,
             lambda image, m: _shifted_image(image, int(m), 0),
             lambda maps, m: _shifted(maps, -int(m), 0), 32,
             lambda x, m: _shifted(x, int(m), 0)),
        Kind("translate_y", "shift up or down", "TranslateY", GEOMETRIC,
             lambda image, m: _shifted_image(image, 0, int(m)),
             lambda maps, m: _shifted(maps, 0, -int(m)), 32,
             lambda x, m: _shifted(x, 0, int(m))),
        Kind("rotate", "rotation", "Rotate", GEOMETRIC,
             lambda image, m: image.rotate(m, Image.Resampling.NEAREST),
             lambda maps, m: _turned(maps, -m), 135, _turned_to_the_nearest),
        Kind("brightness", "brightness", "Brightness", PHOTOMETRIC,
             _enhanced(ImageEnhance.Brightness), largest=0.99),
        Kind("color", "colour", "Color", PHOTOMETRIC,
             _enhanced(ImageEnhance.Color), largest=0.99),
        Kind("contrast", "contrast", "Contrast", PHOTOMETRIC,
             _enhanced(ImageEnhance.Contrast), largest=0.99),
        Kind("sharpness", "sharpness", "Sharpness", PHOTOMETRIC,
             _enhanced(ImageEnhance.Sharpness), largest=0.99),
        Kind("flip_sideways", "mirrored sideways", "FlipLR", GEOMETRIC,
             _as_is(ImageOps.mirror), _as_is(functional.horizontal_flip)),
        Kind("flip_upright", "mirrored upside down", "FlipUD", GEOMETRIC,
             _as_is(ImageOps.flip), _as_is(functional.vertical_flip)),
        Kind("autocontrast", "automatic contrast", "AutoContrast", PHOTOMETRIC,
             _as_is(ImageOps.autocontrast)),
        Kind("equalize", "equalised histogram", "Equalize", PHOTOMETRIC,
             _as_is(ImageOps.equalize)),
        Kind("blur", "blur", "Blur", PHOTOMETRIC, _filtered(ImageFilter.BLUR)),
        Kind("smooth", "smoothing", "Smooth", PHOTOMETRIC, _filtered(ImageFilter.SMOOTH)),
    ],
)  # fmt: skip


def change_labels() -> dict[str, str]:
    """Return {key: label}, for figures."""
    return {kind.key: kind.label for kind in KINDS.values()}


CHANGES = sum(DRAWN if kind.largest else 1 for kind in KINDS.values())  # of an image


@dataclass(frozen=True)
class Change:
    """A kind of `KINDS` at a magnitude."""

    kind: str
    magnitude: float = 0.0

    @property
    def group(self) -> str:
        return KINDS[self.kind].group

    @property
    def in_words(self) -> str:
        """The magnitude with its unit; "" for a kind without magnitudes."""
        kind = KINDS[self.kind]
        if not kind.largest:
            return ""
        if kind.group == PHOTOMETRIC:
            return f" × {1 + self.magnitude:.2f}"
        return (
            f" {self.magnitude:+.0f}°" if kind.key == "rotate" else f" {int(self.magnitude):+d} px"
        )

    def apply(self, image: np.ndarray) -> np.ndarray:
        """(side, side, 3) uint8 -> the changed image."""
        return np.asarray(KINDS[self.kind].apply(Image.fromarray(image), self.magnitude))

    @property
    def leaves(self) -> bool:
        """Whether part of the image leaves it, so that part of an undone map is empty."""
        return KINDS[self.kind].moves is not None

    def undo(self, maps: Tensor) -> Tensor:
        """Move (map, side, side) maps of the changed image back onto the unchanged one."""
        undo = KINDS[self.kind].undo
        return maps if undo is None else undo(maps, self.magnitude)

    def follow(self, maps: Tensor) -> Tensor:
        """Move maps like the image, but smoothly, as for a perfect explanation."""
        kind = KINDS[self.kind]
        if kind.undo is None:
            return maps
        # Undoing the opposite magnitude; mirroring has no magnitude and is its own opposite.
        return kind.undo(maps, -self.magnitude)

    def inside(self, side: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Two masks, (side, side) bool each: pixels of an undone map that come from the image at
        least partly, and entirely. The first is the published mask."""
        ones = torch.ones(1, side, side, device=device)
        moves = KINDS[self.kind].moves
        share = ones[0] if moves is None else self.undo(moves(ones, self.magnitude))[0]
        return share > 0, share > _WHOLE


def magnitudes(largest: float) -> np.ndarray:
    """The sixty magnitudes to draw from: thirty of either sign, without 0."""
    steps = np.linspace(0, largest, _STEPS)[1:]
    return np.concatenate([-steps[::-1], steps])


def changes_of(place: int) -> list[Change]:
    """Return the 48 changes of the image at this place: six magnitudes of each kind that has
    magnitudes."""
    rng = np.random.default_rng([SEED, place])
    drawn = []
    for kind in KINDS.values():
        if kind.largest:
            some = rng.choice(magnitudes(kind.largest), DRAWN, replace=False)
            drawn += [Change(kind.key, float(m)) for m in some]
        else:
            drawn.append(Change(kind.key))
    return drawn


def undone(changes: Sequence[Change], maps: Tensor) -> Tensor:
    """Return (change, side, side): each change's map moved back onto the unchanged image."""
    return torch.cat([c.undo(of_one[None]) for c, of_one in zip(changes, maps, strict=True)])
