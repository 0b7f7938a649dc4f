"""Rows tried before they are added: built once, sent two images through, tapped at their layer.

What was found of an architecture of timm's is remembered in `data/output/layers.json`, which may be
deleted at any time; another process, and another run, then build nothing.
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
    """Where a row's maps are made.

    layer, around, channels_last : as in `Backbone`
    channels, height, width : of the layer's maps
    parameters : learnable ones of the network
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
    """Where a row's maps are made: remembered, or tried. Raises ValueError as `checked`."""
    if row.reshape is not None or (row.build is not None and not row.named):
        return _tried(row, classes)  # a reader's own function, which may be another tomorrow
    key = _key(row, classes)
    known = _read()
    if key not in known:
        found = _tried(row, classes)
        with contextlib.suppress(OSError):  # what is only quicker with it must not fail without it
            entries = [*(_read() | {key: asdict(found)}).items()]
            write_json(LAYERS, dict(entries[-_REMEMBERED:]))
        return found
    return Found(**known[key])


def where(row: Backbone) -> str:
    """Where the maps of a row of the table are made, in words."""
    if row.named and row.build is None and row.family.startswith(OF_TIMM):
        return found_of(replace(row, layer="", around=False, channels_last=False)).in_words
    return (row.layer or _END) + ", watched" * row.around


def checked(row: Backbone, classes: int = 1000) -> Backbone:
    """The row tapped where its maps are made (`lib.networks.layers.tapped`), after a forward.

    classes : that the network is built for
    Raises ValueError saying what does not fit.
    """
    return at_its_layer(row, found_of(row, classes))


def at_its_layer(row: Backbone, found: Found) -> Backbone:
    """The row with what was found of it."""
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
    except Exception as error:  # whatever the reader's own forward raises
        raise ValueError(
            f"{key}: a forward of two images, (2, 3, {side}, {side}), fails: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not (features.isfinite().all() and logits.isfinite().all()):
        raise ValueError(f"{key}: the network's features or logits of a grey image are not finite")
    if logits.ndim != 2 or len(logits) != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"{key}: the network gives {tuple(logits.shape)} for two images, and must give "
            "logits (image, class) of two classes or more"
        )
    return Found(
        row.layer, row.around, row.channels_last, *features.shape[1:], count_parameters(network)
    )


def _read() -> dict[str, dict]:
    try:
        return read_json(LAYERS, of_each(_FOUND))
    except (OSError, DamagedJson):
        return {}  # none yet, or damaged: found anew
