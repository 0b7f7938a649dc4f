"""Intervals, tests and sample sizes for means over images.

One method for all: Student's statistic, and the same corrected for skewness; an interval holds
both. It takes no drawing of lots, so that one of 17,408 images takes a millisecond.
docs/statistics.md has the simulations by which it was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.power import TTestPower

from ..study.rules import RULES

SEED = 0
_LEAST_EFFECT = 1e-4  # Cohen's d: a thousand million images and more


@dataclass(frozen=True)
class Interval:
    """A mean over n images, and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float
    n: int


def _numbers(values: Iterable[float]) -> np.ndarray:
    known = values if isinstance(values, np.ndarray | pd.Series) else list(values)
    return np.asarray(known, dtype=np.float64)


class _Sample:
    """Values without the missing ones, and what intervals and p values ask of them.

    skew : of Student's statistic: the sample's skewness over the root of n. A sample tells too
           little of it (a long tail is seldom seen whole), so it is raised by 1 + 4 / root n.
    """

    def __init__(self, values: Iterable[float]):
        found = _numbers(values)
        self.values = found[~np.isnan(found)]
        self.n = n = len(self.values)
        self.mean = float(self.values.mean()) if n else np.nan
        spread = self.values.std(ddof=1) if n > 1 else 0.0
        self.largest = float(np.abs(self.values).max(initial=0))
        self.equal = spread <= 1e-12 * self.largest  # equal values spread by rounding alone
        self.spread = 0.0 if self.equal else float(spread)
        self.error = self.spread / np.sqrt(n) if n else np.nan
        self.skew = 0.0
        if n > 2 and not self.equal:
            # As scipy.stats.skew(bias=False), which takes ten times as long.
            third = ((self.values - self.mean) ** 3).sum() / self.spread**3
            skewness = float(third * n / ((n - 1) * (n - 2)))
            self.skew = skewness * (1 + 4 / np.sqrt(n)) / np.sqrt(n)

    def unskewed(self, t: float) -> float:
        """Student's statistic with its skewness taken out (Hall's cubic transformation)."""
        g = self.skew
        return t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6

    def skewed(self, t: float) -> float:
        """The inverse of `unskewed`."""
        g = self.skew
        if abs(g) < 1e-9:
            return t
        return float(3 / g * (np.cbrt(1 + g * (t - g / 6)) - 1))


def correlation_interval(
    correlation: float, count: int, confidence: float = 1 - RULES.alpha
) -> tuple[float, float]:
    """The interval of a rank correlation over so many models; NaN for fewer than five models, and
    where the correlation is 1 or -1, which has no spread.

    It is Fisher's, with the standard error that ranks have. It takes the models for a sample of
    others like them, which a handful of chosen backbones hardly is.

    Source: Bonett and Wright, Psychometrika 65 (2000)
    """
    if count < 5 or not abs(correlation) < 1:
        return float("nan"), float("nan")
    error = np.sqrt((1 + correlation**2 / 2) / (count - 3))
    far = stats.norm.ppf((1 + confidence) / 2) * error
    middle = np.arctanh(correlation)
    return float(np.tanh(middle - far)), float(np.tanh(middle + far))


def mean_interval(
    values: Iterable[float],
    confidence: float = 1 - RULES.alpha,
    within: tuple[float, float] = (-np.inf, np.inf),
    images: int = 0,
) -> Interval:
    """Mean over images and its interval; missing values are left out.

    within : the least and the largest value that there can be, such as (0, 100)
    images : how many there are in truth, where values of fewer images are spread over more

    The interval holds Student's and that of the statistic corrected for skewness. Of so few images
    that nothing is decided (`RULES.fewest_images`) also what the mean would be if as large a share
    of images as may have gone unseen were as far from 0 as the farthest one seen, on either side of
    0 as far as `within` allows: a sample of twenty without an inverted map does not show that there
    is none. Of values that are all at the two ends of `within`, Wilson's interval. All NaN without
    values; low = high = NaN for one.

    Source: Hall, Journal of the Royal Statistical Society B 54 (1992), for the transformation;
    Wilson, Journal of the American Statistical Association 22 (1927)
    """
    sample = _Sample(values)
    n, mean = sample.n, sample.mean
    if n < 2:
        return Interval(mean, np.nan, np.nan, n)
    least, most = within
    if np.isfinite(within).all() and np.isin(sample.values, within).all():
        hits = int((sample.values == most).sum())
        ends = stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
        low, high = (least + (most - least) * end for end in (ends.low, ends.high))
        return Interval(mean, float(low), float(high), n)
    tail = (1 - confidence) / 2
    images = images or n
    t = stats.t.ppf(1 - tail, max(images - 1, 1))
    lows = [mean - t * sample.error, mean - sample.skewed(t) * sample.error]
    highs = [mean + t * sample.error, mean - sample.skewed(-t) * sample.error]
    if images < RULES.fewest_images or sample.equal:
        unseen = 1 - tail ** (1 / images)
        lows.append((1 - unseen) * mean + unseen * max(least, -sample.largest))
        highs.append((1 - unseen) * mean + unseen * min(most, sample.largest))
    low, high = np.clip([min(lows), max(highs)], least, most)
    return Interval(mean, float(low), float(high), n)


