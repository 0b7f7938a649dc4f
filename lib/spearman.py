"""Spearman's rank correlation of maps, one score per image, batched.

Ranks are the expensive half and human maps serve every model and method, so
`rank_maps` can be called once and its result passed instead of the maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from lib.threads import each

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


# --- on a CPU, row by row -----------------------------------------------------------------
# A row of 50,176 pixels stays in the processor's cache through all steps, and rows are shared
# out among threads: several times as fast as torch's forms, and as scipy.


def _order(values: np.ndarray) -> np.ndarray:
    """The pixels of a row of float32 or float64 in order of their values.

    The bits of a float32, its sign handled, order like the number; and numpy sorts numbers
    of 16 bits by their digits, without comparing: first by the lower half, then by the upper.
    """
    if values.dtype != np.float32:
        return np.argsort(values, kind="stable")
    bits = (values + np.float32(0)).view(np.int32)  # -0.0 equals 0.0, its bits do not
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)  # sign and magnitude order as integers
    by_lower = np.argsort(bits.astype(np.uint16), kind="stable")
    upper = (bits >> 16).astype(np.int16)
    return by_lower[np.argsort(upper[by_lower], kind="stable")]


def _settled(ordered: np.ndarray) -> np.ndarray:
    low, high = float(ordered[0]), float(ordered[-1])
    steps = ordered.astype(np.float64)
    with np.errstate(invalid="ignore"):  # maps that are not finite have no ranks anyway
        steps -= low
        steps /= high - low if high > low else 1.0
        steps *= _STEPS
        return np.rint(steps, out=steps)


def _average_ranks(ordered: np.ndarray, settle: bool) -> tuple[np.ndarray, float]:
    """Of a row in order: centred average ranks, and their norm."""
    if settle:
        ordered = _settled(ordered)
    starts = np.empty(len(ordered), dtype=bool)
    starts[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
    if starts.all():
        return _untied(len(ordered))
    first = np.flatnonzero(starts)
    sizes = np.diff(first, append=len(ordered))
    middle = first + (sizes - len(ordered)) / 2
    norm = float(np.sqrt(np.einsum("i,i,i", middle, middle, sizes)))
    return np.repeat(middle, sizes), norm


@cache
def _untied(count: int) -> tuple[np.ndarray, float]:
    """Centred ranks 1 … count, and their norm."""
    centred = np.arange(count) - (count - 1) / 2
    return centred, float((count * (count**2 - 1) / 12) ** 0.5)


def _ranks_of_rows(values: np.ndarray, settle: bool) -> tuple[Tensor, Tensor]:
    """Centred average ranks and their norms."""
    centred = np.empty(values.shape, dtype=_rank_type(values.shape[1]))

    def rank(row: int) -> float:
        order = _order(values[row])
        centred[row][order], norm = _average_ranks(values[row][order], settle)
        return norm

    norms = torch.tensor(each(rank, range(len(values))), dtype=torch.float64)
    return torch.from_numpy(centred), norms


def _products_of_rows(values: np.ndarray, human: Sequence[tuple[Ranks, bool]]) -> Tensor:
    """(image, comparison, 2): sums of products with the human ranks, the maps' own norms."""
    theirs = [(ranks.centred.numpy(), settle) for ranks, settle in human]

    def correlate(row: int) -> list[tuple[float, float]]:
        order = _order(values[row])
        ordered = values[row][order]
        found = []
        for centred, settle in theirs:
            mine, norm = _average_ranks(ordered, settle)
            # Fetch the human ranks in the model's order: cheaper than scattering the model's.
            found.append((float(np.einsum("i,i", mine, centred[row][order])), norm))
        return found

    found = each(correlate, range(len(values)))
    return torch.tensor(found, dtype=torch.float64).view(len(values), len(human), 2)


def _rank_type(pixels: int) -> type:
    return np.float32 if pixels < 2**23 else np.float64


# --- on any other device, all rows at once --------------------------------------------------


def _ranks_in_order(ordered: Tensor, settle: bool) -> tuple[Tensor, Tensor]:
    """Centred average ranks of sorted rows, and their norms."""
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


def _products_on_device(values: Tensor, human: Sequence[tuple[Ranks, bool]]) -> Tensor:
    """As `_products_of_rows`."""
    ordered, pixels = values.sort(dim=1)
    found = []
    for ranks, settle in human:
        centred, norm = _ranks_in_order(ordered, settle)
        product = (centred * ranks.centred.gather(1, pixels)).sum(dim=1)
        found.append(torch.stack([product, norm], dim=1))
    return torch.stack(found, dim=1)


