"""One forward, and the gradient of the head alone: where every map starts.

The gradient of a logit with respect to the study's layer needs the head only, so
the features are computed without recording anything, detached, and the head is
differentiated: no backward through the network, no parameter gradients, no hooks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.base.geometry import DELIVERED_SIZE
from lib.networks.split import evaluating


@dataclass(frozen=True)
class HeadPass:
    """What every gradient-weighted method starts from.

    features, gradient : (image, channel, h, w), of the targets' logits
    logits  : (image, class)
    targets : (image,) int64
    """

    features: Tensor
    gradient: Tensor
    logits: Tensor
    targets: Tensor


def head_pass(model: nn.Module, x: Tensor, targets: Tensor | None = None) -> HeadPass:
    """One forward, and the gradient of each image's target logit at the split.

    model   : with `features(x)` and `head(features)`, see `lib.networks.models.StudyModel`
    x       : (image, 3, side, side)
    targets : (image,) class indices; None takes the predicted classes
    Raises ValueError if there is not one target per image, or one is no class.

    Works whatever the parameters' requires_grad, leaves no gradient on them, and
    may be called under `no_grad`.
    """
    with evaluating(model):
        with torch.inference_mode():
            features = model.features(x)
        with torch.inference_mode(False), torch.enable_grad():
            # clone: features made under a caller's inference_mode cannot be recorded
            leaf = features.clone() if features.is_inference() else features.detach()
            leaf.requires_grad_()
            logits = model.head(leaf)
            if targets is None:
                targets = logits.detach().argmax(dim=1)
            targets = _checked_targets(targets, logits)
            chosen = logits.gather(1, targets[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, leaf)
    return HeadPass(leaf.detach(), gradient, logits.detach(), targets)


def _checked_targets(targets: Tensor, logits: Tensor) -> Tensor:
    images, classes = logits.shape
    targets = torch.as_tensor(targets)
    if targets.shape != (images,):
        raise ValueError(
            f"need one target class per image: {images} images, targets {tuple(targets.shape)}"
        )
    kind = targets.dtype
    if (
        kind.is_floating_point
        or kind == torch.bool
        or not ((targets >= 0) & (targets < classes)).all()
    ):
        raise ValueError(f"targets must be class indices 0 … {classes - 1}, got {targets.tolist()}")
    # Checked where they were, which for a shard's labels is not the device: no waiting for it.
    targets = targets.to(logits.device, torch.int64, non_blocking=True)
    return targets.clone() if targets.is_inference() else targets


def enlarge(small_maps: Tensor, size: int = DELIVERED_SIZE) -> Tensor:
    """(image, h, w) -> (image, size, size), bilinear, half-pixel centres."""
    # Contiguous first: on a channels-last view the interpolation takes another path
    # that splits the floor's plateau into several float values, and so its ties.
    maps = small_maps.unsqueeze(1).contiguous()
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False).squeeze(1)


def is_constant(maps: Tensor) -> Tensor:
    """(image,) bool: the map has one value only, so it orders nothing."""
    flat = maps.flatten(1)
    return flat.amax(dim=1) == flat.amin(dim=1)