def mean_p(values: Iterable[float], null: float = 0.0, alternative: str = "two-sided") -> float:
    """p of the mean over images being `null`.

    alternative : "two-sided", "greater" or "less"
    Two-sided it is below 0.05 where the 95 % interval, by the same method, leaves `null` out; of
    fewer than `RULES.cautious_below` images it may be more, as it counts with what may have gone
    unseen. NaN without values, and for fewer images than `RULES.fewest_images`: their p values
    promise more than they hold.
    """
    sample = _Sample(_numbers(values) - null)
    n, mean, largest = sample.n, sample.mean, sample.largest
    if n < RULES.fewest_images:
        return float("nan")
    if not largest:
        return 1.0
    greater = less = 0.0
    if not sample.equal:
        t = mean / sample.error
        both = np.array([t, sample.unskewed(t)])
        greater, less = (tail(both, n - 1).max() for tail in (stats.t.sf, stats.t.cdf))
    if n < RULES.cautious_below or sample.equal:
        unseen = (largest / (abs(mean) + largest)) ** n
        greater, less = (
            max(p, unseen if side * mean > 0 else 1.0) for p, side in ((greater, 1), (less, -1))
        )
    found = {"two-sided": 2 * min(greater, less), "greater": greater, "less": less}
    return float(min(1.0, found[alternative]))


def means_by(
    table: pd.DataFrame,
    by: Sequence[str],
    column: str,
    name: str,
    within: Callable[[tuple], tuple[float, float]] = lambda key: (-np.inf, np.inf),
) -> pd.DataFrame:
    """`mean_interval` of a column in each group: `*by, name, low, high, n`, as groups come.

    within : of a group's key the least and the largest value that there can be
    """
    rows = []
    for key, chosen in table.groupby(list(by), sort=False):
        found = mean_interval(chosen[column], within=within(key))
        rows.append((*key, found.mean, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=[*by, name, "low", "high", "n"])


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p values corrected by Holm for being several; missing ones stay missing, uncounted."""
    # statsmodels' own collects garbage at every call, which takes half a second beside networks.
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # missing ones are last
    corrected = np.full(len(p), np.nan)
    times = np.arange(len(order), 0, -1)
    corrected[order] = np.maximum.accumulate(times * p[order]).clip(max=1)
    return corrected


def effect_size(differences: Iterable[float]) -> float:
    """Cohen's d of paired differences: their mean over their standard deviation."""
    sample = _Sample(differences)
    return float("nan") if sample.equal else sample.mean / sample.spread


def images_needed(
    effect: float, power: float = RULES.power, alpha: float = RULES.alpha / RULES.family
) -> float:
    """Images to find an effect of this size (Cohen's d) so often, by a paired t test.

    At the level that Holm's first step asks of one backbone among eight, and never fewer than
    any is decided with. It takes the effect for the true one. NaN for one that is next to none.
    """
    if not np.isfinite(effect) or abs(effect) < _LEAST_EFFECT:
        return float("nan")
    if abs(effect) > 2:  # where the solver finds no root
        return float(RULES.fewest_images)
    found = TTestPower().solve_power(abs(effect), None, alpha, power)
    return float(max(RULES.fewest_images, np.ceil(found)))
