"""Tables of scores, differences and controls, from per-image tables with known means."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from stand_ins import CEILINGS, NO_CONTROLS
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from lib.analyses.method_study import alignment
from lib.networks.backbones import BACKBONES, THE_EIGHT
from lib.report.readable import readable_table
from lib.report.result_table import results_table
from lib.scores.agreements import CONSTANT_MODEL_MAP, VALID
from lib.scores.ceiling import HUMAN_CEILING, Ceiling, Ceilings
from lib.scores.decisions import EQUIVALENT, OPEN, RISES
from lib.scores.results import (
    beside_controls,
    compare_models,
    paired_differences,
    power_table,
    summarise,
)
from lib.scores.statistics import images_needed, mean_interval, mean_p
from lib.study.study import Study


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
    table = paired_differences(study.choices, scores, CEILINGS)
    assert len(table) == len(study.choices.backbones) * 2
    row = table[(table.backbone == "caformer_s18") & (table.method == "grad_cam")].iloc[0]
    chosen = scores[(scores.backbone == "caformer_s18") & (scores.method == "grad_cam")]
    base, dcls = (chosen[chosen.dcls == d].rho.to_numpy() for d in (False, True))
    gain = ((dcls - base) / HUMAN_CEILING)[2:]  # images 0 and 1 are invalid for one of the two
    assert row.n_paired == 58
    assert row.difference == pytest.approx(gain.mean())
    assert row.effect == pytest.approx(gain.mean() / gain.std(ddof=1))
    assert row.spread == pytest.approx(gain.std(ddof=1))
    # No skewness to speak of: close to the t test's.
    assert row.p == pytest.approx(stats.ttest_1samp(gain, 0).pvalue, abs=0.05)
    assert row.decision in (OPEN, RISES, EQUIVALENT)
    eight = table[(table.method == "grad_cam") & table.backbone.isin([b.key for b in THE_EIGHT])]
    np.testing.assert_allclose(eight.p_holm, multipletests(eight.p, method="holm")[1])
    matched = table[(table.method == "grad_cam") & (table.backbone == "resnet50_a3")].iloc[0]
    assert matched.p_holm == matched.p  # a family of its own
    assert 0 < matched.p <= 1
    power = power_table(table, (0.05,))
    assert power["images to find 0.05"][0] == images_needed(0.05 / table.spread[0])


def some_controls(rng=None, n: int = 60, **means: float) -> pd.DataFrame:
    """Per-image correlations of controls with these means, of both readings."""
    rng = rng or np.random.default_rng(5)
    return pd.concat(
        pd.DataFrame({"image_id": np.arange(n).astype(str), "rho": rng.normal(mean, 0.1, n)})
        .assign(control=control, reading=reading, protocol="published", partial=0.0, validity=VALID)
        for control, mean in means.items()
        for reading in ("whole",)
    )  # fmt: skip


def beside(study: Study, scores: pd.DataFrame, controls: pd.DataFrame, ceilings=CEILINGS):
    summary = summarise(study.choices, scores, ceilings)
    return beside_controls(study.choices, scores, controls, ceilings, summary)


def test_a_score_is_told_beside_the_strongest_control(study):
    """A model at 0.3: above another image's human map (0.1), below the centre (0.45)."""
    scores = per_image(study, 0.2)
    controls = some_controls(other_human=0.1, centre=0.45, random=0.0)
    table = beside(study, scores, controls).set_index(["backbone", "method", "dcls"])
    for dcls, above in ((False, False), (True, True)):
        row = table.loc["caformer_s18", "grad_cam", dcls]
        assert row.control == "centre"
        assert row.above_control == above
        of = controls.set_index("image_id").groupby("control").rho
        chosen = scores[(scores.backbone == "caformer_s18") & (scores.method == "grad_cam")]
        rho = chosen[chosen.dcls == dcls].set_index("image_id").rho.dropna()
        # Of the images on which the model has a map.
        centre, other = (of.get_group(name)[rho.index] for name in ("centre", "other_human"))
        assert row.control_score == pytest.approx(centre.mean() / HUMAN_CEILING)
        assert row.other_human == pytest.approx(other.mean() / HUMAN_CEILING)
        paired = (rho - centre).dropna() / HUMAN_CEILING
        assert row.over_control == pytest.approx(paired.mean())
        found = mean_interval(paired)
        assert row.over_control_low == pytest.approx(found.low)
        assert row.over_control_high == pytest.approx(found.high)
        # 0 at the control, 1 at the ceiling.
        assert row.rescaled == pytest.approx(paired.mean() / (1 - row.control_score))


def test_the_strongest_control_is_that_of_the_models_own_images(study):
    """The centre is best on the images of which the model has a map, the mean map elsewhere."""
    scores = per_image(study, 0.0, n=200)
    hard = scores.image_id.astype(int) >= 80
    scores.loc[hard, ["rho", "validity"]] = [np.nan, CONSTANT_MODEL_MAP]
    controls = some_controls(n=200, centre=0.5, mean_human=0.1)
    there = controls.image_id.astype(int) < 80
    controls.loc[~there, "rho"] = np.where(controls.control[~there] == "centre", 0.0, 0.9)
    assert controls.groupby("control").rho.mean().idxmax() == "mean_human"
    table = beside(study, scores, controls)
    assert set(table.control) == {"centre"}
    assert not table.above_control.any()


