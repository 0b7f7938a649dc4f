"""Verdicts on score tables that are built so that a claim is true, false, or undecidable."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from stand_ins import CEILINGS

from lib.networks.backbones import THE_EIGHT
from lib.scores.agreements import VALID
from lib.scores.ceiling import HUMAN_CEILING as CEILING
from lib.scores.claims import (
    MISSING,
    NO_DIFFERENCE,
    NOT_ASKED,
    NOT_REPRODUCED,
    REPRODUCED,
    TOO_FEW_IMAGES,
    TOO_SMALL,
    UNDECIDED,
    verdicts,
    within_families,
)
from lib.study.rules import RULES
from lib.study.study import Study

KEYS = [b.key for b in THE_EIGHT]
CLAIMS = ("dcls", "metaformers", "threshold", "fastvit", "size")


def table(mean, noise=0.05, n=80) -> pd.DataFrame:
    """mean(key, dcls, threshold) gives a model's mean correlation."""
    rng = np.random.default_rng(0)
    easy = rng.normal(0, 0.05, n)
    frames = []
    for key in KEYS:
        for dcls in (False, True):
            for method in ("grad_cam", "threshold_grad_cam"):
                rho = mean(key, dcls, method == "threshold_grad_cam") + easy
                frames.append(
                    pd.DataFrame({"rho": rho + rng.normal(0, noise, n),
                                  "image_id": np.arange(n).astype(str)})
                    .assign(backbone=key, dcls=dcls, method=method)
                )  # fmt: skip
    return pd.concat(frames, ignore_index=True).assign(protocol="published", validity=VALID)


def controls(floor=0.0, n=80) -> pd.DataFrame:
    rho = floor + np.random.default_rng(1).normal(0, 0.01, n)
    return pd.DataFrame({"rho": rho, "image_id": np.arange(n).astype(str), "control": "other_human", "protocol": "published",
                         "reading": "whole", "partial": 0.0, "validity": VALID})  # fmt: skip


def decided(mean, of_controls=None, **options) -> dict[str, pd.Series]:
    of_controls = {"n": options.get("n", 80), **(of_controls or {})}
    study = Study.from_profile("paper", protocols=["published"])
    found = verdicts(study, table(mean, **options), controls(**of_controls), CEILINGS)
    assert len(found) == 5
    return dict(zip(CLAIMS, [row for _, row in found.iterrows()], strict=True))


def as_claimed(key, dcls, threshold):
    size = dict(zip(KEYS, (1, 2, 5, 8, 0.5, 1.5, -1, 3), strict=True))
    sizes = {"resnet50": 25.6, "convnext_tiny": 28.6, "convnext_small": 50.2, "convnext_base": 88.6,
             "caformer_s18": 26.3, "convformer_s18": 26.8, "fastvit_sa24": 21.6, "fastvit_sa36": 31.5}  # fmt: skip
    assert set(size) == set(sizes)
    if not threshold and "former" in key:
        return 0.02 + 0.05 * dcls
    rise = -0.05 if key == "fastvit_sa24" else 0.05
    return 0.2 + 0.002 * sizes[key] + 0.08 * threshold + rise * dcls


def test_all_claims_hold_where_they_are_built_in():
    found = decided(as_claimed)
    assert {name: row.verdict for name, row in found.items()} == dict.fromkeys(CLAIMS, REPRODUCED)
    assert (found["dcls"].value, found["dcls"].low, found["dcls"].high) == (7, 7, 7)
    assert found["size"].value == pytest.approx(1)
    assert found["metaformers"].high < 0
    assert "Training recipes differ" in found["dcls"].notes
    assert "ClickMe" in found["dcls"].speaks_of


def test_no_claim_holds_where_the_opposite_is_built_in():
    def opposite(key, dcls, threshold):
        return 0.6 - as_claimed(key, False, True) - 0.08 * threshold - 0.05 * dcls

    found = decided(opposite, noise=0.02)
    assert {name: row.verdict for name, row in found.items()} == dict.fromkeys(
        CLAIMS, NOT_REPRODUCED
    )


