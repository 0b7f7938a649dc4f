"""The human ceiling: how well people agree with one another, by which ρ is divided.

A ceiling belongs to its human maps, and is never lent to others. ClickMe's is published. Of
other data it is estimated from their observers (`lib.scores.observers`), or given by who knows
it; else there is none, and the score is ρ itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ..base.geometry import Preprocessing
from ..networks.backbones import BACKBONES
from ..people.protocols import PROTOCOLS
from ..study.rules import RULES
from .statistics import Interval, mean_interval

# Harmonization's constant: the average inter-rater alignment of ClickMe's players.
HUMAN_CEILING = 0.6575315343478081

PUBLISHED, GIVEN, ESTIMATED, NONE = "published", "given", "estimated from observers", "none"


def spearman_brown(rho: float, times: float = 2.0) -> float:
    """The correlation of two maps of `times` as many people each, of that of two maps.

    Source: Spearman and Brown, British Journal of Psychology 3 (1910)
    """
    return times * rho / (1 + (times - 1) * rho)


# If ClickMe's is the correlation of two halves of the players, a perfect model can reach the
# root of what it is of two maps of all players: 135 % of the ceiling.
SPEARMAN_BROWN = spearman_brown(HUMAN_CEILING) ** 0.5


_UNKNOWN = Interval(np.nan, np.nan, np.nan, 0)


@dataclass(frozen=True)
class Ceiling:
    """How well people agree, for the human maps of one protocol and reading.

    value  : by which ρ is divided; missing where nothing is known
    origin : PUBLISHED, GIVEN, ESTIMATED or NONE
    low, high : 95 % interval of an estimate
    split_half : mean correlation of the maps of two halves of an image's observers
    one_against_rest : of each observer's map with that of all others
    most   : the mean ρ that a perfect model would reach, the root of an estimate; of the published
             ceiling if that is the correlation of two halves
    observers : of how many an image's map is, least and most
    images  : behind the estimate
    halves : {image_id: correlation of its halves}, by which an estimate's uncertainty goes on
             into scores
    times  : an image's observers over those of a half
    """

    value: float = np.nan
    origin: str = NONE
    low: float = np.nan
    high: float = np.nan
    split_half: Interval = _UNKNOWN
    one_against_rest: Interval = _UNKNOWN
    most: float = np.nan
    observers: tuple[int, int] = (0, 0)
    images: int = 0
    halves: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    times: float = 2.0

    @property
    def is_known(self) -> bool:
        return not np.isnan(self.value)

    @property
    def divisor(self) -> float:
        """The ceiling, or 1: without one the score is ρ."""
        return self.value if self.is_known else 1.0

    @property
    def reachable(self) -> float:
        """The score of a perfect model."""
        return self.most / self.value

    @property
    def words(self) -> str:
        """Such as "0.887, estimated from observers (12–15 of 120 images)"."""
        if not self.is_known and self.images:
            return (
                f"none: of the {self.images} images with two observers or more too little "
                f"can be told of how well these people agree"
            )
        if not self.is_known:
            return "none: nothing is known of how well these people agree"
        text = f"{self.value:.3f}, {self.origin}"
        if self.origin == ESTIMATED:
            least, most = self.observers
            number = f"{least}" if least == most else f"{least}–{most}"
            text += f" ({number} an image, {self.images} images)"
        return text

    def interval(self, rho: pd.Series, most: float = np.inf) -> Interval:
        """The score's interval.

        rho  : by image_id, without missing values
        most : the largest absolute value that ρ can have; it bounds the interval unless the ceiling
               is an estimate, which is uncertain itself
        """
        images = len(rho) if self.halves.empty else min(len(rho), self.images)
        bound = most / self.divisor if self.halves.empty else np.inf
        found = mean_interval(self.scaled(rho), within=(-bound, bound), images=images)
        return replace(found, n=len(rho))

    def scaled(self, rho: pd.Series) -> pd.Series:
        """Values by image whose mean is the score, and which spread as the score is uncertain.

        rho : by image_id, without missing values

        ρ over the ceiling; of an estimated one each value also has the image's part in the
        ceiling's own error (the ratio's linear approximation), so that an interval over images
        carries it, and the ceiling's and the model's hard images count together.
        """
        share = rho / self.divisor
        if self.halves.empty or rho.empty:
            return share
        halves = self.halves
        mean_half = halves.mean()
        slope = self.times / (1 + (self.times - 1) * mean_half) ** 2
        score = share.mean()
        everyone = rho.index.union(halves.index)
        of_model = (share - score).reindex(everyone, fill_value=0) * len(everyone) / len(rho)
        of_people = (halves - mean_half).reindex(everyone, fill_value=0)
        of_people *= len(everyone) / len(halves)
        return score + of_model - score * slope / self.value * of_people


def estimated_ceiling(people: pd.DataFrame) -> Ceiling:
    """The ceiling of some images' observers.

    people : a row per image, `image_id, observers, half, split_half, one_against_rest`, as
             `lib.scores.observers.score_observers` makes it for one protocol and reading

    The mean correlation of two halves, raised by Spearman and Brown from half of the observers
    to all of them: what this group's map and that of another such group would have. Without a
    value, and only how well they agree, where too few images have two observers, or these may
    hardly agree (`lib.study.rules`).
    """
    known = people[people.split_half.notna()]
    if known.empty:
        return Ceiling()
    halves = known.set_index("image_id").split_half
    times = float(known.observers.mean() / known.half.mean())
    found = mean_interval(halves, within=(-1, 1))
    agreed = Ceiling(
        split_half=found,
        one_against_rest=mean_interval(known.one_against_rest, within=(-1, 1)),
        observers=(int(known.observers.min()), int(known.observers.max())),
        images=len(known),
    )
    if len(known) < RULES.fewest_for_ceiling:
        return agreed
    value, low, high = (
        float(spearman_brown(max(r, 0.0), times)) if not np.isnan(r) else np.nan
        for r in (found.mean, found.low, found.high)
    )
    if not low >= RULES.least_ceiling:
        return agreed
    return replace(
        agreed, value=value, origin=ESTIMATED, low=low, high=high, most=value**0.5,
        halves=halves, times=times,
    )  # fmt: skip


def withheld(ceiling: Ceiling) -> Ceiling:
    """What its people agree by, without the ceiling itself."""
    return Ceiling(
        split_half=ceiling.split_half, one_against_rest=ceiling.one_against_rest,
        observers=ceiling.observers, images=ceiling.images,
    )  # fmt: skip


@dataclass(frozen=True)
class Ceilings:
    """The ceiling of each protocol and reading of a study.

    everywhere : of all of them, where it is not estimated
    by         : {(protocol, reading): its own}
    """

    everywhere: Ceiling = field(default_factory=Ceiling)
    by: Mapping[tuple[str, str], Ceiling] = field(default_factory=dict)

    def of(self, protocol: str, geometry: Preprocessing) -> Ceiling:
        """That of the human maps with which a backbone of this preprocessing is compared."""
        return self.read(protocol, PROTOCOLS[protocol].reading_name(geometry))

    def read(self, protocol: str, reading: str) -> Ceiling:
        return self.by.get((protocol, reading), self.everywhere)

    @property
    def words(self) -> str:
        """What the ceilings are: once, or of each protocol and reading where they differ."""
        told = {key: c.words for key, c in self.by.items()} or {("", ""): self.everywhere.words}
        if len(set(told.values())) == 1:
            return next(iter(told.values()))
        return "; ".join(f"{protocol}, {name}: {words}" for (protocol, name), words in told.items())

    def scored(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Per-image correlations with `score` and `ceiling`, the ceiling taken for given.

        scores : with `backbone, protocol, rho`
        """
        groups = scores.groupby(["protocol", "backbone"], sort=False).ngroup()
        found = {
            number: self.of(rows.protocol.iloc[0], BACKBONES[rows.backbone.iloc[0]].preprocessing)
            for number, rows in scores.groupby(groups)
        }
        divisors = groups.map({number: c.divisor for number, c in found.items()}).astype(float)
        values = groups.map({number: c.value for number, c in found.items()}).astype(float)
        return scores.assign(score=scores.rho / divisors, ceiling=values)

    def table(self) -> pd.DataFrame:
        """A row per protocol and reading, or one for all, as `Ceiling` tells."""
        rows = []
        for (protocol, reading), c in (self.by or {("all", "all"): self.everywhere}).items():
            rows.append(
                {
                    "protocol": protocol, "reading": reading, "ceiling": c.value,
                    "low": c.low, "high": c.high, "origin": c.origin,
                    "split_half": c.split_half.mean, "split_half_low": c.split_half.low,
                    "split_half_high": c.split_half.high,
                    "one_against_rest": c.one_against_rest.mean,
                    "one_against_rest_low": c.one_against_rest.low,
                    "one_against_rest_high": c.one_against_rest.high,
                    "most": c.most, "observers_least": c.observers[0],
                    "observers_most": c.observers[1], "images": c.images,
                }
            )  # fmt: skip
        return pd.DataFrame(rows)
