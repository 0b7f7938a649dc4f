"""Other measures of agreement between a heatmap and a human map, image by image.

Every function takes the `Compared` heatmaps and the `Compared` human maps. It returns (image,)
float64, NaN where the measure is undefined. "Salient" pixels are a human map's highest tenth.

Source: Bylinskii et al., "What do different evaluation metrics tell us about saliency
models?", TPAMI 41 (2019), for CC, SIM, KL, NSS and AUC; Zhang et al., "Top-down neural
attention by excitation backprop", IJCV 126 (2018), for the pointing game.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from torch import Tensor

from ..base.tables import Table
from ..maps.cam import cam_maps
from ..maps.forward import is_constant
from ..people.human_maps import human_maps
from ..people.protocols import PROTOCOLS
from ..study.plug_ins import load_plug_ins
from ..study.study import Study
from .spearman import Ranks, between_ranks, rank_maps
from .statistics import means_by
from .units import VariantOnPart, VariantWork, joined

TOP = 0.1
_EPSILON = torch.finfo(torch.float64).eps
_BATCH = 16
COLUMNS = ["method", "measure", "image_id", "value"]


class Compared:
    """(image, height, width) maps, with the quantities that several measures need, computed once.

    flat    : (image, pixel) float64, the values
    centred : (image, pixel) float64, the values minus the image's mean
    top     : (image, pixel) in 0-1, the probability that a pixel is in the highest tenth. Pixels
              tied at its border share the remaining places equally, as in a random draw
    salient : (image, pixel) bool, whether a pixel may be in the highest tenth
    """

    def __init__(self, maps: Tensor, settle: bool = False):
        self.maps, self.settle = maps, settle
        self.flat = maps.flatten(1).double()

    @cached_property
    def centred(self) -> Tensor:
        return self.flat - self.flat.mean(dim=1, keepdim=True)

    @cached_property
    def top(self) -> Tensor:
        pixels = self.flat.shape[1]
        count = max(1, round(TOP * pixels))
        border = self.flat.kthvalue(pixels - count + 1, dim=1, keepdim=True).values
        above, at = self.flat > border, self.flat == border
        left = count - above.sum(dim=1, keepdim=True)
        return above.double() + at * (left / at.sum(dim=1, keepdim=True))

    @cached_property
    def salient(self) -> Tensor:
        return self.top > 0

    @cached_property
    def ranks(self) -> Ranks:
        return rank_maps(self.maps, self.settle)

    def shares(self, from_zero: bool = False) -> Tensor:
        """Each map as a distribution. from_zero : subtract its smallest value first"""
        flat = self.flat - self.flat.amin(dim=1, keepdim=True) if from_zero else self.flat
        total = flat.sum(dim=1, keepdim=True)
        return flat / torch.where(total > 0, total, torch.nan)


def rank_correlation(ours: Compared, theirs: Compared) -> Tensor:
    """Return Spearman's rho, the study's own measure: -1 to 1."""
    return between_ranks(ours.ranks, theirs.ranks)


def dice_top(ours: Compared, theirs: Compared) -> Tensor:
    """Return the overlap of both maps' highest tenths, as a share of one tenth: 0-1."""
    return (ours.top * theirs.top).sum(dim=1) / theirs.top.sum(dim=1)


def iou_top(ours: Compared, theirs: Compared) -> Tensor:
    """Return the overlap of both maps' highest tenths, as a share of their union: 0-1."""
    dice = dice_top(ours, theirs)
    return dice / (2 - dice)


def correlation(ours: Compared, theirs: Compared) -> Tensor:
    """Return CC, Pearson's correlation of the pixels: -1 to 1."""
    scale = ours.centred.norm(dim=1) * theirs.centred.norm(dim=1)
    product = (ours.centred * theirs.centred).sum(dim=1)
    return product / torch.where(scale > 0, scale, torch.nan)


def similarity(ours: Compared, theirs: Compared) -> Tensor:
    """Return SIM, the overlap of the maps, each starting at 0 and summing to 1: 0-1."""
    return torch.minimum(ours.shares(from_zero=True), theirs.shares(from_zero=True)).sum(dim=1)


def divergence(ours: Compared, theirs: Compared) -> Tensor:
    """Return KL, the divergence of the human map from the heatmap as distributions: 0 is equal."""
    p, q = ours.shares(), theirs.shares()
    return (q * (_EPSILON + q / (p + _EPSILON)).log()).sum(dim=1)


def scanpath_saliency(ours: Compared, theirs: Compared) -> Tensor:
    """Return NSS, the heatmap's mean at salient pixels, in standard deviations above its mean."""
    spread = ours.centred.square().mean(dim=1).sqrt()
    mean = (ours.centred * theirs.top).sum(dim=1) / theirs.top.sum(dim=1)
    return mean / torch.where(spread > 0, spread, torch.nan)


