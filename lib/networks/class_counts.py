"""A model with as many classes as its weights file has."""

from __future__ import annotations

from pathlib import Path

import torch

from .backbones import BACKBONES, Backbone
from .building import build_network, weightless
from .checkpoints import in_timms_names
from .loading import load_weights_file
from .models import StudyModel
from .sources import AS_IS, Reading
from .weights_files import WeightsError, read_weights

_USUAL = 1000  # ImageNet's


def load_with_its_classes(key: str, dcls: bool, path: Path, reading: Reading = AS_IS) -> StudyModel:
    """Load a full-size variant with a file's weights, whatever the file's number of classes.

    Raises what `load_weights_file` raises: MissingWeights, and WeightsError if the file fits
    no number of classes.
    """
    try:
        return load_weights_file(key, dcls, path, reading)
    except WeightsError:
        count = stored_classes(BACKBONES[key], dcls, path, reading)
        if count in (None, _USUAL):
            raise
    return load_weights_file(key, dcls, path, reading, classes=count)


def stored_classes(
    backbone: Backbone, dcls: bool, path: Path, reading: Reading = AS_IS
) -> int | None:
    """Return how many classes a file's weights have; None if that cannot be determined.

    The variant is built twice, for 1000 classes and for 1001. A tensor whose size differs
    depends on the number of classes, and the file's tensor of that name reveals it.
    """
    try:
        with torch.random.fork_rng(devices=[]), weightless(backbone):
            usual, one_more = (
                build_network(backbone, dcls, num_classes=count) for count in (_USUAL, _USUAL + 1)
            )
        stored, _ = in_timms_names(read_weights(path, reading.container), usual, backbone.family)
    except Exception:  # a user's function or timm's renaming may raise anything
        return None
    sizes, others = usual.state_dict(), one_more.state_dict()
    for name, tensor in stored.items():
        if name not in sizes or name not in others or tensor.ndim != sizes[name].ndim:
            continue
        for size, other, found in zip(
            sizes[name].shape, others[name].shape, tensor.shape, strict=True
        ):
            if other != size:
                count = _USUAL + (found - size) / (other - size)
                return int(count) if count > 1 and count == int(count) else None
    return None