def test_scores_are_not_rescaled_where_the_control_comes_near_the_ceiling(study):
    """Rescaling would turn upside down there: the worse model would get the more."""
    scores = per_image(study, 0.1)
    near = some_controls(centre=0.65, other_human=0.1)
    table = beside(study, scores, near)
    assert table.rescaled.isna().all()
    assert set(table.not_rescaled) == {"the strongest control comes near the human ceiling"}
    assert not table.above_control.any()
    assert set(beside(study, scores, near, Ceilings()).not_rescaled) == {
        "no human ceiling is known"
    }
    nothing = beside(study, scores, NO_CONTROLS)
    assert set(nothing.not_rescaled) == {"no control has a score"}
    assert not nothing.above_control.any()


def test_a_few_images_put_no_score_above_a_control(study):
    few = per_image(study, 0.1, n=40)
    table = beside(study, few, some_controls(centre=0.0, n=40))
    assert (table.over_control_low > 0).all()
    assert not table.above_control.any()


def test_without_a_ceiling_the_score_is_the_correlation(study):
    scores = per_image(study, 0.1)
    with_one, without = (summarise(study.choices, scores, c) for c in (CEILINGS, Ceilings()))
    np.testing.assert_allclose(without.score, without.raw)
    np.testing.assert_allclose(with_one.score, without.raw / HUMAN_CEILING)
    assert without.ceiling.isna().all()
    results = results_table(study, scores, NO_CONTROLS, Ceilings())
    assert results.score.isna().all()
    assert set(results.unit) == {"rho"}
    shown = readable_table(results)
    assert not [name for name in shown if name.startswith("Score")]
    assert shown["Mean ρ without DCLS [95 %]"][0].startswith(f"{results.rho[0]:.3f} [")
    assert shown["Mean ρ with DCLS [95 %]"][0].startswith(f"{results.rho[1]:.3f} [")


@pytest.mark.parametrize("ceilings", [Ceilings(), Ceilings(Ceiling(0.8, "given"))])
def test_a_score_of_few_images_stays_within_what_a_correlation_can_be(study, ceilings):
    scores = per_image(study, 0.0, n=4)
    scores.loc[scores.image_id == "3", "rho"] = -0.99
    table = summarise(study.choices, scores, ceilings)
    least = -1 if np.isnan(table.ceiling[0]) else -1 / 0.8
    assert (table.low >= least).all()
    assert table.low.min() == pytest.approx(least, abs=0.1)  # it would be far below


def test_the_results_table_has_every_number_in_its_place(study):
    """Without and with DCLS, of this protocol and method: each by hand."""
    rng = np.random.default_rng(0)
    scores = per_image(study, 0.1).assign(top1=lambda t: rng.random(len(t)) < 0.7 + 0.2 * t.dcls)
    other = scores.assign(protocol="corrected", rho=scores.rho - np.where(scores.dcls, 0.05, 0.15))
    both = study.changed(protocols=("published", "corrected"))
    table = results_table(both, pd.concat([scores, other]), NO_CONTROLS, CEILINGS)
    assert len(table) == 2 * 2 * 2 * 9  # protocols, methods, forms, backbones
    shown = readable_table(table)
    assert len(shown) == len(table) / 2
    for row in table.itertuples():
        has_dcls = row.variant.endswith("_dcls")
        shift = (0.05 if has_dcls else 0.15) * (row.protocol == "corrected")
        key = row.variant.removesuffix("_dcls")
        method = next(m.key for m in study.choices.methods if m.label == row.method)
        chosen = scores[(scores.backbone == key) & (scores.method == method)]
        plain, dcls = (chosen[chosen.dcls == d] for d in (False, True))
        own = dcls if has_dcls else plain
        assert row.model == BACKBONES[key].label + " + DCLS" * has_dcls
        assert (row.place, row.form) == (has_dcls, "with DCLS" if has_dcls else "without DCLS")
        assert row.rho == pytest.approx(own.rho.mean() - shift)
        assert row.score == pytest.approx(row.rho / HUMAN_CEILING)
        assert row.n == 59
        assert row.top1 == own.top1.mean()
        ends = proportion_confint(own.top1.sum(), len(own), method="wilson")
        assert (row.top1_low, row.top1_high) == pytest.approx(ends)
        assert row.score_low < row.score < row.score_high
        if not has_dcls:
            assert np.isnan(row.difference)
            continue
        gain = (dcls.set_index("image_id").rho - plain.set_index("image_id").rho).dropna()
        more = 0.1 * (row.protocol == "corrected")
        assert row.difference == pytest.approx((gain.mean() + more) / HUMAN_CEILING)
        assert row.difference_low < row.difference < row.difference_high
        assert (row.n_paired, row.reference) == (58, BACKBONES[key].label)
        (line,) = shown[(shown.Method == row.method) & (shown.Protocol == row.protocol)
                        & (shown.Backbone == row.group)].to_dict("records")  # fmt: skip
        assert line["Score with DCLS [95 %]"].startswith(f"{row.score:.3f} [")
        assert line["Difference [95 %]"].startswith(f"{row.difference:+.3f} [")


