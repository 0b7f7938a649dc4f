"""ROAD: the probability left once pixels are removed and imputed from their neighbours.

Source: Rong et al., "A consistent and efficient evaluation strategy for attribution methods",
ICML 2022; combined as in pytorch-grad-cam
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...base.tables import unknown_name
from .imputing import imputed

ROAD_SHARES = (0.2, 0.5, 0.8)
NOISE = 0.01  # standard deviation, as published
# Of what the noise is a hundredth: the normalised image's unit, which is pytorch-grad-cam's, or
# the 0-1 image's, of which this package's earlier results are.
NOISE_UNITS = ("normalised", "image")


def road_noise(draws: Tensor, std: Sequence[float], unit: str = "normalised") -> Tensor:
    """The noise that is added to removed pixels of images in 0-1.

    draws : (image, 3, side, side), standard normal
    std   : per colour, by which the network's images are divided
    unit  : one of `NOISE_UNITS`. Raises UnknownName.
    """
    if unit not in NOISE_UNITS:
        raise unknown_name("unit of ROAD's noise", unit, NOISE_UNITS)
    noise = NOISE * draws
    return noise * noise.new_tensor(std)[:, None, None] if unit == "normalised" else noise


def road(
    probability: Callable[[Tensor], Tensor], images: Tensor, order: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """Probability left once pixels are removed and imputed, the mean over shares, (image,).

    probability : images -> (image,) of the class that is asked for
    order       : (image, pixel) as `in_order` tells it
    noise       : as images and in their unit, added to removed pixels
    `road_morf`, the most relevant first: lower is more faithful; `road_lerf`, the least relevant
    first: higher is; `road_combined`, (LeRF − MoRF) / 2, -0.5 to 0.5: higher is.
    """
    found = {}
    for name, sequence in (("road_morf", order), ("road_lerf", order.flip(1))):
        left = []
        for share in ROAD_SHARES:
            count = round(share * order.shape[1])
            removed = torch.zeros_like(order, dtype=torch.bool)
            removed = removed.scatter_(1, sequence[:, :count], True)
            removed = removed.view(len(images), *images.shape[2:])
            left.append(probability(imputed(images, removed, noise)))
        found[name] = torch.stack(left).mean(dim=0)
    found["road_combined"] = (found["road_lerf"] - found["road_morf"]) / 2
    return found
