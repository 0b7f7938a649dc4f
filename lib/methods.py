"""The CAM methods: one table, one row a method, and the formulas behind them.

Every method here turns the features of the study's layer and the gradient of one
logit with respect to them into a small map. The formulas use nothing but
operations of the tensors given, so this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lib.tables import Table

if TYPE_CHECKING:
    from torch import Tensor

# The published floor of Threshold-Grad-CAM, as a share of the map's range.
PUBLISHED_FLOOR = 0.3


def min_max(maps: Tensor) -> Tensor:
    """Scale each (image, h, w) map to 0-1; a constant map becomes 0 everywhere."""
    low = maps.amin(dim=(-2, -1), keepdim=True)
    span = maps.amax(dim=(-2, -1), keepdim=True) - low
    return (maps - low) / span.masked_fill(span == 0, 1)


def grad_cam_family(
    features: Tensor, gradient: Tensor, *, relu_before_mean: bool, floor: float
) -> Tensor:
    """Grad-CAM and its two published changes, each of which can be had alone.

    features, gradient : (image, channel, h, w)
    relu_before_mean   : False keeps Grad-CAM's order, the mean over channels and
                         then the ReLU; True applies the ReLU to every channel first
    floor              : 0 leaves the map as it is; above 0 it is scaled to 0-1 and
                         every value below the floor is raised to it
    Returns (image, h, w), >= 0. A map that is 0 everywhere stays constant: it is
    for the caller to count, and never NaN.

    Source: Selvaraju et al., ICCV 2017, eq. 1-2; Chamas et al., arXiv 2408.03164,
    whose Threshold-Grad-CAM is relu_before_mean=True, floor=0.3.
    """
    if not 0 <= floor < 1:
        raise ValueError(f"floor must lie in [0, 1), got {floor}")
    weighted = features * gradient.mean(dim=(-2, -1), keepdim=True)
    if relu_before_mean:
        maps = weighted.relu().mean(dim=1)
    else:
        maps = weighted.mean(dim=1).relu()
    return min_max(maps).clamp(min=floor) if floor > 0 else maps


@dataclass(frozen=True)
class CamMethod:
    """One row: `small_map(features, gradient)` -> (image, h, w)."""

    key: str
    label: str
    small_map: Callable[[Tensor, Tensor], Tensor]


def grad_cam_variant(
    key: str, label: str, *, relu_before_mean: bool = False, floor: float = 0.0
) -> CamMethod:
    """A row for any order of ReLU and mean and any floor."""
    formula = partial(grad_cam_family, relu_before_mean=relu_before_mean, floor=floor)
    return CamMethod(key, label, formula)


PUBLISHED_METHODS = ("grad_cam", "threshold_grad_cam")
FLOORS = tuple(step / 10 for step in range(10))


def family_key(relu_before_mean: bool, floor: float) -> str:
    """The key of the row with this order of ReLU and mean and one of `FLOORS`."""
    if relu_before_mean and floor == PUBLISHED_FLOOR:
        return "threshold_grad_cam"
    return ("relu_first" if relu_before_mean else "grad_cam") + f"_floor_{floor}" * bool(floor)


def _family() -> list[CamMethod]:
    """Threshold-Grad-CAM's two changes, each alone and at every floor."""
    rows = []
    for relu_before_mean, name in ((False, "Grad-CAM"), (True, "ReLU first")):
        for floor in FLOORS:
            key = family_key(relu_before_mean, floor)
            if key not in PUBLISHED_METHODS:
                label = f"{name}, floor {floor}" if floor else name
                rows.append(grad_cam_variant(key, label, relu_before_mean=relu_before_mean,
                                             floor=floor))  # fmt: skip
    return rows


METHODS: Table[CamMethod] = Table(
    "method",
    [
        grad_cam_variant("grad_cam", "Grad-CAM"),
        grad_cam_variant("threshold_grad_cam", "Threshold-Grad-CAM",
                         relu_before_mean=True, floor=PUBLISHED_FLOOR),
        *_family(),
    ],
)  # fmt: skip
