"""Variants with their weights, from files, timm's hub or a random generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from ..base.files import write_atomically
from ..base.fingerprint import sha256_of
from ..base.paths import DEMO
from ..base.tables import unknown_name
from .backbones import BACKBONES, Backbone, variant_name
from .building import build_network, finished
from .checkpoints import MissingWeights, load_weights
from .models import Provenance, StudyModel
from .sources import AS_IS, WEIGHTS_SUFFIXES, Reading


def save_weights(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a state dict as safetensors, in float16 to keep files small.

    Shared positions are written once per layer, as in the published checkpoints.
    """
    tensors = {}
    for name, tensor in network.state_dict().items():
        kind = torch.float16 if tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.to(kind).clone(memory_format=torch.contiguous_format)
    with write_atomically(path) as partial:
        save_file(tensors, partial, metadata=dict(metadata))


def demo_weights_path(key: str, dcls: bool) -> Path:
    return DEMO / "checkpoints" / f"{variant_name(key, dcls)}.safetensors"


def _demo_model(backbone: Backbone, dcls: bool, reading: Reading) -> StudyModel:
    path = demo_weights_path(backbone.key, dcls)
    if not path.is_file():
        raise MissingWeights(
            f"the embedded example's weights {path} are missing: "
            "restore them with `git checkout -- data/demo` or make them with `make demo-data`"
        )
    num_classes = len((DEMO / "classes.txt").read_text(encoding="utf-8").splitlines())
    model = load_weights_file(backbone.key, dcls, path, reading, mini=True, classes=num_classes)
    note = "miniature trained on the embedded example's procedural images"
    model.provenance = replace(model.provenance, note=note)
    return model


def _random_network(backbone: Backbone, dcls: bool) -> tuple[nn.Module, Provenance]:
    name = variant_name(backbone.key, dcls)
    note = "random weights: for checks of software, never for results"
    return build_network(backbone, dcls), Provenance(name, "random", "full", note=note)


def _timm_network(backbone: Backbone, dcls: bool) -> tuple[nn.Module, Provenance]:
    if dcls:
        raise ValueError(
            f"timm publishes no DCLS weights for {backbone.key!r}; weights='timm' is for baselines"
        )
    network = finished(timm.create_model(backbone.timm_tag, pretrained=True), backbone, dcls)
    return network, Provenance(backbone.key, backbone.timm_tag, "full")


def load_model(
    key: str,
    dcls: bool = False,
    weights: str | Path = "random",
    container: str = "",
    accept: Sequence[str] = (),
) -> StudyModel:
    """Return one of the sixteen variants, in eval mode.

    key     : a row of `BACKBONES`
    dcls    : whether its convolutions are replaced by DCLS
    weights : "demo", the embedded example's trained miniature; "random", full
              size and untrained; "timm", the baseline's published weights from
              timm's hub; or the path of a weights file of the full-size variant: safetensors,
              or a published checkpoint in its original naming
    container : the entry of a checkpoint that contains the weights; "" to find it
    accept  : names or patterns of tensors that the file may lack, or have beyond the network's;
              the model's provenance lists them

    Raises UnknownName for an unknown key or word, MissingWeights, and ValueError for a file
    that does not fit.
    """
    backbone = BACKBONES[key]
    reading = Reading(container, accepted=tuple(accept))
    if isinstance(weights, Path) or str(weights).endswith(WEIGHTS_SUFFIXES):
        return load_weights_file(key, dcls, Path(weights), reading)
    if weights == "demo":
        return _demo_model(backbone, dcls, reading)
    made = {"random": _random_network, "timm": _timm_network}
    if weights not in made:
        raise unknown_name("weights", weights, ["demo", *made])
    if accept:
        raise ValueError(f"weights={weights!r} reads no file: omit accept")
    network, provenance = made[weights](backbone, dcls)
    return StudyModel(network, backbone, provenance).eval()


def load_weights_file(
    key: str,
    dcls: bool,
    path: Path,
    reading: Reading = AS_IS,
    mini: bool = False,
    classes: int = 1000,
) -> StudyModel:
    """Return a variant with a file's weights, as `load_model`; mini : whether of a miniature."""
    backbone = BACKBONES[key]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # tensors that a file may lack are the same in every run
        network = build_network(backbone, dcls, mini=mini, num_classes=classes)
    remarks = load_weights(network, path, backbone.family, reading)
    size = "mini" if mini else "full"
    provenance = Provenance(
        variant_name(key, dcls), "file", size, str(path), sha256_of(path), remarks=tuple(remarks)
    )
    return StudyModel(network, backbone, provenance).eval()
