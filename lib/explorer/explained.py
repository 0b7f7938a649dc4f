"""One image and one backbone, with and without DCLS: heatmaps, classes, agreement, kernels.

The explorer of notebook 03 shows them. Networks, their forward passes and small maps are cached, so
that another method, floor or opacity needs no forward pass. Nothing here draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..analyses.conversion import kernel_layers, kernels_of
from ..base.geometry import DELIVERED_SIZE, WHOLE, Preprocessing
from ..base.tables import unknown_name
from ..maps.forward import HeadPass, enlarge, head_pass, is_constant
from ..maps.methods import METHODS, CamMethod, family_key, grad_cam_family, grad_cam_variant
from ..networks.backbones import Backbone
from ..networks.checkpoints import WeightsError
from ..networks.models import StudyModel
from ..people.human_maps import human_maps
from ..people.photographs import load_square
from ..people.protocols import PROTOCOLS, Protocol
from ..people.stored.part import NO_LABEL
from ..scores.agreements import VALID, agreements_of
from ..scores.spearman import Ranks, rank_maps
from ..study.choices import Choices
from ..study.exhibits import held_out, image_titles
from ..study.study import Study

OFFERED_IMAGES = 24
KERNELS_SHOWN = 8
_TOP = 5
_FULL_SIZE_IN_MEMORY = 4  # full-size networks; miniatures all stay in memory
_FORWARDS_KEPT, _MAPS_KEPT = 128, 1024


@dataclass(frozen=True, eq=False)  # compared by identity, so that it can be a key of caches
class Seen:
    """An image that the explorer can show.

    title  : its name in the explorer
    pixels : (224, 224, 3) uint8
    label  : its class, None if it is unknown
    stored_map : (256, 256) uint8 or float32 human map as stored, None if there is none
    """

    title: str
    pixels: np.ndarray
    label: int | None = None
    stored_map: Tensor | None = None


@dataclass(frozen=True)
class Explanation:
    """One network's explanation of an image.

    dcls     : whether the network has DCLS
    heatmap  : (224, 224) over the image, any scale, NaN where the network does not see the image
    constant : whether all values of the map are equal, so that it has no order
    rho      : Spearman's correlation with the human map as the study scores it; NaN if there is
               none
    why      : why there is no rho, "" if there is one
    asked    : the class that the map explains
    top      : the most probable classes and their probabilities, at most five, highest first
    """

    dcls: bool
    heatmap: np.ndarray
    constant: bool
    rho: float
    why: str
    asked: str
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class View:
    """Everything that the explorer shows for one choice.

    method    : the method's name, with its floor if that is not the method's own
    protocol  : the protocol of rho
    predicted : whether maps explain each network's own answer, not the label
    truth     : the image's class, "" if it is unknown
    human_map : (224, 224) float32 over the image, None if there is none
    explanations : without DCLS, and with DCLS if the backbone has that form
    """

    backbone: Backbone
    method: str
    protocol: Protocol
    predicted: bool
    truth: str
    image: Seen
    human_map: np.ndarray | None
    explanations: tuple[Explanation, ...]


def has_floor(method: CamMethod) -> bool:
    """Return whether the method belongs to Grad-CAM's family, which works with any floor."""
    return isinstance(method.small_map, partial) and method.small_map.func is grad_cam_family


def with_floor(method: CamMethod, floor: float) -> CamMethod:
    """Return the method with another floor, a share of the map's range in [0, 1).

    A method without a floor is returned unchanged. Raises ValueError for a floor outside [0, 1).
    """
    if not has_floor(method) or floor == method.floor:
        return method
    if not 0 <= floor < 1:
        raise ValueError(f"floor must lie in [0, 1), got {floor}")
    first = method.small_map.keywords["relu_before_mean"]
    name = method.label.partition(", floor")[0]
    return grad_cam_variant(
        f"{family_key(first, 0.0)}_at_{floor}", f"{name}, floor {floor:.3g}",
        relu_before_mean=first, floor=floor,
    )  # fmt: skip


