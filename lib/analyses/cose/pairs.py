"""COSE's pairs: explanations before and after a change of the picture, or of the network.

Where the answer stays right they should agree (consistency), where it becomes wrong they
should not (sensitivity): COSE = sqrt(consistency · sensitivity), see `lib.analyses.cose.results`.

Source: Daroya et al., "COSE: a consistency-sensitivity metric for saliency on image
classification", ICCV workshops 2023. Unlike its published code all methods and models are
asked about the same pictures and magnitudes, constant maps are counted, and the border of a
picture counts as outside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.analyses.cose.changes import KINDS, Change, changes_of, undone
from lib.analyses.cose.ssim import structural_similarity
from lib.maps.forward import enlarge, head_pass, is_constant
from lib.maps.methods import CamMethod
from lib.networks.batch_size import BatchSize
from lib.networks.models import StudyModel
from lib.networks.preprocessing import resize_pictures
from lib.people.clickme import ClickMeBatch

ITSELF = "itself"
MODEL = "model"  # the group of changes that are none of the picture

# The four conditions: the answer before and after the change.
KEPT = "right, stays right"
CHANGED = "right, becomes wrong"
MENDED = "wrong, becomes right"
WRONG = "wrong, stays wrong"

COLUMNS = [
    "method", "image_id", "label", "network", "group", "change", "magnitude", "predicted",
    "predicted_after", "condition", "cells", "side", "constant", "ssim", "matched",
]  # fmt: skip


def condition(label: int, before: int, after: int) -> str:
    """Of a pair: the picture's label, and the class predicted before and after the change."""
    if before == label:
        return KEPT if after == label else CHANGED
    return MENDED if after == label else WRONG


def pairs_of_changed_pictures(
    model: StudyModel, methods: Sequence[CamMethod], batch: ClickMeBatch, size: BatchSize
) -> pd.DataFrame:
    """A row of COLUMNS per method, picture and change of the picture (`lib.analyses.cose.changes`).

    cells, side : the map's resolution, the picture's
    constant : how many of the two maps are
    ssim     : of the maps, -1 to 1; missing where both are constant, and for pictures that the
               network has wrong before any change
    matched  : the same once maps finer than the layer's cells are averaged to these, so that
               methods of any resolution compare

    Every explanation is of the class that is predicted for that very input.
    """
    frames = []
    for number, picture in enumerate(_pictures(model, batch)):
        place, label = int(batch.places[number]), int(batch.labels[number])
        changes = changes_of(place)
        shown = torch.stack([picture, *(change.apply(picture) for change in changes)])
        explained = _Explained(model, methods, shown, label, size)
        side, predicted = picture.shape[-1], explained.predicted
        inside = torch.stack([change.inside(side, picture.device) for change in changes])
        common = {
            "image_id": batch.image_ids[number], "label": label, "network": ITSELF,
            "group": [change.group for change in changes],
            "change": [change.kind for change in changes],
            "magnitude": [change.magnitude for change in changes],
            "predicted": predicted[0], "predicted_after": predicted[1:],
            "condition": [condition(label, predicted[0], after) for after in predicted[1:]],
            "side": side,
        }  # fmt: skip
        for method in methods:
            measured = dict.fromkeys(("cells", "constant", "ssim", "matched"), torch.nan)
            if method.key in explained.maps:
                maps = explained.maps[method.key]
                measured = _compared(
                    maps[:1], maps[1:], side, explained.grid,
                    lambda after, changes=changes: undone(changes, after), inside,
                )  # fmt: skip
            frames.append(pd.DataFrame(common | measured | {"method": method.key}))
    return pd.concat(frames, ignore_index=True)[COLUMNS]


def pairs_of_changed_network(
    model: StudyModel,
    changed: StudyModel,
    name: str,
    methods: Sequence[CamMethod],
    batch: ClickMeBatch,
    size: BatchSize,
) -> pd.DataFrame:
    """The same of the unchanged pictures, for the network and what it became.

    name : of what it became; its pairs never count for consistency
    """
    pictures = _pictures(model, batch)
    before, after = (_Explained(m, methods, pictures, None, size) for m in (model, changed))
    labels, side = batch.labels.tolist(), pictures.shape[-1]
    answers = list(zip(labels, before.predicted, after.predicted, strict=True))
    common = {
        "image_id": batch.image_ids, "label": labels, "network": name, "group": MODEL,
        "change": name, "magnitude": 0.0, "predicted": before.predicted,
        "predicted_after": after.predicted,
        "condition": [condition(*answer) for answer in answers], "side": side,
    }  # fmt: skip
    wrong = pd.Series([label != first for label, first, _ in answers])
    frames = []
    for method in methods:
        maps = before.maps[method.key], after.maps[method.key]
        frame = pd.DataFrame(common | _compared(*maps, side, before.grid) | {"method": method.key})
        measured = ["constant", "ssim", "matched"]
        frames.append(frame.assign(**frame[measured].astype(float).mask(wrong, axis=0)))
    return pd.concat(frames, ignore_index=True)[COLUMNS]


