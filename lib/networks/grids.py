"""How a layer's output lies over the image: maps of channels, channels last, or tokens.

Maps are made of (image, channel, h, w). Convolutions give that; Swin's blocks give
(image, h, w, channel); a vision transformer's give (image, token, channel), with a class token
or registers before those of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MOST_PREFIX = 16  # tokens before those of the image: a class, a few registers


class NoMaps(ValueError):
    """An output that is no maps (image, channel, h, w) of more than one cell, in any order."""


@dataclass(frozen=True)
class Grid:
    """One arrangement.

    maps : output -> (image, channel, h, w)
    back : (maps, output) -> the output with these maps in their places, or None where it is not
           known; whatever else it holds, such as a class token, stays
    """

    name: str
    maps: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor] | None


CHANNELS_FIRST = Grid("channels first", lambda raw: raw, lambda maps, raw: maps)
CHANNELS_LAST = Grid(
    "channels last", lambda raw: raw.permute(0, 3, 1, 2), lambda maps, raw: maps.permute(0, 2, 3, 1)
)


def tokens(prefix: int, height: int, width: int) -> Grid:
    """(image, token, channel), row by row after `prefix` tokens that are not the image's."""

    def maps(raw: Tensor) -> Tensor:
        return raw[:, prefix:].unflatten(1, (height, width)).permute(0, 3, 1, 2)

    def back(found: Tensor, raw: Tensor) -> Tensor:
        return torch.cat([raw[:, :prefix], found.flatten(2).transpose(1, 2)], dim=1)

    return Grid(f"tokens after {prefix}", maps, back)


def grid_of(
    shape: Sequence[int],
    image: Sequence[int],
    prefix: int | None = None,
    channels_last: bool | None = None,
) -> Grid:
    """The arrangement of an output of this shape.

    image : (height, width) of what the network was given, whose form the maps have
    prefix  : tokens before the image's, if that is known; else it is found
    channels_last : what is the case where the shape allows both, if that is known
    Raises NoMaps.
    """
    if len(shape) == 4 and min(sorted(shape[1:])[-2:]) > 1:
        first, last = _of_form(*shape[2:], image), _of_form(*shape[1:3], image)
        if first and last and channels_last is None:
            raise NoMaps(
                f"an output of shape {tuple(shape)} can be channels first or channels last: say "
                "which by `reshape`, lambda maps: maps, or lambda maps: maps.permute(0, 3, 1, 2)"
            )
        if first and not (last and channels_last):
            return CHANNELS_FIRST
        if last:
            return CHANNELS_LAST
    if len(shape) == 3:
        counts = range(_MOST_PREFIX + 1) if prefix is None else [prefix]
        for count in counts:
            if sides := _sides(shape[1] - count, image):
                return tokens(count, *sides)
    raise NoMaps(
        f"an output of shape {tuple(shape)} is no maps (image, channel, h, w) of more than one "
        f"cell for an image of {image[0]} x {image[1]} pixels: name another layer, or give "
        "`reshape`, a function that arranges it"
    )


def _of_form(height: int, width: int, image: Sequence[int]) -> bool:
    """Whether cells of one size, and less than one more, cover the image in this many."""
    if min(height, width) < 1 or height * width < 2:
        return False
    return abs(height * image[1] - width * image[0]) < max(image)


def _sides(count: int, image: Sequence[int]) -> tuple[int, int] | None:
    for height in range(1, count + 1):
        if count % height == 0 and count > 3 and _of_form(height, count // height, image):
            return height, count // height
    return None


def grid_by(reshape: Callable[[Tensor], Tensor], raw: Tensor) -> Grid:
    """A reader's own arrangement, in the manner of pytorch-grad-cam's `reshape_transform`.

    How it is undone is found by arranging the numbers of the output's places; a function that
    does more than arrange has no way back. Raises NoMaps if it gives no maps.
    """
    places = torch.arange(raw[:1].numel(), device=raw.device).view(1, *raw.shape[1:])
    with torch.no_grad():
        shape = tuple(reshape(raw.detach()).shape)
        if len(shape) != 4 or shape[0] != len(raw) or min(shape[2:]) < 1:
            raise NoMaps(
                f"`reshape` gives {shape} for {len(raw)} images, and must give maps "
                "(image, channel, h, w)"
            )
        try:
            chosen = reshape(places)
        except Exception:  # it cannot take whole numbers: it does more than arrange
            return Grid("own", reshape, None)
    arranges = not chosen.is_floating_point() and chosen.unique().numel() == chosen.numel()
    if not arranges or not torch.equal(reshape(raw.detach()), _taken(raw.detach(), chosen)):
        return Grid("own", reshape, None)

    def back(maps: Tensor, whole: Tensor) -> Tensor:
        flat = whole.flatten(1).clone()
        flat[:, chosen.flatten()] = maps.flatten(1).to(flat.dtype)
        return flat.view_as(whole)

    return Grid("own", reshape, back)


def _taken(raw: Tensor, places: Tensor) -> Tensor:
    return raw.flatten(1)[:, places.flatten()].view(len(raw), *places.shape[1:])
