"""Changes of a picture that an explanation should follow, and how to undo them on its map.

Which changes a picture undergoes is drawn from its place among the stored pictures alone, so
all models and methods are asked about the same ones.

Source: Daroya et al., "COSE: a consistency-sensitivity metric for saliency on image
classification", ICCV workshops 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from lib.base.tables import Table

SEED = 20240803
DRAWN = 6  # magnitudes of each kind that has any
_STEPS = 31
_NEAREST, _BILINEAR = InterpolationMode.NEAREST, InterpolationMode.BILINEAR
GEOMETRIC, PHOTOMETRIC = "geometric", "photometric"


@dataclass(frozen=True)
class Kind:
    """A row.

    apply   : ((3, side, side) uint8 picture, magnitude) -> the changed one
    undo    : ((map, side, side), magnitude) -> where each map lies on the unchanged picture;
              None where nothing moves
    largest : magnitude, in pixels, degrees, or of a factor's distance from 1; 0 for a kind
              without any
    leaves  : parts of the picture leave it, so that part of a map comes back empty
    """

    key: str
    label: str
    group: str
    apply: Callable[[Tensor, float], Tensor]
    undo: Callable[[Tensor, float], Tensor] | None = None
    largest: float = 0.0
    leaves: bool = False


def _shifted(x: Tensor, right: int, down: int) -> Tensor:
    """Whole pixels; what comes in is 0."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    top, left = max(-down, 0), max(-right, 0)
    return padded[..., top : top + height, left : left + width]


def _turned(x: Tensor, degrees: float, interpolation: InterpolationMode) -> Tensor:
    return functional.rotate(x, degrees, interpolation, fill=0)


def _blurred(picture: Tensor, magnitude: float = 0) -> Tensor:
    """Pillow's BLUR: the mean of the sixteen pixels around a block of 3 x 3; borders stay."""
    kernel = torch.ones(5, 5, device=picture.device)
    kernel[1:4, 1:4] = 0
    blurred = F.conv2d(picture[:, None].float(), kernel[None, None] / 16)[:, 0]
    changed = picture.clone()
    changed[:, 2:-2, 2:-2] = (blurred + 0.5).floor().to(torch.uint8)
    return changed


def _enhanced(function: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Tensor]:
    return lambda picture, magnitude: function(picture, 1 + magnitude)


def _as_is(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, float], Tensor]:
    return lambda x, magnitude: function(x)


KINDS: Table[Kind] = Table(
    "change",
    [
        Kind("translate_x", "shift sideways", GEOMETRIC,
             lambda picture, m: _shifted(picture, int(m), 0),
             lambda maps, m: _shifted(maps, -int(m), 0), 32, leaves=True),
        Kind("translate_y", "shift up or down", GEOMETRIC,
             lambda picture, m: _shifted(picture, 0, int(m)),
             lambda maps, m: _shifted(maps, 0, -int(m)), 32, leaves=True),
        Kind("rotate", "rotation", GEOMETRIC,
             lambda picture, m: _turned(picture, m, _NEAREST),
             lambda maps, m: _turned(maps, -m, _BILINEAR), 135, leaves=True),
        Kind("brightness", "brightness", PHOTOMETRIC,
             _enhanced(functional.adjust_brightness), largest=0.99),
        Kind("color", "colour", PHOTOMETRIC,
             _enhanced(functional.adjust_saturation), largest=0.99),
        Kind("contrast", "contrast", PHOTOMETRIC,
             _enhanced(functional.adjust_contrast), largest=0.99),
        Kind("sharpness", "sharpness", PHOTOMETRIC,
             _enhanced(functional.adjust_sharpness), largest=0.99),
        Kind("flip_sideways", "mirrored sideways", GEOMETRIC,
             _as_is(functional.horizontal_flip), _as_is(functional.horizontal_flip)),
        Kind("flip_upright", "mirrored upside down", GEOMETRIC,
             _as_is(functional.vertical_flip), _as_is(functional.vertical_flip)),
        Kind("autocontrast", "automatic contrast", PHOTOMETRIC, _as_is(functional.autocontrast)),
        Kind("equalize", "equalised histogram", PHOTOMETRIC, _as_is(functional.equalize)),
        Kind("blur", "blur", PHOTOMETRIC, _blurred),
        # Pillow's SMOOTH, which is what a sharpness of 0 is.
        Kind("smooth", "smoothing", PHOTOMETRIC,
             _as_is(lambda picture: functional.adjust_sharpness(picture, 0.0))),
    ],
)  # fmt: skip


def change_labels() -> dict[str, str]:
    """{key: label}, for figures."""
    return {kind.key: kind.label for kind in KINDS.values()}


CHANGES = sum(DRAWN if kind.largest else 1 for kind in KINDS.values())  # of a picture


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
        """Its magnitude with its unit, "" for a kind without any."""
        kind = KINDS[self.kind]
        if not kind.largest:
            return ""
        if kind.group == PHOTOMETRIC:
            return f" × {1 + self.magnitude:.2f}"
        return (
            f" {self.magnitude:+.0f}°" if kind.key == "rotate" else f" {int(self.magnitude):+d} px"
        )

    def apply(self, picture: Tensor) -> Tensor:
        """(3, side, side) uint8 -> the changed picture."""
        return KINDS[self.kind].apply(picture, self.magnitude)

    def undo(self, maps: Tensor) -> Tensor:
        """(map, side, side) of the changed picture -> where they lie on the unchanged one."""
        undo = KINDS[self.kind].undo
        return maps if undo is None else undo(maps, self.magnitude)

    def follow(self, maps: Tensor) -> Tensor:
        """Maps that move as the picture does, but smoothly: a perfect explanation's."""
        kind = KINDS[self.kind]
        if kind.undo is None:
            return maps
        # Backwards by the opposite magnitude: mirroring, without any, is its own opposite.
        return kind.undo(maps, -self.magnitude)

    def inside(self, side: int, device: torch.device | None = None) -> Tensor:
        """(side, side) bool: what was in the picture all the while."""
        ones = torch.ones(1, side, side, device=device)
        kind = KINDS[self.kind]
        if not kind.leaves:
            return ones[0].bool()
        return self.undo(kind.apply(ones, self.magnitude))[0].bool()


def magnitudes(largest: float) -> np.ndarray:
    """The sixty from which is drawn: thirty of either sign, none 0."""
    steps = np.linspace(0, largest, _STEPS)[1:]
    return np.concatenate([-steps[::-1], steps])


def changes_of(place: int) -> list[Change]:
    """The 48 changes of the picture at this place: six magnitudes of each kind that has any."""
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
    """(change, side, side): each change's map where it lies on the unchanged picture."""
    return torch.cat([c.undo(of_one[None]) for c, of_one in zip(changes, maps, strict=True)])
