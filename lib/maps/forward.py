"""One forward pass and the gradient of the head, from which every map is made.

The gradient of a logit with respect to the study's layer needs only the head. The features are
therefore computed without recording and detached, and only the head is differentiated. There is
no backward pass through the network, and there are no parameter gradients and no hooks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.geometry import DELIVERED_SIZE
from ..networks.split import evaluating
from .targets import Asked, asked_of


@dataclass(frozen=True)
class HeadPass:
    """The input of every gradient-weighted method.

    features, gradient : (image, channel, h, w), at the layer; the gradient of the target
    logits  : (image, class), or whatever the network returns
    asked   : the target of each image, a class or another one
    """

    features: Tensor
    gradient: Tensor
    logits: Any
    asked: Asked

    @property
    def targets(self) -> Tensor:
        """(image,) int64 classes. Raises ValueError if the targets are not classes."""
        if self.asked.classes is None:
            raise ValueError(
                "this method explains classes only, but another target was given: give class "
                "indices, or choose another method"
            )
        return self.asked.classes


def head_pass(model: nn.Module, x: Tensor, targets: Any = None) -> HeadPass:
    """Run one forward pass and compute the gradient of each image's target at the layer.

    model   : has `opened(x)`: a `lib.networks.models.StudyModel`, or a network in memory
              (`lib.maps.live.LiveModel`)
    x       : (image, 3, height, width), normalised
    targets : (image,) class indices, or targets as in `lib.maps.targets`; None means the predicted
              classes
    Raises ValueError if there is not one target per image, or if one is not a class.

    It works for any `requires_grad` of the parameters, leaves no gradient on them, and may be
    called under `no_grad`.
    """
    with evaluating(model):
        opened = model.opened(x)
        with torch.inference_mode(False), torch.enable_grad():
            asked = asked_of(targets, opened.answer, len(x))
            gradient = opened.gradient(asked.scores(opened.answer).sum())
    answer = opened.answer.detach() if isinstance(opened.answer, Tensor) else opened.answer
    return HeadPass(_single(opened.features), _single(gradient), answer, asked)


def _single(x: Tensor) -> Tensor:
    """Convert half precision, which has too few digits for the formulas."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def enlarge(small_maps: Tensor, size: int | tuple[int, int] = DELIVERED_SIZE) -> Tensor:
    """Return (image, h, w) maps enlarged to (image, size, size), or to (height, width).

    The interpolation is bilinear with half-pixel centres."""
    # Contiguous first: on a channels-last view the interpolation takes another path, which splits
    # the plateau at the floor into several values and so breaks its ties.
    maps = small_maps.unsqueeze(1).contiguous()
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return F.interpolate(maps, sides, mode="bilinear", align_corners=False).squeeze(1)


def is_constant(maps: Tensor) -> Tensor:
    """Return (image,) bool: whether all values of a map are equal, so that it has no order."""
    flat = maps.flatten(1)
    return flat.amax(dim=1) == flat.amin(dim=1)
