"""Reading published weights: containers without running their code, names into timm's.

Published checkpoints are pickles in the naming of their original repositories. They are
read with `weights_only=True`; what needs more is refused. timm's own filters rename them,
and every tensor must then fit: nothing missing, nothing left over.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from timm.models import convnext, fastvit, metaformer
from torch import Tensor, nn

from lib.networks.dcls import dcls_layers

# In this order where a file's container is not known: averaged weights are the evaluated ones.
_CONTAINERS = ("state_dict_ema", "model_ema", "model", "state_dict")
_FILTERS = {
    "convnext": convnext.checkpoint_filter_fn,
    "metaformer": metaformer.checkpoint_filter_fn,
    "fastvit": fastvit.checkpoint_filter_fn,
}


class MissingWeights(FileNotFoundError):
    """A weights file that is not there; the message says which and what to do."""


class WeightsError(ValueError):
    """A weights file that cannot be read safely, or does not fit the model."""


def read_weights(path: Path, container: str = "") -> dict[str, Tensor]:
    """The tensors of a safetensors file or a pickled checkpoint, in the file's own naming.

    container : the entry that holds them; "" looks for the usual ones
    Raises WeightsError for an unreadable file, and for one that would run code when read.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    # timm's trainer stores its options beside the weights: plain values in a Namespace.
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
            reason = f"it would run code ({wanted[1]})" if wanted else str(error).split("\n")[0]
            raise WeightsError(
                f"{path} is refused: {reason}. Only tensors and plain values are read; "
                "fetch the file anew, or save its state dict alone, as safetensors"
            ) from None
        except Exception as error:  # whatever torch's reader makes of a damaged file
            first = str(error).split("\n")[0]
            raise WeightsError(
                f"{path} is no readable checkpoint, or is cut short: {first}"
            ) from error
    state = _unpacked(stored, container, path)
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _unpacked(stored: object, container: str, path: Path) -> dict[str, Tensor]:
    for name in [container] if container else [*_CONTAINERS, ""]:
        found = stored.get(name) if name and isinstance(stored, Mapping) else stored
        tensors = found.values() if isinstance(found, Mapping) else [None]
        if found and all(isinstance(tensor, Tensor) for tensor in tensors):
            return dict(found)
    there = ", ".join(map(str, stored)) if isinstance(stored, Mapping) else type(stored).__name__
    wanted = f"no weights under {container!r}" if container else "no weights"
    raise WeightsError(f"{path} holds {wanted}; it holds: {there[:300]}")


def in_timms_names(
    state: Mapping[str, Tensor], network: nn.Module, family: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under timm's names, and the names that no filter knows.

    network : already converted to DCLS, if the weights are
    """
    rename = _FILTERS.get(family)
    if rename is None:
        return dict(state), []
    if family == "fastvit":  # its stages are told from all names together
        return rename(dict(state), network), []
    if any(name in network.state_dict() and name.startswith("stem") for name in state):
        return dict(state), []  # timm's own naming
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        try:
            renamed |= rename({name: tensor}, network)
        except KeyError:  # the filter looks up the model's tensor of that name
            unknown.append(name)
    return renamed, unknown


def load_weights(network: nn.Module, path: Path, family: str, container: str = "") -> None:
    """Load published weights, or ones in timm's naming, into the network, strictly.

    Raises MissingWeights, and WeightsError listing every missing, unexpected or misshapen
    tensor, or the layers of a stage whose copies of the shared positions differ.
    """
    if not path.is_file():
        raise MissingWeights(f"no weights at {path}")
    state, unknown = in_timms_names(read_weights(path, container), network, family)
    expected = network.state_dict()
    problems = [f"missing: {name}" for name in expected if name not in state]
    problems += [f"unexpected: {name}" for name in [*state, *unknown] if name not in expected]
    problems += [
        f"{name}: file has shape {tuple(state[name].shape)}, model {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if not problems:
        problems = _position_disagreements(network, state)
    if problems:
        shown = "\n  ".join(problems[:20])
        more = f"\n  … and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise WeightsError(f"{path} does not fit the model:\n  {shown}{more}")
    network.load_state_dict(state)


def _position_disagreements(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    first: dict[int, str] = {}
    problems = []
    for name, layer in dcls_layers(network).items():
        reference = first.setdefault(id(layer.P), name)
        if not torch.equal(state[f"{name}.P"], state[f"{reference}.P"]):
            problems.append(
                f"{name}.P differs from {reference}.P, but the stage shares its positions"
            )
    return problems
