"""Spearman's rank correlation of maps, one score per image, batched.

Ranks are the expensive half and human maps serve every model and method, so
`rank_maps` can be called once and its result passed instead of the maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..base.loops import STEPS, average_ranks, order_of_bits, weighted_sum
from ..base.threads import each


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


def order_of_row(values: np.ndarray) -> np.ndarray:
    """The pixels of a row of float32 or float64 in order of their values."""
    if values.dtype == np.float32:
        return order_of_bits(values.view(np.uint32))
    return np.argsort(values, kind="stable").astype(np.int32)


def ranks_of_rows(values: np.ndarray, settle: bool) -> tuple[Tensor, Tensor]:
    """Centred average ranks and their norms."""
    centred = np.empty(values.shape, dtype=_rank_type(values.shape[1]))

    def rank(row: int) -> float:
        order = order_of_row(values[row])
        mine = np.empty(len(order))
        norm, _ = average_ranks(values[row][order], settle, mine)
        centred[row][order] = mine
        return norm

    norms = torch.tensor(each(rank, range(len(values))), dtype=torch.float64)
    return torch.from_numpy(centred), norms


def products_of_rows(
    values: np.ndarray, human: Sequence[tuple[Ranks, bool]]
) -> tuple[Tensor, Tensor]:
    """(row, comparison, 3): sums of products with the human ranks, the rows' own norms, how
    many pixels are tied; and (row, 2): the rows' least and largest values, not finite where
    any is not.

    values : (row, pixel), the human maps' images once or over and over
    """
    theirs = [(ranks.centred.numpy(), settle) for ranks, settle in human]

    def correlate(row: int) -> tuple[list[tuple[float, float, int]], tuple[float, float]]:
        order = order_of_row(values[row])
        ordered = values[row][order]
        mine, told = {}, {}
        for settle in {settle for _, settle in theirs}:
            mine[settle] = np.empty(len(order))
            told[settle] = average_ranks(ordered, settle, mine[settle])
        found = [
            # Fetch the human ranks in the model's order: cheaper than scattering the model's.
            (weighted_sum(mine[settle], centred[row % len(centred)], order), *told[settle])
            for centred, settle in theirs
        ]
        return found, (ordered[0], ordered[-1])

    # One call with no torch operation inside: torch's threads spin for a while after each.
    found = each(correlate, range(len(values)))
    products = torch.tensor([row for row, _ in found], dtype=torch.float64)
    extremes = torch.tensor([extremes for _, extremes in found], dtype=torch.float64)
    return products.view(len(values), len(human), 3), extremes.view(len(values), 2)


def _rank_type(pixels: int) -> type:
    return np.float32 if pixels < 2**23 else np.float64


# --- on any other device, all rows at once --------------------------------------------------


def _ranks_in_order(ordered: Tensor, settle: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of sorted rows: centred average ranks, their norms, how many pixels are tied."""
    if settle:
        low, high = ordered[:, :1].double(), ordered[:, -1:].double()
        span = torch.where(high > low, high - low, 1.0)
        ordered = ((ordered.double() - low) / span * STEPS).round()
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
    return centred, centred.square().sum(dim=1).sqrt(), (last > first).sum(dim=1)


def products_on_device(
    values: Tensor, human: Sequence[tuple[Ranks, bool]]
) -> tuple[Tensor, Tensor]:
    """As `products_of_rows`."""
    ordered, pixels = values.sort(dim=1)
    found = []
    for ranks, settle in human:
        centred, norm, tied = _ranks_in_order(ordered, settle)
        images, count = ranks.centred.shape
        times = pixels.view(-1, images, count)
        theirs = ranks.centred.expand(len(times), -1, -1).gather(2, times).view_as(centred)
        found.append(torch.stack([(centred * theirs).sum(dim=1), norm, tied], dim=1))
    return torch.stack(found, dim=1), ordered[:, [0, -1]]


def ranks_on_device(values: Tensor, settle: bool) -> tuple[Tensor, Tensor]:
    """As `ranks_of_rows`."""
    ordered, pixels = values.sort(dim=1)
    in_order, norm, _ = _ranks_in_order(ordered, settle)
    exact = torch.float32 if _rank_type(values.shape[1]) is np.float32 else torch.float64
    in_order = in_order.to(exact)
    return torch.empty_like(in_order).scatter_(1, pixels, in_order), norm


