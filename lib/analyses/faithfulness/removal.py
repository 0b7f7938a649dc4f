"""ROAD: the probability that remains after pixels are removed and imputed from neighbours.

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
# The unit of which the noise is a hundredth: that of the normalised image, as in pytorch-grad-cam,
# or that of the image in 0-1, as in this package's earlier results.
NOISE_UNITS = ("normalised", "image")


def road_noise(draws: Tensor, std: Sequence[float], unit: str = "normalised") -> Tensor:
    """Return the noise that is added to removed pixels of images in 0-1.

    draws : (image, 3, side, side), standard normal
    std   : standard deviation per colour in the network's normalisation
    unit  : one of `NOISE_UNITS`
    Raises UnknownName for another unit.
    """
    if unit not in NOISE_UNITS:
        raise unknown_name("unit of ROAD's noise", unit, NOISE_UNITS)
    noise = NOISE * draws
    return noise * noise.new_tensor(std)[:, None, None] if unit == "normalised" else noise


def road(
    probability: Callable[[Tensor], Tensor], images: Tensor, order: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """Return the probability after removing and imputing pixels, as a mean over shares: (image,).

    probability : images -> (image,), the probability of the target class
    order       : (image, pixel), from `in_order`
    noise       : shape and unit of the images, added to removed pixels
    Returns `road_morf`, most relevant first, where lower is more faithful; `road_lerf`, least
    relevant first, where higher is; and `road_combined`, (LeRF − MoRF) / 2, -0.5 to 0.5, where
    higher is.
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
