"""Agreement of heatmaps with human maps, computed on the device, and why some have no score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..base.geometry import centre_map
from ..people.protocols import PROTOCOLS
from .spearman import Ranks, between_ranks, correlate, partial_correlation, rank_maps

VALID = "valid"
CONSTANT_MODEL_MAP = "constant model map"
CONSTANT_HUMAN_MAP = "constant human map"
NON_FINITE = "non-finite map"
MEASURED = ["rho", "partial", "tied", "attainable"]


@dataclass(frozen=True)
class Agreement:
    """The agreement of several methods' heatmaps with human maps.

    The tensors stay on the device, and nothing here waits for it.

    measured : {protocol: (measure, method, image) float64, in the order of MEASURED}
    usable   : {protocol: (image,) bool, whether the human map has more than one value}
    finite, constant : (method, image) bool, of the heatmaps
    """

    measured: dict[str, Tensor]
    usable: dict[str, Tensor]
    finite: Tensor
    constant: Tensor

    def validity(self, method: int, protocol: str) -> np.ndarray:
        """VALID for each image that has a score, otherwise the reason why it has none."""
        why = [~self.finite[method], ~self.usable[protocol], self.constant[method]]
        return np.select(
            [reason.cpu().numpy() for reason in why],
            [NON_FINITE, CONSTANT_HUMAN_MAP, CONSTANT_MODEL_MAP],
            VALID,
        )


def agreements_of(maps: Tensor, human: Mapping[str, Ranks]) -> Agreement:
    """Compare (method, image, height, width) maps with ranked human maps, {protocol: ranks}.

    Pixels are sorted once for all protocols. The same order gives the correlation with the
    distance from the centre, which the partial correlation holds constant.
    """
    centre = centre_ranks(next(iter(human.values())).shape[1:], maps.device)
    settles = [PROTOCOLS[key].settles for key in human]
    compared = [*zip(human.values(), settles, strict=True)]
    found = correlate(maps, compared + [(centre, settle) for settle in settles])
    finite = found.finite
    measured = {}
    for number, (key, ranks) in enumerate(human.items()):
        finite = finite & ranks.norm.isfinite()
        rho, to_centre = found.rho[number], found.rho[len(human) + number]
        partial = partial_correlation(rho, to_centre, between_ranks(ranks, centre))
        tied, attainable = found.tied[number], found.attainable[number]
        measured[key] = torch.stack([rho, partial, tied, attainable])
    return Agreement(
        measured,
        {key: ranks.norm != 0 for key, ranks in human.items()},
        finite,
        found.constant,
    )


@cache
def centre_ranks(sides: tuple[int, int], device: torch.device) -> Ranks:
    """Ranks of a map that is highest in the centre; every round Gaussian has these ranks."""
    return rank_maps(torch.from_numpy(centre_map(*sides)).to(device)[None])