def test_correct_is_over_correctly_classified_images_and_partial_is_its_own(study):
    rng = np.random.default_rng(0)
    scores = per_image(study, 0.1).assign(top1=lambda t: rng.random(len(t)) < 0.5)
    row = summarise(study.choices, scores, CEILINGS).iloc[0]
    chosen = scores[(scores.backbone == row.backbone) & (scores.method == row.method)
                    & (scores.dcls == row.dcls) & (scores.validity == VALID)]  # fmt: skip
    right = chosen[chosen.top1]
    assert row.correct == pytest.approx(right.rho.mean() / HUMAN_CEILING)
    assert row.n_correct == len(right) < len(chosen) == row.n
    assert row.partial == pytest.approx(chosen.partial.mean())
    assert row.partial == pytest.approx(row.raw / 2)


# --- any two ------------------------------------------------------------------------------------


def test_any_two_models_are_compared_on_the_images_that_both_have():
    study = Study.from_profile(
        "paper", protocols=["published"],
        compare=["resnet50", "convnext_tiny_dcls", "resnet50:grad_cam"],
    )  # fmt: skip
    scores = per_image(study, 0.1)
    found = compare_models(study.choices, scores, CEILINGS)
    names = list(zip(found["first"], found["second"], strict=True))
    assert names == [
        ("resnet50", "convnext_tiny_dcls"), ("resnet50", "resnet50:grad_cam"),
        ("convnext_tiny_dcls", "resnet50:grad_cam"),
    ]  # fmt: skip
    of = scores.set_index(["backbone", "dcls", "method", "image_id"]).rho.sort_index()
    gain = (of["convnext_tiny", True, "threshold_grad_cam"]
            - of["resnet50", False, "threshold_grad_cam"]).dropna()  # fmt: skip
    row = found.iloc[0]
    assert row.n_paired == len(gain) == 58
    assert row.difference == pytest.approx(gain.mean() / HUMAN_CEILING)
    assert row.p == pytest.approx(mean_p(gain))
    np.testing.assert_allclose(found.p_holm, multipletests(found.p, method="holm")[1])
    other = of["resnet50", False, "grad_cam"] - of["resnet50", False, "threshold_grad_cam"]
    assert found.difference[1] == pytest.approx(other.mean() / HUMAN_CEILING)


def test_all_models_are_compared_where_none_are_named():
    study = Study.from_profile("paper", models=["resnet50", "caformer_s18"])
    names = [model.name for model in study.choices.compared]
    assert names == ["resnet50", "resnet50_dcls", "caformer_s18", "caformer_s18_dcls"]
    assert {m.method.key for m in study.choices.compared} == {"threshold_grad_cam"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["resnet50"], "two or more different models"),
        (["resnet50", "resnet50"], "two or more different models"),
        (["resnet50", "resnet50:threshold_grad_cam"], "one model twice"),
        (["resnet50", "resnet5"], "resnet50"),
        (["resnet50", "resnet50:gradcam"], "grad_cam"),
        (["resnet50", "convnext_tiny"], "convnext_tiny"),
        ("resnet50", "lists of names"),
    ],
)
def test_a_comparison_of_what_is_not_there_is_refused(names, message):
    with pytest.raises(ValueError, match=message):
        Study.from_profile("paper", models=["resnet50"], compare=names)


def test_every_backbone_has_a_reading():
    from lib.people.protocols import PROTOCOLS

    names = {
        b.key: PROTOCOLS["corrected"].reading_name(b.preprocessing) for b in BACKBONES.values()
    }
    assert names["caformer_s18"] == names["fastvit_sa24"] == "whole"
    assert names["convnext_tiny"] == "centre, 224 of 256"
    assert PROTOCOLS["published"].reading_name(BACKBONES["convnext_tiny"].preprocessing) == "whole"


def test_a_methods_interval_stays_within_what_a_correlation_can_be():
    """Eleven images, one of them inverted, over a ceiling of 0.8: a score is at most 1.25."""
    scores = pd.DataFrame(
        {"backbone": "resnet50", "dcls": False, "method": "grad_cam", "protocol": "published",
         "image_id": [str(i) for i in range(11)], "rho": [-0.9] * 5 + [0.9] * 6, "validity": VALID}
    )  # fmt: skip
    (row,) = alignment(scores, Ceilings(Ceiling(0.8, "given"))).itertuples()
    assert row.score == pytest.approx(0.9 / 0.8 / 11)
    assert -1.25 <= row.low < row.score < row.high <= 1.25
