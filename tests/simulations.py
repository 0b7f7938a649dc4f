"""How often intervals hold and tests are wrong: the tables of docs/statistics.md.

    python tests/simulations.py         some ten minutes on two cores

`tests/scores/test_simulated.py` asks the same of fewer samples (`make test-slow`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import stats

from lib.scores.decisions import OPEN, TOO_FEW, decisions
from lib.scores.statistics import mean_interval

Draw = Callable[[np.random.Generator, int], np.ndarray]


def _inverted(share: float, mean: float, spread: float) -> Draw:
    """Scores of which a share is that of an inverted map."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        values = rng.normal(mean, spread, n)
        return np.where(rng.random(n) < share, -values, values)

    return draw


def _balanced(share: float) -> Draw:
    """Differences of mean 0: a share is half a correlation worse, the others a little better."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        better = rng.normal(0.5 * share / (1 - share), 0.05, n)
        return np.where(rng.random(n) < share, rng.normal(-0.5, 0.05, n), better)

    return draw


# {shape: (how it is drawn, its mean)}
SHAPES: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "Student's t, 3 degrees": (lambda rng, n: rng.standard_t(3, size=n), 0.0),
    "uniform": (lambda rng, n: rng.random(n), 0.5),
    "beta (5, 1.2)": (lambda rng, n: rng.beta(5, 1.2, n), 5 / 6.2),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
    "gamma (0.5)": (lambda rng, n: rng.gamma(0.5, size=n), 0.5),
    "lognormal (0.6)": (lambda rng, n: rng.lognormal(0, 0.6, n), float(np.exp(0.18))),
    "lognormal (1)": (lambda rng, n: rng.lognormal(0, 1, n), float(np.exp(0.5))),
    "10 % of maps inverted": (_inverted(0.1, 0.4, 0.15), 0.32),
    "20 % of maps inverted": (_inverted(0.2, 0.4, 0.15), 0.24),
    "10 % far worse, mean 0": (_balanced(0.1), 0.0),
    "20 % far worse, mean 0": (_balanced(0.2), 0.0),
}


def _student(sample: np.ndarray) -> tuple[float, float]:
    return stats.t.interval(0.95, len(sample) - 1, sample.mean(), stats.sem(sample))


def _resampled(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of resamples, and Student's statistic of each, around the sample's mean."""
    rng = np.random.default_rng(0)
    drawn = sample[rng.integers(0, len(sample), (999, len(sample)))]
    means, spread = drawn.mean(axis=1), drawn.std(axis=1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (means - sample.mean()) / (spread / np.sqrt(len(sample)))
    return means, np.nan_to_num(t, nan=0.0, posinf=1e9, neginf=-1e9)


def _percentile(sample: np.ndarray) -> tuple[float, float]:
    return tuple(np.quantile(_resampled(sample)[0], [0.025, 0.975]))


def _bca(sample: np.ndarray) -> tuple[float, float]:
    found = stats.bootstrap((sample,), np.mean, n_resamples=999, method="BCa",
                            rng=np.random.default_rng(0)).confidence_interval  # fmt: skip
    return found.low, found.high


def _bootstrap_t(sample: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(_resampled(sample)[1], [0.025, 0.975])
    error = stats.sem(sample)
    return sample.mean() - high * error, sample.mean() - low * error


def _ours(sample: np.ndarray) -> tuple[float, float]:
    found = mean_interval(sample)
    return found.low, found.high


METHODS = {"Student": _student, "percentile": _percentile, "BCa": _bca,
           "bootstrap-t": _bootstrap_t, "here": _ours}  # fmt: skip


def coverage(
    sizes: tuple[int, ...], samples: int, methods: tuple[str, ...] = tuple(METHODS), seed: int = 0
) -> pd.DataFrame:
    """`shape, n, method, covered, width`: how often 95 % intervals hold the mean, and the median
    of their widths over Student's."""
    rows = []
    for shape, (draw, truth) in SHAPES.items():
        for n in sizes:
            rng = np.random.default_rng([seed, n])
            drawn = [draw(rng, n) for _ in range(samples)]
            reference = np.median([np.diff(_student(sample)) for sample in drawn])
            for method in methods:
                ends = np.array([METHODS[method](sample) for sample in drawn])
                held = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
                width = np.median(ends[:, 1] - ends[:, 0]) / reference
                rows.append((shape, n, method, held, width))
    return pd.DataFrame(rows, columns=["shape", "n", "method", "covered", "width"])


def false_alarms(sizes: tuple[int, ...], samples: int, seed: int = 1) -> pd.DataFrame:
    """`shape, n, alarms`: how often at least one of eight differences without any is decided to
    be one (rising or falling), corrected by Holm."""
    rows = []
    for shape, (draw, truth) in SHAPES.items():
        for n in sizes:
            rng = np.random.default_rng([seed, n])
            families = ([draw(rng, n) - truth for _ in range(8)] for _ in range(samples))
            rows.append((shape, n, np.mean([_moves(family) for family in families])))
    return pd.DataFrame(rows, columns=["shape", "n", "alarms"])


def _moves(family: list[np.ndarray]) -> bool:
    words = set(decisions(family, 1e-9))
    return bool(words - {OPEN, TOO_FEW})


def power(sizes: tuple[int, ...], samples: int, seed: int = 2) -> pd.DataFrame:
    """`effect, n, found, t_test`: how often one true difference (in standard deviations of normal
    differences) among eight comparisons is found, and how often by Student's t with Holm."""
    rows = []
    for effect in (0.2, 0.5, 1.0):
        for n in sizes:
            rng = np.random.default_rng([seed, n])
            found, by_t = [], []
            for _ in range(samples):
                sample = rng.normal(effect, 1, n)
                ours = decisions([sample, *[np.tile([1.0, -1.0], n // 2)] * 7], 1e-9)[0]
                found.append(ours not in (OPEN, TOO_FEW))
                by_t.append(stats.ttest_1samp(sample, 0).pvalue < 0.05 / 8)
            rows.append((effect, n, np.mean(found), np.mean(by_t)))
    return pd.DataFrame(rows, columns=["effect", "n", "found", "t_test"])


def _tables() -> Iterator[tuple[str, pd.DataFrame]]:
    held = coverage((8, 12, 24, 50, 100), 2000)
    held["cell"] = [f"{c:.2f} ({w:.1f})" for c, w in zip(held.covered, held.width, strict=True)]
    for n in held.n.unique():
        chosen = held[held.n == n]
        yield (
            f"Intervals of {n} images: share that hold the mean (width over Student's)",
            chosen.pivot(index="shape", columns="method", values="cell").reindex(
                index=list(SHAPES), columns=list(METHODS)
            ),
        )
    alarms = false_alarms((8, 24, 50, 64, 100, 1000), 2000)
    yield (
        "At least one of eight that is none is called a difference",
        alarms.pivot(index="shape", columns="n", values="alarms").reindex(list(SHAPES)).round(3),
    )
    yield "A true difference among eight is found", power((50, 100, 400), 2000).round(2)


if __name__ == "__main__":
    for title, table in _tables():
        print(f"\n{title}\n\n{table.to_markdown()}", flush=True)
