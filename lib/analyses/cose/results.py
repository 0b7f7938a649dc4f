"""COSE's scores from its pairs, with the scores of chance and of a perfect explanation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...maps.methods import METHODS
from ...scores.statistics import SEED
from ...study.rules import RULES
from .changes import GEOMETRIC, PHOTOMETRIC, changes_of
from .pairs import CHANGED, KEPT, MATCHED, MENDED, MODEL, SSIM, WRONG
from .readings import READINGS, Moves, scaled, similarities

_RESAMPLES = 2000
_LEVEL_IMAGES = 8  # images whose changes determine chance and ceiling
_BY = ["backbone", "dcls", "method"]


def cose(consistency, likeness):
    """Return COSE = sqrt(C · (1 − F)).

    C is the mean SSIM if answers stay right, F the mean SSIM if they become wrong."""
    with np.errstate(invalid="ignore"):
        return np.sqrt(consistency * (1 - likeness))


@dataclass(frozen=True)
class _Sums:
    """Sums and numbers of SSIM per image, over pairs that stay right and pairs that become wrong.

    images   : (image,), the names
    of_image : (image, 4) float64
    """

    images: np.ndarray
    of_image: np.ndarray

    def only(self, images: Sequence[str]) -> _Sums:
        """The sums of some images, in their order."""
        places = pd.Index(self.images).get_indexer(images)
        return _Sums(self.images[places], self.of_image[places])

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """Consistency, sensitivity and COSE, (…, 3), from each image's weight, (…, image)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            kept, n_kept, changed, n_changed = np.moveaxis(weights @ self.of_image, -1, 0)
            c, f = kept / n_kept, changed / n_changed
        return np.stack([c, 1 - f, cose(c, f)], axis=-1)

    @property
    def numbers(self) -> tuple[int, int]:
        """The number of pairs that stay right, and of pairs that become wrong."""
        return int(self.of_image[:, 1].sum()), int(self.of_image[:, 3].sum())


_NO_SUMS = _Sums(np.empty(0, object), np.zeros((0, 4)))


