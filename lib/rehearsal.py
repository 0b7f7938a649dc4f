"""Stand-ins for the published files: everything of the full study but its true numbers.

    python -m lib.rehearsal serve     makes them below data/rehearsal and serves them

Full-size networks with random weights, stored in the published containers under the
original repositories' names; shards of ClickMe's format. Nothing measured on them says
anything about any model.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib.backbones import BACKBONES
from lib.dcls import dcls_layers
from lib.models import build_network
from lib.sources import WEIGHTS, Source

Renaming = Callable[[str, Tensor], tuple[str, Tensor]]


def _renamed(name: str, rules: Mapping[str, str]) -> str:
    for pattern, replacement in rules.items():
        name = re.sub(pattern, replacement, name)
    return name


def _convnext(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Facebook's ConvNeXt."""
    return _renamed(name, {
        r"^stem\.": "downsample_layers.0.",
        r"^stages\.(\d+)\.downsample\.": r"downsample_layers.\1.",
        r"\.blocks\.": ".", "conv_dw": "dwconv", r"mlp\.fc": "pwconv",
        r"^head\.norm\.": "norm.", r"^head\.fc\.": "head.",
    }), tensor  # fmt: skip


def _metaformer(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Sail's MetaFormer: its pointwise layers are linear, channels last."""
    name = _renamed(name, {
        r"^stem\.norm": "downsample_layers.0.post_norm", r"^stem\.": "downsample_layers.0.",
        r"^stages\.(\d+)\.downsample\.norm": r"downsample_layers.\1.pre_norm",
        r"^stages\.(\d+)\.downsample\.": r"downsample_layers.\1.",
        r"\.blocks\.": ".", r"^head\.norm\.": "norm.", r"^head\.fc\.": "head.",
    })  # fmt: skip
    is_linear = tensor.ndim == 4 and tensor.shape[2:] == (1, 1)
    return name, tensor.flatten(1) if is_linear else tensor


# Stage: its place in Apple's flat list, in which downsamplings and, before the last stage,
# the positional encoding have places of their own.
_FASTVIT_PLACES = {"0": 0, "1": 2, "2": 4, "3": 7}


def _fastvit(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Apple's FastViT."""
    name = re.sub(r"^stages\.(\d)\.blocks\.", lambda m: f"network.{_FASTVIT_PLACES[m[1]]}.", name)
    name = re.sub(r"^stages\.(\d)\.downsample\.", lambda m: f"network.{2 * int(m[1]) - 1}.", name)
    return _renamed(name, {
        r"^stages\.3\.pos_emb\.pos_enc\.": "network.6.pe.",
        r"^stem\.": "patch_embed.", r"^final_conv\.": "conv_exp.", r"^head\.fc\.": "head.",
        "conv_kxk": "rbr_conv", "conv_scale": "rbr_scale",
        r"(rbr_\w+|\.mixer|\.norm|^patch_embed\.\d|^conv_exp|\.proj\.\d)\.identity": r"\1.rbr_skip",
        "large_conv": "lkb_origin", r"\.mlp\.": ".convffn.",
        r"se\.fc1": "se.reduce", r"se\.fc2": "se.expand",
        r"(layer_scale(?:_\d)?)\.gamma$": r"\1",
    }), tensor  # fmt: skip


_ORIGINAL: dict[str, Renaming] = {
    "resnet": lambda name, tensor: (name, tensor),
    "convnext": _convnext,
    "metaformer": _metaformer,
    "fastvit": _fastvit,
}


def in_original_names(network: nn.Module, family: str) -> dict[str, Tensor]:
    """A network's tensors as the original repository of its family names and shapes them."""
    return dict(_ORIGINAL[family](name, t) for name, t in network.state_dict().items())


def random_network(key: str, dcls: bool) -> nn.Module:
    """A full-size variant whose random positions are spread over their window."""
    network = build_network(BACKBONES[key], dcls)
    size = BACKBONES[key].dcls.size
    with torch.no_grad():
        for layer in dcls_layers(network).values():
            layer.P.uniform_(-(size // 2), size // 2)
    return network.eval()


def write_stand_in(network: nn.Module, family: str, source: Source, folder: Path) -> Path:
    """Store a network as the published file of that row is stored; returns where."""
    path = folder / source.place
    path.parent.mkdir(parents=True, exist_ok=True)
    if not source.container:
        tensors = {name: t.contiguous() for name, t in network.state_dict().items()}
        save_file(tensors, path)
        return path
    state = in_original_names(network, family)
    stored = {source.container: state}
    if source.container == "state_dict_ema":  # as timm's trainer leaves it
        options = argparse.Namespace(model="stand-in", lr=1e-3)
        stored |= {"epoch": 1, "arch": "stand-in", "args": options, "state_dict": {}, "version": 2}
    torch.save(stored, path)
    return path


def make_weights(folder: Path, seed: int = 0) -> list[Path]:
    """Stand-ins of every published weights file, one after the other."""
    paths = []
    for source in WEIGHTS.values():
        key, dcls = source.variant
        torch.manual_seed(seed)
        network = random_network(key, dcls)
        paths.append(write_stand_in(network, BACKBONES[key].family, source, folder))
    return paths
