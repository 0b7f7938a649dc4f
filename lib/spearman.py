"""Spearman's rank correlation of maps, one score per image, batched.

Ranks are the expensive half and human maps serve every model and method, so
`rank_maps` can be called once and its result passed instead of the maps.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_STEPS = 1e5  # of a map's range, where maps are settled


@dataclass(frozen=True)
class Ranks:
    """Average ranks of some maps, centred: ready to be correlated.

    centred : (image, pixel) rank minus mean rank, halves of integers: float32 where that
              holds them exactly, else float64
    norm    : (image,) float64, Euclidean length of `centred`; 0 for a constant
              map, NaN for one with a non-finite value
    shape   : of the maps ranked
    """

    centred: Tensor
    norm: Tensor
    shape: tuple[int, ...]

    def __getitem__(self, images: slice) -> Ranks:
        """Those of some of the images."""
        centred = self.centred[images]
        return Ranks(centred, self.norm[images], (len(centred), *self.shape[1:]))


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

    @property
    def constant(self) -> Tensor:
        """(image,) bool: one value only, so it orders nothing."""
        return self.ordered[:, 0] == self.ordered[:, -1]


def sort_maps(maps: Tensor | np.ndarray, name: str = "maps") -> SortedMaps:
    """(image, height, width) maps with their pixels in order: the expensive part of ranking."""
    maps = _as_maps(maps, name)
    values = maps.flatten(1)
    if values.dtype == torch.float32 and values.device.type == "cpu":
        ordered, pixels = _sort_float32_on_cpu(values.numpy())
    else:
        ordered, pixels = values.sort(dim=1)
    return SortedMaps(ordered, pixels, torch.isfinite(values).all(dim=1), tuple(maps.shape))


# --- on a CPU, row by row -----------------------------------------------------------------
# A row of 50,176 pixels stays in the processor's cache through all steps; rows are shared out
# among threads, for numpy holds no lock while it works. Several times as fast as torch's forms.

_pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="ranks")


def _each_row(work: Callable[[int], object], count: int) -> list:
    if count == 1 or torch.get_num_threads() == 1:
        return [work(row) for row in range(count)]
    return list(_pool.map(work, range(count)))


def _sort_float32_on_cpu(values: np.ndarray) -> tuple[Tensor, Tensor]:
    """Sorted values and the pixels they came from, per row.

    The bits of a float32, its sign handled, order like the number. numpy sorts numbers of 16
    bits by their digits, without comparing: so first by the lower half, then by the upper.
    """
    ordered = np.empty_like(values)
    pixels = np.empty(values.shape, dtype=np.int64)

    def sort(row: int) -> None:
        bits = (values[row] + np.float32(0)).view(np.int32)  # -0.0 equals 0.0, its bits do not
        bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)  # sign and magnitude order as integers
        by_lower = np.argsort(bits.astype(np.uint16), kind="stable")
        upper = (bits >> 16).astype(np.int16)
        pixels[row] = by_lower[np.argsort(upper[by_lower], kind="stable")]
        np.take(values[row], pixels[row], out=ordered[row])

    _each_row(sort, len(values))
    return torch.from_numpy(ordered), torch.from_numpy(pixels)


def _ties(ordered: np.ndarray, settle: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of one row in order: the centred average rank of each group of ties, and its size."""
    if settle:
        low, high = float(ordered[0]), float(ordered[-1])
        settled = ordered.astype(np.float64)
        with np.errstate(invalid="ignore"):  # maps that are not finite have no ranks anyway
            settled -= low
            settled /= high - low if high > low else 1.0
            settled *= _STEPS
            ordered = np.rint(settled, out=settled)
    starts = np.empty(len(ordered), dtype=bool)
    starts[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
    first = np.flatnonzero(starts)
    sizes = np.diff(first, append=len(ordered))
    return first + (sizes - len(ordered)) / 2, sizes


def _norm(middle: np.ndarray, sizes: np.ndarray) -> float:
    return float(np.sqrt(np.einsum("i,i,i", middle, middle, sizes)))


def _ranks_on_cpu(maps: SortedMaps, settle: bool) -> tuple[Tensor, Tensor]:
    ordered, pixels = maps.ordered.numpy(), maps.pixels.numpy()
    centred = np.empty(ordered.shape, dtype=_rank_type(ordered.shape[1]))

    def rank(row: int) -> float:
        middle, sizes = _ties(ordered[row], settle)
        centred[row][pixels[row]] = np.repeat(middle.astype(centred.dtype), sizes)
        return _norm(middle, sizes)

    norm = torch.tensor(_each_row(rank, len(ordered)), dtype=torch.float64)
    return torch.from_numpy(centred), norm


def _rho_on_cpu(maps: SortedMaps, human: Ranks, settle: bool) -> tuple[Tensor, Tensor]:
    """Sums of products with the human ranks, and the maps' own norms."""
    ordered, pixels, centred = maps.ordered.numpy(), maps.pixels.numpy(), human.centred.numpy()

    def correlate(row: int) -> tuple[float, float]:
        middle, sizes = _ties(ordered[row], settle)
        # Fetch the human ranks in the model's order: cheaper than scattering the model's.
        theirs = np.take(centred[row], pixels[row])
        product = np.einsum("i,i", np.repeat(middle, sizes), theirs, dtype=np.float64)
        return float(product), _norm(middle, sizes)

    found = torch.tensor(_each_row(correlate, len(ordered)), dtype=torch.float64).view(-1, 2)
    return found[:, 0], found[:, 1]


def _rank_type(pixels: int) -> type:
    return np.float32 if pixels < 2**23 else np.float64


# --- on any other device, all rows at once --------------------------------------------------


def _ranks_in_order(maps: SortedMaps, settle: bool) -> tuple[Tensor, Tensor]:
    """Centred average ranks in sorted order, and their norms."""
    ordered = maps.ordered
    if settle:
        low, high = ordered[:, :1].double(), ordered[:, -1:].double()
        span = torch.where(high > low, high - low, 1.0)
        ordered = ((ordered.double() - low) / span * _STEPS).round()
    count = ordered.shape[1]
    # The first and the last place of each pixel's group of ties, by running extremes:
    # nothing has to wait for the device to say how many groups there are.
    place = torch.arange(count, device=ordered.device)
    differs = ordered[:, 1:] != ordered[:, :-1]
    edge = torch.ones_like(differs[:, :1])
    first = torch.where(torch.cat([edge, differs], 1), place, 0).cummax(dim=1).values
    ends = torch.where(torch.cat([differs, edge], 1), place, count)
    last = ends.flip(1).cummin(dim=1).values.flip(1)
    centred = (first + last).double() / 2 - (count - 1) / 2
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
    maps = maps if isinstance(maps, SortedMaps) else sort_maps(maps)
    if maps.ordered.device.type == "cpu":
        centred, norm = _ranks_on_cpu(maps, settle)
    else:
        in_order, norm = _ranks_in_order(maps, settle)
        exact = torch.float32 if _rank_type(in_order.shape[1]) is np.float32 else torch.float64
        in_order = in_order.to(exact)
        centred = torch.empty_like(in_order).scatter_(1, maps.pixels, in_order)
    return Ranks(centred, torch.where(maps.finite, norm, torch.nan), maps.shape)


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
    if model.ordered.device.type == "cpu":
        product, norm = _rho_on_cpu(model, human, settle)
    else:
        centred, norm = _ranks_in_order(model, settle)
        product = (centred * human.centred.gather(1, model.pixels)).sum(dim=1)
    norm = torch.where(model.finite, norm, torch.nan)
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
