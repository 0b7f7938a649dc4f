"""Guided backpropagation: a gradient that rectifiers block where it is negative."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..forward import HeadPass
from .published import gradient, published, shown


def guided_gradient(model: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """Return the guided gradient of each image's class logit at the image: (image, 3, side, side).

    Every `nn.ReLU` passes only positive gradients, and only at positive inputs.

    model   : images to logits; it is in eval mode meanwhile
    x       : (image, 3, side, side), normalised for the network
    targets : (image,) class indices, one per image
    Other rectifiers (GELU, ReLU6, `torch.relu`) pass gradients as usual. Without any `nn.ReLU`
    this is the plain gradient.

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
    """The guided gradient as a map, displayed like those of the other pixel methods."""
    return shown(guided_gradient(model, x, passed.targets))


@contextmanager
def _guided(network: nn.Module) -> Iterator[None]:
    """A context that stops negative gradients at the output of every `nn.ReLU`; no module is
    replaced."""
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
    # A hook on the tensor, because a module's own backward hooks forbid in-place operations.
    if made.requires_grad:
        made.register_hook(lambda found: found.clamp(min=0))
