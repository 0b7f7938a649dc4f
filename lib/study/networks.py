"""A study's models: loaded with its weights, on its device, prepared for heatmaps."""

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
    """Return whether both weights of a backbone, of these hashes, can be read and fit."""
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
    """Return how many classes a weights file has: the usual number if it fits that."""
    try:
        remarks_on(row, dcls, path, reading, False, usual)
    except WeightsError:
        return stored_classes(row, dcls, path, reading) or usual
    return usual


@dataclass(frozen=True)
class Networks:
    """Builds the models of one study."""

    choices: Choices
    inputs: Inputs

    def device(self) -> torch.device:
        """The device of the study's models. Raises ValueError if it does not exist."""
        return chosen_device(self.choices.device)

    def there(self) -> list[tuple[Backbone, bool]]:
        """Return the variants; with `keep_going`, only backbones whose weights can all be read."""
        there = [
            b for b in self.choices.backbones if not self.choices.keep_going or self._can_load(b)
        ]
        return [(backbone, dcls) for backbone in there for dcls in backbone.forms]

    def _can_load(self, backbone: Backbone) -> bool:
        return self.inputs.has_weights(backbone) and _loads(
            self, backbone.key, *map(sha256_of, self.inputs.weights(backbone))
        )

    def prefer(self, *keys: str) -> list[Backbone]:
        """Return those of these backbones that are chosen and available; otherwise a user's own,
        otherwise the first chosen one."""
        there = list(dict.fromkeys(backbone for backbone, _ in self.there()))
        own = [b for b in there if b.origin]
        return [b for b in there if b.key in keys] or own or there[:1]

    def load_model(self, key: str, dcls: bool, weights: Path | None = None) -> StudyModel:
        """Return a variant with this profile's weights, or others, on the study's device."""
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
        """Return a variant's weights file, or another one; how it is read; whether it is a
        miniature's; and its number of classes."""
        profile = self.choices.profile
        mini = profile.mini and not BACKBONES[key].origin
        if weights is None:
            path, reading = self.inputs.weights_path(key, dcls), self.inputs.reading(key, dcls)
        else:
            path, reading = weights, replace(AS_IS, accepted=self.choices.accept)
        return path, reading, mini, self._classes(key, dcls, path, reading)

    def _classes(self, key: str, dcls: bool, path: Path, reading: Reading) -> int:
        """Return a variant's number of classes: the profile's; or, if each model's own prediction
        is explained, that of the file of a named model or of a user's own."""
        count, row = self.choices.profile.classes, BACKBONES[key]
        own = row.named or row.origin
        if own and self.choices.predicted and path.is_file():
            return _own_classes(row, dcls, path, reading, count, sha256_of(path))
        return count

    def _read(
        self, row: Backbone, dcls: bool, path: Path, reading: Reading, read: Callable[[], R]
    ) -> R:
        """Return what `read` returns; if the file has other classes, the error says that first."""
        try:
            return read()
        except WeightsError as error:
            count = stored_classes(row, dcls, path, reading) if row.named else None
            if count in (None, self.choices.profile.classes) or self.choices.predicted:
                raise
            raise WeightsError(
                f"{path} has {count} classes, but the {self.choices.profile.key} profile has "
                f"{self.choices.profile.classes}: --target predicted explains what each model "
                "predicts, whatever its classes"
            ) from error

    def remarks_on(self, key: str, dcls: bool, weights: Path | None = None) -> list[str]:
        """Return what readers of results must know about a variant's weights, or about others.

        The file is opened and compared with the network. Raises MissingWeights, WeightsError.
        """
        row = BACKBONES[key]
        if row.untrained and weights is None:
            return []
        path, reading, mini, classes = self._read_as(key, dcls, weights)
        return self._read(
            row, dcls, path, reading,
            lambda: remarks_on(row, dcls, path, reading, mini, classes),
        )  # fmt: skip

    def remarks(self) -> dict[str, list[str]]:
        """Return {variant: what readers must know about its weights}, for those with remarks."""
        found: dict[str, list[str]] = {}
        for backbone, dcls in self.choices.variants:
            with contextlib.suppress(MissingWeights, WeightsError):
                if remarks := self.remarks_on(backbone.key, dcls):
                    found[variant_name(backbone.key, dcls)] = remarks
        return found

    def unusable(self, earlier: bool = False) -> list[str]:
        """Return why files that this study would load cannot be used.

        The files are weights, modules of its learned methods and, if `earlier`, weights from
        earlier in a training. Missing files are not reported here.
        """
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
        """Raise ValueError unless a user's own model has the profile's number of classes."""
        profile, side = self.choices.profile, model.backbone.preprocessing.crop
        with torch.inference_mode():
            classes = model(torch.zeros(1, 3, side, side)).shape[-1]
        if classes != profile.classes:
            raise ValueError(
                f"{model.variant} has {classes} classes, but the {profile.key} profile has "
                f"{profile.classes}: `build` receives that number and should use it"
            )

    def attentions(
        self, key: str, dcls: bool, methods: Sequence[CamMethod] | None = None
    ) -> dict[str, nn.Module]:
        """Return the trained modules of the learned methods among these, on the study's device.

        methods : the study's own if None

        Raises AttentionError.
        """
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
        """Return the same model as `load_model`, prepared to make heatmaps fast.

        methods : the methods to prepare it for, the study's own if None
        """
        return self.made_ready(self.load_model(key, dcls), methods)

    def made_ready(
        self, model: StudyModel, methods: Sequence[CamMethod] | None = None
    ) -> StudyModel:
        """Return a model prepared like `inference_model`'s. Learned methods keep the modules of
        the original network, also if preparation changes the network."""
        key = model.backbone.key
        model.attentions = self.attentions(key, model.variant != key, methods)
        plain = any(m.plain for m in (self.choices.methods if methods is None else methods))
        return model.for_inference(self.choices.precision, self.choices.compile, keep_plain=plain)

    def untrained_model(self, key: str, dcls: bool, seed: int) -> StudyModel:
        """Return a variant with random weights, on the study's device."""
        profile, backbone = self.choices.profile, BACKBONES[key]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(backbone, dcls, mini=profile.mini, num_classes=profile.classes)
        if backbone.untrained:  # a zero head would give heatmaps without any evidence
            network = draw_zeros(network)
        size = "mini" if profile.mini and not backbone.origin else "full"
        provenance = Provenance(variant_name(key, dcls), "random", size, note=f"seed {seed}")
        return StudyModel(network, backbone, provenance).eval().to(self.device())

    def class_names(self) -> list[str]:
        """Return the name of each class of the models' answers, for captions."""
        if self.choices.profile.mini:
            return CLASS_NAMES.read_text(encoding="utf-8").splitlines()
        info = ImageNetInfo()
        return [info.index_to_description(i) for i in range(self.choices.profile.classes)]