def _sums(pairs: pd.DataFrame, column: str, by: Sequence[str]) -> dict[tuple, _Sums]:
    """{key: sums of its pairs}, in one pass over the table, with a key for each combination of the
    columns `by`."""
    key = pairs.groupby([*by], sort=False).ngroup().to_numpy()
    image, names = pd.factorize(pairs.image_id.to_numpy(object))
    place, there = pd.factorize(key * len(names) + image)  # a place per key and image
    values = pairs[column].to_numpy(np.float64)
    known = ~np.isnan(values)
    kept = (pairs.condition == KEPT).to_numpy() & (pairs.group != MODEL).to_numpy()
    changed = (pairs.condition == CHANGED).to_numpy()
    of_place = np.zeros((len(there), 4))
    for number, chosen in enumerate((known & kept, known & changed)):
        grouped = pd.Series(values[chosen]).groupby(place[chosen])
        for column_of, found in ((2 * number, grouped.sum()), (2 * number + 1, grouped.size())):
            of_place[found.index, column_of] = found
    # Whose each place is; places of one key lie in the order in which its images appear.
    order = np.argsort(there // len(names), kind="stable")
    ends = np.cumsum(np.bincount(there // len(names)))
    keys = pairs[[*by]].drop_duplicates().itertuples(index=False, name=None)
    return {
        of: _Sums(names[there[some] % len(names)], of_place[some])
        for of, some in zip(keys, np.split(order, ends[:-1]), strict=True)
    }


_SCORES = ("consistency", "sensitivity", "cose")
_COSE = ("cose", "cose_low", "cose_high")


@cache
def _resampled(images: int) -> np.ndarray:
    """(resample, image): how often each image is drawn, with a fixed seed."""
    return np.random.default_rng(SEED).multinomial(
        images, np.full(images, 1 / images), size=_RESAMPLES
    )


def _intervals(found: np.ndarray) -> np.ndarray:
    """(resample, score) -> (2, score), the 95 % interval; NaN if many resamples are undefined."""
    ends = np.full((2, found.shape[1]), np.nan)
    known = np.isnan(found).mean(axis=0) <= 0.025
    if known.any():
        ends[:, known] = np.nanquantile(found[:, known], [0.025, 0.975], axis=0)
    return ends


def _scored(sums: _Sums) -> dict:
    """The columns `consistency, sensitivity, cose` with `_low, _high`, and the numbers of pairs."""
    images = len(sums.images)
    values = sums.scores(np.ones(images))
    low, high = np.full((2, len(_SCORES)), np.nan)
    if images >= RULES.fewest_for_cose:
        low, high = _intervals(sums.scores(_resampled(images)))
    row = {}
    for place, name in enumerate(_SCORES):
        row |= {name: values[place], f"{name}_low": low[place], f"{name}_high": high[place]}
    return row | dict(zip(("n_kept", "n_changed"), sums.numbers, strict=True))


def _of_reading(scores: dict, reading: str) -> dict:
    """Scores with the version in their names: `cose_published`, `cose_published_low`."""
    named = {}
    for name, value in scores.items():
        score, underscore, end = name.rpartition("_")
        ends = underscore and end in ("low", "high")
        named[f"{score}_{reading}_{end}" if ends else f"{name}_{reading}"] = value
    return named


def _why_undefined(row: dict, right: pd.DataFrame, column: str) -> str:
    """Why a row has no COSE, "" if it has one.

    right : all pairs of images that are classified correctly before any change
    """
    missing = right[right[column].isna()]
    unscored = [((missing.condition == KEPT) & (missing.group != MODEL)).any(),
                (missing.condition == CHANGED).any()]  # fmt: skip
    if (right.constant == 2).all() and len(right):
        return "every map is constant"
    if not row["n_kept"]:
        return "no pair stays right" if not unscored[0] else "no pair that stays right has an SSIM"
    if not row["n_changed"]:
        return (
            "no answer becomes wrong"
            if not unscored[1]
            else ("no pair that becomes wrong has an SSIM")
        )
    if row["consistency"] < 0:
        return "consistency is negative"
    if row["sensitivity"] > 1:
        return "defined, but sensitivity is above 1: maps are opposed where the answer changes"
    return ""


def summarise_cose(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return COSE of every model and method, one row each, with `backbone, dcls, method` first.

    The following names end in the version, `published` or `corrected`:

    consistency, sensitivity, cose : mean SSIM if the answer stays right, 1 minus the mean SSIM if
                  it becomes wrong, and the root of their product; `_low, _high`: 95 % bootstrap
                  intervals over images, NaN for fewer than twelve
    chance, ceiling : COSE of unrelated random maps; and of maps that follow the image perfectly
                  and are unrelated once the answer changes. Both have the map's resolution. Maps
                  that are reversed once the answer changes score above the ceiling. Maps that
                  never change score below chance, down to 0
    matched     : COSE after finer maps are averaged to the layer's cells, with `_low, _high`
    undefined   : why there is no score, "" if there is one

    For both versions:

    n_kept, n_changed : number of pairs that stay right, and of pairs that become wrong
    n_images, n_right : number of images, and of images classified correctly before any change
    n_undefined, n_one_constant : number of skipped pairs without SSIM, because both maps are
                  constant or one is not finite; number of pairs with one constant map, which count
    cells       : resolution of the map
    """
    rows = []
    sums = {c: _sums(pairs, c, _BY) for c in (*SSIM.values(), *MATCHED.values())}
    for key, chosen in pairs.groupby(_BY, sort=False):
        right = chosen[chosen.condition.isin([KEPT, CHANGED])]
        cells = right.cells.max()
        levels = {}
        if not np.isnan(cells):
            row = METHODS.get(key[2])
            floor = row.floor if row else 0.0
            levels = reference_levels(int(cells), int(chosen.side.iloc[0]), floor)
        scores, numbers = {}, {}
        for reading in READINGS:
            scored = _scored(sums[SSIM[reading]][key])
            same = chosen[MATCHED[reading]].equals(chosen[SSIM[reading]])
            matched = scored if same else _scored(sums[MATCHED[reading]][key])
            numbers = {name: scored.pop(name) for name in ("n_kept", "n_changed")}
            found = levels.get(reading, {"chance": np.nan, "ceiling": np.nan})
            scored |= {name: found[name] for name in ("chance", "ceiling")}
            scored |= {name.replace("cose", "matched"): matched[name] for name in _COSE}
            scored["undefined"] = _why_undefined(scored | numbers, right, SSIM[reading])
            scores[reading] = _of_reading(scored, reading)
        rows.append(
            dict(zip(_BY, key, strict=True))
            | scores[READINGS[0]]
            | numbers
            | {
                "n_images": chosen.image_id.nunique(),
                "n_right": right.image_id.nunique(),
                "n_undefined": int(right[SSIM[READINGS[0]]].isna().sum()),
                "n_one_constant": int((right.constant == 1).sum()),
                "cells": cells,
            }
            | scores[READINGS[1]]
        )
    return pd.DataFrame(rows)


def by_change(pairs: pd.DataFrame, by: Sequence[str] = _BY) -> pd.DataFrame:
    """Return COSE for each kind and each group of changes, for every model and method.

    by : the columns that define the rows
    The columns are `*by, part` (first "geometric", "photometric", "model", then each kind);
    `consistency, sensitivity, cose` in each version with intervals; and numbers of pairs. A change
    of the network has no consistency.
    """
    rows = []
    sums = {
        (reading, part): _sums(pairs, SSIM[reading], [*by, part])
        for reading in READINGS
        for part in ("group", "change")
    }
    for key, chosen in pairs.groupby([*by], sort=False):
        groups = [("group", name) for name in (GEOMETRIC, PHOTOMETRIC, MODEL)]
        for part, name in (*groups, *(("change", name) for name in chosen.change.unique())):
            row = dict(zip(by, key, strict=True)) | {"part": name}
            for reading in READINGS:
                scored = _scored(sums[reading, part].get((*key, name), _NO_SUMS))
                numbers = {name: scored.pop(name) for name in ("n_kept", "n_changed")}
                row |= _of_reading(scored, reading) | numbers
            rows.append(row)
    return pd.DataFrame(rows)


def conditions(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the number of pairs in each of the four conditions, by model and group of changes."""
    one = pairs[pairs.method == pairs.method.iloc[0]]
    counted = one.groupby(["backbone", "dcls", "group", "condition"], sort=False).size()
    counted = counted.unstack("condition", fill_value=0)
    return counted.reindex(columns=[KEPT, CHANGED, MENDED, WRONG], fill_value=0).reset_index()


def compare_cose(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with DCLS minus the scores without it.

    The columns are `backbone, method, reading, score, difference, low, high, n`.

    score : consistency, sensitivity, cose
    n     : number of images that both networks classify correctly before any change. The 95 %
            interval resamples these images, with both networks' pairs of an image together
    """
    rows = []
    sums = {reading: _sums(pairs, column, _BY) for reading, column in SSIM.items()}
    for (backbone, method), chosen in pairs.groupby(["backbone", "method"], sort=False):
        right = chosen[chosen.condition.isin([KEPT, CHANGED])]
        images = [set(right[right.dcls == dcls].image_id) for dcls in (False, True)]
        both = sorted(images[0] & images[1])
        if not both:
            continue
        for reading in SSIM:
            of_both = [sums[reading][backbone, dcls, method].only(both) for dcls in (False, True)]
            for score, *found in _differences(*of_both):
                rows.append((backbone, method, reading, score, *found, len(both)))
    names = ["backbone", "method", "reading", "score", "difference", "low", "high", "n"]
    return pd.DataFrame(rows, columns=names)


def _differences(without: _Sums, with_dcls: _Sums) -> Iterator[tuple[str, float, float, float]]:
    """For each score its name, the difference (with minus without DCLS) on the same images, and the
    ends of its interval."""

    def difference(weights: np.ndarray) -> np.ndarray:
        return with_dcls.scores(weights) - without.scores(weights)

    images = len(without.images)
    values = difference(np.ones(images))
    low, high = np.full((2, len(_SCORES)), np.nan)
    if images >= RULES.fewest_for_cose:
        low, high = _intervals(difference(_resampled(images)))
    return zip(_SCORES, values, low, high, strict=True)


@cache
def reference_levels(cells: int, side: int, floor: float = 0.0) -> dict[str, dict[str, float]]:
    """Return the scores of random maps in each version, on the changes of eight images.

    cells, side : resolution of the maps, and of the image
    floor    : the value to which lower values are raised, as in Threshold-Grad-CAM

    likeness : mean SSIM of unrelated maps
    followed : mean SSIM of a map and the same map after it was changed and moved back
    chance, ceiling : COSE of the two extremes
    Returns {version: {name: score}}.
    """
    like: dict[str, list[Tensor]] = {reading: [] for reading in READINGS}
    followed: dict[str, list[Tensor]] = {reading: [] for reading in READINGS}
    for place in range(_LEVEL_IMAGES):
        changes = changes_of(place)
        moves = Moves.of(changes, side)
        before, *others = (_random_map(cells, floor, place, n) for n in range(1 + len(changes)))
        whole = scaled(before, side)
        moved = torch.cat([change.follow(whole) for change in changes])
        for found, after in ((like, torch.cat(others)), (followed, moved)):
            alike = similarities(before, after, side, moves)
            for reading in READINGS:
                found[reading].append(alike[reading])
    levels = {}
    for reading in READINGS:
        chance, ceiling = (float(torch.cat(of[reading]).mean()) for of in (like, followed))
        levels[reading] = {
            "likeness": chance,
            "followed": ceiling,
            "chance": float(cose(chance, chance)),
            "ceiling": float(cose(ceiling, chance)),
        }
    return levels


def _random_map(cells: int, floor: float, *seed: int) -> Tensor:
    noise = np.random.default_rng([SEED, *seed]).random((1, cells, cells), np.float32)
    return torch.from_numpy(noise).clamp(min=floor)
