"""Effective receptive fields: which input pixels a network's central feature hears.

Source: Luo et al., "Understanding the effective receptive field in deep
convolutional neural networks", NeurIPS 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.maps.forward import evaluating
from lib.networks.models import StudyModel


def effective_receptive_field(model: StudyModel, x: Tensor, batch_size: int = 8) -> Tensor:
    """Mean absolute gradient of the central feature with respect to the input.

    The central cell of the study's layer, summed over channels, is differentiated
    for every picture; absolute gradients are averaged over pictures and colours.

    x : (image, 3, side, side), differentiated `batch_size` at a time: a full-size network's
        activations are kept meanwhile. Returns (side, side), its largest value 1.
    Leaves no gradient on the parameters.
    """
    total = torch.zeros(x.shape[-2:], device=x.device)
    with evaluating(model), torch.enable_grad():
        for part in x.detach().split(batch_size):
            leaf = part.clone().requires_grad_()
            features = model.features(leaf)
            h, w = features.shape[-2:]
            (gradient,) = torch.autograd.grad(features[:, :, h // 2, w // 2].sum(), leaf)
            total += gradient.abs().sum(dim=(0, 1))
    return total / total.max()
