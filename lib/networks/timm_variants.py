"""The DCLS variants in timm's registry: `timm.create_model("convnext_tiny_dcls")`.

Importing this module registers one entry per backbone of the study.
"""

from __future__ import annotations

from functools import partial

from timm.models import register_model
from torch import nn

from .backbones import THE_EIGHT, Backbone, variant_name
from .building import build_network


def _create(backbone: Backbone, pretrained: bool = False, **kwargs) -> nn.Module:
    if pretrained:
        raise ValueError(
            f"no pretrained weights of {backbone.timm_name}_dcls are on timm's hub; "
            "pass pretrained=False and load a checkpoint"
        )
    # timm passes on what it knows about caches and configurations of its own models.
    known = {k: v for k, v in kwargs.items() if not k.startswith(("pretrained", "cache"))}
    return build_network(backbone, True, **known)


for _backbone in THE_EIGHT:
    _entry = partial(_create, _backbone)
    _entry.__name__ = variant_name(_backbone.timm_name, True)  # type: ignore[attr-defined]
    _entry.__module__ = __name__
    globals()[_entry.__name__] = register_model(_entry)  # timm looks for it in its module