def test_no_claim_is_decided_where_nothing_but_noise_is():
    found = decided(lambda *_: 0.3, noise=0.3, n=60)
    undecided = {name for name, row in found.items() if row.verdict == UNDECIDED}
    assert {"dcls", "threshold", "fastvit", "size"} <= undecided
    # Equal maps everywhere do contradict that the MetaFormers' are worse.
    assert found["metaformers"].verdict == NOT_REPRODUCED


# --- counts of models ---------------------------------------------------------------------------


def rises(**by_backbone: float):
    """A table's means in which DCLS adds so much, 0.1 where nothing is said."""
    return lambda key, dcls, threshold: 0.3 + by_backbone.get(key, 0.1) * dcls


@pytest.mark.parametrize(
    ("risers", "verdict", "counts", "words"),
    [
        # The seventh of eight decides; correlations of 0.1 are significantly more than nothing.
        ({"resnet50": -0.1}, REPRODUCED, (7, 7, 7), "7 of 8 rise in the mean, 7 significantly"),
        ({"resnet50": -0.1, "convnext_tiny": 0.004}, UNDECIDED, (7, 6, 7),
         "7 of 8 rise in the mean, 6 significantly, at most 7 once all are decided"),
        ({"resnet50": -0.1, "convnext_tiny": -0.1}, NOT_REPRODUCED, (6, 6, 6),
         "6 of 8 rise in the mean, 6 significantly"),
    ],
)  # fmt: skip
def test_seven_of_eight_backbones_must_rise(risers, verdict, counts, words):
    row = decided(rises(**risers))["dcls"]
    assert row.verdict == verdict
    assert (row.value, row.low, row.high) == counts
    assert row.counts == words
    assert f"With Grad-CAM: {verdict}, " in row.notes
    assert " of 8 rise in the mean, " in row.notes


@pytest.mark.parametrize(("without", "verdict"), [(2, REPRODUCED), (3, NOT_REPRODUCED)])
def test_fourteen_of_sixteen_models_must_rise_by_the_threshold(without, verdict):
    fallers = [(key, False) for key in KEYS[:without]]

    def mean(key, dcls, threshold):
        return 0.3 + threshold * (-0.1 if (key, dcls) in fallers else 0.1)

    row = decided(mean)["threshold"]
    assert (row.verdict, row.low) == (verdict, 16 - without)


def test_a_rise_too_small_to_matter_is_that_however_sure_it_is():
    """0.002 more on each of 2,000 images, a tenth of the smallest effect."""
    found = decided(rises(**dict.fromkeys(KEYS, 0.002 * CEILING)), noise=0.003, n=2000)
    row = found["dcls"]
    assert row.verdict == TOO_SMALL
    assert "8 change by less than 0.02 (8 of them significantly rise)" in row.because
    assert row.high == 0


def test_no_difference_on_many_images_is_equivalence_and_not_undecided():
    found = decided(lambda *_: 0.3, noise=0.1, n=5000)
    for claim in ("dcls", "threshold", "fastvit"):
        assert found[claim].verdict == NO_DIFFERENCE


def test_a_smaller_smallest_effect_decides_otherwise_and_has_another_version():
    small = rises(**dict.fromkeys(KEYS, 0.002 * CEILING))
    rules = set()
    for smallest, verdict in ((0.02, TOO_SMALL), (0.0005, REPRODUCED)):
        study = Study.from_profile("paper", protocols=["published"], smallest_effect=smallest)
        found = verdicts(study, table(small, noise=0.003, n=2000), controls(n=2000), CEILINGS)
        assert found.verdict[0] == verdict
        rules |= set(found.rules)
    assert len(rules) == 2
    assert all(version.startswith(f"{RULES.number}-") for version in rules)


