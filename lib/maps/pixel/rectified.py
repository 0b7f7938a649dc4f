"""Guided backpropagation: a gradient that no rectifier lets through where it is negative."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..forward import HeadPass
from .published import gradient, published, shown


def guided_gradient(model: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """(image, 3, side, side) gradient of each image's own class's logit at the image, where
    every `nn.ReLU` passes positive gradients only, and those at positive inputs only.

    model   : images to logits; it is put in eval mode for the while
    x       : (image, 3, side, side), as the network takes it
    targets : (image,) class indices, one per image
    Rectifiers that are no `nn.ReLU` (GELU, ReLU6, `torch.relu`) pass what they always pass:
    without any `nn.ReLU` this is the plain gradient.

    Source: Springenberg et al., ICLR workshops 2015
    """
    targets = torch.as_tensor(targets, device=x.device)
    if targets.shape != (len(x),):
        raise ValueError(
            f"need one class per image: {len(x)} images, targets {tuple(targets.shape)}"
        )
    with published(model, x) as (network, images), _guided(network):
        return gradient(network, images, targets)


def guided_backprop(model: nn.Module, x: Tensor, passed: HeadPass) -> Tensor:
    """That gradient as a map, shown as the other explanations of pixels are."""
    return shown(guided_gradient(model, x, passed.targets))


@contextmanager
def _guided(network: nn.Module) -> Iterator[None]:
    """Negative gradients end at what an `nn.ReLU` gives out; no module is replaced."""
    hooks = [
        module.register_forward_hook(_stop_negative)
        for module in network.modules()
        if isinstance(module, nn.ReLU)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _stop_negative(_module: nn.Module, _given: object, made: Tensor) -> None:
    # On the tensor, not the module: a module's own backward hooks forbid work in place.
    if made.requires_grad:
        made.register_hook(lambda found: found.clamp(min=0))
