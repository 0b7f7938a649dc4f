"""Rows tested before they are added: built once, run on two images, tapped at their layer.

The results for timm's architectures are remembered in `data/output/layers.json`, which may be
deleted at any time; other processes and later runs then build nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version

import torch

from ..base.files import write_json
from ..base.fingerprint import code_of, fingerprint
from ..base.paths import OUTPUT
from ..base.stored_json import TEXT, DamagedJson, mapping, of_each, read_json
from .backbones import Backbone
from .building import build_network, count_parameters
from .checkpoints import OF_TIMM
from .grids import NoMaps
from .layers import tapped
from .models import Provenance, StudyModel

LAYERS = OUTPUT / "layers.json"
_END = "the end of timm's forward_features"
_REMEMBERED = 2000  # architectures
_FOUND_BY = (
    "networks.building", "networks.checked", "networks.grids", "networks.layers",
    "networks.models", "networks.split", "networks.taps",
)  # fmt: skip
_NUMBER = {"type": "integer", "minimum": 1}
_FOUND = mapping(
    {"layer": TEXT, "around": {"type": "boolean"}, "channels_last": {"type": "boolean"}}
    | dict.fromkeys(("channels", "height", "width", "parameters"), _NUMBER)
) | {"additionalProperties": False}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Where a row's heatmaps are made.

    layer, around, channels_last : as in `Backbone`
    channels, height, width : the layer's feature maps
    parameters : the network's number of learnable parameters
    """

    layer: str
    around: bool
    channels_last: bool
    channels: int
    height: int
    width: int
    parameters: int

    @property
    def in_words(self) -> str:
        name = self.layer or _END
        how = ", watched" if self.around else ""
        return f"{name}, {self.channels} maps of {self.height} x {self.width} cells{how}"


def found_of(row: Backbone, classes: int = 1000) -> Found:
    """Return where a row's heatmaps are made, remembered or tested. Raises ValueError."""
    if row.reshape is not None or (row.build is not None and not row.named):
        return _tried(row, classes)  # a user's own function, which may change
    key = _key(row, classes)
    known = _read()
    if key not in known:
        found = _tried(row, classes)
        with contextlib.suppress(OSError):  # the cache only saves time: it must not stop the work
            entries = [*(_read() | {key: asdict(found)}).items()]
            write_json(LAYERS, dict(entries[-_REMEMBERED:]))
        return found
    return Found(**known[key])


def where(row: Backbone) -> str:
    """Return in words where the heatmaps of a row of the table are made."""
    if row.named and row.build is None and row.family.startswith(OF_TIMM):
        return found_of(replace(row, layer="", around=False, channels_last=False)).in_words
    return (row.layer or _END) + ", watched" * row.around


def checked(row: Backbone, classes: int = 1000) -> Backbone:
    """Return the row tapped at its layer (`lib.networks.layers.tapped`), after a forward pass.

    classes : the number of classes for which the network is built

    Raises ValueError, which says what does not fit.
    """
    return at_its_layer(row, found_of(row, classes))


def at_its_layer(row: Backbone, found: Found) -> Backbone:
    """Return the row with the layer that was found for it."""
    return replace(row, layer=found.layer, around=found.around, channels_last=found.channels_last)


def _key(row: Backbone, classes: int) -> str:
    made = code_of(*_FOUND_BY), version("timm"), version("torch")
    geometry = row.preprocessing.crop, row.preprocessing.resize
    facts = row.timm_name, dict(row.arguments), row.layer, geometry, classes, made
    return fingerprint({"facts": [*facts, row.origin if row.build else ""]})


def _tried(row: Backbone, classes: int) -> Found:
    geometry, key = row.preprocessing, row.named or row.key
    if not 0 < geometry.crop <= geometry.resize:
        raise ValueError(
            f"{key}: a crop of {geometry.crop} pixels does not fit into {geometry.resize}"
        )
    side = geometry.crop
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(row, False, num_classes=classes).eval()
    device = next(iter(network.parameters()), torch.empty(0)).device
    images = torch.zeros(2, 3, side, side, device=device)
    try:
        row = tapped(row, network, images)
        model = StudyModel(network, row, Provenance(key, "random", "full"))
        with torch.inference_mode():
            features = model.features(images)
            logits = model(images) if row.around else model.head(features.clone())
    except NoMaps as error:
        raise ValueError(f"{key}: {error}") from error
    except Exception as error:  # a user's own forward may raise anything
        raise ValueError(
            f"{key}: a forward pass of two images, (2, 3, {side}, {side}), fails: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not (features.isfinite().all() and logits.isfinite().all()):
        raise ValueError(f"{key}: the network's features or logits of a grey image are not finite")
    if logits.ndim != 2 or len(logits) != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"{key}: the network returns {tuple(logits.shape)} for two images, but must return "
            "logits (image, class) of two or more classes"
        )
    return Found(
        row.layer, row.around, row.channels_last, *features.shape[1:], count_parameters(network)
    )


def _read() -> dict[str, dict]:
    try:
        return read_json(LAYERS, of_each(_FOUND))
    except (OSError, DamagedJson):
        return {}  # missing or damaged: layers are searched again
