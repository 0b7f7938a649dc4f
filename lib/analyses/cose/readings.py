"""The similarity of two heatmaps, in both versions of COSE.

published : as in the published code. Each map is scaled to 0-1, as its explainers return it, and
            then moved back onto the unchanged image. The mean is over scikit-image's full SSIM
            map, within a mask that does not shrink at the image's border
corrected : if part of the image left it, both maps are scaled to 0-1 within the part that stayed,
            and only windows that lie entirely within that part count

If nothing left the image, the two are the same. A pair without SSIM in one version has none in the
other, so both are based on the same pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...maps.forward import enlarge, is_constant
from ...maps.methods import min_max
from ...scores.spearman import rank_maps, spearman_per_image
from .changes import Change, undone
from .ssim import structural_similarity

PUBLISHED, CORRECTED = "published", "corrected"
READINGS = (PUBLISHED, CORRECTED)
_FLAT = 1e-6  # of a map's range: the effect of rounding on a turned plateau


@dataclass(frozen=True)
class Moves:
    """Changes of one image, and the part of it that stays.

    leaves : the changes by which part of the image leaves it, as places among the changes
    partly, wholly : (change in `leaves`, side, side) bool, see `Change.inside`
    """

    changes: Sequence[Change]
    leaves: list[int]
    partly: Tensor
    wholly: Tensor

    @classmethod
    def of(cls, changes: Sequence[Change], side: int, device: torch.device | None = None) -> Moves:
        leaves = [number for number, change in enumerate(changes) if change.leaves]
        inside = [changes[number].inside(side, device) for number in leaves]
        partly, wholly = map(torch.stack, zip(*inside, strict=True))
        return cls(changes, leaves, partly, wholly)


def scaled(small: Tensor, side: int) -> Tensor:
    """Enlarge (image, h, w) maps and scale each to 0-1; a constant map becomes 0 everywhere.

    Maps are also scaled before, because rounding in the enlargement would give a constant map a
    pattern.
    """
    return min_max(enlarge(min_max(small), side))


def _scaled_within(maps: Tensor, inside: Tensor) -> Tensor:
    """Scale maps with a range of 1 or less to 0-1 within the part that counts; 0 outside."""
    low = maps.where(inside, torch.inf).amin(dim=(1, 2), keepdim=True)
    high = maps.where(inside, -torch.inf).amax(dim=(1, 2), keepdim=True)
    span = (high - low).where(high - low > _FLAT, torch.inf)  # a flat map becomes 0
    return ((maps - low) / span).where(inside, 0)


def similarities(
    before: Tensor,
    after: Tensor,
    side: int,
    moves: Moves | None = None,
    with_spearman: bool = False,
) -> dict[str, Tensor]:
    """Return {reading: (pair,) float64 SSIM}; NaN if both maps are constant or one is not finite.

    before : (1, h, w), map of the unchanged image
    after  : (change, h, w), maps of the changed images
    moves  : the changes of the image. None if the network was changed; then `before` and `after`
             are (pair, h, w)
    with_spearman : also return "spearman", Spearman's rho of the pixels within the published mask
    """
    both_constant = is_constant(before) & is_constant(after)
    first, back = scaled(before, side), scaled(after, side)
    if moves is None:
        published = corrected = structural_similarity(first, back)
    else:
        back, left = undone(moves.changes, back), moves.leaves
        stays = [number for number in range(len(back)) if number not in left]
        published = torch.empty(len(back), dtype=torch.float64, device=back.device)
        published[stays] = structural_similarity(first, back[stays])
        published[left] = structural_similarity(first, back[left], moves.partly, beyond=True)
        corrected = published.clone()
        pair = (_scaled_within(maps.expand_as(moves.wholly), moves.wholly)
                for maps in (first, back[left]))  # fmt: skip
        corrected[left] = structural_similarity(*pair, moves.wholly, reach=1.0)
    missing = both_constant | published.isnan() | corrected.isnan()
    found = {PUBLISHED: published, CORRECTED: corrected}
    found = {reading: values.masked_fill(missing, torch.nan) for reading, values in found.items()}
    if with_spearman:
        found["spearman"] = _spearman(first, back, moves)
    return found


def _spearman(first: Tensor, back: Tensor, moves: Moves | None) -> Tensor:
    found = spearman_per_image(back, rank_maps(first)).clone()
    if moves is not None:
        for number, inside in zip(moves.leaves, moves.partly, strict=True):
            pair = (maps[inside][None, None] for maps in (back[number], first[0]))
            found[number] = spearman_per_image(*pair)
    return found


def averaged(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average maps to the cells of a layer. grid : (height, width) of the cells"""
    return F.adaptive_avg_pool2d(maps, grid)
