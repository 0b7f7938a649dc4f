"""Fixation measures of a study's models, controls and people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..base.geometry import DELIVERED_SIZE, Preprocessing
from ..base.progress_bar import progress_bar
from ..maps.cam import cam_maps
from ..people.clickme import ClickMe, Fixated, Observed
from ..people.human_maps import human_maps
from ..people.protocols import PROTOCOLS, Protocol
from ..people.stored.part import STORED_SIZE
from ..study.plug_ins import load_plug_ins
from ..study.study import Study
from .control_scores import control_maps, mean_maps
from .controls import CONTROL, NETWORK, PEOPLE
from .fixation_measures import FixationSet, ImageFixations, measure_fixations

ONE_AGAINST_REST = "one_against_rest"
COLUMNS = [
    "kind", "reading", "backbone", "dcls", "method", "protocol", "measure", "image_id",
    "fixations", "outside", "value",
]  # fmt: skip
_BATCH = 16


def placed_fixations(
    points: np.ndarray, protocol: Protocol, geometry: Preprocessing
) -> tuple[np.ndarray, np.ndarray]:
    """Move fixations as `human_maps` moves the human map, and find those that lie in it.

    points : (fixation, 2) x, y in pixels of the stored 256 x 256 square
    Returns (fixation, 2) in pixels of the compared 224 x 224 maps, and (fixation,) bool, whether
    each lies in the map.
    """
    _, crop, _ = protocol.reading(geometry)
    if crop is None:
        placed = points * (DELIVERED_SIZE / STORED_SIZE)
    else:
        window = geometry.window(geometry.resize)
        resized = points * (geometry.resize / STORED_SIZE)
        placed = (resized - window.start) * (DELIVERED_SIZE / (window.stop - window.start))
    return placed, ((placed >= 0) & (placed < DELIVERED_SIZE)).all(axis=1)


@dataclass(frozen=True)
class _Frame:
    """The study's fixations in the maps that a backbone's preprocessing allows to be compared.

    owners  : {image: (fixation,) the observer of each}, for images whose observers are known
    outside : {image: number of skipped fixations}, outside its file or outside the compared part
    """

    reading: str
    protocol: Protocol
    geometry: Preprocessing
    fixations: FixationSet
    owners: dict[str, np.ndarray]
    outside: dict[str, int]

    @classmethod
    def of(cls, fixated: Sequence[Fixated], protocol: Protocol, geometry: Preprocessing) -> _Frame:
        points, owners, outside = {}, {}, {}
        for one in fixated:
            placed, inside = placed_fixations(one.points, protocol, geometry)
            points[one.image_id] = placed[inside]
            outside[one.image_id] = one.outside + int((~inside).sum())
            if len(one.owners):
                owners[one.image_id] = one.owners[inside]
        fixations = FixationSet(points, DELIVERED_SIZE, DELIVERED_SIZE)
        reading = protocol.reading_name(geometry)
        return cls(reading, protocol, geometry, fixations, owners, outside)

    def rows(self, image_id: str, values: dict[str, float], *maker: object) -> Iterator[tuple]:
        """One row per measure. maker : kind, backbone, dcls and method"""
        kind, *rest = maker
        counts = len(self.fixations.pixels[image_id]), self.outside[image_id]
        for measure, value in values.items():
            yield kind, self.reading, *rest, self.protocol.key, measure, image_id, *counts, value


def score_fixations(study: Study) -> pd.DataFrame:
    """Return every fixation measure under the study's first protocol, per image: `COLUMNS`.

    kind    : "network" for the study's models and methods; "control", whose `method` is the
              control's key; "people" for each observer's fixations and the map of all other
              observers of the image, averaged over observers. The latter two have no `backbone`.
    reading : the part of the human maps that is compared, as `Protocol.reading_name` says. The
              fixations are moved like the human maps.
    fixations, outside : number of fixations used, and number of fixations skipped because they
              lie outside the image or outside that part of it
    value   : NaN if it is undefined, see `measure_fixations`

    The maps explain the study's target. Images without fixations are skipped, and the table is
    empty if only human maps are stored. Raises StoredError, WeightsError.
    """
    load_plug_ins("measures")
    protocol = PROTOCOLS[study.choices.protocols[0]]
    clickme = study.clickme()
    fixated = [
        one for one in clickme.fixated() if clickme.is_scored(protocol.key, np.array([one.place]))
    ]
    if not fixated:  # only maps are stored
        return pd.DataFrame(columns=COLUMNS)
    frames: dict[str, _Frame] = {}
    for backbone in study.choices.backbones:
        name = protocol.reading_name(backbone.preprocessing)
        if name not in frames:
            frames[name] = _Frame.of(fixated, protocol, backbone.preprocessing)
    rows = [
        *_networks(study, clickme, frames),
        *_controls(clickme, frames),
        *_people(clickme, frames),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _networks(study: Study, clickme: ClickMe, frames: dict[str, _Frame]) -> Iterator[tuple]:
    for backbone, dcls in progress_bar(study.networks.there(), desc="fixations", unit="model"):
        model = study.networks.inference_model(backbone.key, dcls)
        geometry = backbone.preprocessing
        frame = frames[PROTOCOLS[study.choices.protocols[0]].reading_name(geometry)]
        for batch in clickme.batches(_BATCH):
            asked = study.choices.asked(batch.labels)
            maps = cam_maps(model, model.prepare(batch.images), asked, study.choices.methods)
            maps = {key: of_method.cpu() for key, of_method in maps.items()}
            for maker, image_id, values in _measured(frame, batch.image_ids, maps):
                yield from frame.rows(image_id, values, NETWORK, backbone.key, dcls, maker)


def _controls(clickme: ClickMe, frames: dict[str, _Frame]) -> Iterator[tuple]:
    readings = {(f.protocol.key, name): (f.protocol, f.geometry) for name, f in frames.items()}
    means = mean_maps(clickme, readings)
    for block, (_, name), _, maps in control_maps(clickme, readings, means):
        frame = frames[name]
        for control, image_id, values in _measured(frame, block.image_ids, maps):
            yield from frame.rows(image_id, values, CONTROL, "", False, control)


def _measured(
    frame: _Frame, image_ids: Sequence[str], maps: dict[str, Tensor]
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Yield the map's maker, the image, and {measure: value} for images with fixations."""
    there = [place for place, image_id in enumerate(image_ids) if image_id in frame.fixations]
    looked = [frame.fixations.of(image_ids[place]) for place in there]
    for maker, made in maps.items():
        found = measure_fixations(made[there], looked)
        for number, place in enumerate(there):
            values = {measure: of_each[number] for measure, of_each in found.items()}
            yield maker, image_ids[place], values


