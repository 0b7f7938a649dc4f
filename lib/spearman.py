"""Spearman's rank correlation of maps, one score per image, batched.

Ranks are the expensive half and human maps serve every model and method, so
`rank_maps` can be called once and its result passed instead of the maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """Average ranks of some maps, centred: ready to be correlated.

    centred : (image, pixel) float64, rank minus mean rank
    norm    : (image,) float64, Euclidean length of `centred`; 0 for a constant
              map, NaN for one with a non-finite value
    shape   : of the maps ranked
    """

    centred: Tensor
    norm: Tensor
    shape: tuple[int, ...]


def _sort_float32_on_cpu(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted values and the pixels they came from, per row.

    The bits of a float32, its sign handled, order like the number; packed with the
    pixel's index into one integer they are sorted by numpy in a single pass,
    several times as fast as a sort that carries indices along.
    """
    bits = (values + 0.0).numpy().view(np.int32)  # + 0.0: -0.0 equals 0.0, its bits do not
    packed = _flip_negative(bits).astype(np.int64)
    packed <<= 32
    packed |= np.arange(values.shape[1], dtype=np.int64)
    packed.sort(axis=1)
    pixels = packed & 0xFFFFFFFF
    packed >>= 32
    bits = _flip_negative(packed.astype(np.int32))
    return torch.from_numpy(bits.view(np.float32)), torch.from_numpy(pixels)


def _flip_negative(bits: np.ndarray) -> np.ndarray:
    # Float bits are sign and magnitude; this makes them order as integers, and back.
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


@dataclass(frozen=True)
class SortedMaps:
    """Maps whose pixels are sorted, to be ranked in more than one way.

    ordered, pixels : (image, pixel) values in order, and the pixels they came from
    finite          : (image,) bool
    """

    ordered: Tensor
    pixels: Tensor
    finite: Tensor
    shape: tuple[int, ...]


def sort_maps(maps: Tensor | np.ndarray, name: str = "maps") -> SortedMaps:
    """(image, height, width) maps with their pixels in order: the expensive part of ranking."""
    maps = _as_maps(maps, name)
    values = maps.flatten(1)
    if values.dtype == torch.float32 and values.device.type == "cpu":
        ordered, pixels = _sort_float32_on_cpu(values)
    else:
        ordered, pixels = values.sort(dim=1)
    return SortedMaps(ordered, pixels, torch.isfinite(values).all(dim=1), tuple(maps.shape))


def _sorted_ranks(maps: SortedMaps, settle: bool) -> tuple[Tensor, Tensor]:
    """Centred average ranks in sorted order, and their norms.

    settle : round to 1e-5 of each map's range first, which keeps the order
    """
    if maps.ordered.device.type == "cpu":
        centred, norm = map(torch.from_numpy, _ranks_by_numpy(maps.ordered.numpy(), settle))
    else:
        centred, norm = _ranks_by_torch(maps.ordered, settle)
    return centred, torch.where(maps.finite, norm, torch.nan)


# The ranks of a group of ties all take the mean of the places they fill. Two forms of the
# same: on a CPU numpy's `repeat`, in place, is several times as fast as torch's gather.


def _ranks_by_numpy(ordered: np.ndarray, settle: bool) -> tuple[np.ndarray, np.ndarray]:
    if settle:
        low = ordered[:, :1].astype(np.float64)
        span = ordered[:, -1:] - low
        ordered = ordered.astype(np.float64)
        with np.errstate(invalid="ignore"):  # maps that are not finite have no ranks anyway
            ordered -= low
            ordered /= np.where(span > 0, span, 1.0)
            ordered *= 1e5
            np.rint(ordered, out=ordered)
    count = ordered.shape[1]
    starts = np.empty(ordered.shape, dtype=bool)
    starts[:, 0] = True
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=starts[:, 1:])
    first = np.flatnonzero(starts)
    ties = np.diff(first, append=starts.size)
    middle = first % count + (ties - count) / 2
    centred = np.repeat(middle, ties).reshape(starts.shape)
    return centred, np.sqrt(np.einsum("ij,ij->i", centred, centred))


