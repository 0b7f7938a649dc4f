"""The DCLS variants in timm's registry: `timm.create_model("convnext_tiny_dcls")`.

Importing this module registers one entry per row of `BACKBONES`.
"""

from __future__ import annotations

from functools import partial

import timm
from timm.models import register_model
from torch import nn

from lib.backbones import BACKBONES, Backbone, variant_name
from lib.dcls import convert_to_dcls


def as_original(network: nn.Module, backbone: Backbone) -> nn.Module:
    """Set what timm's architecture does otherwise than the original's code."""
    if backbone.head_norm_eps is not None:
        network.head.fc.norm.eps = backbone.head_norm_eps
    return network


def _create(backbone: Backbone, pretrained: bool = False, **kwargs) -> nn.Module:
    if pretrained:
        raise ValueError(
            f"no pretrained weights of {backbone.timm_name}_dcls are on timm's hub; "
            "pass pretrained=False and load a checkpoint"
        )
    network = timm.create_model(backbone.timm_name, pretrained=False, **kwargs)
    return convert_to_dcls(as_original(network, backbone), backbone.dcls)


for _backbone in BACKBONES.values():
    _entry = partial(_create, _backbone)
    _entry.__name__ = variant_name(_backbone.timm_name, True)  # type: ignore[attr-defined]
    _entry.__module__ = __name__
    globals()[_entry.__name__] = register_model(_entry)  # timm looks for it in its module