def _people(clickme: ClickMe, frames: dict[str, _Frame]) -> Iterator[tuple]:
    for observed in clickme.observed():
        for frame in frames.values():
            if observed.image_id in frame.owners:
                values = one_against_rest(
                    observed,
                    frame.fixations.of(observed.image_id),
                    frame.owners[observed.image_id],
                    frame.protocol,
                    frame.geometry,
                )
                maker = PEOPLE, "", False, ONE_AGAINST_REST
                yield from frame.rows(observed.image_id, values, *maker)


def one_against_rest(
    observed: Observed,
    looked: ImageFixations,
    owners: np.ndarray,
    protocol: Protocol,
    geometry: Preprocessing,
) -> dict[str, float]:
    """Measure each observer's fixations in the human map of all others: {measure: mean}.

    looked : the image's fixations
    owners : (fixation,), the observer of each, as a place in `observed.maps`
    The mean is over observers. It skips observers without a value: those who have no fixation in
    the compared part, and those whose fellow observers have none.
    """
    count = len(observed.maps)
    others = 1 - torch.eye(count)  # sums over the others: a difference would have rounding errors
    rest = (others @ observed.maps.flatten(1)).view_as(observed.maps)
    maps = human_maps(rest, protocol, geometry)
    found = measure_fixations(maps, [looked.only(owners == who) for who in range(count)])
    return {
        measure: float(np.nanmean(values)) if not np.isnan(values).all() else np.nan
        for measure, values in found.items()
    }
