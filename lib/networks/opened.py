"""Comparing weights files with their network, once per file and without building the network.

The findings are remembered by the file's hash in `data/output/weights.json`, which may be
deleted at any time.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import version
from pathlib import Path

import torch

from ..base.files import write_json
from ..base.fingerprint import code_of, fingerprint, sha256_of
from ..base.paths import OUTPUT
from ..base.stored_json import TEXT, DamagedJson, of_each, read_json
from .backbones import Backbone
from .building import build_network, weightless
from .checkpoints import MissingWeights, fitted
from .sources import AS_IS, Reading
from .weights_files import WeightsError

OPENED = OUTPUT / "weights.json"
_REMEMBERED = 1000  # files
_COMPARED_BY = (
    "networks.backbones", "networks.building", "networks.checkpoints",
    "networks.dcls", "networks.weights_files",
)  # fmt: skip
# For this process: a file that is refused is not read again for every result.
_refused: dict[str, str] = {}


def remarks_on(
    backbone: Backbone,
    dcls: bool,
    path: Path,
    reading: Reading = AS_IS,
    mini: bool = False,
    classes: int = 1000,
) -> list[str]:
    """Return what readers of results must know about a weights file, as `fitted` finds it.

    Raises MissingWeights, WeightsError.
    """
    if not path.is_file():
        raise MissingWeights(f"no weights at {path}: fetch the file, or name another")
    row = backbone.key, backbone.origin, dcls
    made = code_of(*_COMPARED_BY), version("timm"), version("torch")
    key = fingerprint({"facts": [sha256_of(path), row, reading, mini, classes, made]})
    if key in _refused:
        raise WeightsError(_refused[key])
    remembered = _read()
    if key not in remembered:
        # A user's own function may draw random numbers, which must not affect this study's.
        with torch.random.fork_rng(devices=[]), weightless(backbone):
            network = build_network(backbone, dcls, mini=mini, num_classes=classes)
        try:
            _, remarks = fitted(network, path, backbone.family, reading)
        except WeightsError as error:
            _refused[key] = str(error)
            raise
        remembered = _read() | {key: remarks}
        with contextlib.suppress(OSError):  # the cache only saves time: it must not stop the work
            write_json(OPENED, dict([*remembered.items()][-_REMEMBERED:]))
    return remembered[key]


def _read() -> dict[str, list[str]]:
    try:
        return read_json(OPENED, of_each({"type": "array", "items": TEXT}))
    except (OSError, DamagedJson):
        return {}  # missing or damaged: files are opened again
