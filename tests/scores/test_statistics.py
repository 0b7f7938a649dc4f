"""Intervals and tests against scipy, numpy, statsmodels, and what they promise."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from lib.networks.backbones import BACKBONES
from lib.scores.ceiling import HUMAN_CEILING, SPEARMAN_BROWN, estimated_ceiling
from lib.scores.decisions import (
    EQUIVALENT,
    FALLS,
    FALLS_LITTLE,
    OPEN,
    RISES,
    RISES_LITTLE,
    TOO_FEW,
    decisions,
    equivalence_p,
)
from lib.scores.observers import ceilings_of
from lib.scores.statistics import (
    correlation_interval,
    effect_size,
    holm,
    images_needed,
    mean_interval,
    mean_p,
)
from lib.study.rules import RULES
from lib.study.study import Study


def hall(values: np.ndarray, t: float) -> float:
    """Where Hall's transformation of Student's statistic is t, found by bisection (scipy)."""
    n = len(values)
    g = stats.skew(values, bias=False) * (1 + 4 / np.sqrt(n)) / np.sqrt(n)
    return optimize.brentq(lambda x: x + g * x**2 / 3 + g**2 * x**3 / 27 + g / 6 - t, -1e3, 1e3)


@pytest.mark.parametrize("draw", ["normal", "exponential", "mirrored"])
def test_an_interval_holds_students_and_the_one_corrected_for_skewness(draw):
    rng = np.random.default_rng(0)
    values = rng.normal(size=120) if draw == "normal" else rng.exponential(size=120)
    values = -values if draw == "mirrored" else values
    found = mean_interval(values)
    error = stats.sem(values)
    t = stats.t.ppf(0.975, 119)
    student = stats.t.interval(0.95, 119, values.mean(), error)
    skewed = [values.mean() - hall(values, end) * error for end in (t, -t)]
    assert found.low == pytest.approx(min(student[0], skewed[0]))
    assert found.high == pytest.approx(max(student[1], skewed[1]))
    if draw != "normal":  # the long tail's side is the wider
        long, short = found.high - found.mean, found.mean - found.low
        assert (long > short) == (draw == "exponential")


def test_few_images_count_with_what_may_have_gone_unseen():
    """Twenty equal values: as many more as 2.5 % of samples miss, at the mirrored value."""
    found = mean_interval([0.4] * 20)
    unseen = 1 - 0.025 ** (1 / 20)  # 0.168
    assert (found.mean, found.n) == (pytest.approx(0.4), 20)
    assert found.low == pytest.approx(0.4 * (1 - unseen) - 0.4 * unseen)
    assert found.high == pytest.approx(0.4)
    rng = np.random.default_rng(1)
    values = rng.normal(0.4, 0.02, 49)
    share = 1 - 0.025 ** (1 / 49)
    least = (1 - share) * values.mean() - share * values.max()
    assert mean_interval(values).low == pytest.approx(least)
    # From fifty on, what a sample shows is taken for what there is.
    assert mean_interval([*values, 0.4]).low > 0.39


def test_p_counts_with_what_may_have_gone_unseen_below_a_hundred_images():
    """One value is as far out as twenty of the others: there may be as large ones below."""
    values = np.array([0.0, 0.04] * 30 + [0.4])
    by_t = stats.ttest_1samp(values, 0).pvalue
    unseen = (0.4 / (values.mean() + 0.4)) ** 61
    assert by_t < 0.001 < 2 * unseen
    assert mean_p(values) == pytest.approx(2 * unseen)
    assert mean_p(values, alternative="greater") == pytest.approx(unseen)
    twice = np.tile(values, 2)
    assert mean_p(twice) == pytest.approx(stats.ttest_1samp(twice, 0).pvalue)


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (3, 20), (20, 20), (50, 64)])
def test_shares_have_wilsons_interval_within_their_ends(hits, n):
    values = [100.0] * hits + [0.0] * (n - hits)
    found = mean_interval(values, within=(0, 100))
    low, high = proportion_confint(hits, n, method="wilson")
    assert (found.low, found.high) == (pytest.approx(100 * low), pytest.approx(100 * high))
    assert 0 <= found.low <= found.mean <= found.high <= 100


def test_intervals_stay_within_what_there_can_be():
    values = [99.0, 100.0, 100.0, 60.0]
    assert mean_interval(values, within=(0, 100)).high == 100
    assert mean_interval(values).high > 100


def test_a_p_value_says_what_the_interval_says():
    """Below 0.05 exactly where the 95 % interval leaves 0 out; so at every level. Of fewer than a
    hundred images it may be more."""
    rng = np.random.default_rng(2)
    for n in (50, 99, 100, 400):
        for draw in (rng.normal, lambda *a: rng.exponential(size=a[-1]) - 1):
            values = draw(0, 1, n)
            for shift in np.linspace(-3, 3, 25) / np.sqrt(n):
                p = mean_p(values + shift)
                for level in (0.2, 0.05, 0.01):
                    found = mean_interval(values + shift, 1 - level)
                    outside = found.low > 0 or found.high < 0
                    assert outside == (p < level) or (n < 100 and outside)


def test_one_sided_p_values_are_halves_where_nothing_is_skewed():
    values = np.random.default_rng(0).normal(0.1, 1, 500)
    values = np.concatenate([values, 0.2 - values])  # symmetric around 0.1
    t = 0.1 / stats.sem(values)
    assert mean_p(values, alternative="greater") == pytest.approx(stats.t.sf(t, 999))
    assert mean_p(values, alternative="less") == pytest.approx(stats.t.cdf(t, 999))
    assert mean_p(values) == pytest.approx(2 * stats.t.sf(t, 999))
    assert mean_p(values, null=0.1) == pytest.approx(1)


def test_few_images_have_no_p_and_equal_ones_no_p_of_0():
    assert np.isnan(mean_p(np.linspace(0.5, 0.6, RULES.fewest_images - 1)))
    assert 0 < mean_p(np.linspace(0.5, 0.6, RULES.fewest_images)) < 1e-6
    assert mean_p(np.zeros(500)) == 1
    # As often as all of so many coins fall on the same side.
    assert mean_p(np.full(60, 0.3)) == pytest.approx(2 * 0.5**60)
    assert np.isnan(mean_p([]))
    assert np.isnan(mean_p([np.nan]))


@pytest.mark.parametrize(
    ("mean", "spread", "n", "word"),
    [
        (0.1, 0.3, 200, RISES),
        (-0.1, 0.3, 200, FALLS),
        (0.005, 0.05, 5000, RISES_LITTLE),
        (-0.005, 0.05, 5000, FALLS_LITTLE),
        (0.0, 0.3, 5000, EQUIVALENT),
        (0.0, 0.3, 200, OPEN),
        (0.1, 0.01, 49, TOO_FEW),
    ],
)
def test_a_sample_decides_one_of_seven_things(mean, spread, n, word):
    values = np.random.default_rng(0).normal(size=n)
    values = mean + spread * (values - values.mean()) / values.std()
    assert decisions([values], 0.02) == [word]
    # Two one-sided t tests, as statsmodels does them.
    if n >= 50:
        expected, *_ = DescrStatsW(values).ttost_mean(-0.02, 0.02)
        assert equivalence_p(values, 0.02) == pytest.approx(expected, abs=0.01)


def test_what_is_decided_is_corrected_for_its_family():
    values = np.random.default_rng(0).normal(size=200)
    values = 0.17 + (values - values.mean()) / values.std()  # t = 2.4, p = 0.017
    assert decisions([values], 0.02) == [RISES]
    assert decisions([values, *[values - 0.17] * 7], 0.02)[0] == OPEN


def test_the_version_of_the_rules_changes_with_every_value():
    versions = {RULES.version}
    for name, value in asdict(RULES).items():
        versions.add(replace(RULES, **{name: value + 1}).version)
    assert len(versions) == 1 + len(asdict(RULES))
    # Whoever changes a rule, raises its number and writes the new version here.
    assert RULES.version == "1-01807e"


# --- ceilings -----------------------------------------------------------------------------------


def people(halves, observers=8) -> pd.DataFrame:
    return pd.DataFrame(
        {"image_id": [str(i) for i in range(len(halves))], "observers": observers,
         "half": observers // 2, "split_half": halves, "one_against_rest": np.array(halves) / 2}
    )  # fmt: skip


def test_a_ceiling_is_the_split_half_raised_to_all_observers():
    halves = np.random.default_rng(0).normal(0.6, 0.1, 200)
    ceiling = estimated_ceiling(people(halves))
    r = halves.mean()
    assert ceiling.value == pytest.approx(2 * r / (1 + r))  # Spearman and Brown
    assert ceiling.most == pytest.approx(np.sqrt(ceiling.value))
    assert ceiling.one_against_rest.mean == pytest.approx(r / 2)
    assert ceiling.low < ceiling.value < ceiling.high
    assert (ceiling.observers, ceiling.images) == ((8, 8), 200)
    # Of fifteen, halves have seven: raised from 7 to 15.
    odd = estimated_ceiling(people(halves, 15))
    assert odd.value == pytest.approx((15 / 7) * r / (1 + (15 / 7 - 1) * r))


@pytest.mark.parametrize(
    "halves", [[], [np.nan] * 30, [0.6] * 19, [0.05] * 60, [-0.2, 0.1] * 30, [-0.5, 0.8] * 20]
)
def test_there_is_no_ceiling_where_nobody_agrees(halves):
    ceiling = estimated_ceiling(people(halves))
    assert not ceiling.is_known
    assert ceiling.divisor == 1
    assert ceiling.words.startswith("none")
    assert estimated_ceiling(people([0.5, 0.6] * 10)).is_known


def test_a_scores_interval_carries_the_ceilings_uncertainty():
    """By resampling images, models' and people's values together (numpy alone)."""
    rng = np.random.default_rng(0)
    n = 400
    hard = rng.normal(0, 0.1, n)  # images on which people disagree, and the model fails
    halves, rho = 0.5 + hard + rng.normal(0, 0.1, n), 0.4 + hard + rng.normal(0, 0.1, n)
    ceiling = estimated_ceiling(people(halves))
    values = pd.Series(rho, index=[str(i) for i in range(n)])
    found = mean_interval(ceiling.scaled(values))
    half = rng.integers(0, n, (4000, n))
    r = halves[half].mean(axis=1)
    drawn = rho[half].mean(axis=1) / (2 * r / (1 + r))
    assert found.mean == pytest.approx(rho.mean() / ceiling.value)
    width = np.subtract(*np.quantile(drawn, [0.975, 0.025]))
    assert found.high - found.low == pytest.approx(width, rel=0.06)
    alone = mean_interval(rho / ceiling.value)
    assert found.high - found.low < 0.9 * (alone.high - alone.low)  # hard ones cancel


def test_images_without_observers_or_without_a_map_count_where_they_are_known():
    rng = np.random.default_rng(1)
    halves, rho = rng.normal(0.6, 0.1, 300), rng.normal(0.5, 0.2, 400)
    ceiling = estimated_ceiling(people(halves))
    values = pd.Series(rho, index=[str(i) for i in range(100, 500)])
    scaled = ceiling.scaled(values)
    assert scaled.mean() == pytest.approx(rho.mean() / ceiling.value)
    assert len(scaled) == 500
    own = (rho.std() / ceiling.value) ** 2 / 400
    slope = 2 / (1 + halves.mean()) ** 2
    theirs = (rho.mean() / ceiling.value**2 * slope * halves.std()) ** 2 / 300
    # 200 images have both, of which the two parts are independent.
    assert (scaled.std() ** 2) / 500 == pytest.approx(own + theirs, rel=0.1)


def test_few_images_with_observers_widen_a_scores_interval():
    """400 scores over a ceiling of 24 images: Student's t has 23 degrees of freedom, not 423."""
    rng = np.random.default_rng(0)
    ceiling = estimated_ceiling(people(rng.normal(0.6, 0.1, 24)))
    rho = pd.Series(rng.normal(0.5, 0.1, 400), index=[f"m{i}" for i in range(400)])
    scaled = ceiling.scaled(rho)
    found = ceiling.interval(rho)
    half = stats.t.ppf(0.975, 23) * scaled.std() / np.sqrt(len(scaled))
    assert found.high - found.mean >= 0.999 * half
    assert found.n == 400