def test_eight_small_gains_are_not_eight_certain_ones():
    """Each alone is just significant at 0.05, none is once corrected for eight."""
    rng = np.random.default_rng(4)
    n = 100
    noise = rng.normal(size=n)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    scores = table(lambda *_: 0.3, noise=0.0, n=n)
    # t = 2.2, two-sided p = 0.03
    scores.loc[scores.dcls, "rho"] += np.tile(0.1 * (noise + 2.2 / 10), 16)
    study = Study.from_profile("paper", protocols=["published"])
    found = verdicts(study, scores, controls(n=n), CEILINGS)
    assert (found.value[0], found.low[0]) == (8, 0)
    assert found.verdict[0] == UNDECIDED


# --- claim 2 ------------------------------------------------------------------------------------


def low(caformer: float, convformer: float, others: float):
    """Grad-CAM's means over correlation 0."""
    of = {"caformer_s18": caformer, "convformer_s18": convformer}
    return lambda key, dcls, threshold: 0.4 if threshold else of.get(key, others)


@pytest.mark.parametrize(
    ("means", "verdict"),
    [
        ((0.02, 0.05, 0.3), REPRODUCED),
        # It takes both: one that is low does not make the other so.
        ((0.02, 0.25, 0.3), NOT_REPRODUCED),
        # Half of the others' height is the border: 0.2 of 0.3 is above it, 0.1 below.
        ((0.02, 0.2, 0.3), NOT_REPRODUCED),
        ((0.02, 0.1, 0.3), REPRODUCED),
        ((0.02, 0.15, 0.3), UNDECIDED),
        # Where no baseline lies above the control, nothing sets the two apart.
        ((-0.4, -0.4, -0.2), NOT_REPRODUCED),
        ((-0.2, -0.2, 0.0), UNDECIDED),
    ],
)
def test_both_metaformers_must_be_low_and_the_others_above_the_control(means, verdict):
    row = decided(low(*means), noise=0.1)["metaformers"]
    assert row.verdict == verdict
    assert row.low < row.value < row.high
    # The higher of the two, less half of the others' height, over the ceiling.
    expected = (max(means[:2]) - means[2] / 2) / CEILING
    assert row.value == pytest.approx(expected, abs=0.04)


def test_height_starts_from_the_strongest_control_and_the_other_stands_beside():
    """The others lie above another image's human map (0), and below a centred map (0.5)."""
    study = Study.from_profile("paper", protocols=["published"])
    both = pd.concat([controls(), controls(0.5).assign(control="centre")])
    found = verdicts(study, table(low(0.02, 0.02, 0.3)), both, CEILINGS)
    row = found.iloc[1]
    assert row.verdict == NOT_REPRODUCED
    assert "nothing distinguishes the two" in row.because
    assert "strongest control: centred Gaussian" in row.notes
    assert "Compared with another image's human map: reproduced" in row.notes


# --- claims 4 and 5 -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.1, -0.1), REPRODUCED),
        ((0.1, 0.1), NOT_REPRODUCED),
        ((-0.1, -0.1), NOT_REPRODUCED),
        ((0.1, 0.003), UNDECIDED),
    ],
)
def test_mixed_is_one_that_rises_and_one_that_falls(gains, verdict):
    row = decided(rises(fastvit_sa24=gains[0], fastvit_sa36=gains[1]))["fastvit"]
    assert row.verdict == verdict
    assert "at least one significantly rises and one significantly falls" in row.because


def by_size(sign: float, within: bool = True):
    """Scores that go with size; or, not within families, by family alone."""
    size = dict(zip(KEYS, SIZES, strict=True))
    family = {"r": 0.0, "c": 0.3, "f": 0.1}
    of = {key: sign * 0.004 * size[key] for key in KEYS}
    alone = {key: family.get(key[0], 0.0) for key in KEYS}
    return lambda key, dcls, threshold: 0.3 + (of if within else alone)[key]


SIZES = (25.6, 28.6, 50.2, 88.6, 26.3, 26.8, 21.6, 31.5)


