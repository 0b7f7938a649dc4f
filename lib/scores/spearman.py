"""Spearman's rank correlation of maps, one score per image, batched.

Ranking is the expensive half, and the same human maps are compared with every model and method.
`rank_maps` can therefore be called once and its result passed instead of the maps.
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
    """Average ranks of some maps, centred, so that they can be correlated.

    centred : (image, pixel) rank minus mean rank, halves of integers: float32 where that
              holds them exactly, else float64
    norm    : (image,) float64, Euclidean length of `centred`; 0 for a constant
              map, NaN for one with a non-finite value
    shape   : shape of the ranked maps
    """

    centred: Tensor
    norm: Tensor
    shape: tuple[int, ...]

    def __getitem__(self, images: slice) -> Ranks:
        """The ranks of some of the images."""
        centred = self.centred[images]
        return Ranks(centred, self.norm[images], (len(centred), *self.shape[1:]))


# --- on a CPU, row by row -----------------------------------------------------------------
# A row of 50,176 pixels stays in the processor's cache through all steps, and threads share the
# rows: several times as fast as torch's operations, and as scipy.


def order_of_row(values: np.ndarray) -> np.ndarray:
    """The pixels of a row of float32 or float64, ordered by their values."""
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
    """Sums of products of each row's ranks with human ranks, and the rows' extremes.

    Returns (row, comparison, 3): the sum of products, the row's own norm, and the number of tied
    pixels; and (row, 2): the row's smallest and largest value, not finite if any value is not.

    values : (row, pixel), the images of the human maps once or repeatedly
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


# --- on other devices, all rows at once -----------------------------------------------------


def _ranks_in_order(ordered: Tensor, settle: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Centred average ranks of sorted rows, their norms, and their numbers of tied pixels."""
    if settle:
        low, high = ordered[:, :1].double(), ordered[:, -1:].double()
        span = torch.where(high > low, high - low, 1.0)
        ordered = ((ordered.double() - low) / span * STEPS).round()
    count = ordered.shape[1]
    # Running extremes give the first and last place of each pixel's group of ties, so that
    # nothing waits for the device to count the groups.
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
    """Like `products_of_rows`."""
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
    """Like `ranks_of_rows`."""
    ordered, pixels = values.sort(dim=1)
    in_order, norm, _ = _ranks_in_order(ordered, settle)
    exact = torch.float32 if _rank_type(values.shape[1]) is np.float32 else torch.float64
    in_order = in_order.to(exact)
    return torch.empty_like(in_order).scatter_(1, pixels, in_order), norm


# --- public functions -----------------------------------------------------------------------


def _as_maps(maps: Tensor | np.ndarray, name: str, many: bool = False) -> Tensor:
    if isinstance(maps, np.ndarray):
        maps = np.ascontiguousarray(maps, dtype=maps.dtype.newbyteorder("="))
    maps = torch.as_tensor(maps).detach()
    if maps.device.type == "mps":
        maps = maps.cpu()  # Apple's GPUs have no float64
    dimensions = (3, 4) if many else (3,)
    if maps.ndim not in dimensions or maps.shape[-2] * maps.shape[-1] < 2 or maps.is_complex():
        raise ValueError(
            f"{name} must be (image, height, width), real, with at least two pixels, "
            f"got {tuple(maps.shape)} {maps.dtype}"
        )
    if maps.dtype in (torch.float32, torch.float64):
        return maps
    # float32 holds float16 and 16-bit integers exactly, float64 holds 32-bit integers.
    narrow = maps.is_floating_point() or maps.element_size() <= 2
    return maps.to(torch.float32 if narrow else torch.float64)


def rank_maps(maps: Tensor | np.ndarray, settle: bool = False) -> Ranks:
    """Return the ranks of (image, height, width) maps, for repeated use; ties take average ranks.

    settle : round to 1e-5 of the map's range first, because interpolated plateaus are not bit-equal
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
    """Correlations of maps with human maps ranked in one or more ways, on the maps' device.

    rho : (comparison, …, image) float64; NaN if either map is constant or not finite
    tied, attainable : same shape; the share of the map's pixels that equal another one, and the
          largest rho that these ties allow against a map without ties
    finite, constant : (…, image) bool, of the maps
    """

    rho: Tensor
    tied: Tensor
    attainable: Tensor
    finite: Tensor
    constant: Tensor


def correlate(model_maps: Tensor | np.ndarray, human: Sequence[tuple[Ranks, bool]]) -> Correlations:
    """Return Spearman's rho of maps with human maps in each of several rankings.

    model_maps : (image, height, width), or (method, image, height, width)
    human : pairs (ranks, settle): the ranks of as many images, or of one for all; and whether the
            model's maps are also settled before they are ranked

    This is `spearman_per_image` for several protocols and methods. The expensive part, sorting a
    map's pixels, is done once for all of them.
    """
    maps = _as_maps(model_maps, "model_maps", many=True)
    for ranks, _ in human:
        images, *sides = ranks.shape
        if tuple(sides) != maps.shape[-2:] or images not in (1, maps.shape[-3]):
            raise ValueError(
                f"model_maps {tuple(maps.shape)} and human_maps {ranks.shape} differ in shape: "
                "resize one of them first"
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
        # Against ranks without ties, a map's ties cost a share of its ranks' variance.
        norm / (pixels * (pixels**2 - 1) / 12) ** 0.5,
        finite,
        constant,
    )


def spearman_per_image(
    model_maps: Tensor | np.ndarray, human_maps: Tensor | np.ndarray | Ranks, settle: bool = False
) -> Tensor:
    """Return the rank agreement of model and human maps, one value per image.

    1 means the same order of pixels, 0 no relation, -1 the reverse order. Ties take average
    ranks. A constant map, or one with a NaN or an infinity, has no order of pixels: its value is
    NaN, and the caller counts it.

    model_maps : (image, height, width), any scale
    human_maps : the same shape, or the `rank_maps` of maps of that shape
    settle  : round maps to 1e-5 of their range before ranking
    Returns : (image,) float64 on the maps' device
    Raises  : ValueError naming both shapes if they differ
    Source  : Spearman's rho as the correlation of average ranks, equal to scipy's
    """
    human = human_maps if isinstance(human_maps, Ranks) else rank_maps(human_maps, settle)
    return correlate(model_maps, [(human, settle)]).rho[0]


def between_ranks(ours: Ranks, theirs: Ranks) -> Tensor:
    """Return Spearman's rho of maps that are already ranked: (image,) float64.

    It is NaN if either map is constant or not finite.

    theirs : the ranks of as many images, or of one for all
    """
    product = (ours.centred.double() * theirs.centred).sum(dim=1)
    scale = ours.norm * theirs.norm
    return (product / torch.where(scale > 0, scale, torch.nan)).clamp(-1.0, 1.0)


def partial_correlation(between: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the correlation of two maps with a third held constant, -1 to 1.

    It is NaN if the third determines one of them.

    between : correlation of the two; first, second : correlation of each with the third
    """
    scale = ((1 - first.square()) * (1 - second.square())).clamp(min=0).sqrt()
    return ((between - first * second) / torch.where(scale > 0, scale, torch.nan)).clamp(-1.0, 1.0)
