"""Effective receptive fields: which input pixels a network's central feature hears.

Source: Luo et al., "Understanding the effective receptive field in deep
convolutional neural networks", NeurIPS 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.cam import evaluating
from lib.models import StudyModel


def effective_receptive_field(model: StudyModel, x: Tensor) -> Tensor:
    """Mean absolute gradient of the central feature with respect to the input.

    The central cell of the study's layer, summed over channels, is differentiated
    for every picture; absolute gradients are averaged over pictures and colours.

    x : (image, 3, side, side). Returns (side, side), its largest value 1.
    Leaves no gradient on the parameters.
    """
    with evaluating(model), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        features = model.features(leaf)
        h, w = features.shape[-2:]
        (gradient,) = torch.autograd.grad(features[:, :, h // 2, w // 2].sum(), leaf)
    field = gradient.abs().mean(dim=(0, 1))
    return field / field.max()
