"""One image and one backbone, with and without DCLS: maps, classes, agreement, kernels.

What the explorer of notebook 03 shows. Networks, their forwards and small maps are kept, so
that another method, floor or opacity costs no forward. Nothing here draws.
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
_FULL_SIZE_IN_MEMORY = 4  # networks; of miniatures all
_FORWARDS_KEPT, _MAPS_KEPT = 128, 1024


@dataclass(frozen=True, eq=False)  # one is itself, so that it can name what is kept of it
class Seen:
    """An image that can be looked at.

    title  : what to call it
    pixels : (224, 224, 3) uint8
    label  : its class, None where nobody told
    stored_map : (256, 256) uint8 or float32 human map as stored, None where there is none
    """

    title: str
    pixels: np.ndarray
    label: int | None = None
    stored_map: Tensor | None = None


@dataclass(frozen=True)
class Explanation:
    """What one network makes of an image.

    dcls     : with DCLS
    heatmap  : (224, 224) over the image, any scale, NaN where the network does not look
    constant : the map has one value only, so it orders nothing
    rho      : Spearman's correlation with the human map as the study scores it; NaN without
    why      : why there is no rho, "" where there is one
    asked    : the class whose evidence the map shows
    top      : the likeliest classes and their probabilities, at most five, likeliest first
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
    """Everything that is shown of one choice.

    method    : the method's name, with its floor where that is not its own
    protocol  : the reading in which rho is made
    predicted : maps show the evidence for each network's own answer, not for the label
    truth     : the image's class, "" where nobody told
    human_map : (224, 224) float32 over the image, None where there is none
    explanations : without DCLS, and with it where the backbone has such a form
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
    """Whether the method is one of Grad-CAM's family, which can be had with any floor."""
    return isinstance(method.small_map, partial) and method.small_map.func is grad_cam_family


def with_floor(method: CamMethod, floor: float) -> CamMethod:
    """The method with another floor, a share of the map's range; without one as it is.

    Raises ValueError for a floor outside [0, 1).
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
    """The study's own methods, then all others that take neither more forwards nor training.

    Of Grad-CAM's family one row for each order of ReLU and mean: floors are chosen apart.
    """
    quick = [
        m for m in METHODS.values()
        if not (m.forwards or m.plain or m.learned) and not (has_floor(m) and m.floor)
    ]  # fmt: skip
    return list(dict.fromkeys([*choices.methods, METHODS["threshold_grad_cam"], *quick]))


class Explainer:
    """Answers for one study what its networks make of an image.

    backbones : those of the study, by key; with `keep_going` those that can be read
    methods   : `offered_methods`, by key
    images  : the first of the study's held-out images
    Raises StoredError where no image can be read.
    """

    def __init__(self, study: Study, images: int = OFFERED_IMAGES):
        self.study = study
        self.backbones = {backbone.key: backbone for backbone, _ in study.networks.there()}
        self.methods = {method.key: method for method in offered_methods(study.choices)}
        self._names = study.networks.class_names()
        # As published where the study scores so, else its first reading.
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
        """Load a backbone's networks where all are kept in memory: choosing it then takes no
        longer than another image. Those that cannot be loaded say so when they are chosen."""
        if self.study.choices.profile.mini:
            with self._threads(), suppress(WeightsError, OSError):
                for dcls in self.backbones[key].forms:
                    self._network(key, dcls)

    def uploaded(self, content: BinaryIO, name: str) -> Seen:
        """A reader's own image file. Raises ValueError naming it if it is no image."""
        return Seen(f"{name} (yours)", load_square(content, name))

    def view(self, backbone: str, method: str, floor: float, image: Seen) -> View:
        """Maps, classes and agreement of a backbone's forms.

        backbone, method : keys of what is offered
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
        """Layers whose kernels can be seen: those that DCLS replaces; else all wider than 1."""
        chosen = self._known("model", self.backbones, backbone)
        with self._threads():
            return list(self._network(backbone, chosen.forms[-1])[1])

    def kernels(self, backbone: str, layer: str) -> dict[bool, np.ndarray]:
        """{dcls: (kernel, size, size)} of a layer's first channels; with DCLS as built.

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
        """One thread for miniatures: theirs are parts of a millisecond, for which several
        threads only wait for one another, on a busy machine a hundred times as long."""
        before = torch.get_num_threads()
        if self.study.choices.profile.mini:
            torch.set_num_threads(1)
        try:
            with torch.no_grad():
                yield
        finally:
            torch.set_num_threads(before)

    # --- kept: what each of these gives depends on its arguments alone -------------------------

    def _load(self, key: str, dcls: bool) -> tuple[StudyModel, dict[str, np.ndarray]]:
        """A network ready for maps, and the kernels that it had before it was made ready."""
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
        # Drawn where the network looked, scored stretched over the image, as published.
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