def test_all_models_of_a_protocol_are_divided_or_none_is():
    table = pd.concat(
        people(np.full(count, 0.6)).assign(protocol=protocol, reading=reading)
        for protocol, reading, count in (
            ("published", "whole", 60), ("corrected", "whole", 60),
            ("corrected", "centre, 224 of 256", 10),
        )
    )  # fmt: skip
    ceilings = ceilings_of(Study.from_profile("demo").choices, table)
    assert ceilings.read("published", "whole").is_known
    assert not ceilings.read("corrected", "whole").is_known
    assert "corrected, whole: none" in ceilings.words


def test_ceilings_are_read_by_protocol_and_part():
    table = pd.concat(
        people(np.full(60, r)).assign(protocol=protocol, reading=reading)
        for protocol, reading, r in (
            ("published", "whole", 0.5), ("corrected", "whole", 0.6),
            ("corrected", "centre, 224 of 256", 0.7),
        )
    )  # fmt: skip
    study = Study.from_profile("demo", models=["caformer_s18", "convnext_tiny"])
    ceilings = ceilings_of(study.choices, table)
    whole, cropped = (BACKBONES[key].preprocessing for key in ("caformer_s18", "convnext_tiny"))
    values = [
        ceilings.of(*key).value
        for key in (("published", cropped), ("corrected", whole), ("corrected", cropped))
    ]
    assert values == pytest.approx([1 / 1.5, 1.2 / 1.6, 1.4 / 1.7])
    assert ceilings.table().ceiling.tolist() == pytest.approx(values)
    given = ceilings_of(study.changed(ceiling=0.8).choices, table)
    assert given.of("corrected", cropped).value == 0.8
    assert given.of("published", whole).words == "0.800, given"


