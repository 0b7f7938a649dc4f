"""The human ceiling: how well people agree with one another. Scores are ρ divided by it.

A ceiling belongs to one set of human maps and is never used for others. ClickMe's is published.
For other data it is estimated from the observers (`lib.scores.observers`) or given by the user.
Otherwise there is none, and the score is ρ itself.
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
    """Return the correlation that two maps would have with `times` as many people in each.

    rho : the correlation of the two maps as they are
    Source: Spearman and Brown, British Journal of Psychology 3 (1910)
    """
    return times * rho / (1 + (times - 1) * rho)


# If ClickMe's ceiling is the correlation of two halves of the players, a perfect model can reach
# the root of the correlation of two maps of all players, which is 135 % of the ceiling.
SPEARMAN_BROWN = spearman_brown(HUMAN_CEILING) ** 0.5


_UNKNOWN = Interval(np.nan, np.nan, np.nan, 0)


@dataclass(frozen=True)
class Ceiling:
    """How well people agree, for the human maps of one protocol and reading.

    value  : the divisor of ρ; NaN if no ceiling is known
    origin : PUBLISHED, GIVEN, ESTIMATED or NONE
    low, high : 95 % interval of an estimate
    split_half : mean correlation between the maps of two halves of an image's observers
    one_against_rest : mean correlation of one observer's map with the map of all others
    most   : the mean ρ that a perfect model would reach: the root of an estimate. For the
             published ceiling this assumes that it is the correlation of two halves
    observers : smallest and largest number of observers per image
    images  : number of images behind the estimate
    halves : {image_id: correlation of its halves}, through which the uncertainty of an estimate
             enters the scores
    times  : number of an image's observers divided by the number in a half
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
        """The ceiling, or 1 if there is none, so that the score is ρ."""
        return self.value if self.is_known else 1.0

    @property
    def reachable(self) -> float:
        """The score that a perfect model would reach."""
        return self.most / self.value

    @property
    def words(self) -> str:
        """The ceiling in words: "0.887, estimated from observers (12–15 an image, 120 images)"."""
        if not self.is_known and self.images:
            return (
                f"none: the {self.images} images with two observers or more are not enough to "
                f"estimate how well these people agree"
            )
        if not self.is_known:
            return "none: it is not known how well these people agree"
        text = f"{self.value:.3f}, {self.origin}"
        if self.origin == ESTIMATED:
            least, most = self.observers
            number = f"{least}" if least == most else f"{least}–{most}"
            text += f" ({number} an image, {self.images} images)"
        return text

    def interval(self, rho: pd.Series, most: float = np.inf) -> Interval:
        """Return the mean score with its 95 % interval.

        rho  : by image_id, without missing values
        most : the largest absolute value that ρ can have. It bounds the interval unless the
               ceiling is an estimate, which is uncertain itself
        """
        images = len(rho) if self.halves.empty else min(len(rho), self.images)
        bound = most / self.divisor if self.halves.empty else np.inf
        found = mean_interval(self.scaled(rho), within=(-bound, bound), images=images)
        return replace(found, n=len(rho))

    def scaled(self, rho: pd.Series) -> pd.Series:
        """Return one value per image whose mean is the score and whose spread gives its interval.

        rho : by image_id, without missing values

        Each value is ρ over the ceiling. For an estimated ceiling it also contains the image's
        contribution to the error of the ceiling (linear approximation of the ratio). An interval
        over images then includes the uncertainty of the ceiling, and takes into account that the
        same images may be hard for people and for the model.
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
    """Return the ceiling estimated from the observers of some images.

    people : one row per image, `image_id, observers, half, split_half, one_against_rest`, as
             `lib.scores.observers.score_observers` returns it for one protocol and reading

    The estimate is the mean correlation of two halves, extrapolated by the Spearman-Brown formula
    from half of the observers to all of them. It is the correlation that this group's map would
    have with the map of another group of the same size. It has no value, only the agreement of
    the observers, if too few images have two observers or if these hardly agree
    (`lib.study.rules`).
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
    """The agreement of the observers without the ceiling itself."""
    return Ceiling(
        split_half=ceiling.split_half, one_against_rest=ceiling.one_against_rest,
        observers=ceiling.observers, images=ceiling.images,
    )  # fmt: skip


@dataclass(frozen=True)
class Ceilings:
    """The ceiling of each protocol and reading of a study.

    everywhere : one ceiling for all of them, if it is not estimated
    by         : {(protocol, reading): ceiling}
    """

    everywhere: Ceiling = field(default_factory=Ceiling)
    by: Mapping[tuple[str, str], Ceiling] = field(default_factory=dict)

    def of(self, protocol: str, geometry: Preprocessing) -> Ceiling:
        """The ceiling of the human maps that a backbone of this preprocessing is compared with."""
        return self.read(protocol, PROTOCOLS[protocol].reading_name(geometry))

    def read(self, protocol: str, reading: str) -> Ceiling:
        return self.by.get((protocol, reading), self.everywhere)

    @property
    def words(self) -> str:
        """The ceilings in words: once, or for each protocol and reading if they differ."""
        told = {key: c.words for key, c in self.by.items()} or {("", ""): self.everywhere.words}
        if len(set(told.values())) == 1:
            return next(iter(told.values()))
        return "; ".join(f"{protocol}, {name}: {words}" for (protocol, name), words in told.items())

    def scored(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Return per-image correlations with `score` and `ceiling`; the ceiling counts as exact.

        scores : a table with the columns `backbone, protocol, rho`
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
        """Return a row per protocol and reading, or one row for all; columns as in `Ceiling`."""
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
