"""Intervals, tests and sample sizes for means over images.

One method serves all: Student's statistic, and the same corrected for skewness; an interval
contains both. It needs no random resampling, so an interval over 17,408 images takes a
millisecond. docs/statistics.md shows the simulations behind this choice.
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
_LEAST_EFFECT = 1e-4  # Cohen's d; smaller ones need a thousand million images or more


@dataclass(frozen=True)
class Interval:
    """A mean over n images, and its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    n: int


def _numbers(values: Iterable[float]) -> np.ndarray:
    known = values if isinstance(values, np.ndarray | pd.Series) else list(values)
    return np.asarray(known, dtype=np.float64)


class _Sample:
    """Values without the missing ones, with the quantities that intervals and p values need.

    skew : skewness of Student's statistic: the sample's skewness over the root of n. A sample
           underestimates it, because a long tail is rarely complete, so it is multiplied by
           1 + 4 / root n.
    """

    def __init__(self, values: Iterable[float]):
        found = _numbers(values)
        self.values = found[~np.isnan(found)]
        self.n = n = len(self.values)
        self.mean = float(self.values.mean()) if n else np.nan
        spread = self.values.std(ddof=1) if n > 1 else 0.0
        self.largest = float(np.abs(self.values).max(initial=0))
        self.equal = spread <= 1e-12 * self.largest  # equal values differ by rounding only
        self.spread = 0.0 if self.equal else float(spread)
        self.error = self.spread / np.sqrt(n) if n else np.nan
        self.skew = 0.0
        if n > 2 and not self.equal:
            # Equals scipy.stats.skew(bias=False), which takes ten times as long.
            third = ((self.values - self.mean) ** 3).sum() / self.spread**3
            skewness = float(third * n / ((n - 1) * (n - 2)))
            self.skew = skewness * (1 + 4 / np.sqrt(n)) / np.sqrt(n)

    def unskewed(self, t: float) -> float:
        """Student's statistic with its skewness removed (Hall's cubic transformation)."""
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
    """Return the ends of the interval of a rank correlation over `count` models.

    They are NaN for fewer than five models, and for a correlation of 1 or -1, which has no spread.
    The interval is Fisher's, with the standard error of ranks. It treats the models as a random
    sample of similar models, which a few chosen backbones hardly are.

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
    """Return the mean over images and its 95 % interval; missing values are skipped.

    within : the smallest and the largest possible value, such as (0, 100)
    images : the true number of images, if the values of fewer images are spread over more

    The interval contains Student's interval and the interval of the statistic corrected for
    skewness. For fewer than `RULES.fewest_images` images, or equal values, it also contains the
    mean that would result if some images of another kind had been missed by chance: as large a
    share as may have gone unseen, each as far from 0 as the farthest value, on either side and
    within `within`. A sample of twenty images without an inverted map, for example, does not show
    that there is none.
    If all values lie at the two ends of `within`, it is Wilson's interval. All are NaN without
    values; low and high are NaN for one value.

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
    """Return the p value of a mean over images of `null`.

    alternative : "two-sided", "greater" or "less"
    The two-sided p value is below 0.05 if the 95 % interval from the same method excludes `null`.
    For fewer than `RULES.cautious_below` images it may be larger, because it allows for images
    that may have gone unseen. It is NaN without values, and for fewer than `RULES.fewest_images`
    images, for which p values are too small.
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
    """Return `mean_interval` of a column in each group: `*by, name, low, high, n`.

    Groups keep their order of appearance.

    within : function of a group's key that returns the smallest and the largest possible value
    """
    rows = []
    for key, chosen in table.groupby(list(by), sort=False):
        found = mean_interval(chosen[column], within=within(key))
        rows.append((*key, found.mean, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=[*by, name, "low", "high", "n"])


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p values corrected by Holm's method; missing ones stay missing and do not count."""
    # statsmodels collects garbage at every call, which takes half a second with models in memory.
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # missing ones are last
    corrected = np.full(len(p), np.nan)
    times = np.arange(len(order), 0, -1)
    corrected[order] = np.maximum.accumulate(times * p[order]).clip(max=1)
    return corrected


def effect_size(differences: Iterable[float]) -> float:
    """Return Cohen's d of paired differences: their mean over their standard deviation."""
    sample = _Sample(differences)
    return float("nan") if sample.equal else sample.mean / sample.spread


def images_needed(
    effect: float, power: float = RULES.power, alpha: float = RULES.alpha / RULES.family
) -> float:
    """Return the number of images that a paired t test needs to find an effect of this size.

    effect : Cohen's d, treated as the true effect
    power  : how often the test finds it
    The level is that of Holm's first step for one backbone among eight. The number is never below
    the smallest number for a decision. It is NaN for a negligible effect.
    """
    if not np.isfinite(effect) or abs(effect) < _LEAST_EFFECT:
        return float("nan")
    if abs(effect) > 2:  # the solver finds no root here
        return float(RULES.fewest_images)
    found = TTestPower().solve_power(abs(effect), None, alpha, power)
    return float(max(RULES.fewest_images, np.ceil(found)))
