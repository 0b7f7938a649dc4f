"""A variant's network with new random weights, and its number of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import timm
import torch
from timm.models import metaformer
from torch import nn

from .backbones import Backbone
from .dcls import convert_to_dcls


def count_parameters(model: nn.Module) -> int:
    """Return the number of learnable parameters, with each shared tensor counted once."""
    return sum(p.numel() for p in model.parameters())


def _metaformer_mini(mini: Mapping[str, Any], num_classes: int) -> nn.Module:
    # timm's entry points fix depth and width of MetaFormers; only the class accepts them.
    layers = {k: [getattr(metaformer, n) for n in mini[k]] for k in ("token_mixers", "norm_layers")}
    return metaformer.MetaFormer(**{**mini, **layers}, num_classes=num_classes)


def build_network(
    backbone: Backbone, dcls: bool, *, mini: bool = False, num_classes: int = 1000, **options
) -> nn.Module:
    """Build a variant's network with random weights from torch's global generator.

    options : passed on to timm's model
    """
    if backbone.build is not None:
        network = backbone.build(num_classes)
    elif not mini or backbone.origin:
        network = timm.create_model(
            backbone.timm_name, num_classes=num_classes, **backbone.arguments, **options
        )
    elif backbone.family == "metaformer":
        network = _metaformer_mini(backbone.mini, num_classes)
    else:
        network = timm.create_model(
            backbone.timm_name, pretrained=False, num_classes=num_classes, **backbone.mini
        )
    return finished(network, backbone, dcls)


def finished(network: nn.Module, backbone: Backbone, dcls: bool) -> nn.Module:
    """Adapt timm's architecture where the original differs, and convert it."""
    if dcls and backbone.dcls is None:
        raise ValueError(f"{backbone.label} has no DCLS form: use it without DCLS")
    if backbone.head_norm_eps is not None:
        network.head.fc.norm.eps = backbone.head_norm_eps
    return convert_to_dcls(network, backbone.dcls) if dcls else network


def draw_zeros(network: nn.Module) -> nn.Module:
    """Draw weights in place for layers that start with only zeros, and return the network.

    All layers then affect the answer; the weights are the same every time.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return network


def weightless(backbone: Backbone) -> torch.device:
    """Return where to build a network whose parameters are only counted. A user's own function
    builds a real one, because it may need values."""
    return torch.device("cpu" if backbone.build else "meta")


@cache
def parameter_counts(backbone: Backbone, *, mini: bool, classes: int) -> dict[bool, int]:
    """Return {dcls: learnable parameters}, shared positions counted once, without any weights."""
    with weightless(backbone):
        return {
            dcls: count_parameters(build_network(backbone, dcls, mini=mini, num_classes=classes))
            for dcls in backbone.forms
        }
