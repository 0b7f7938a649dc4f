"""How a layer's output corresponds to the image: channels first, channels last, or tokens.

Heatmaps are made of (image, channel, h, w). Convolutions return that; Swin's blocks return
(image, h, w, channel); a vision transformer's return (image, token, channel), where a class token
or registers precede the image's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MOST_PREFIX = 16  # tokens before those of the image: a class token, some registers


class NoMaps(ValueError):
    """The error for an output that is not (image, channel, h, w) of several cells in any order."""


@dataclass(frozen=True)
class Grid:
    """One arrangement.

    maps : output -> (image, channel, h, w)
    back : (maps, output) -> the output with these maps inserted, or None if that is not
           known; anything else in it, such as a class token, stays
    """

    name: str
    maps: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor] | None


CHANNELS_FIRST = Grid("channels first", lambda raw: raw, lambda maps, raw: maps)
CHANNELS_LAST = Grid(
    "channels last", lambda raw: raw.permute(0, 3, 1, 2), lambda maps, raw: maps.permute(0, 2, 3, 1)
)


def tokens(prefix: int, height: int, width: int) -> Grid:
    """Return the grid of (image, token, channel), row by row after `prefix` other tokens."""

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
    """Return the arrangement of an output of this shape.

    image : (height, width) of the network's input, whose proportions the maps have
    prefix  : tokens before the image's, if that is known; otherwise it is found
    channels_last : the arrangement if the shape allows both, if that is known

    Raises NoMaps if none fits.
    """
    if len(shape) == 4 and min(sorted(shape[1:])[-2:]) > 1:
        first, last = _of_form(*shape[2:], image), _of_form(*shape[1:3], image)
        if first and last and channels_last is None:
            raise NoMaps(
                f"an output of shape {tuple(shape)} can be channels first or channels last: give "
                "`reshape`, lambda maps: maps, or lambda maps: maps.permute(0, 3, 1, 2)"
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
        f"an output of shape {tuple(shape)} is not maps (image, channel, h, w) of more than one "
        f"cell for an image of {image[0]} x {image[1]} pixels: name another layer, or give "
        "`reshape`, a function that arranges it"
    )


def _of_form(height: int, width: int, image: Sequence[int]) -> bool:
    """Return whether this many equal cells, the last perhaps incomplete, cover the image."""
    if min(height, width) < 1 or height * width < 2:
        return False
    return abs(height * image[1] - width * image[0]) < max(image)


def _sides(count: int, image: Sequence[int]) -> tuple[int, int] | None:
    for height in range(1, count + 1):
        if count % height == 0 and count > 3 and _of_form(height, count // height, image):
            return height, count // height
    return None


def grid_by(reshape: Callable[[Tensor], Tensor], raw: Tensor) -> Grid:
    """Return the grid of a user's own arrangement, like pytorch-grad-cam's `reshape_transform`.

    Its inverse is found by arranging the indices of the output's elements; a function that
    does more than arrange has no inverse. Raises NoMaps if it does not return maps.
    """
    places = torch.arange(raw[:1].numel(), device=raw.device).view(1, *raw.shape[1:])
    with torch.no_grad():
        shape = tuple(reshape(raw.detach()).shape)
        if len(shape) != 4 or shape[0] != len(raw) or min(shape[2:]) < 1:
            raise NoMaps(
                f"`reshape` returns {shape} for {len(raw)} images, but must return maps "
                "(image, channel, h, w)"
            )
        try:
            chosen = reshape(places)
        except Exception:  # it cannot handle integers, so it does more than arrange
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