def offered_methods(choices: Choices) -> list[CamMethod]:
    """Return the study's own methods, then all others without more forward passes or training.

    Grad-CAM's family has one row for each order of ReLU and mean, because the floor is a separate
    choice.
    """
    quick = [
        m for m in METHODS.values()
        if not (m.forwards or m.plain or m.learned) and not (has_floor(m) and m.floor)
    ]  # fmt: skip
    return list(dict.fromkeys([*choices.methods, METHODS["threshold_grad_cam"], *quick]))


class Explainer:
    """Computes how a study's networks explain an image.

    backbones : the study's backbones by key; with `keep_going` only those that can be read
    methods   : `offered_methods` by key
    images    : the first of the study's held-out images
    Raises StoredError if no image can be read.
    """

    def __init__(self, study: Study, images: int = OFFERED_IMAGES):
        self.study = study
        self.backbones = {backbone.key: backbone for backbone, _ in study.networks.there()}
        self.methods = {method.key: method for method in offered_methods(study.choices)}
        self._names = study.networks.class_names()
        # The published protocol if the study uses it, otherwise its first protocol.
        keys = study.choices.protocols
        self.protocol = PROTOCOLS["published" if "published" in keys else keys[0]]
        batch = held_out(study, min(study.choices.limit or images, images))
        titles = image_titles(study, batch)
        self.images = [
            Seen(f"{number}: {title}", pixels, None if label == NO_LABEL else int(label), stored)
            for number, (title, pixels, label, stored) in enumerate(
                zip(titles, batch.images, batch.labels, batch.stored_maps, strict=True), 1
            )
        ]
        networks = None if study.choices.profile.mini else _FULL_SIZE_IN_MEMORY
        self._network = lru_cache(networks)(self._load)
        self.passed = lru_cache(_FORWARDS_KEPT)(self._forward)
        self.small = lru_cache(_MAPS_KEPT)(self._small_map)
        self._ranks = lru_cache(_FORWARDS_KEPT)(self._ranked)

    def prepare(self, key: str) -> None:
        """Load a backbone's networks ahead if all networks stay in memory: choosing it then takes
        no longer than another image. Networks that cannot be loaded raise when they are chosen."""
        if self.study.choices.profile.mini:
            with self._threads(), suppress(WeightsError, OSError):
                for dcls in self.backbones[key].forms:
                    self._network(key, dcls)

    def uploaded(self, content: BinaryIO, name: str) -> Seen:
        """Return a user's own image file. Raises ValueError naming it if it is not an image."""
        return Seen(f"{name} (yours)", load_square(content, name))

    def view(self, backbone: str, method: str, floor: float, image: Seen) -> View:
        """Return maps, classes and agreement of a backbone's forms.

        backbone, method : keys of `backbones` and `methods`
        floor : for methods of Grad-CAM's family, a share of the map's range in [0, 1)
        Raises UnknownName, ValueError, WeightsError, and what the method raises.
        """
        chosen = self._known("model", self.backbones, backbone)
        row = with_floor(self._known("method", self.methods, method), floor)
        people = None
        if image.stored_map is not None:
            people = human_maps(image.stored_map[None], self.protocol, WHOLE)[0].numpy()
        with self._threads():
            found = [self._explain(chosen, dcls, row, method, image) for dcls in chosen.forms]
        predicted = image.label is None or self.study.choices.predicted
        truth = "" if image.label is None else self._names[image.label]
        return View(chosen, row.label, self.protocol, predicted, truth, image, people, tuple(found))

    def layers(self, backbone: str) -> list[str]:
        """Return the layers whose kernels can be shown: those that DCLS replaces, otherwise all
        convolutions wider than 1."""
        chosen = self._known("model", self.backbones, backbone)
        with self._threads():
            return list(self._network(backbone, chosen.forms[-1])[1])

    def kernels(self, backbone: str, layer: str) -> dict[bool, np.ndarray]:
        """Return {dcls: (kernel, size, size)} of a layer's first channels; DCLS kernels as built.

        Raises UnknownName for a layer that is not among `layers`.
        """
        names = self.layers(backbone)
        if layer not in names:
            raise unknown_name("layer", layer, names)
        forms = self.backbones[backbone].forms
        with self._threads():
            return {dcls: self._network(backbone, dcls)[1][layer] for dcls in forms}

    @staticmethod
    def _known(kind: str, table: dict, key: str):
        if key not in table:
            raise unknown_name(kind, key, table)
        return table[key]

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """A context with one thread for miniatures. Their operations take less than a millisecond,
        so several threads only wait for one another, on a busy machine a hundred times as long."""
        before = torch.get_num_threads()
        if self.study.choices.profile.mini:
            torch.set_num_threads(1)
        try:
            with torch.no_grad():
                yield
        finally:
            torch.set_num_threads(before)

    # --- cached: the results of these depend only on their arguments ----------------------------

    def _load(self, key: str, dcls: bool) -> tuple[StudyModel, dict[str, np.ndarray]]:
        """A network prepared for maps, and the kernels that it had before."""
        model = self.study.networks.load_model(key, dcls)
        if not dcls and self.backbones[key].dcls is not None:
            layers = self.layers(key)
        else:
            layers = kernel_layers(model.network)
        folded = model.folded()
        kernels = kernels_of(folded.network, layers, KERNELS_SHOWN)
        return self.study.networks.made_ready(folded, list(self.methods.values())), kernels

    def _forward(self, key: str, dcls: bool, image: Seen) -> tuple[Tensor, HeadPass]:
        model, _ = self._network(key, dcls)
        x = model.prepare(image.pixels[None])
        label = None if image.label is None else torch.tensor([image.label])
        return x, head_pass(model, x, None if label is None else self.study.choices.asked(label))

    def _small_map(self, key: str, dcls: bool, image: Seen, method: str, floor: float) -> Tensor:
        x, passed = self.passed(key, dcls, image)
        row = with_floor(self.methods[method], floor)
        return row.maps(self._network(key, dcls)[0], x, passed)

    def _ranked(self, image: Seen, geometry: Preprocessing) -> Ranks:
        maps = human_maps(image.stored_map[None], self.protocol, geometry)
        return rank_maps(maps.to(self.study.networks.device()), self.protocol.settles)

    def _explain(
        self, backbone: Backbone, dcls: bool, row: CamMethod, method: str, image: Seen
    ) -> Explanation:
        key = backbone.key
        small = self.small(key, dcls, image, method, row.floor)
        _, passed = self.passed(key, dcls, image)
        # Drawn on the part that the network sees; scored stretched over the image, as published.
        window = backbone.preprocessing.window(DELIVERED_SIZE)
        canvas = np.full((DELIVERED_SIZE, DELIVERED_SIZE), np.nan)
        canvas[window, window] = enlarge(small, window.stop - window.start)[0].cpu().numpy()
        rho, why = self._agreement(enlarge(small), image, backbone.preprocessing)
        shares = passed.logits.float().softmax(dim=1)[0].topk(min(_TOP, len(self._names)))
        top = zip(shares.indices.tolist(), shares.values.tolist(), strict=True)
        return Explanation(
            dcls, canvas, bool(is_constant(small)[0]), rho, why,
            self._names[int(passed.targets[0])],
            tuple((self._names[number], share) for number, share in top),
        )  # fmt: skip

    def _agreement(self, maps: Tensor, image: Seen, geometry: Preprocessing) -> tuple[float, str]:
        if image.stored_map is None:
            return float("nan"), "no human map"
        found = agreements_of(maps[None], {self.protocol.key: self._ranks(image, geometry)})
        validity = found.validity(0, self.protocol.key)[0]
        if validity != VALID:
            return float("nan"), str(validity)
        return float(found.measured[self.protocol.key][0, 0, 0]), ""
