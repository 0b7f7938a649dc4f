"""Import of modules that the published code of L-CAM trained, from its snapshots.

A snapshot is written by `torch.save` and holds `epoch`, `arch` (always "resnet"),
`global_counter`, `state_dict` and `optimizer`. The state is that of the whole network, with
torchvision's names and the module's convolution as `attnM.op`. It is read without running code, and
accepted only for exactly the weights that it was trained beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ...base.fingerprint import sha256_of
from ...base.paths import shown
from ...base.words import printable, some_of
from ...maps.learned.attention import ATTENTIONS, AttentionError, LCam, save_attention
from ...maps.learned.training import new_attention
from ...maps.methods import METHODS
from ...networks.backbones import Backbone
from ...networks.checkpoints import MissingWeights
from ...networks.weights_files import read_weights
from ...study.study import Study

_MODULE = "attnM.op."
# VGG's last layers, which are linear in torchvision and convolutions in timm.
_VGG = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2",
        "classifier.6": "head.fc"}  # fmt: skip
# The rounding error of a float16 weight: relative, and absolute for the smallest weights.
_ROUNDED = 2.0**-11, 2.0**-25


def import_snapshot(study: Study, backbone: Backbone, key: str, file: Path) -> str:
    """Write a snapshot's module to the place where a study reads it; return a report in words.

    backbone : the published code uses its form without DCLS
    key      : key of an L-CAM row, which the file does not contain
    Raises WeightsError for a file that cannot be read safely; AttentionError, a kind of it, for a
    file without a module or with another network's, or if another module is in the way;
    MissingWeights if the network's own weights do not exist.
    """
    row = ATTENTIONS[key]
    if row.module is not LCam:
        raise AttentionError(f"{METHODS[key].label} is not an L-CAM: only L-CAMs can be imported")
    weights = study.inputs.weights_path(backbone.key, False)
    if not backbone.untrained and not weights.is_file():
        raise MissingWeights(f"no weights at {shown(weights)}: fetch the file, or name another")
    if not file.is_file():
        raise AttentionError(f"the file {file} does not exist and cannot be imported")
    save_to = study.inputs.attention_path(backbone.key, False, key)
    facts = {
        "attention": key, "variant": study.inputs.weights_name(backbone.key, False),
        "weights": study.inputs.weights_sha256(backbone.key, False),
        "imported": f"imported from {printable(file.name)}, sha256 {sha256_of(file)}",
    }  # fmt: skip
    if save_to.exists():
        if _facts_of(save_to) == facts:
            return f"{shown(save_to)}: already imported"
        raise AttentionError(
            f"{shown(save_to)} already holds another module: move or delete it first"
        )
    state = read_weights(file, "state_dict")
    own = {name.removeprefix(_MODULE): state.pop(name)
           for name in list(state) if name.startswith(_MODULE)}  # fmt: skip
    model = study.networks.load_model(backbone.key, False)
    fitting = new_attention(row, model, backbone.preprocessing.crop, seed=0)
    module = _filled(fitting.cpu(), own, file)
    remark = _compared(state, model.network.state_dict(), file, weights)
    save_attention(save_to, key, module, facts)
    return f"{shown(save_to)}: {facts['imported']}{remark}"


def _facts_of(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as stored:
            return stored.metadata() or {}
    except Exception:  # damaged or missing: it is another file in any case
        return {}


def _filled(module: nn.Module, own: Mapping[str, Tensor], file: Path) -> nn.Module:
    """A module with the snapshot's convolution. Raises AttentionError."""
    wanted = {name.removeprefix("maps."): t for name, t in module.state_dict().items()}
    if own.keys() != wanted.keys():
        there = some_of([printable(f"{_MODULE}{name}") for name in own]) if own else "neither"
        raise AttentionError(
            f"{file} is not a snapshot of L-CAM: it must hold "
            f"{' and '.join(_MODULE + n for n in wanted)}, and holds {there}"
        )
    for name, tensor in wanted.items():
        found = own[name]
        if found.shape != tensor.shape:
            raise AttentionError(
                f"the module of {file} does not fit this network's layer: {_MODULE}{name} is "
                f"{tuple(found.shape)}, but should be {tuple(tensor.shape)}"
            )
        if not found.is_floating_point() or not found.isfinite().all():
            raise AttentionError(
                f"{_MODULE}{name} of {file} does not hold finite numbers: the training failed, or "
                "the file is damaged"
            )
    module.load_state_dict({f"maps.{name}": tensor.float() for name, tensor in own.items()})
    return module


def _compared(
    state: Mapping[str, Tensor], network: Mapping[str, Tensor], file: Path, weights: Path
) -> str:
    """Check that a snapshot's network is the study's. Returns "", or a remark if its weights were
    rounded. Raises AttentionError if it is another network."""
    counted = {name: t for name, t in network.items() if t.is_floating_point()}
    found = _in_timms_names(state, counted)
    lacking = [name for name in counted if name not in found]
    if lacking:
        raise AttentionError(
            f"{file} lacks {len(lacking)} of the {len(counted)} tensors of this network "
            f"({some_of(lacking)}): it is unknown whether its module fits"
        )
    other, rounded = {}, False
    for name, tensor in counted.items():
        here, there = tensor.cpu().double(), found[name].double()
        if here.shape != there.shape:
            other[name] = f"of shape {tuple(there.shape)}, not {tuple(here.shape)}"
        elif not torch.equal(here, there):
            share, least = _ROUNDED
            if torch.allclose(here, there, rtol=share, atol=least):
                rounded = True
            else:
                other[name] = f"by up to {float((here - there).abs().max()):.2g}"
    if other:
        name, how = next(iter(other.items()))
        raise AttentionError(
            f"{file} was trained beside other weights than those of {shown(weights)}: {len(other)} "
            f"of {len(counted)} tensors differ, such as {name} {how}. A module fits only its own "
            "network. The file contains that network: docs/lcam.md explains how to study it"
        )
    return "; the network's weights are rounded from the file's" if rounded else ""


def _in_timms_names(
    state: Mapping[str, Tensor], network: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Rename torchvision's tensors to timm's; only the names of VGG's last layers differ."""
    found = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        renamed = f"{_VGG[layer]}.{kind}" if layer in _VGG and name not in network else name
        if renamed in network and renamed != name and tensor.numel() == network[renamed].numel():
            tensor = tensor.reshape(network[renamed].shape)
        found[renamed] = tensor
    return found
