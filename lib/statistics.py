"""Intervals of means over images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 5000
SEED = 0


def mean_interval(values: Iterable[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean and percentile bootstrap interval over images, by a fixed seed.

    Returns (mean, low, high); all NaN without values, low = high = NaN for one.
    """
    sample = np.asarray(list(values), dtype=np.float64)
    if len(sample) < 2:
        mean = float(sample[0]) if len(sample) else float("nan")
        return mean, float("nan"), float("nan")
    interval = bootstrap(
        (sample,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        batch=500,
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(sample.mean()), float(interval.low), float(interval.high)
