"""Units of one variant and some images: those of a scoring run, and those of other analyses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from ..base.fingerprint import code_of
from ..maps.forward import head_pass
from ..maps.methods import CamMethod
from ..networks.backbones import Backbone, variant_name
from ..networks.models import StudyModel
from ..people.clickme import ClickMe
from ..people.stored import StoredError
from ..study.study import Study
from ..work.doing import tables
from ..work.units import Unit, Work
from .kept import facts_of_images, facts_of_maps, facts_of_scores
from .models import Models
from .prepared import PreparedPart
from .scoring import COLUMNS, score_part


@dataclass(frozen=True)
class VariantOnPart:
    """A variant, and the images of one part."""

    backbone: Backbone
    dcls: bool
    some: ClickMe


class VariantWork(Work):
    """An analysis of every variant on some images, model by model.

    A subclass also states `code`, the modules that compute it besides those of scores.
    """

    code: ClassVar[tuple[str, ...]]

    def __init__(self, study: Study, **arguments: Any):
        super().__init__(study, **arguments)
        self._models = Models(study, most=1)

    def images(self) -> Iterator[ClickMe]:
        """Yield the images of one unit after another."""
        yield from self.study.clickme().per_part()

    def pieces(self) -> Iterator[tuple[str, str, VariantOnPart, int]]:
        blocks = list(self.images())
        for backbone, dcls in self.study.networks.there():
            variant = variant_name(backbone.key, dcls)
            for number, some in enumerate(blocks):
                of = VariantOnPart(backbone, dcls, some)
                yield f"{variant}-{some.part.name}-{number}", variant, of, len(some)

    def facts(self, of: VariantOnPart) -> dict:
        return facts_of_maps(self.study, of.backbone, of.dcls) | {
            "target": self.study.choices.target,
            "arguments": self.arguments,
            "code of the analysis": code_of(*self.code),
            **facts_of_images(of.some),
        }

    def skipped(self, of: VariantOnPart) -> dict[str, str]:
        return of.some.left_out


def joined(work: VariantWork) -> pd.DataFrame:
    """Return the tables of all units as one: `backbone, dcls`, then the columns of the work.

    Raises StoredError if there is none, and what computing raises."""
    found = [
        table.assign(backbone=unit.of.backbone.key, dcls=unit.of.dcls)
        for unit, table in tables(work)
    ]
    if not found:
        raise StoredError("no image of the study can be read: check its images and human maps")
    return pd.concat(found, ignore_index=True)[["backbone", "dcls", *work.columns]]


class ScoreWork(Work):
    """Scores of every variant on every part; the last part stays prepared for the next variant."""

    folder, bar, columns = "scores", ("scoring", "model"), COLUMNS

    def __init__(self, study: Study):
        super().__init__(study)
        self._clickme = study.clickme()
        self.missed |= self._clickme.left_out
        self._models = Models(study)
        self._part: PreparedPart | None = None

    def pieces(self) -> Iterator[tuple[str, str, VariantOnPart, int]]:
        for some in self._clickme.per_part():
            for backbone, dcls in self.study.choices.variants:
                variant = variant_name(backbone.key, dcls)
                of = VariantOnPart(backbone, dcls, some)
                yield f"{variant}-{some.part.name}", variant, of, 1

    def stem(self, name: str, of: VariantOnPart) -> str:
        weights = self.study.inputs.weights_name(of.backbone.key, of.dcls)
        return f"{weights}-{of.some.part.name}"

    def facts(self, of: VariantOnPart) -> dict:
        return facts_of_scores(self.study, of.backbone, of.dcls, of.some)

    def compute(self, of: VariantOnPart) -> pd.DataFrame:
        models = self._models
        if self._part is None or self._part.some.part is not of.some.part:
            self._part = None  # free its memory before the next part is loaded
            self._part = PreparedPart(of.some, models.device, models.batch.now)
        choices = self.study.choices
        model = models.of(of.backbone, of.dcls)
        return score_part(model, choices.methods, self._part, models.batch, choices.predicted)

    def skipped(self, of: VariantOnPart) -> dict[str, str]:
        return of.some.left_out

    def foretold(self, units: Sequence[Unit]) -> str:
        methods = self.study.choices.methods
        if not any(method.forwards for method in methods):
            return ""
        first: VariantOnPart = units[0].of
        model = self._models.of(first.backbone, first.dcls)
        images = sum(len(unit.of.some) for unit in units)
        batch = next(first.some.batches(1))
        return foretell(model, batch.images, methods, images)


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