def area_under_curve(ours: Compared, theirs: Compared) -> Tensor:
    """Return AUC: how often a salient pixel is higher than another in the heatmap; ties half."""
    count, pixels = theirs.salient.sum(dim=1), theirs.salient.shape[1]
    ranks = ours.ranks.centred.double() + (pixels + 1) / 2
    least = count * (count + 1) / 2
    area = ((ranks * theirs.salient).sum(dim=1) - least) / (count * (pixels - count))
    return torch.where(ours.flat.isfinite().all(dim=1), area, torch.nan)


def pointing(ours: Compared, theirs: Compared) -> Tensor:
    """Return whether the heatmap's highest pixel is salient; a share if several are highest."""
    highest = ours.flat == ours.flat.amax(dim=1, keepdim=True)
    return (highest * theirs.top).sum(dim=1) / highest.sum(dim=1)


@dataclass(frozen=True)
class Measure:
    """A row of the table of measures.

    best : 1 if larger values mean more agreement, -1 if smaller ones do
    """

    key: str
    label: str
    of: Callable[[Compared, Compared], Tensor]
    best: int = 1


MEASURES: Table[Measure] = Table(
    "measure",
    [
        Measure("spearman", "Spearman's ρ", rank_correlation),
        Measure("cc", "CC (Pearson)", correlation),
        Measure("dice", "Dice, top 10 %", dice_top),
        Measure("iou", "IoU, top 10 %", iou_top),
        Measure("sim", "SIM", similarity),
        Measure("kl", "KL (less is better)", divergence, best=-1),
        Measure("nss", "NSS", scanpath_saliency),
        Measure("auc", "AUC", area_under_curve),
        Measure("pointing", "pointing game", pointing),
    ],
)


def score_measures(study: Study) -> pd.DataFrame:
    """Return every measure for the study's models and methods, under its first protocol.

    The columns are `backbone, dcls, method, measure, image_id, value`, one row per image. The maps
    explain the study's target. Images whose heatmap or human map is constant are skipped.
    Raises StoredError, WeightsError.
    """
    return joined(MeasureWork(study))


class MeasureWork(VariantWork):
    """Every measure for the study's methods, on the images of one part."""

    folder, bar, columns = "measures", ("measures", "image"), COLUMNS
    code = ("scores.measures",)

    def __init__(self, study: Study):
        load_plug_ins("measures")
        super().__init__(study)
        self._protocol = PROTOCOLS[study.choices.protocols[0]]

    def facts(self, of: VariantOnPart) -> dict:
        return super().facts(of) | {
            "protocol": (self._protocol.key, sorted(self._protocol.mends)),
            "scored": of.some.scored(self._protocol.key),
            "measures": {measure.key: measure.of for measure in MEASURES.values()},
        }

    def compute(self, of: VariantOnPart) -> pd.DataFrame:
        protocol, choices = self._protocol, self.study.choices
        model = self._models.of(of.backbone, of.dcls)
        rows: list[tuple] = []
        for batch in of.some.batches(_BATCH):
            scored = of.some.is_scored(protocol.key, batch.places)
            asked = choices.asked(batch.labels)
            maps = cam_maps(model, model.prepare(batch.images), asked, choices.methods)
            human = human_maps(batch.stored_maps, protocol, of.backbone.preprocessing)
            theirs = Compared(human, protocol.settles)
            for method, of_method in maps.items():
                ours = Compared(of_method.cpu(), protocol.settles)
                orders = ~(is_constant(ours.maps) | is_constant(theirs.maps))
                for measure in MEASURES.values():
                    # Plain numbers: small arrays between the large ones above would prevent the
                    # memory of the large ones from being reused.
                    values = measure.of(ours, theirs).tolist()
                    rows += [
                        (method, measure.key, image_id, value)
                        for image_id, value, counts in zip(
                            batch.image_ids, values, scored & orders.numpy(), strict=True
                        )
                        if counts
                    ]
        return pd.DataFrame(rows, columns=COLUMNS)


def summarise_measures(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each measure, and each model's rank among the models; 1 is the best.

    The columns are `backbone, dcls, method, measure, label, value, low, high, n, rank`.
    """
    load_plug_ins("measures")
    table = means_by(values, ["backbone", "dcls", "method", "measure"], "value", "value")
    better = table.value * table.measure.map(lambda key: MEASURES[key].best)
    ranks = better.groupby([table.method, table.measure]).rank(ascending=False, method="min")
    labels = table.measure.map(lambda key: MEASURES[key].label)
    return table.assign(label=labels, rank=ranks)
