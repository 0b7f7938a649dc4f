"""One forward, and the gradient of the head alone: where every map starts.

The gradient of a logit with respect to the study's layer needs the head only, so
the features are computed without recording anything, detached, and the head is
differentiated: no backward through the network, no parameter gradients, no hooks.
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
    """What every gradient-weighted method starts from.

    features, gradient : (image, channel, h, w), of what is asked
    logits  : (image, class), or whatever the network answers
    asked   : a class, or another target, of each image
    """

    features: Tensor
    gradient: Tensor
    logits: Any
    asked: Asked

    @property
    def targets(self) -> Tensor:
        """(image,) int64 classes. Raises ValueError where something else is asked."""
        if self.asked.classes is None:
            raise ValueError("this method explains a class, and another target is asked of it")
        return self.asked.classes


def head_pass(model: nn.Module, x: Tensor, targets: Any = None) -> HeadPass:
    """One forward, and the gradient at the layer of what is asked of each image.

    model   : with `opened(x)`, such as `lib.networks.models.StudyModel`, or a network in memory
              (`lib.maps.live.LiveModel`)
    x       : (image, 3, height, width)
    targets : (image,) class indices, or targets as `lib.maps.targets` explains; None takes the
              predicted classes
    Raises ValueError if there is not one target per image, or one is no class.

    Works whatever the parameters' requires_grad, leaves no gradient on them, and
    may be called under `no_grad`.
    """
    with evaluating(model):
        opened = model.opened(x)
        with torch.inference_mode(False), torch.enable_grad():
            asked = asked_of(targets, opened.answer, len(x))
            gradient = opened.gradient(asked.scores(opened.answer).sum())
    answer = opened.answer.detach() if isinstance(opened.answer, Tensor) else opened.answer
    return HeadPass(_single(opened.features), _single(gradient), answer, asked)


def _single(x: Tensor) -> Tensor:
    """Half precision has too few digits for the formulas."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def enlarge(small_maps: Tensor, size: int | tuple[int, int] = DELIVERED_SIZE) -> Tensor:
    """(image, h, w) -> (image, size, size), or of a (height, width); bilinear, half-pixel
    centres."""
    # Contiguous first: on a channels-last view the interpolation takes another path
    # that splits the floor's plateau into several float values, and so its ties.
    maps = small_maps.unsqueeze(1).contiguous()
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return F.interpolate(maps, sides, mode="bilinear", align_corners=False).squeeze(1)


def is_constant(maps: Tensor) -> Tensor:
    """(image,) bool: the map has one value only, so it orders nothing."""
    flat = maps.flatten(1)
    return flat.amax(dim=1) == flat.amin(dim=1)
