"""Measures of a map at the places where people looked, image by image.

`lib.scores.measures` compares a heatmap with a human *map*. These measures compare it with the
fixations themselves. Each fixation counts once, and no blur has to be chosen. Maps are used as
they are: no value is rounded before pixels are ordered.

Sources: Bylinskii et al., "What do different evaluation metrics tell us about saliency models?",
TPAMI 41 (2019), for NSS and the AUCs; Judd et al., "Learning to predict where humans look", ICCV
2009, for AUC; Tatler et al., Vision Research 45 (2005), and Zhang et al., Journal of Vision 8(7)
(2008), for fixations of other images as negatives; Kümmerer et al., "Information-theoretic model
comparison unifies saliency metrics", PNAS 112 (2015), for information gain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from torch import Tensor

from ..base.tables import Table
from ..maps.methods import RANDOM_CAM
from ..study.plug_ins import load_plug_ins
from .controls import NETWORK
from .spearman import order_of_row
from .statistics import means_by

BANDWIDTH = 0.1  # standard deviation of the centre bias's Gaussian, in shorter sides
UNIFORM = 0.01  # the share of a density that is spread uniformly over all pixels


@dataclass(frozen=True)
class ImageFixations:
    """Where people looked in one image and in all other images of its data set.

    pixels      : (fixation,) int64, indices into the flattened map
    others      : (pixel,) int64, number of fixations of all other images in each pixel
    centre_bias : (pixel,) float64, density of the other images' fixations, which sums to 1; NaN
                  if there are none
    """

    pixels: np.ndarray
    others: np.ndarray
    centre_bias: np.ndarray

    def only(self, chosen: np.ndarray) -> ImageFixations:
        """Some of the image's fixations, such as one observer's, with the same other images."""
        return replace(self, pixels=self.pixels[chosen])


class FixationSet:
    """All fixations of a data set's images, in maps of one size.

    points : {image: (fixation, 2) x, y}, in pixels from the left and upper edge of the map: the
             centre of the first pixel is (0.5, 0.5)
    height, width : size of the maps
    Raises ValueError for other shapes, for NaN, and for a point outside the map.
    """

    def __init__(self, points: Mapping[str, np.ndarray], height: int, width: int):
        self.height, self.width = height, width
        self.pixels = {image_id: self._pixels(image_id, at) for image_id, at in points.items()}
        together = np.concatenate([*self.pixels.values(), np.empty(0, np.int64)])
        self._counts = self._counted(together)
        self._kernels = tuple(_kernel(n, BANDWIDTH * min(height, width)) for n in (height, width))

    def __contains__(self, image_id: str) -> bool:
        return image_id in self.pixels

    def of(self, image_id: str) -> ImageFixations:
        """An image's fixations, together with those of all other images."""
        others = self._counts - self._counted(self.pixels[image_id])
        return ImageFixations(self.pixels[image_id], others, self._density(others))

    def _pixels(self, image_id: str, points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(
                f"{image_id}: fixations must have the shape (fixation, 2), got {points.shape}"
            )
        beside = ~((points >= 0) & (points < (self.width, self.height))).all(axis=1)
        if beside.any():
            x, y = points[beside][0]
            raise ValueError(
                f"{image_id}: {beside.sum()} of {len(points)} fixations lie outside the map, "
                f"which is {self.width} wide and {self.height} high, for example ({x:g}, {y:g}); "
                "remove them first"
            )
        column, row = np.floor(points).astype(np.int64).T
        return row * self.width + column

    def _counted(self, pixels: np.ndarray) -> np.ndarray:
        return np.bincount(pixels, minlength=self.height * self.width)

    def _density(self, counts: np.ndarray) -> np.ndarray:
        if not counts.any():
            return np.full(counts.shape, np.nan)
        rows, columns = self._kernels
        blurred = rows @ counts.reshape(self.height, self.width) @ columns
        return _mixed(blurred.ravel() / blurred.sum())


def _kernel(side: int, sigma: float) -> np.ndarray:
    """(pixel, pixel): a Gaussian around each pixel of a side."""
    at = np.arange(side)
    return np.exp(-((at[:, None] - at) ** 2) / (2 * sigma**2))


def _mixed(density: np.ndarray) -> np.ndarray:
    return (1 - UNIFORM) * density + UNIFORM / len(density)


class Viewed:
    """One image's map, with the quantities that several measures need, computed once.

    flat    : (pixel,) float64, the map's values
    orders  : whether the map is finite and has more than one value
    scaled  : the map scaled from 0 to 1
    ordered : its values in ascending order; `order` has their pixels
    """

    def __init__(self, one: np.ndarray):
        self._as_given = np.ascontiguousarray(one).ravel()
        self.flat = self._as_given.astype(np.float64)
        self.orders = bool(np.isfinite(self.flat).all() and self.flat.min() < self.flat.max())

    @cached_property
    def scaled(self) -> np.ndarray:
        least = self.flat.min()
        return (self.flat - least) / (self.flat.max() - least)

    @cached_property
    def order(self) -> np.ndarray:
        return order_of_row(self._as_given if self._as_given.dtype == np.float32 else self.flat)

    @cached_property
    def ordered(self) -> np.ndarray:
        return self.flat[self.order]

    def above(self, pixels: np.ndarray, counts: np.ndarray) -> float:
        """How often a pixel of `pixels` has a higher value than another; ties count half.

        counts : how often each pixel of the map occurs among the others
        """
        until = np.concatenate([[0], np.cumsum(counts[self.order])])
        below, not_above = (
            until[np.searchsorted(self.ordered, self.flat[pixels], side)]
            for side in ("left", "right")
        )
        return float((below + not_above).mean() / 2 / until[-1]) if until[-1] else np.nan


def scanpath_saliency(seen: Viewed, looked: ImageFixations) -> float:
    """Return NSS: the map's mean value at fixations, in standard deviations above its mean."""
    scaled = seen.scaled
    return float((scaled[looked.pixels].mean() - scaled.mean()) / scaled.std())


def auc_judd(seen: Viewed, looked: ImageFixations) -> float:
    """Return how often a fixated pixel is higher than any other pixel: 0-1, chance is 0.5."""
    return seen.above(looked.pixels, np.ones(len(seen.flat), np.int64))


def shuffled_auc(seen: Viewed, looked: ImageFixations) -> float:
    """Return how often a fixated pixel is higher than a pixel fixated in another image.

    The range is 0-1, and chance is 0.5. A map gains nothing by being high where people look in
    any image.
    """
    return seen.above(looked.pixels, looked.others)


def information_gain(seen: Viewed, looked: ImageFixations) -> float:
    """Return the information gain over the centre bias of all other images, in bits per fixation.

    The map becomes a density: its smallest value is subtracted, and it is scaled to sum to 1. A
    share `UNIFORM` of it, and of the centre bias, is spread uniformly over all pixels.
    """
    density = _mixed(seen.scaled / seen.scaled.sum())
    here = looked.pixels
    return float(np.log2(density[here] / looked.centre_bias[here]).mean())


@dataclass(frozen=True)
class FixationMeasure:
    """A row of the table of fixation measures.

    unit   : unit of its values
    chance : the value of an uninformative map. For information gain this is the centre bias, and
             a random map lies below it
    within : its smallest and its largest value
    """

    key: str
    label: str
    of: Callable[[Viewed, ImageFixations], float]
    unit: str
    chance: float
    within: tuple[float, float] = (-np.inf, np.inf)


FIXATION_MEASURES: Table[FixationMeasure] = Table(
    "fixation measure",
    [
        FixationMeasure("nss", "NSS", scanpath_saliency, "standard deviations", 0.0),
        FixationMeasure("auc_judd", "AUC-Judd", auc_judd, "share", 0.5, (0.0, 1.0)),
        FixationMeasure("shuffled_auc", "shuffled AUC", shuffled_auc, "share", 0.5, (0.0, 1.0)),
        FixationMeasure(
            "information_gain", "information gain", information_gain, "bits per fixation", 0.0
        ),
    ],
)


def measure_fixations(
    maps: Tensor | np.ndarray, looked: Sequence[ImageFixations]
) -> dict[str, list[float]]:
    """Return every fixation measure of each image's map: {measure: one value per image}.

    maps   : (image, height, width), on any scale; higher is more important
    looked : the fixations of the same images, in maps of the same size
    A value is NaN if the map is constant or not finite, if the image has no fixation, or if a
    measure needs other images' fixations and there are none. Raises ValueError if maps and
    fixations differ in number or size.
    """
    maps = np.asarray(maps)
    pixels = sorted({len(some.others) for some in looked})
    if maps.ndim != 3 or len(maps) != len(looked) or pixels not in ([], [maps[:1].size]):
        raise ValueError(
            f"maps have the shape {maps.shape}, but there are fixations of {len(looked)} images in "
            f"maps of {pixels} pixels: maps must be (image, height, width) of the same images"
        )
    rows = [_measured(Viewed(one), some) for one, some in zip(maps, looked, strict=True)]
    return {key: [row[key] for row in rows] for key in FIXATION_MEASURES}


def _measured(seen: Viewed, looked: ImageFixations) -> dict[str, float]:
    known = seen.orders and len(looked.pixels) > 0
    return {
        measure.key: measure.of(seen, looked) if known else np.nan
        for measure in FIXATION_MEASURES.values()
    }


def summarise_fixations(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each measure over images, with its 95 % interval and number of images.

    values : the table of `lib.scores.fixation_scores.score_fixations`
    The columns are `kind, reading, backbone, dcls, method, protocol, measure, value, low, high, n,
    label, unit`.
    """
    load_plug_ins("measures")
    by = ["measure", "kind", "reading", "backbone", "dcls", "method", "protocol"]
    table = means_by(
        values, by, "value", "value", within=lambda key: FIXATION_MEASURES[key[0]].within
    )
    rows = [FIXATION_MEASURES[key] for key in table.measure]
    table = table[[*by[1:], "measure", "value", "low", "high", "n"]]
    return table.assign(label=[row.label for row in rows], unit=[row.unit for row in rows])


def of_one_model(table: pd.DataFrame, backbone: str, dcls: bool = False) -> pd.DataFrame:
    """Return the rows of `summarise_fixations` that are compared with one another: one model's
    heatmaps, and the controls and people of its reading. Random channel weights are omitted,
    because they explain nothing."""
    own = table[(table.backbone == backbone) & (table.dcls.astype(bool) == dcls)]
    own = own[own.method != RANDOM_CAM]
    others = table[(table.kind != NETWORK) & table.reading.isin(own.reading)]
    return pd.concat([own, others]) if len(own) else own