# --- for everyone ---------------------------------------------------------------------------


def _as_maps(maps: Tensor | np.ndarray, name: str, many: bool = False) -> Tensor:
    if isinstance(maps, np.ndarray):
        maps = np.ascontiguousarray(maps, dtype=maps.dtype.newbyteorder("="))
    maps = torch.as_tensor(maps).detach()
    if maps.device.type == "mps":
        maps = maps.cpu()  # Apple's GPUs have no float64
    dimensions = (3, 4) if many else (3,)
    if maps.ndim not in dimensions or maps.shape[-2] * maps.shape[-1] < 2 or maps.is_complex():
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
        centred, norm = ranks_of_rows(values.numpy(), settle)
    else:
        centred, norm = ranks_on_device(values, settle)
    finite = values.isfinite().all(dim=1)
    return Ranks(centred, torch.where(finite, norm, torch.nan), tuple(maps.shape))


@dataclass(frozen=True)
class Correlations:
    """Of some maps with human maps ranked in one or more ways; on the maps' device.

    rho : (comparison, …, image) float64; NaN where either map has no ordering
    tied, attainable : the same shape: the share of the map's pixels that are equal to
          another, and the largest rho that these ties allow against a map without any
    finite, constant : (…, image) bool, of the maps
    """

    rho: Tensor
    tied: Tensor
    attainable: Tensor
    finite: Tensor
    constant: Tensor


def correlate(model_maps: Tensor | np.ndarray, human: Sequence[tuple[Ranks, bool]]) -> Correlations:
    """Spearman's rho of maps with the human maps in each of several rankings.

    model_maps : (image, height, width), or (method, image, height, width)
    human : (ranks of as many images, or of one for all; whether the model's maps are settled
            before they are ranked too)

    The expensive part, sorting a map's pixels, is done once for all. As for
    `spearman_per_image`, to which this is the form for many protocols and methods.
    """
    maps = _as_maps(model_maps, "model_maps", many=True)
    for ranks, _ in human:
        images, *sides = ranks.shape
        if tuple(sides) != maps.shape[-2:] or images not in (1, maps.shape[-3]):
            raise ValueError(
                f"model_maps {tuple(maps.shape)} and human_maps {ranks.shape} differ in shape"
            )
    here, pixels = maps.shape[:-2], maps.shape[-2:].numel()
    values = maps.reshape(here.numel(), pixels)
    if values.device.type == "cpu":
        found, extremes = products_of_rows(values.numpy(), human)
    else:
        found, extremes = products_on_device(values, human)
    product, norm, tied = (part.T.view(len(human), *here) for part in found.unbind(dim=2))
    finite = extremes.isfinite().all(dim=1).view(here)
    constant = (extremes[:, 0] == extremes[:, 1]).view(here)
    theirs = [ranks.norm.expand(maps.shape[-3]) for ranks, _ in human]
    scale = norm * torch.stack(theirs).view(len(human), *[1] * (maps.ndim - 3), -1)
    scale = torch.where(finite & (scale > 0), scale, torch.nan)
    return Correlations(
        (product / scale).clamp(-1.0, 1.0),
        tied / pixels,
        # Against ranks without ties, a map's ties lose it a share of the ranks' variance.
        norm / (pixels * (pixels**2 - 1) / 12) ** 0.5,
        finite,
        constant,
    )


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


def between_ranks(ours: Ranks, theirs: Ranks) -> Tensor:
    """Spearman's rho of maps that are ranked already, (image,) float64; NaN without ordering.

    theirs : of as many images, or of one for all
    """
    product = (ours.centred.double() * theirs.centred).sum(dim=1)
    scale = ours.norm * theirs.norm
    return (product / torch.where(scale > 0, scale, torch.nan)).clamp(-1.0, 1.0)


def partial_correlation(between: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Correlation of two maps with a third held constant; NaN where it decides one of them.

    between : of the two; first, second : of each with the third
    """
    scale = ((1 - first.square()) * (1 - second.square())).clamp(min=0).sqrt()
    return ((between - first * second) / torch.where(scale > 0, scale, torch.nan)).clamp(-1.0, 1.0)