@dataclass(frozen=True)
class Followed:
    """A change of a picture: what is seen, its map, and where that lies on the unchanged one.

    picture : (side, side, 3) uint8; found, back : (side, side)
    ssim    : with the unchanged picture's map, NaN for that itself
    answer  : the class that is predicted
    """

    title: str
    picture: np.ndarray
    found: np.ndarray
    back: np.ndarray
    ssim: float
    answer: str


def followed(
    model: StudyModel, method: CamMethod, batch: ClickMeBatch, classes: Sequence[str] = ()
) -> list[Followed]:
    """The first picture, and each kind's largest change of it, to look at.

    classes : names of the classes, if they have any
    """
    picture, place = _pictures(model, batch)[0], int(batch.places[0])
    largest: dict[str, Change] = {}
    for change in sorted(changes_of(place), key=lambda change: -abs(change.magnitude)):
        largest.setdefault(change.kind, change)
    changes, side = list(largest.values()), picture.shape[-1]
    shown = torch.stack([picture, *(change.apply(picture) for change in changes)])
    explained = _Explained(model, [method], shown, None, BatchSize(len(shown)))
    maps = enlarge(explained.maps[method.key], side)
    inside = torch.stack([change.inside(side, picture.device) for change in changes])
    back = undone(changes, maps[1:])
    ssim = structural_similarity(maps[:1], back, inside).tolist()
    titles = ["unchanged", *(f"{KINDS[c.kind].label}\n{c.in_words.strip()}" for c in changes)]
    names = dict(enumerate(classes))
    answers = [names.get(number, f"class {number}") for number in explained.predicted]
    back = torch.cat([maps[:1], back.where(inside, torch.nan)])
    images = zip(shown.permute(0, 2, 3, 1), maps, back, strict=True)
    told = zip(titles, images, [np.nan, *ssim], answers, strict=True)
    return [
        Followed(title, *(x.cpu().numpy() for x in of), score, answer)
        for title, of, score, answer in told
    ]


def _pictures(model: StudyModel, batch: ClickMeBatch) -> Tensor:
    """(image, 3, side, side) uint8, resized and cropped as the network sees them."""
    pixels = torch.from_numpy(resize_pictures(batch.pictures, model.backbone.preprocessing))
    return pixels.permute(0, 3, 1, 2).contiguous().to(next(model.parameters()).device)


class _Explained:
    """Predicted classes of pictures, and every method's maps of these.

    predicted : a class per picture
    maps      : {method: (picture, h, w)}; none if the first picture's class is not `label`
    grid      : (height, width) of the layer's cells
    """

    def __init__(
        self,
        model: StudyModel,
        methods: Sequence[CamMethod],
        pictures: Tensor,
        label: int | None,
        size: BatchSize,
    ):
        self.predicted: list[int] = []
        self.maps: dict[str, Tensor] = {}
        self.grid = (0, 0)
        found: dict[str, list[Tensor]] = {method.key: [] for method in methods}

        def work(some: Tensor) -> None:
            x = model.normalised(some.float() / 255)
            passed = head_pass(model, x)
            asked = [*self.predicted, *passed.targets.tolist()]
            if label is None or asked[0] == label:
                maps = [method.maps(model, x, passed) for method in methods]
                for method, of_method in zip(methods, maps, strict=True):
                    found[method.key].append(of_method)
            self.predicted, self.grid = asked, tuple(passed.features.shape[-2:])

        size.work_through(pictures, work)
        if all(found.values()):
            self.maps = {key: torch.cat(maps) for key, maps in found.items()}


def _compared(
    before: Tensor,
    after: Tensor,
    side: int,
    grid: tuple[int, int],
    bring_back: Callable[[Tensor], Tensor] = lambda maps: maps,
    inside: Tensor | None = None,
) -> dict:
    """What two explanations have in common: `cells, constant, ssim, matched`.

    before     : (pair, h, w), or (1, h, w) for all; after : (pair, h, w)
    bring_back : puts enlarged maps where they lie on the unchanged picture
    inside     : (pair, side, side) bool, what of it counts
    """
    constant = is_constant(before).long() + is_constant(after).long()

    def similarity(first: Tensor, second: Tensor) -> list[float]:
        found = structural_similarity(
            enlarge(first, side), bring_back(enlarge(second, side)), inside
        )
        return found.masked_fill(constant == 2, torch.nan).tolist()

    cells = before.shape[-1]
    ssim = matched = similarity(before, after)
    if cells > grid[1]:
        matched = similarity(*(F.adaptive_avg_pool2d(maps, grid) for maps in (before, after)))
    return {"cells": cells, "constant": constant.tolist(), "ssim": ssim, "matched": matched}
