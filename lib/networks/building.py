"""A variant's network with new random weights, and its number of parameters.

Building a network to count its parameters takes a while, so the numbers are remembered in
`data/output/parameters.json`, which may be deleted at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import timm
import torch
from timm.models import metaformer
from torch import nn
from torch.overrides import TorchFunctionMode

from ..base.files import write_json
from ..base.fingerprint import code_of, fingerprint
from ..base.paths import OUTPUT
from ..base.stored_json import DamagedJson, of_each, read_json
from .backbones import Backbone
from .dcls import convert_to_dcls

COUNTS = OUTPUT / "parameters.json"
_REMEMBERED = 1000  # networks
_COUNTED_BY = "networks.building", "networks.dcls"


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


class _Undrawn(TorchFunctionMode):
    """Leave tensors on the meta device unfilled: torch would compute shapes for minutes."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in _FILLING and args[0].is_meta:
            return args[0]
        return function(*args, **(kwargs or {}))


_FILLING = {
    getattr(torch.Tensor, name)
    for name in ("uniform_", "normal_", "erfinv_", "clamp_", "mul_", "add_", "fill_", "zero_")
}


@contextlib.contextmanager
def weightless(backbone: Backbone) -> Iterator[None]:
    """Build networks here if their parameters are only counted. A user's own function builds a
    real one, because it may need values."""
    if backbone.build is not None:
        with torch.device("cpu"):
            yield
    else:
        with torch.device("meta"), _Undrawn():
            yield


@cache
def parameter_counts(backbone: Backbone, *, mini: bool, classes: int) -> dict[bool, int]:
    """Return {dcls: learnable parameters}, shared positions counted once, without any weights."""
    if backbone.build is not None:  # a user's own function may change without its row
        return _counted(backbone, mini, classes)
    made = code_of(*_COUNTED_BY), version("timm"), version("dcls")
    key = fingerprint({"facts": [backbone, mini, classes, made]})
    remembered = _remembered()
    if set(remembered.get(key, ())) != {str(dcls) for dcls in backbone.forms}:
        counts = {str(dcls): n for dcls, n in _counted(backbone, mini, classes).items()}
        remembered = _remembered() | {key: counts}
        with contextlib.suppress(OSError):  # the cache only saves time
            write_json(COUNTS, dict([*remembered.items()][-_REMEMBERED:]))
    return {dcls: remembered[key][str(dcls)] for dcls in backbone.forms}


def _counted(backbone: Backbone, mini: bool, classes: int) -> dict[bool, int]:
    with weightless(backbone):
        return {
            dcls: count_parameters(build_network(backbone, dcls, mini=mini, num_classes=classes))
            for dcls in backbone.forms
        }


def _remembered() -> dict[str, dict[str, int]]:
    try:
        return read_json(COUNTS, of_each(of_each({"type": "integer", "minimum": 0})))
    except (OSError, DamagedJson):
        return {}  # none yet, or damaged: counted anew
