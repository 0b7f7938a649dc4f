"""Intervals, tests and sample sizes for means over images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.power import TTestPower

from lib.study.rules import FEWEST_IMAGES

RESAMPLES = 5000
FLIPS = 9999
SEED = 0
_LEAST_EFFECT = 1e-4  # Cohen's d: a thousand million images and more
FAMILY = 8  # backbones, over which p values are corrected
_CELLS = 2e7  # of resampled values in memory at once


@dataclass(frozen=True)
class Interval:
    """A mean over n images, and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Iterable[float], confidence: float = 0.95) -> Interval:
    """Mean and bootstrap interval over images, by a fixed seed; missing values are left out.

    The percentile interval, its level widened for the sample's size. Of so few values that
    resampling cannot reach far enough out, Student's interval. All NaN without values, low =
    high = NaN for one.

    Source: Hesterberg, The American Statistician 69 (2015), "expanded" percentile interval
    """
    sample = np.asarray(list(values), dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    n = len(sample)
    if n < 2:
        return Interval(float(sample[0]) if n else np.nan, np.nan, np.nan, n)
    if n < FEWEST_IMAGES or 2.0 ** (1 - n) > 1 - confidence:  # resamples stay between the extremes
        half = stats.t.ppf((1 + confidence) / 2, n - 1) * sample.std(ddof=1) / np.sqrt(n)
        mean = float(sample.mean())
        return Interval(mean, mean - float(half), mean + float(half), n)
    tail = stats.t.ppf((1 - confidence) / 2, n - 1) * np.sqrt(n / (n - 1))
    interval = stats.bootstrap(
        (sample,), np.mean, n_resamples=RESAMPLES, confidence_level=1 - 2 * stats.norm.cdf(tail),
        method="percentile", batch=max(1, int(_CELLS / n)), rng=np.random.default_rng(SEED),
    ).confidence_interval  # fmt: skip
    return Interval(float(sample.mean()), float(interval.low), float(interval.high), n)


def means_by(table: pd.DataFrame, by: Sequence[str], column: str, name: str) -> pd.DataFrame:
    """`mean_interval` of a column in each group: `*by, name, low, high, n`, as groups come."""
    rows = []
    for key, chosen in table.groupby(list(by), sort=False):
        found = mean_interval(chosen[column])
        rows.append((*key, found.mean, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=[*by, name, "low", "high", "n"])


def sign_flip_p(differences: Iterable[float]) -> float:
    """Two-sided p of the mean difference being 0: how often random signs give as large a one.

    Exact for few images, else from 9,999 random flips by a fixed seed. NaN without values.
    """
    sample = np.asarray(list(differences), dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    if not len(sample):
        return float("nan")
    if len(sample) == 1 or not sample.any():  # either sign is as large
        return 1.0
    found = stats.permutation_test(
        (sample,), np.mean, permutation_type="samples", vectorized=True, n_resamples=FLIPS,
        batch=max(1, int(_CELLS / len(sample))), rng=np.random.default_rng(SEED),
    )  # fmt: skip
    return float(found.pvalue)


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
    sample = np.asarray(list(differences), dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    spread = sample.std(ddof=1) if len(sample) > 1 else 0.0
    # Equal values have a spread by rounding alone.
    equal = spread <= 1e-12 * np.abs(sample).max(initial=0)
    return float("nan") if equal else float(sample.mean() / spread)


def images_needed(effect: float, power: float = 0.8, alpha: float = 0.05 / FAMILY) -> float:
    """Images to find an effect of this size (Cohen's d) so often, by a paired t test.

    At the level that Holm's first step asks of one backbone among eight, and never fewer than
    with which so many signs' flips can reach it. It takes the effect for the true one. NaN for
    one that is next to none.
    """
    if not np.isfinite(effect) or abs(effect) < _LEAST_EFFECT:
        return float("nan")
    fewest = np.ceil(1 - np.log2(alpha))  # the least p of n images' flips is 2^(1 - n)
    if abs(effect) > 2:  # where the solver finds no root
        return float(fewest)
    found = TTestPower().solve_power(abs(effect), None, alpha, power)
    return float(max(fewest, np.ceil(found)))