def test_clickmes_ceiling_divides_clickme_only(tmp_path):
    nobody = people([]).assign(protocol="", reading="")
    paper = Study.from_profile("paper")
    whole = BACKBONES["caformer_s18"].preprocessing
    assert ceilings_of(paper.choices, nobody).of("published", whole).value == HUMAN_CEILING
    for other in (
        Study.from_profile("paper", images=str(tmp_path)),
        Study.from_profile("demo"),
        Study.from_profile("rehearsal"),
    ):
        assert not ceilings_of(other.choices, nobody).of("published", whole).is_known


@pytest.mark.parametrize("value", [-0.1, 1.5, "0.8", True, float("nan"), 1e-9])
def test_a_ceiling_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="ceiling must be a number from 0 to 1|no yardstick"):
        Study.from_profile("paper", ceiling=value)


# --- corrections and sizes ----------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=9))
def test_holm_is_step_down(p):
    order = np.argsort(p)
    expected, largest = np.empty(len(p)), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        expected[index] = largest
    np.testing.assert_allclose(holm(p), expected)
    with_missing = holm([*p, np.nan])
    np.testing.assert_allclose(with_missing[:-1], expected)
    assert np.isnan(with_missing[-1])


def test_holm_is_statsmodels():
    p = np.random.default_rng(0).uniform(0, 0.3, 40).round(2)  # with ties
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    assert holm([]).size == 0
    assert np.isnan(holm([np.nan, np.nan])).all()


