"""Intervals and tests against scipy, numpy, statsmodels, and what they promise."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lib.networks.backbones import BACKBONES, THE_EIGHT
from lib.scores.agreements import CONSTANT_MODEL_MAP, VALID
from lib.scores.ceiling import HUMAN_CEILING, SPEARMAN_BROWN
from lib.scores.results import paired_differences, power_table, rescale, summarise_controls
from lib.scores.statistics import effect_size, holm, images_needed, mean_interval, sign_flip_p
from lib.study.study import Study


@pytest.mark.parametrize(
    ("n", "draw"),
    [(2, "normal"), (5, "normal"), (12, "normal"), (40, "exponential"), (150, "normal")],
)
def test_intervals_cover_as_often_as_they_say(n, draw):
    rng = np.random.default_rng(1)
    truth = 1.0 if draw == "exponential" else 0.0
    found = [mean_interval(getattr(rng, draw)(size=n)) for _ in range(250)]
    covered = np.mean([f.low <= truth <= f.high for f in found])
    # Two standard errors of 250 draws are 2.8 %; a skewed mean of 40 loses about 2 % more.
    assert 0.91 <= covered <= 0.985


def test_paired_test_finds_nothing_in_nothing_as_often_as_it_says():
    rng = np.random.default_rng(2)
    p = np.array([sign_flip_p(rng.standard_t(4, size=30)) for _ in range(300)])
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.028)
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_sign_flips_of_few_images_are_all_of_them():
    values = np.array([0.3, -0.1, 0.5, 0.2, 0.05])
    means = [np.mean(values * signs) for signs in itertools.product((1, -1), repeat=5)]
    expected = np.mean(np.abs(means) >= abs(values.mean()) - 1e-12)
    assert sign_flip_p(values) == pytest.approx(expected)
    assert sign_flip_p(np.zeros(4)) == sign_flip_p([0.3]) == 1
    assert np.isnan(sign_flip_p([np.nan]))


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
    assert images_needed(-0.5, alpha=0.05) == 34
    assert images_needed(0.2) > 1.5 * 199
    # Fewer cannot reach p < 0.05 / 8 by flips of signs: 2 / 2^9 = 0.0039, 2 / 2^8 = 0.0078.
    assert images_needed(9.0) == images_needed(1.9) == 9
    assert np.isnan(images_needed(0.0))
    assert np.isnan(effect_size([1.0]))


def test_spearman_brown():
    assert pytest.approx(0.793, abs=1e-3) == SPEARMAN_BROWN**2
    assert pytest.approx(1.35, abs=0.01) == SPEARMAN_BROWN / HUMAN_CEILING


def per_image(study: Study, gain: float, n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = []
    for backbone in study.choices.backbones:
        for method in study.choices.methods:
            base = rng.normal(0.3, 0.1, n)
            change = rng.normal(gain, 0.05, n)
            for dcls in (False, True):
                rho = base + dcls * change
                frame = pd.DataFrame({"rho": rho, "image_id": np.arange(n).astype(str)})
                frame["validity"] = np.where(np.arange(n) == int(dcls), CONSTANT_MODEL_MAP, VALID)
                frame.loc[frame.validity != VALID, "rho"] = np.nan
                rows.append(
                    frame.assign(backbone=backbone.key, dcls=dcls, method=method.key,
                                 protocol="published", label=0, top1=True, partial=rho / 2,
                                 tied=0.0, attainable=1.0)
                )  # fmt: skip
    return pd.concat(rows, ignore_index=True)


@pytest.fixture
def study() -> Study:
    return Study.from_profile("paper", protocols=["published"])


def test_paired_table_from_scratch(study):
    scores = per_image(study, 0.01)
    table = paired_differences(study.choices, scores)
    assert len(table) == len(study.choices.backbones) * 2
    row = table[(table.backbone == "caformer_s18") & (table.method == "grad_cam")].iloc[0]
    chosen = scores[(scores.backbone == "caformer_s18") & (scores.method == "grad_cam")]
    base, dcls = (chosen[chosen.dcls == d].rho.to_numpy() for d in (False, True))
    gain = ((dcls - base) / HUMAN_CEILING)[2:]  # images 0 and 1 are invalid for one of the two
    assert row.n_paired == 58
    assert row.difference == pytest.approx(gain.mean())
    assert row.effect == pytest.approx(gain.mean() / gain.std(ddof=1))
    assert row.spread == pytest.approx(gain.std(ddof=1))
    # The sign-flip p of so many images is close to the t test's.
    assert row.p == pytest.approx(stats.ttest_1samp(gain, 0).pvalue, abs=0.02)
    eight = table[(table.method == "grad_cam") & table.backbone.isin([b.key for b in THE_EIGHT])]
    np.testing.assert_allclose(eight.p_holm, multipletests(eight.p, method="holm")[1])
    matched = table[(table.method == "grad_cam") & (table.backbone == "resnet50_a3")].iloc[0]
    assert np.isnan(matched.p_holm)
    assert 0 < matched.p <= 1
    power = power_table(table, (0.05,))
    assert power["images to find 0.05"][0] == images_needed(0.05 / table.spread[0])


def test_rescaled_scores_are_0_at_the_floor_and_1_at_the_ceiling(study):
    controls = pd.DataFrame(
        {"protocol": "published", "reading": "whole", "control": "other_human",
         "rho": [0.1, 0.2, np.nan], "partial": 0.0, "validity": [VALID, VALID, CONSTANT_MODEL_MAP]}
    )  # fmt: skip
    floors = summarise_controls(controls)
    assert floors.raw[0] == pytest.approx(0.15)
    assert floors.n[0] == 2
    floor = 0.15 / HUMAN_CEILING
    summary = pd.DataFrame(
        {"protocol": "published", "backbone": "caformer_s18",
         "score": [floor, 1.0, (1 + floor) / 2], "low": 0.0, "high": 1.0}
    )  # fmt: skip
    np.testing.assert_allclose(
        rescale(study.choices, summary, floors).rescaled, [0, 1, 0.5], atol=1e-12
    )


def test_every_backbone_has_a_reading():
    from lib.people.protocols import PROTOCOLS

    names = {
        b.key: PROTOCOLS["corrected"].reading_name(b.preprocessing) for b in BACKBONES.values()
    }
    assert names["caformer_s18"] == names["fastvit_sa24"] == "whole"
    assert names["convnext_tiny"] == "centre, 224 of 256"
    assert PROTOCOLS["published"].reading_name(BACKBONES["convnext_tiny"].preprocessing) == "whole"


def test_no_sample_size_for_next_to_no_effect():
    for differences in ([0.1, 0.2, -0.3], [0.1, 0.1, 0.1, -0.1, -0.1, -0.1]):
        assert np.isnan(images_needed(effect_size(differences)))
    assert np.isnan(effect_size([0.1, 0.1, 0.1]))  # its spread is rounding
    assert effect_size([0.1, 0.2, 0.3]) == pytest.approx(2)