def _ranks_on_device(values: Tensor, settle: bool) -> tuple[Tensor, Tensor]:
    """As `_ranks_of_rows`."""
    ordered, pixels = values.sort(dim=1)
    in_order, norm = _ranks_in_order(ordered, settle)
    exact = torch.float32 if _rank_type(values.shape[1]) is np.float32 else torch.float64
    in_order = in_order.to(exact)
    return torch.empty_like(in_order).scatter_(1, pixels, in_order), norm


# --- for everyone ---------------------------------------------------------------------------


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


def rank_maps(maps: Tensor | np.ndarray, settle: bool = False) -> Ranks:
    """Ranks of (image, height, width) maps, to be reused; ties take average ranks.

    settle : round to 1e-5 of the map's range first: interpolated plateaus are not bit-equal
    """
    maps = _as_maps(maps, "maps")
    values = maps.flatten(1)
    if values.device.type == "cpu":
        centred, norm = _ranks_of_rows(values.numpy(), settle)
    else:
        centred, norm = _ranks_on_device(values, settle)
    finite = values.isfinite().all(dim=1)
    return Ranks(centred, torch.where(finite, norm, torch.nan), tuple(maps.shape))


@dataclass(frozen=True)
class Correlations:
    """Of some maps with human maps ranked in one or more ways.

    rho : (comparison, image) float64; NaN where either map has no ordering
    finite, constant : (image,) bool, of the maps
    """

    rho: Tensor
    finite: Tensor
    constant: Tensor


def correlate(model_maps: Tensor | np.ndarray, human: Sequence[tuple[Ranks, bool]]) -> Correlations:
    """Spearman's rho of each map with the human maps in each of several rankings.

    human : (ranks, whether the model's maps are settled before they are ranked too)

    The expensive part, sorting a map's pixels, is done once for all. As for
    `spearman_per_image`, to which this is the form for many protocols.
    """
    maps = _as_maps(model_maps, "model_maps")
    for ranks, _ in human:
        if tuple(maps.shape) != ranks.shape:
            raise ValueError(
                f"model_maps {tuple(maps.shape)} and human_maps {ranks.shape} differ in shape"
            )
    values = maps.flatten(1)
    if values.device.type == "cpu":
        found = _products_of_rows(values.numpy(), human)
    else:
        found = _products_on_device(values, human)
    product, norm = found.unbind(dim=2)
    finite = values.isfinite().all(dim=1)
    scale = torch.where(finite[:, None], norm, torch.nan)
    scale = scale * torch.stack([ranks.norm for ranks, _ in human], dim=1)
    rho = (product / torch.where(scale > 0, scale, torch.nan)).clamp(-1.0, 1.0)
    return Correlations(rho.T, finite, values.amin(dim=1) == values.amax(dim=1))


def spearman_per_image(
    model_maps: Tensor | np.ndarray, human_maps: Tensor | np.ndarray | Ranks, settle: bool = False
) -> Tensor:
    """Rank agreement of model and human maps, one score per image.

    1 = same ordering, 0 = unrelated, -1 = reversed. Ties take average ranks.
    A constant map has no ordering, and a map with a NaN or an infinity none
    either: the score is NaN, and the caller counts it.

    model_maps : (image, height, width), any scale
    human_maps : the same shape, or `rank_maps` of such
    settle  : round maps to 1e-5 of their range before ranking
    Returns : (image,) float64 on the maps' device
    Raises  : ValueError naming both shapes if they differ
    Source  : Spearman's rho as the correlation of average ranks, = scipy's
    """
    human = human_maps if isinstance(human_maps, Ranks) else rank_maps(human_maps, settle)
    return correlate(model_maps, [(human, settle)]).rho[0]


def attainable_rho(maps: Tensor | np.ndarray) -> Tensor:
    """The largest score these maps' ties allow, (image,) float64.

    Against a human map without ties, a map's ties lose it a share of the ranks'
    variance: the bound is the ratio of its rank norm to that of 1 … n.
    """
    ranks = rank_maps(maps)
    count = ranks.centred.shape[1]
    untied = (count * (count**2 - 1) / 12) ** 0.5
    return ranks.norm / untied
