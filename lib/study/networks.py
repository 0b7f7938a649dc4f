"""A study's networks: loaded from its weights, on its device, made ready for maps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from timm.data import ImageNetInfo
from torch import nn

from ..base.fingerprint import sha256_of
from ..maps.learned.attention import load_attention
from ..maps.methods import CamMethod
from ..networks.backbones import BACKBONES, Backbone, variant_name
from ..networks.building import build_network, draw_zeros
from ..networks.checkpoints import MissingWeights
from ..networks.class_counts import stored_classes
from ..networks.loading import load_model, load_weights_file
from ..networks.models import Provenance, StudyModel
from ..networks.opened import remarks_on
from ..networks.sources import AS_IS, Reading
from ..networks.weights_files import WeightsError
from .choices import Choices
from .device import chosen_device
from .inputs import UNTRAINED_SEED, Inputs
from .profiles import CLASS_NAMES

R = TypeVar("R")


@cache
def _loads(networks: Networks, key: str, *hashes: str) -> bool:
    """Whether both weights of a backbone, of these hashes, can be read and fit."""
    try:
        for dcls in BACKBONES[key].forms:
            networks.remarks_on(key, dcls)
            networks.attentions(key, dcls)
    except WeightsError:
        return False
    return True


@cache
def _own_classes(
    row: Backbone, dcls: bool, path: Path, reading: Reading, usual: int, sha256: str
) -> int:
    """By how many classes the file of these weights answers: the usual ones if it fits them."""
    try:
        remarks_on(row, dcls, path, reading, False, usual)
    except WeightsError:
        return stored_classes(row, dcls, path, reading) or usual
    return usual


@dataclass(frozen=True)
class Networks:
    """Makes the networks of one study."""

    choices: Choices
    inputs: Inputs

    def device(self) -> torch.device:
        """Where the study's models are. Raises ValueError if it is absent."""
        return chosen_device(self.choices.device)

    def there(self) -> list[tuple[Backbone, bool]]:
        """The variants; with `keep_going`, only backbones whose weights can all be read."""
        there = [
            b for b in self.choices.backbones if not self.choices.keep_going or self._can_load(b)
        ]
        return [(backbone, dcls) for backbone in there for dcls in backbone.forms]

    def _can_load(self, backbone: Backbone) -> bool:
        return self.inputs.has_weights(backbone) and _loads(
            self, backbone.key, *map(sha256_of, self.inputs.weights(backbone))
        )

    def prefer(self, *keys: str) -> list[Backbone]:
        """Those of these backbones that are chosen and there; if none is, a reader's own, and
        else the first one."""
        there = list(dict.fromkeys(backbone for backbone, _ in self.there()))
        own = [b for b in there if b.origin]
        return [b for b in there if b.key in keys] or own or there[:1]

    def load_model(self, key: str, dcls: bool, weights: Path | None = None) -> StudyModel:
        """A variant with this profile's weights, or other ones, on the study's device."""
        row = BACKBONES[key]
        if row.untrained and weights is None:
            return self.untrained_model(key, dcls, UNTRAINED_SEED)
        path, reading, mini, classes = self._read_as(key, dcls, weights)
        if mini and weights is None:
            model = load_model(key, dcls, "demo", accept=reading.accepted)
        else:
            model = self._read(
                row, dcls, path, reading,
                lambda: load_weights_file(key, dcls, path, reading, mini, classes),
            )  # fmt: skip
        if row.origin and not row.named and not self.choices.predicted:
            self._check_classes(model)
        return model.to(self.device())

    def _read_as(
        self, key: str, dcls: bool, weights: Path | None
    ) -> tuple[Path, Reading, bool, int]:
        """A variant's weights file, or another one; how it is read; whether it is a miniature's,
        and of how many classes."""
        profile = self.choices.profile
        mini = profile.mini and not BACKBONES[key].origin
        if weights is None:
            path, reading = self.inputs.weights_path(key, dcls), self.inputs.reading(key, dcls)
        else:
            path, reading = weights, replace(AS_IS, accepted=self.choices.accept)
        return path, reading, mini, self._classes(key, dcls, path, reading)

    def _classes(self, key: str, dcls: bool, path: Path, reading: Reading) -> int:
        """By how many classes a variant answers: the profile's, or, where each model's own answer
        is explained, as many as the file of a model by name, or of a reader's own, is of."""
        count, row = self.choices.profile.classes, BACKBONES[key]
        own = row.named or row.origin
        if own and self.choices.predicted and path.is_file():
            return _own_classes(row, dcls, path, reading, count, sha256_of(path))
        return count

    def _read(
        self, row: Backbone, dcls: bool, path: Path, reading: Reading, read: Callable[[], R]
    ) -> R:
        """What reading a model's file gives; where it is of other classes, that is said first."""
        try:
            return read()
        except WeightsError as error:
            count = stored_classes(row, dcls, path, reading) if row.named else None
            if count in (None, self.choices.profile.classes) or self.choices.predicted:
                raise
            raise WeightsError(
                f"{path} is of {count} classes, and the {self.choices.profile.key} profile has "
                f"{self.choices.profile.classes}: --target predicted explains what each model "
                "predicts, of whatever classes"
            ) from error

    def remarks_on(self, key: str, dcls: bool, weights: Path | None = None) -> list[str]:
        """What a reader of results must know of a variant's weights, or of other ones: their file
        is opened and compared with the network. Raises MissingWeights, WeightsError."""
        row = BACKBONES[key]
        if row.untrained and weights is None:
            return []
        path, reading, mini, classes = self._read_as(key, dcls, weights)
        return self._read(
            row, dcls, path, reading,
            lambda: remarks_on(row, dcls, path, reading, mini, classes),
        )  # fmt: skip

    def remarks(self) -> dict[str, list[str]]:
        """{variant: what a reader must know of its weights}, of those with any remark."""
        found: dict[str, list[str]] = {}
        for backbone, dcls in self.choices.variants:
            with contextlib.suppress(MissingWeights, WeightsError):
                if remarks := self.remarks_on(backbone.key, dcls):
                    found[variant_name(backbone.key, dcls)] = remarks
        return found

    def unusable(self, earlier: bool = False) -> list[str]:
        """Why files that this study would load cannot be: weights, modules of its learned methods,
        and weights from earlier in a training if they are asked for. Those that are not there are
        no part of it."""
        problems: dict[str, None] = {}
        for backbone, dcls in self.choices.variants:
            trained = self.inputs.training_checkpoints(backbone.key, dcls) if earlier else ()
            for path in (None, *trained):
                try:
                    self.remarks_on(backbone.key, dcls, path)
                except MissingWeights:
                    continue
                except WeightsError as error:
                    problems[str(error)] = None
            with contextlib.suppress(OSError):
                try:
                    self.attentions(backbone.key, dcls)
                except ValueError as error:
                    problems[str(error)] = None
        return list(problems)

    def _check_classes(self, model: StudyModel) -> None:
        """Raise ValueError unless a reader's own network answers by the profile's classes."""
        profile, side = self.choices.profile, model.backbone.preprocessing.crop
        with torch.inference_mode():
            classes = model(torch.zeros(1, 3, side, side)).shape[-1]
        if classes != profile.classes:
            raise ValueError(
                f"{model.variant} answers by {classes} classes, and the {profile.key} profile "
                f"has {profile.classes}: `build` is given their number"
            )

    def attentions(
        self, key: str, dcls: bool, methods: Sequence[CamMethod] | None = None
    ) -> dict[str, nn.Module]:
        """The trained modules of the learned ones among these methods, the study's own if none
        are given, on its device. Raises AttentionError."""
        asked = self.choices.methods if methods is None else methods
        learned = [m.key for m in asked if m.learned]
        if not learned:
            return {}
        name = self.inputs.weights_name(key, dcls)
        weights = self.inputs.weights_sha256(key, dcls)
        return {
            method: load_attention(
                self.inputs.attention_path(key, dcls, method), method, name, weights
            ).to(self.device())
            for method in learned
        }

    def inference_model(
        self, key: str, dcls: bool, methods: Sequence[CamMethod] | None = None
    ) -> StudyModel:
        """The same as `load_model`, ready to make maps fast by these methods, the study's own if
        none are given."""
        return self.made_ready(self.load_model(key, dcls), methods)

    def made_ready(
        self, model: StudyModel, methods: Sequence[CamMethod] | None = None
    ) -> StudyModel:
        """A model as `inference_model` gives it; a network that became another keeps the
        learned methods' modules of what it was."""
        key = model.backbone.key
        model.attentions = self.attentions(key, model.variant != key, methods)
        plain = any(m.plain for m in (self.choices.methods if methods is None else methods))
        return model.for_inference(self.choices.precision, self.choices.compile, keep_plain=plain)

    def untrained_model(self, key: str, dcls: bool, seed: int) -> StudyModel:
        """A variant with random weights, on the study's device."""
        profile, backbone = self.choices.profile, BACKBONES[key]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(backbone, dcls, mini=profile.mini, num_classes=profile.classes)
        if backbone.untrained:  # an end of zeros would give maps without any evidence
            network = draw_zeros(network)
        size = "mini" if profile.mini and not backbone.origin else "full"
        provenance = Provenance(variant_name(key, dcls), "random", size, note=f"seed {seed}")
        return StudyModel(network, backbone, provenance).eval().to(self.device())

    def class_names(self) -> list[str]:
        """One name per class of the networks' answers, for captions."""
        if self.choices.profile.mini:
            return CLASS_NAMES.read_text(encoding="utf-8").splitlines()
        info = ImageNetInfo()
        return [info.index_to_description(i) for i in range(self.choices.profile.classes)]
