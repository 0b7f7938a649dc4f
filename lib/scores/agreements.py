"""How well maps agree with human maps, on the device, and why some have no score."""

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
    """Of methods' maps with human maps, on the device: nothing here waits for it.

    measured : {protocol: (measure, method, image) float64, in the order of MEASURED}
    usable   : {protocol: (image,) bool, the human map orders something}
    finite, constant : (method, image) bool, of the network's maps
    """

    measured: dict[str, Tensor]
    usable: dict[str, Tensor]
    finite: Tensor
    constant: Tensor

    def validity(self, method: int, protocol: str) -> np.ndarray:
        """VALID for each image, or why it has no score."""
        why = [~self.finite[method], ~self.usable[protocol], self.constant[method]]
        return np.select(
            [reason.cpu().numpy() for reason in why],
            [NON_FINITE, CONSTANT_HUMAN_MAP, CONSTANT_MODEL_MAP],
            VALID,
        )


def agreements_of(maps: Tensor, human: Mapping[str, Ranks]) -> Agreement:
    """Compare (method, image, height, width) maps with ranked human maps, {protocol: ranks}.

    Pixels are sorted once for all protocols, and for the centre, on which depends how much
    of the agreement is left once both maps' preference for it is taken away.
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
    """Of the map that is highest in the centre: any round Gaussian's."""
    return rank_maps(torch.from_numpy(centre_map(*sides)).to(device)[None])
