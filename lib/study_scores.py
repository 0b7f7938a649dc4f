"""A study's scores: computed where not kept, then kept, a variant and a part at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import torch
from tqdm import tqdm

from lib.backbones import Backbone, variant_name
from lib.cam import head_pass
from lib.checkpoints import MissingWeights, WeightsError
from lib.clickme import ClickMe, ClickMeBatch
from lib.kept import LEFT_OUT, kept_path, read_kept, write_kept
from lib.methods import METHODS, CamMethod
from lib.models import StudyModel
from lib.prepared import PreparedPart
from lib.scoring import NON_FINITE, BatchSize, score_part
from lib.stored import StoredError
from lib.study import MissingInputs, Study
from lib.threads import reuse_memory

_MODELS_IN_MEMORY = 1.5e9  # bytes; of a GPU's memory a third
# Pictures a forward, unless it is said; halved where they do not fit.
_AUTO_GPU, _AUTO_MINI, _AUTO_CPU = 256, 32, 8


@dataclass(frozen=True)
class Unit:
    """The unit of work: a variant on a part's pictures; `path` is where its scores are kept."""

    backbone: Backbone
    dcls: bool
    some: ClickMe
    path: Path

    @property
    def variant(self) -> str:
        return variant_name(self.backbone.key, self.dcls)


class Scorer:
    """Scores unit after unit, keeping in memory what the next ones can use again.

    That is the last part, ready for all networks, and networks while there is room.
    """

    def __init__(self, study: Study):
        self.study = study
        self.device = study.torch_device()
        auto = _AUTO_MINI if study.profile.mini else _AUTO_CPU
        auto = _AUTO_GPU if self.device.type == "cuda" else auto
        self.batch = BatchSize(study.batch_size or auto)
        reuse_memory()
        self._part: PreparedPart | None = None
        self._models: dict[str, StudyModel] = {}
        self._room = _MODELS_IN_MEMORY
        if self.device.type == "cuda":
            self._room = torch.cuda.get_device_properties(self.device).total_memory / 3

    def score(self, unit: Unit) -> None:
        """Compute a unit's scores and keep them. Raises StoredError, WeightsError."""
        if self._part is None or self._part.some.part is not unit.some.part:
            self._part = None  # its memory goes before the next one's comes
            self._part = PreparedPart(unit.some, self.device, self.batch.now)
        model = self._model(unit.backbone, unit.dcls)
        predicted = self.study.target == "predicted"
        scores = score_part(model, self.study.methods, self._part, self.batch, predicted)
        if kept_path(self.study, unit.backbone, unit.dcls, unit.some) != unit.path:
            raise StoredError(
                f"{unit.some.part.name} or the weights of {unit.variant} changed while they were "
                "scored: run again with the files as they are now"
            )
        write_kept(unit.path, scores, unit.some.left_out)

    def foretell(self, units: list[Unit]) -> str:
        """How long the methods that take many forwards a picture will take; "" without any."""
        if not any(method.forwards for method in self.study.methods):
            return ""
        model = self._model(units[0].backbone, units[0].dcls)
        pictures = sum(len(unit.some) for unit in units)
        return foretell(model, next(units[0].some.batches(1)), self.study.methods, pictures)

    def _model(self, backbone: Backbone, dcls: bool) -> StudyModel:
        name = self.study.weights_name(backbone.key, dcls)
        if name in self._models:
            return self._models[name]
        model = self.study.inference_model(backbone.key, dcls)
        taken = sum(p.numel() * p.element_size() for p in model.parameters())
        if taken <= min(self._room, psutil.virtual_memory().available / 4):
            self._room -= taken
            self._models[name] = model
        return model


def foretell(
    model: StudyModel, batch: ClickMeBatch, methods: Sequence[CamMethod], pictures: int
) -> str:
    """How long the methods will take that take many forwards, by one timed forward; "" without.

    pictures : how many maps of each method will be made, by networks like this one
    """
    slow = [method for method in methods if method.forwards]
    if not slow:
        return ""
    x = model.prepare(batch.pictures)
    head_pass(model, x, batch.labels)
    started = time.perf_counter()
    channels = head_pass(model, x, batch.labels).features.shape[1]
    seconds = (time.perf_counter() - started) / len(x)
    forwards = sum(channels if m.forwards == "channels" else m.forwards for m in slow)
    minutes = forwards * seconds * pictures / 60
    last = f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min"
    names = ", ".join(method.label for method in slow)
    return f"{names}: about {forwards} forwards a map, {pictures} maps, {last} in all at most"


