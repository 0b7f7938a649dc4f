"""What all pixel methods share: the network as published, its gradients, and their display.

All explain the target class and, except for guided backpropagation, its probability, as in the
COSE study. A map of gradients shows the sum of the colours' absolute values, limited to the 99th
percentile.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...networks.split import evaluating
from ...networks.taps import frozen
from ..methods import min_max

SEED = 20240803
CHUNK = 16  # images per backward pass, or per forward pass of LIME
_CUT = 0.99


class Probability(nn.Module):
    """(image, class) probabilities of a model."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).softmax(dim=1)


@contextmanager
def published(
    model: nn.Module, x: Tensor, exact: bool = False
) -> Iterator[tuple[nn.Module, Tensor]]:
    """A context with the network as published and the images, in which gradients are enabled; the
    network is unchanged afterwards.

    exact : use a copy of the network, and the images, in float64 if the device has it
    """
    network = getattr(model, "plain", None) or model
    with torch.inference_mode(False), torch.enable_grad():
        images = x.contiguous().detach().clone()  # FastViT's backward crashes on channels-last
        if exact and x.device.type != "mps":
            network, images = _in_float64(network), images.double()
        with evaluating(network), frozen(network):
            yield network, images


def _in_float64(network: nn.Module) -> nn.Module:
    if not hasattr(network, "with_network"):
        return copy.deepcopy(network).double()
    # The halves of a study's model do not hold its network as attributes.
    made = network.with_network(copy.deepcopy(network.network)).double()
    made.precision = "float32"  # this disables autocast
    return made


def shown(attribution: Tensor) -> Tensor:
    """(image, 3, side, side) -> (image, side, side) from 0 to 1, limited to the 99th percentile."""
    total = attribution.detach().abs().sum(dim=1)
    cut = total.flatten(1).quantile(_CUT, dim=1)[:, None, None]
    return min_max(total.minimum(cut)).float()


def gradient(network: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """The gradient of each image's target output: (image, 3, side, side)."""
    found = []
    for some, asked in zip(x.split(CHUNK), targets.split(CHUNK), strict=True):
        leaf = some.detach().clone().requires_grad_()
        chosen = network(leaf).gather(1, asked[:, None]).sum()
        found.append(torch.autograd.grad(chosen, leaf)[0])
    return torch.cat(found)
