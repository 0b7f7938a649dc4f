"""The units of a scoring run, each one variant on one part's images, and their scoring here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from tqdm import tqdm

from ..base.alone import alone
from ..base.threads import reuse_memory
from ..maps.forward import head_pass
from ..maps.methods import CamMethod
from ..networks.backbones import Backbone, variant_name
from ..networks.batch_size import BatchSize
from ..networks.checkpoints import MissingWeights, WeightsError
from ..networks.models import StudyModel
from ..people.clickme import ClickMe
from ..people.stored import StoredError
from ..study.study import Study
from .kept import kept_path, read_kept, write_kept
from .prepared import PreparedPart
from .scoring import score_part

_MODELS_IN_MEMORY = 1.5e9  # bytes; on a GPU a third of its memory


@dataclass(frozen=True)
class Unit:
    """The unit of work: a variant on a part's images; `path` is the file that caches its scores."""

    backbone: Backbone
    dcls: bool
    some: ClickMe
    path: Path

    @property
    def variant(self) -> str:
        return variant_name(self.backbone.key, self.dcls)


def units_of(study: Study, clickme: ClickMe, missed: dict[str, str]) -> Iterator[Unit]:
    """Yield units part by part; a variant without weights is added to `missed`, or raises."""
    for some in clickme.per_part():
        for backbone, dcls in study.choices.variants:
            name = variant_name(backbone.key, dcls)
            try:
                if name not in missed:
                    yield Unit(backbone, dcls, some, kept_path(study, backbone, dcls, some))
            except MissingWeights as error:
                if not study.choices.keep_going:
                    raise
                missed[name] = str(error)


class Scorer:
    """Scores one unit after another and keeps in memory what the next ones can reuse.

    That is the last part, prepared for all models, and models as long as there is room.
    """

    def __init__(self, study: Study):
        choices = study.choices
        self.study, self._methods = study, choices.methods
        self.device = study.networks.device()
        self.batch = BatchSize.chosen(choices.batch_size, self.device, choices.profile.mini)
        reuse_memory()
        self._part: PreparedPart | None = None
        self._models: dict[str, StudyModel] = {}
        self._room = _MODELS_IN_MEMORY
        if self.device.type == "cuda":
            self._room = torch.cuda.get_device_properties(self.device).total_memory / 3

    def score(self, unit: Unit) -> None:
        """Compute a unit's scores and cache them, unless another process has done so
        while this one waited. Raises StoredError, WeightsError."""
        with alone(unit.path) as waited:
            tolerant = self.study.choices.keep_going
            if not waited or read_kept(unit.path, tolerant) is None:
                self._score(unit)

    def _score(self, unit: Unit) -> None:
        if self._part is None or self._part.some.part is not unit.some.part:
            self._part = None  # free its memory before the next part is loaded
            self._part = PreparedPart(unit.some, self.device, self.batch.now)
        model = self._model(unit.backbone, unit.dcls)
        predicted = self.study.choices.predicted
        scores = score_part(model, self._methods, self._part, self.batch, predicted)
        if kept_path(self.study, unit.backbone, unit.dcls, unit.some) != unit.path:
            raise StoredError(
                f"{unit.some.part.name} or the weights of {unit.variant} changed while they were "
                "scored: run again"
            )
        write_kept(unit.path, scores, unit.some.left_out)

    def foretell(self, units: list[Unit]) -> str:
        """How long methods with many forward passes per image will take; "" without any."""
        if not any(method.forwards for method in self._methods):
            return ""
        model = self._model(units[0].backbone, units[0].dcls)
        images = sum(len(unit.some) for unit in units)
        batch = next(units[0].some.batches(1))
        return foretell(model, batch.images, self._methods, images)

    def _model(self, backbone: Backbone, dcls: bool) -> StudyModel:
        name = self.study.inputs.weights_name(backbone.key, dcls)
        if name in self._models:
            return self._models[name]
        model = self.study.networks.inference_model(backbone.key, dcls)
        taken = sum(p.numel() * p.element_size() for p in model.parameters())
        if taken <= min(self._room, psutil.virtual_memory().available / 4):
            self._room -= taken
            self._models[name] = model
        return model


def foretell(model: StudyModel, some: np.ndarray, methods: Sequence[CamMethod], images: int) -> str:
    """Estimate how long methods with many forward passes will take, from one timed forward pass.

    some   : (image, height, width, 3) uint8 images
    images : number of maps of each method that models like this one will make
    Returns the estimate in words; "" without such methods.
    """
    slow = [method for method in methods if method.forwards]
    if not slow:
        return ""
    x = model.prepare(some)
    head_pass(model, x)
    started = time.perf_counter()
    channels = head_pass(model, x).features.shape[1]
    seconds = (time.perf_counter() - started) / len(x)
    forwards = sum(channels if m.forwards == "channels" else m.forwards for m in slow)
    minutes = forwards * seconds * images / 60
    last = f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min"
    names = ", ".join(method.label for method in slow)
    return f"{names}: about {forwards} forward passes per map, {images} maps, at most {last} in all"


def score_here(study: Study, units: list[Unit]) -> Iterator[tuple[Unit, Exception | None]]:
    """Yield each unit once it is scored, with the error if it cannot be (with `keep_going`)."""
    scorer = Scorer(study) if units else None
    if units and not study.choices.keep_going and (foretold := scorer.foretell(units)):
        tqdm.write(foretold)
    unusable: dict[str, Exception] = {}
    for unit in units:
        if unit.variant not in unusable:
            try:
                scorer.score(unit)
            except (MissingWeights, WeightsError) as error:
                if not study.choices.keep_going:
                    raise
                unusable[unit.variant] = error
        for name, reason in unit.some.left_out.items():
            tqdm.write(f"skipped: {name}: {reason}")
        yield unit, unusable.get(unit.variant)