def score_study(study: Study) -> pd.DataFrame:
    """The tidy per-image table of a study.

    One row per variant, protocol, method and image: `variant, backbone, dcls, protocol,
    method, image_id, label, rho, validity, top1, top5`.

    Parts (shards) are worked through one by one, so memory does not grow with their
    number; with `workers` or `scheduler` by several processes at once (`lib.cluster`).
    Raises MissingInputs, StoredError and WeightsError for what cannot be read; with
    `keep_going` that is left out, and told by `left_out`.
    """
    study.require_inputs()
    clickme = study.clickme()
    missed = dict(clickme.left_out)
    tables: dict[tuple[str, Path], pd.DataFrame] = {}
    waiting: dict[Path, Unit] = {}
    units: list[Unit] = []
    for unit in units_of(study, clickme, missed):
        units.append(unit)
        if unit.path in waiting:  # a matched pair shares its DCLS model
            continue
        table = read_kept(unit.path, study.keep_going)
        if table is None:
            waiting[unit.path] = unit
        else:
            tables[unit.variant, unit.path] = table
    with tqdm(total=len(units), initial=len(tables), desc="scoring", unit="model") as bar:
        bar.set_postfix_str(f"{len(tables)} kept from before", refresh=False)
        for unit, error in _scored(study, list(waiting.values())):
            bar.update()
            if error is not None:
                missed[unit.variant] = str(error)
                tqdm.write(f"left out: {unit.variant}: {error}")
    scores = _together(study, units, tables, missed)
    damaged = scores[scores.validity == NON_FINITE]
    once = damaged.drop_duplicates(["backbone", "dcls", "method", "image_id"])  # of all protocols
    for method, count in once.groupby("method").size().items():
        tqdm.write(f"{METHODS[method].label}: {count} maps are not finite, and are left out")
    return scores


def left_out(scores: pd.DataFrame) -> pd.DataFrame:
    """What a study with `keep_going` left out: a row per variant, part or picture, and why."""
    missed = {name: why[:1000] for name, why in scores.attrs.get(LEFT_OUT, {}).items()}
    return pd.DataFrame(missed.items(), columns=["left_out", "reason"], dtype=str)


def units_of(study: Study, clickme: ClickMe, missed: dict[str, str]) -> Iterator[Unit]:
    """Part by part; a variant without weights is missed, or raises."""
    for some in clickme.per_part():
        for backbone, dcls in study.variants:
            name = variant_name(backbone.key, dcls)
            try:
                if name not in missed:
                    yield Unit(backbone, dcls, some, kept_path(study, backbone, dcls, some))
            except MissingWeights as error:
                if not study.keep_going:
                    raise
                missed[name] = str(error)


def _scored(study: Study, units: list[Unit]) -> Iterable[tuple[Unit, Exception | None]]:
    """Each unit once it is scored, or why it cannot be (with `keep_going`)."""
    if study.workers or study.scheduler:
        from lib.cluster import score_on_cluster

        return score_on_cluster(study, units)
    return _scored_here(study, units)


def _scored_here(study: Study, units: list[Unit]) -> Iterator[tuple[Unit, Exception | None]]:
    scorer = Scorer(study) if units else None
    if units and not study.keep_going and (foretold := scorer.foretell(units)):
        tqdm.write(foretold)
    unusable: dict[str, Exception] = {}
    for unit in units:
        if unit.variant not in unusable:
            try:
                scorer.score(unit)
            except (MissingWeights, WeightsError) as error:
                if not study.keep_going:
                    raise
                unusable[unit.variant] = error
        for name, reason in unit.some.left_out.items():
            tqdm.write(f"left out: {name}: {reason}")
        yield unit, unusable.get(unit.variant)


def _together(
    study: Study, units: list[Unit], tables: dict, missed: dict[str, str]
) -> pd.DataFrame:
    order = [variant_name(backbone.key, dcls) for backbone, dcls in study.variants]
    frames = []
    for unit in sorted(units, key=lambda unit: order.index(unit.variant)):
        if unit.variant in missed:
            continue
        scores = tables.get((unit.variant, unit.path))
        scores = read_kept(unit.path) if scores is None else scores
        if scores is None:
            missed[unit.variant] = "its weights are another variant's, which was left out"
            continue
        missed |= scores.attrs.pop(LEFT_OUT, {})
        if scores.empty:
            continue
        frames.append(
            scores.assign(variant=unit.variant, backbone=unit.backbone.key, dcls=unit.dcls)
        )
    if not frames:
        reasons = "\n".join(f"{name}: {reason}" for name, reason in missed.items())
        raise MissingInputs(f"nothing can be scored:\n{reasons}")
    scores = pd.concat(frames, ignore_index=True)
    names = ["variant", "backbone", "dcls"]
    scores = scores[[*names, *scores.columns.difference(names, sort=False)]]
    scores.attrs[LEFT_OUT] = missed
    return scores