def test_size_and_score_are_judged_by_one_rule_both_ways():
    assert decided(by_size(1), noise=0.005)["size"].verdict == REPRODUCED
    down = decided(by_size(-1), noise=0.005)["size"]
    assert (down.verdict, down.value) == (NOT_REPRODUCED, pytest.approx(-1))
    # Images alone decide neither, however sure they are: the models' order says little.
    for means in (
        (0.3, 0.33, 0.31, 0.32, 0.3, 0.3, 0.31, 0.3),
        (0.3, 0.3, 0.33, 0.32, 0.3, 0.3, 0.31, 0.31),
    ):
        of = dict(zip(KEYS, means, strict=True))
        row = decided(lambda key, dcls, threshold, of=of: of[key], noise=0.001, n=2000)["size"]
        assert row.high < 0 or row.low > 0
        assert row.verdict == UNDECIDED


def test_families_of_other_scores_are_no_evidence_about_size():
    row = decided(by_size(1, within=False), noise=0.01)["size"]
    assert row.verdict == UNDECIDED


def test_correlation_within_families_by_hand():
    """Ranks of size 2 | 5 7 8 | 3 4 | 1 6, less each family's mean."""
    families = ["r", "c", "c", "c", "m", "m", "f", "f"]
    score = np.array([0.1, 0.5, 0.4, 0.9, 0.3, 0.2, 0.0, 0.8])  # ranks 2 | 6 5 8 | 4 3 | 1 7
    x = np.array([0, -5 / 3, 1 / 3, 4 / 3, -0.5, 0.5, -2.5, 2.5])
    y = np.array([0, -1 / 3, -4 / 3, 5 / 3, 0.5, -0.5, -3, 3])
    found = within_families(np.array(SIZES), score[None], families)
    assert found == pytest.approx([np.corrcoef(x, y)[0, 1]])


def test_scores_that_are_all_equal_have_no_order_and_no_p_of_0():
    row = decided(lambda *_: 0.3, noise=0.0)["size"]
    assert row.verdict == UNDECIDED
    assert np.isnan(row.value)
    assert "their order cannot be correlated" in row.because
    assert "p = 0" not in row.because


# --- what is missing ----------------------------------------------------------------------------


def test_a_claim_about_models_that_are_not_chosen_is_not_asked():
    study = Study.from_profile("paper", models=["resnet50"], protocols=["published"])
    scores = table(as_claimed)
    found = verdicts(study, scores[scores.backbone == "resnet50"], controls(), CEILINGS)
    assert (found.verdict == NOT_ASKED).all()
    assert found.because.str.contains("this study cannot decide the claim").all()


def test_other_readings_stand_beside_the_first():
    study = Study.from_profile("paper", protocols=["published", "corrected"])
    scores = pd.concat([table(as_claimed), table(lambda *_: 0.3).assign(protocol="corrected")])
    both = pd.concat([controls(), controls().assign(protocol="corrected")])
    found = verdicts(study, scores, both, CEILINGS)
    assert (found.verdict == REPRODUCED).all()
    assert found.other_readings.str.startswith("corrected: ").all()
    assert not found.other_readings.str.startswith("corrected: reproduced").any()


def test_on_the_demo_verdicts_speak_of_the_demo_only():
    study = Study.from_profile("demo", protocols=["published"])
    found = verdicts(study, table(as_claimed), controls(), CEILINGS)
    assert found.speaks_of.str.contains("of nothing else").all()
    assert found.speaks_of.str.contains("No evidence about DCLS").all()


@pytest.mark.parametrize("n", [1, 2, 8, RULES.fewest_images - 1])
def test_a_few_images_decide_nothing_however_large_the_effect(n):
    for row in decided(as_claimed, noise=0.01, n=n).values():
        assert row.verdict == TOO_FEW_IMAGES
        assert row.because == f"no decision is made with fewer than {RULES.fewest_images} images"
        assert row.n == n


def test_maps_that_are_all_constant_are_told_as_that():
    study = Study.from_profile("paper", protocols=["published"])
    scores = table(as_claimed)
    lost = (scores.backbone == "caformer_s18") & (scores.method == "grad_cam")
    scores.loc[lost, "validity"] = "constant model map"
    found = verdicts(study, scores, controls(), CEILINGS).set_index("claim")
    row = found[found.index.str.startswith("CAFormer")].iloc[0]
    assert row.verdict == MISSING
    assert "caformer_s18 without DCLS has no valid grad_cam map" in row.because
