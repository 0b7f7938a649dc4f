"""COSE's pairs: heatmaps before and after a change of the image, or of the network.

If the answer stays right, they should agree (consistency); if it becomes wrong, they should differ
(sensitivity). COSE = sqrt(consistency · sensitivity), see `lib.analyses.cose.results`. Their
similarity has two versions, see `lib.analyses.cose.readings`.

Source: Daroya et al., "COSE: a consistency-sensitivity metric for saliency on image
classification", ICCV workshops 2023. Unlike in its published code, images and magnitudes are the
same for all methods and models, and constant maps are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...base.geometry import Preprocessing
from ...maps.forward import head_pass, is_constant
from ...maps.methods import CamMethod
from ...networks.batch_size import BatchSize
from ...networks.models import StudyModel
from ...networks.preprocessing import resize_images
from ...people.clickme import ClickMeBatch
from ...people.stored.part import NO_LABEL
from .changes import KINDS, Change, changes_of, undone
from .readings import (
    CORRECTED,
    PUBLISHED,
    READINGS,
    Moves,
    averaged,
    scaled,
    similarities,
)

ITSELF = "itself"
MODEL = "model"  # the group of changes of the network

# The four conditions: the answer before and after the change.
KEPT = "right, stays right"
CHANGED = "right, becomes wrong"
MENDED = "wrong, becomes right"
WRONG = "wrong, stays wrong"

SSIM = {reading: f"ssim_{reading}" for reading in READINGS}
MATCHED = {reading: f"matched_{reading}" for reading in READINGS}
COLUMNS = [
    "method", "image_id", "label", "network", "group", "change", "magnitude", "predicted",
    "predicted_after", "condition", "cells", "side", "constant", *SSIM.values(), *MATCHED.values(),
]  # fmt: skip
SPEARMAN = "spearman"  # an optional additional column


@dataclass(frozen=True)
class ShownImages:
    """Images as a network sees them, before they are normalised.

    image_ids : one name per image
    pixels    : (image, side, side, 3) uint8, resized and cropped
    places    : one number per image, which determines its changes
    labels    : one class per image; None means that the class predicted for the unchanged image
                counts as right
    """

    image_ids: Sequence[str]
    pixels: np.ndarray
    places: Sequence[int]
    labels: Sequence[int] | None

    @classmethod
    def of_clickme(cls, batch: ClickMeBatch, geometry: Preprocessing) -> ShownImages:
        pixels = resize_images(batch.images, geometry)
        known = None if (batch.labels == NO_LABEL).any() else batch.labels.tolist()
        return cls(batch.image_ids, pixels, batch.places.tolist(), known)


def condition(label: int, before: int, after: int) -> str:
    """Return the condition of a pair, from the label and the classes predicted before and after
    the change."""
    if before == label:
        return KEPT if after == label else CHANGED
    return MENDED if after == label else WRONG


def pairs_of_changed_images(
    model: StudyModel,
    methods: Sequence[CamMethod],
    shown: ShownImages,
    size: BatchSize,
    with_spearman: bool = False,
) -> pd.DataFrame:
    """Return one row of COLUMNS per method, image and change (`lib.analyses.cose.changes`).

    cells, side : resolution of the map, and of the image
    constant : how many of the two maps are constant
    ssim_…   : SSIM of the maps, -1 to 1, in each version; NaN if both are constant, and for images
               that the network classifies wrongly before any change
    matched_… : the same after maps finer than the layer's cells are averaged to these cells, so
               that methods of any resolution can be compared
    with_spearman : also compute `spearman`, of the pixels within the published mask

    Every map explains the class that is predicted for its own input.
    """
    frames = []
    columns = _columns(with_spearman)
    for number, (image, place) in enumerate(zip(shown.pixels, shown.places, strict=True)):
        label = None if shown.labels is None else shown.labels[number]
        changes, side = changes_of(place), image.shape[0]
        changed = np.stack([image, *(change.apply(image) for change in changes)])
        explained = _Explained(model, methods, changed, label, size)
        predicted = explained.predicted
        label = predicted[0] if label is None else label
        common = {
            "image_id": shown.image_ids[number], "label": label, "network": ITSELF,
            "group": [change.group for change in changes],
            "change": [change.kind for change in changes],
            "magnitude": [change.magnitude for change in changes],
            "predicted": predicted[0], "predicted_after": predicted[1:],
            "condition": [condition(label, predicted[0], after) for after in predicted[1:]],
            "side": side,
        }  # fmt: skip
        moves = Moves.of(changes, side, explained.device) if explained.maps else None
        for method in methods:
            measured = dict.fromkeys(columns[columns.index("cells") :], torch.nan) | {"side": side}
            if moves is not None:
                maps = explained.maps[method.key]
                measured |= _compared(
                    maps[:1], maps[1:], side, explained.grid, moves, with_spearman
                )
            frames.append(pd.DataFrame(common | measured | {"method": method.key}))
    return pd.concat(frames, ignore_index=True)[columns]


def pairs_of_changed_network(
    model: StudyModel,
    changed: StudyModel,
    name: str,
    methods: Sequence[CamMethod],
    shown: ShownImages,
    size: BatchSize,
    with_spearman: bool = False,
) -> pd.DataFrame:
    """Return the same columns for unchanged images, before and after a change of the network.

    name : name of the changed network; its pairs never count for consistency
    """
    before, after = (_Explained(m, methods, shown.pixels, None, size) for m in (model, changed))
    labels, side = shown.labels, shown.pixels.shape[1]
    if labels is None:
        labels = before.predicted
    answers = list(zip(labels, before.predicted, after.predicted, strict=True))
    common = {
        "image_id": shown.image_ids, "label": labels, "network": name, "group": MODEL,
        "change": name, "magnitude": 0.0, "predicted": before.predicted,
        "predicted_after": after.predicted,
        "condition": [condition(*answer) for answer in answers], "side": side,
    }  # fmt: skip
    wrong = pd.Series([label != first for label, first, _ in answers])
    frames = []
    for method in methods:
        maps = before.maps[method.key], after.maps[method.key]
        measured = _compared(*maps, side, before.grid, None, with_spearman)
        frame = pd.DataFrame(common | measured | {"method": method.key})
        of_maps = [name for name in measured if name != "cells"]
        frames.append(frame.assign(**frame[of_maps].astype(float).mask(wrong, axis=0)))
    return pd.concat(frames, ignore_index=True)[_columns(with_spearman)]


def _columns(with_spearman: bool) -> list[str]:
    return COLUMNS + [SPEARMAN] * with_spearman


@dataclass(frozen=True)
class Followed:
    """A changed image, its map, and its map moved back onto the unchanged image.

    image : (side, side, 3) uint8
    found, back : (side, side) in 0-1
    ssim    : SSIM with the unchanged image's map, in the published version; NaN for that map itself
    corrected : the same in the corrected version
    answer  : the predicted class
    """

    title: str
    image: np.ndarray
    found: np.ndarray
    back: np.ndarray
    ssim: float
    corrected: float
    answer: str


def followed(
    model: StudyModel, method: CamMethod, batch: ClickMeBatch, classes: Sequence[str] = ()
) -> list[Followed]:
    """Return the first image and the largest change of each kind, for display.

    classes : names of the classes, if they have names
    """
    one = ShownImages.of_clickme(batch, model.backbone.preprocessing)
    image, side = one.pixels[0], one.pixels.shape[1]
    largest: dict[str, Change] = {}
    for change in sorted(changes_of(one.places[0]), key=lambda change: -abs(change.magnitude)):
        largest.setdefault(change.kind, change)
    changes = list(largest.values())
    shown = np.stack([image, *(change.apply(image) for change in changes)])
    explained = _Explained(model, [method], shown, None, BatchSize(len(shown)))
    small = explained.maps[method.key]
    moves = Moves.of(changes, side, explained.device)
    ssim = similarities(small[:1], small[1:], side, moves)
    titles = ["unchanged", *(f"{KINDS[c.kind].label}\n{c.in_words.strip()}" for c in changes)]
    names = dict(enumerate(classes))
    answers = [names.get(number, f"class {number}") for number in explained.predicted]
    maps = scaled(small, side)
    back = undone(changes, maps[1:])
    back[moves.leaves] = back[moves.leaves].where(moves.partly, torch.nan)
    maps, back = maps.cpu().numpy(), torch.cat([maps[:1], back]).cpu().numpy()
    scores = ([np.nan, *ssim[reading].tolist()] for reading in (PUBLISHED, CORRECTED))
    return [
        Followed(*told) for told in zip(titles, shown, maps, back, *scores, answers, strict=True)
    ]


class _Explained:
    """Predicted classes of images, and every method's maps of these classes.

    images    : (image, side, side, 3) uint8, as the network sees them
    predicted : one class per image
    maps      : {method: (image, h, w)}; empty if the first image's class is not `label`
    device    : the device of the maps
    grid      : (height, width) of the layer's cells
    """

    def __init__(
        self,
        model: StudyModel,
        methods: Sequence[CamMethod],
        images: np.ndarray,
        label: int | None,
        size: BatchSize,
    ):
        device = next(model.parameters()).device
        # SSIM is computed in float64, which Apple's GPUs do not have.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.predicted: list[int] = []
        self.maps: dict[str, Tensor] = {}
        self.grid = (0, 0)
        found: dict[str, list[Tensor]] = {method.key: [] for method in methods}

        def work(some: np.ndarray) -> None:
            x = model.prepare_pixels(torch.from_numpy(some))
            passed = head_pass(model, x)
            asked = [*self.predicted, *passed.targets.tolist()]
            if label is None or asked[0] == label:
                maps = [method.maps(model, x, passed) for method in methods]
                for method, of_method in zip(methods, maps, strict=True):
                    found[method.key].append(of_method.to(self.device))
            self.predicted, self.grid = asked, tuple(passed.features.shape[-2:])

        size.work_through(images, work)
        if all(found.values()):
            self.maps = {key: torch.cat(maps) for key, maps in found.items()}


def _compared(
    before: Tensor,
    after: Tensor,
    side: int,
    grid: tuple[int, int],
    moves: Moves | None,
    with_spearman: bool,
) -> dict:
    """The similarity of two heatmaps: the columns of COLUMNS about maps."""
    constant = is_constant(before).long() + is_constant(after).long()
    found = similarities(before, after, side, moves, with_spearman)
    cells, matched = before.shape[-1], found
    if cells > grid[1]:
        matched = similarities(averaged(before, grid), averaged(after, grid), side, moves)
    columns = {"cells": cells, "constant": constant.tolist()}
    for reading in READINGS:
        columns[SSIM[reading]] = found[reading].tolist()
        columns[MATCHED[reading]] = matched[reading].tolist()
    if with_spearman:
        columns[SPEARMAN] = found[SPEARMAN].tolist()
    return columns
