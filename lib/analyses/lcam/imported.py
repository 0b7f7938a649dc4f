"""Modules that the published code of L-CAM trained: out of its snapshots, into a study's files.

A snapshot is what `torch.save` makes of `epoch`, `arch` (always "resnet"), `global_counter`,
`state_dict` and `optimizer`; the state is of the whole network, in torchvision's names, with the
module's convolution as `attnM.op`. It is read without running its code, and taken only for the
very weights that it was trained beside.
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
# VGG's last layers, which torchvision has as linear ones and timm as convolutions.
_VGG = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2",
        "classifier.6": "head.fc"}  # fmt: skip
# By how much float16 rounds a weight: relative, and that of the least ones.
_ROUNDED = 2.0**-11, 2.0**-25


def import_snapshot(study: Study, backbone: Backbone, key: str, file: Path) -> str:
    """Write a snapshot's module where a study looks for it; returns what there is to say.

    backbone : its form without DCLS is what the published code knows
    key      : of an L-CAM's row; the file does not tell which of them it is
    Raises WeightsError for a file that cannot be read safely, AttentionError (one of them) for
    one without a module, with another network's, or where another module is in the way;
    MissingWeights where the network's own weights are not there.
    """
    row = ATTENTIONS[key]
    if row.module is not LCam:
        raise AttentionError(f"{METHODS[key].label} is no L-CAM: only these are imported")
    weights = study.inputs.weights_path(backbone.key, False)
    if not backbone.untrained and not weights.is_file():
        raise MissingWeights(f"no weights at {shown(weights)}")
    if not file.is_file():
        raise AttentionError(f"there is no file {file} to import")
    save_to = study.inputs.attention_path(backbone.key, False, key)
    facts = {
        "attention": key, "variant": study.inputs.weights_name(backbone.key, False),
        "weights": study.inputs.weights_sha256(backbone.key, False),
        "imported": f"imported from {printable(file.name)}, sha256 {sha256_of(file)}",
    }  # fmt: skip
    if save_to.exists():
        if _facts_of(save_to) == facts:
            return f"{shown(save_to)}: imported before"
        raise AttentionError(
            f"{shown(save_to)} is another module already: move it away, or delete it, first"
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
    except Exception:  # damaged, or no such file at all: another one in any case
        return {}


def _filled(module: nn.Module, own: Mapping[str, Tensor], file: Path) -> nn.Module:
    """A module with the snapshot's convolution. Raises AttentionError."""
    wanted = {name.removeprefix("maps."): t for name, t in module.state_dict().items()}
    if own.keys() != wanted.keys():
        there = some_of([printable(f"{_MODULE}{name}") for name in own]) if own else "neither"
        raise AttentionError(
            f"{file} is no snapshot of L-CAM: of {' and '.join(_MODULE + n for n in wanted)} it "
            f"holds {there}"
        )
    for name, tensor in wanted.items():
        found = own[name]
        if found.shape != tensor.shape:
            raise AttentionError(
                f"the module of {file} does not fit this network's layer: {_MODULE}{name} is "
                f"{tuple(found.shape)}, and should be {tuple(tensor.shape)}"
            )
        if not found.is_floating_point() or not found.isfinite().all():
            raise AttentionError(
                f"{_MODULE}{name} of {file} holds numbers that are not finite, or none: the "
                "training failed, or the file is damaged"
            )
    module.load_state_dict({f"maps.{name}": tensor.float() for name, tensor in own.items()})
    return module


def _compared(
    state: Mapping[str, Tensor], network: Mapping[str, Tensor], file: Path, weights: Path
) -> str:
    """What there is to say where a snapshot's network is the study's: nothing, unless its weights
    were rounded. Raises AttentionError where it is another."""
    counted = {name: t for name, t in network.items() if t.is_floating_point()}
    found = _in_timms_names(state, counted)
    lacking = [name for name in counted if name not in found]
    if lacking:
        raise AttentionError(
            f"{file} does not hold this network beside the module, of which {len(lacking)} of "
            f"{len(counted)} tensors are missing ({some_of(lacking)}): whether the module fits "
            "cannot be told"
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
            f"of {len(counted)} tensors differ, such as {name} {how}. A module fits its own "
            "network only. That network is in the file: docs/lcam.md says how to study it"
        )
    return "; the network's weights are the file's, rounded" if rounded else ""


def _in_timms_names(
    state: Mapping[str, Tensor], network: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """torchvision's names of ResNets are timm's; of VGG's last layers they are not."""
    found = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        renamed = f"{_VGG[layer]}.{kind}" if layer in _VGG and name not in network else name
        if renamed in network and renamed != name and tensor.numel() == network[renamed].numel():
            tensor = tensor.reshape(network[renamed].shape)
        found[renamed] = tensor
    return found