def _ranks_by_torch(ordered: Tensor, settle: bool) -> tuple[Tensor, Tensor]:
    if settle:
        low, high = ordered[:, :1].double(), ordered[:, -1:].double()
        span = torch.where(high > low, high - low, 1.0)
        ordered = ((ordered.double() - low) / span * 1e5).round()
    count = ordered.shape[1]
    starts = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[:, 1:], ordered[:, :-1], out=starts[:, 1:])
    first = starts.flatten().nonzero().squeeze(1)
    ties = first.diff(append=first.new_tensor([starts.numel()]))
    middle = (first % count).double() + (ties - count).double() / 2
    group = starts.flatten().cumsum(0) - 1
    centred = middle[group].view(starts.shape)
    return centred, centred.square().sum(dim=1).sqrt()


def _as_maps(maps: Tensor | np.ndarray, name: str) -> Tensor:
    if isinstance(maps, np.ndarray):
        maps = np.ascontiguousarray(maps, dtype=maps.dtype.newbyteorder("="))
    maps = torch.as_tensor(maps).detach()
    if maps.device.type == "mps":
        maps = maps.cpu()  # Apple's GPUs have no float64
    if maps.ndim != 3 or maps.shape[1] * maps.shape[2] < 2 or maps.is_complex():
        raise ValueError(
            f"{name} must be (image, height, width), real, with two pixels or more, "
            f"got {tuple(maps.shape)} {maps.dtype}"
        )
    if maps.dtype in (torch.float32, torch.float64):
        return maps
    # float32 holds half floats and integers of 16 bits exactly, float64 those of 32.
    narrow = maps.is_floating_point() or maps.element_size() <= 2
    return maps.to(torch.float32 if narrow else torch.float64)


def rank_maps(maps: Tensor | np.ndarray | SortedMaps, settle: bool = False) -> Ranks:
    """Ranks of (image, height, width) maps, to be reused; ties take average ranks.

    settle : round to 1e-5 of the map's range first: interpolated plateaus are not bit-equal
    """
    ordered = maps if isinstance(maps, SortedMaps) else sort_maps(maps)
    centred, norm = _sorted_ranks(ordered, settle)
    in_place = torch.empty_like(centred).scatter_(1, ordered.pixels, centred)
    return Ranks(in_place, norm, ordered.shape)


def spearman_per_image(
    model_maps: Tensor | np.ndarray | SortedMaps,
    human_maps: Tensor | np.ndarray | Ranks,
    settle: bool = False,
) -> Tensor:
    """Rank agreement of model and human maps, one score per image.

    1 = same ordering, 0 = unrelated, -1 = reversed. Ties take average ranks.
    A constant map has no ordering, and a map with a NaN or an infinity none
    either: the score is NaN, and the caller counts it.

    model_maps : (image, height, width), any scale, or `sort_maps` of such
    human_maps : the same shape, or `rank_maps` of such
    settle  : round maps to 1e-5 of their range before ranking
    Returns : (image,) float64 on the maps' device
    Raises  : ValueError naming both shapes if they differ
    Source  : Spearman's rho as the correlation of average ranks, = scipy's
    """
    model = model_maps
    if not isinstance(model, SortedMaps):
        model = sort_maps(model, "model_maps")
    human = human_maps if isinstance(human_maps, Ranks) else rank_maps(human_maps, settle)
    if model.shape != human.shape:
        raise ValueError(f"model_maps {model.shape} and human_maps {human.shape} differ in shape")
    centred, norm = _sorted_ranks(model, settle)
    # Fetch the human ranks in the model's order: cheaper than scattering the model's.
    product = (centred * human.centred.gather(1, model.pixels)).sum(dim=1)
    scale = norm * human.norm
    rho = product / torch.where(scale > 0, scale, torch.nan)
    return rho.clamp(-1.0, 1.0)


def attainable_rho(maps: Tensor | np.ndarray) -> Tensor:
    """The largest score these maps' ties allow, (image,) float64.

    Against a human map without ties, a map's ties lose it a share of the ranks'
    variance: the bound is the ratio of its rank norm to that of 1 … n.
    """
    ranks = rank_maps(maps)
    count = ranks.centred.shape[1]
    untied = (count * (count**2 - 1) / 12) ** 0.5
    return ranks.norm / untied