def test_effect_and_sample_size():
    values = np.random.default_rng(0).normal(0.2, 1, 50)
    d = effect_size(values)
    assert d == pytest.approx(stats.ttest_1samp(values, 0).statistic / np.sqrt(50))
    # Cohen's table: d = 0.2 needs 199 pairs for 80 % at 5 %, two-sided.
    assert images_needed(0.2, alpha=0.05) == 199
    assert images_needed(-0.4, alpha=0.05) == 52
    assert images_needed(0.2) > 1.5 * 199
    # Fewer decide nothing, however large the effect.
    assert images_needed(9.0) == images_needed(1.9) == RULES.fewest_images
    assert np.isnan(images_needed(0.0))
    assert np.isnan(effect_size([1.0]))


def test_spearman_brown():
    assert pytest.approx(0.793, abs=1e-3) == SPEARMAN_BROWN**2
    assert pytest.approx(1.35, abs=0.01) == SPEARMAN_BROWN / HUMAN_CEILING


def test_no_sample_size_for_next_to_no_effect():
    for differences in ([0.1, 0.2, -0.3], [0.1, 0.1, 0.1, -0.1, -0.1, -0.1]):
        assert np.isnan(images_needed(effect_size(differences)))
    assert np.isnan(effect_size([0.1, 0.1, 0.1]))  # its spread is rounding
    assert effect_size([0.1, 0.2, 0.3]) == pytest.approx(2)


@pytest.mark.parametrize(("rho", "count"), [(-0.26, 8), (0.9, 20)])
def test_a_rank_correlations_interval_is_the_published_one(rho, count):
    """Fisher's z, whose variance is (1 + ρ²/2) / (n - 3) for ranks."""
    z = 0.5 * math.log((1 + rho) / (1 - rho))
    far = 1.959964 * math.sqrt((1 + rho**2 / 2) / (count - 3))
    expected = [(math.exp(2 * e) - 1) / (math.exp(2 * e) + 1) for e in (z - far, z + far)]
    assert correlation_interval(rho, count) == pytest.approx(expected, abs=1e-6)


def test_few_or_perfectly_ordered_models_have_no_interval():
    for rho, count in ((0.5, 4), (1.0, 9), (-1.0, 9), (float("nan"), 9)):
        assert all(map(math.isnan, correlation_interval(rho, count)))
