"""Heatmaps of several methods, all from one pass of `lib.maps.forward`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..base.geometry import DELIVERED_SIZE
from .forward import enlarge, head_pass
from .methods import METHODS, CamMethod


def cam_maps(
    model: nn.Module,
    x: Tensor,
    targets: Any = None,
    methods: Sequence[str | CamMethod] = ("grad_cam", "threshold_grad_cam"),
    size: int | tuple[int, int] = DELIVERED_SIZE,
) -> dict[str, Tensor]:
    """Return heatmaps of several methods from one forward pass and one gradient.

    model, x, targets : as for `head_pass`
    methods : keys of `METHODS`, or your own rows (`grad_cam_variant`)
    size : size of the maps, a side or (height, width)
    Returns {method key: (image, size, size) float, >= 0}. A constant map, such as
    Grad-CAM's where no evidence is positive, stays constant; see `is_constant`.
    """
    if isinstance(methods, str):
        raise ValueError("methods must be a list of keys or rows, not one string")
    rows = [m if isinstance(m, CamMethod) else METHODS[m] for m in methods]
    passed = head_pass(model, x, targets)
    return {row.key: enlarge(row.maps(model, x, passed), size) for row in rows}
