"""The images of a study that are shown: in figures, in the explorer, for a quick check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ..base.geometry import DELIVERED_SIZE
from ..base.paths import PHOTOGRAPHS
from ..maps.placed import answers
from ..networks.models import StudyModel
from ..people.clickme import ClickMe, ClickMeBatch
from ..people.photographs import photographs
from ..people.stored import StoredError
from ..people.stored.part import NO_LABEL, STORED_SIZE
from .study import Study


@dataclass(frozen=True)
class Exhibit:
    """Images to explain, and the class whose evidence is requested.

    images   : (image, 224, 224, 3) uint8
    targets  : (image,) class indices, or None for each model's predicted class
    titles   : one per image
    credits  : attributions, "" for images of the embedded example
    """

    images: np.ndarray
    targets: Tensor | None
    titles: list[str]
    credits: str = ""


def held_out(study: Study, count: int) -> ClickMeBatch:
    """Return the first images of a fixed, seeded subset of the profile's shards.

    If some cannot be read, `keep_going` draws from a larger subset. Raises StoredError.
    """
    return _first(study, count)[1]


def _first(study: Study, count: int) -> tuple[ClickMe, ClickMeBatch]:
    for limit in (count, 4 * count, 0):
        clickme = study.clickme(limit=limit)
        batch = next(clickme.batches(count), None)
        if batch is not None:
            return clickme, batch
    raise StoredError("no image of the study can be read")


@dataclass(frozen=True)
class Looks:
    """Images of a study, and where people looked at them.

    batch  : the images, as `held_out` returns them
    points : for each image (fixation, 2) x, y in its 224 x 224 pixels; empty if only maps are
             known
    owners : for each image (fixation,) the observer of each; empty if observers are unknown
    """

    batch: ClickMeBatch
    points: list[np.ndarray]
    owners: list[np.ndarray]


def looks(study: Study, count: int) -> Looks:
    """Return the same images as `held_out`, with their fixations. Raises StoredError."""
    clickme, batch = _first(study, count)
    found = {each.image_id: each for each in clickme.fixated()}
    none = np.zeros((0, 2)), np.zeros(0, np.int64)
    some = [found.get(name) for name in batch.image_ids]
    scale = DELIVERED_SIZE / STORED_SIZE
    return Looks(
        batch,
        [none[0] if each is None else each.points * scale for each in some],
        [none[1] if each is None else each.owners for each in some],
    )


def exhibit(study: Study, count: int = 10) -> Exhibit:
    """Return what Figures 5 and 6 show: photographs, or the demo's held-out images."""
    if study.choices.profile.photographs == "photographs":
        found = photographs(PHOTOGRAPHS, count)
        credits = "; ".join(f"{p.name}: {p.attribution}" for p in found)
        return Exhibit(np.stack([p.pixels for p in found]), None, [p.name for p in found], credits)
    batch = held_out(study, count)
    targets = study.choices.asked(batch.labels)
    return Exhibit(batch.images, targets, image_titles(study, batch))


def image_titles(study: Study, batch: ClickMeBatch) -> list[str]:
    """Return the class of each image, or the image's name if its class is unknown."""
    names = study.networks.class_names()
    return [
        names[label] if label != NO_LABEL else Path(name).stem
        for label, name in zip(batch.labels, batch.image_ids, strict=True)
    ]


def evidence_titles(
    study: Study, model: StudyModel, images: np.ndarray, targets: Tensor | None
) -> list[str]:
    """Return the classes whose evidence a model's heatmaps show: requested, or predicted."""
    names = study.networks.class_names()
    if targets is not None:
        return [names[label] for label in targets]
    classes, shares = answers(model, images)
    return [
        f"{names[best].split(',')[0]}, {share:.0%}"
        for best, share in zip(classes, shares, strict=True)
    ]
